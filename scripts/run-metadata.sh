#!/usr/bin/env bash
# `make run-metadata`, after doctor and build: one metadata server, alone in its cluster, in the foreground
# on https://localhost:8080. Keys and data are kept in .dfs-metadata/; Ctrl-C ends it in order.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

dir=${DFS_METADATA_DIR:-$here/.dfs-metadata}
port=${PORT:-8080}
case $port in '' | *[!0-9]*) die "PORT=$port is no port" ;; esac
q() { printf '%q' "$1"; }

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  die "port $port is taken: stop what listens there, or choose another: make run-metadata PORT=$((port + 1))"
fi

umask 077
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -n 9 || die "another make run-metadata uses $dir"
keys=$dir/keys
log=$dir/server.log
"$bin/dfsctl" pki init "$keys" --metadata "m1=localhost:$port" --keep >/dev/null

# In a process group of its own: Ctrl-C reaches this script, which passes it on once.
set -m
"$bin/metadata-server" --id m1 --data-dir "$dir/data" --listen "127.0.0.1:$port" --advertise "localhost:$port" \
  --ca "$keys/m1/ca.pem" --cert "$keys/m1/cert.pem" --key "$keys/m1/key.pem" \
  --master-key-file "$keys/m1/master.key" --admin-key-file "$keys/m1/admin.key" \
  --initial-members "m1=localhost:$port" >>"$log" 2>&1 9>&- &
server=$!
set +m
stopping=0
stop() {
  stopping=1
  kill -TERM "$server" 2>/dev/null || true
}
trap stop INT TERM

ready() { curl -sf -o /dev/null --max-time 2 --cacert "$keys/m1/ca.pem" "https://localhost:$port/ready"; }
for _ in $(seq 300); do
  if [ $stopping -eq 1 ] || ! kill -0 "$server" 2>/dev/null || ready; then break; fi
  sleep 0.1
done
if [ $stopping -eq 0 ] && ready; then
  auth="authorization: Bearer \$(cat $(q "$keys/m1/admin.key"))"
  cat <<LINES

One metadata server, m1, on https://localhost:$port (log: $log). It has no chunk servers: names, buckets and small files only.

  curl --cacert $(q "$keys/m1/ca.pem") -H "$auth" https://localhost:$port/whoami; echo
  curl --cacert $(q "$keys/m1/ca.pem") -H "$auth" https://localhost:$port/buckets -d '{"name":"demo"}'; echo
  curl --cacert $(q "$keys/m1/ca.pem") -H "$auth" "https://localhost:$port/files?prefix=/demo/"; echo
  curl --cacert $(q "$keys/m1/ca.pem") https://localhost:$port/health; echo       # and /docs, for people

Ctrl-C ends it; the data stays.
LINES
elif [ $stopping -eq 0 ]; then
  say "The server did not become ready. The end of $log:"
  tail -n 5 "$log" >&2
  stop
fi

# A trapped signal interrupts wait.
status=0
while kill -0 "$server" 2>/dev/null; do
  wait "$server" && status=0 || status=$?
done
if [ $stopping -eq 1 ] && [ $status -le 128 ]; then say "Stopped; the data is in $dir"; fi
if [ $status -ne 0 ]; then say "The server ended with $status: see $log"; fi
exit $status
