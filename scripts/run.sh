#!/usr/bin/env bash
# `make run`, after doctor and build: starts the cluster of this clone, takes a file in and out again,
# and prints five lines to go on with. Interrupted before it is ready, it brings everything down.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

export DFSCTL_CONFIG=$data_dir/dfsctl.toml
dfsctl() { "$bin/dfsctl" "$@"; }

work=$(mktemp -d)
ready=0
finish() {
  status=$?
  rm -rf "$work"
  if [ $ready -eq 0 ]; then
    say "Not ready: bringing everything down"
    dfsctl dev down --data-dir "$data_dir" >&2 || true
    if [ $status -eq 0 ]; then status=1; fi
  fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stage "Starting three metadata servers and three chunk servers in $data_dir"
dfsctl dev up --detach --data-dir "$data_dir"

stage "One file in, and out again"
bucket=demo
# The file is a real one of several chunks: the program itself.
file=$bin/dfsctl
dfsctl bucket show $bucket >/dev/null 2>&1 || dfsctl bucket create $bucket
dfsctl put "$file" dfs://$bucket/dfsctl
dfsctl get dfs://$bucket/dfsctl "$work/dfsctl"
put_sum=$(sha256sum < "$file" | cut -d' ' -f1)
got_sum=$(sha256sum < "$work/dfsctl" | cut -d' ' -f1)
printf 'put  sha256 %s  %s bytes\nget  sha256 %s  %s bytes\n' \
  "$put_sum" "$(stat -c %s "$file")" "$got_sum" "$(stat -c %s "$work/dfsctl")"
[ "$put_sum" = "$got_sum" ] || die "the file came back different"
echo "identical"
ready=1

field() { grep -o "\"$1\": *\"[^\"]*\"" "$data_dir/cluster.json" | head -n 1 | sed 's/.*: *"\(.*\)"/\1/'; }
d=$(printf 'DFSCTL_CONFIG=%q %q' "$DFSCTL_CONFIG" "$bin/dfsctl")
q() { printf '%q' "$1"; }
cat <<LINES

The cluster is up. Lines to go on with:

  $d put $(q "$here/README.md") dfs://$bucket/README.md
  $d ls -l dfs://$bucket/
  curl --cacert $(q "$(field ca)") -H "authorization: Bearer \$(cat $(q "$(field admin_key_file)"))" "https://$(field api)/files?prefix=/$bucket/"; echo
  $d dev kill n1 --data-dir $(q "$data_dir") && $d cat dfs://$bucket/dfsctl | sha256sum
  make -C $(q "$here") stop

LINES
