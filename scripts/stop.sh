#!/usr/bin/env bash
# Stops this clone's cluster and keeps its data.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
if [ ! -f "$data_dir/cluster.json" ]; then say "No cluster in $data_dir"; exit 0; fi
if [ -x "$bin/dfsctl" ]; then
  "$bin/dfsctl" dev down --data-dir "$data_dir"
else
  # The programs are gone (`make clean-all` on another machine's data, say): the servers know SIGTERM too.
  for pid in $(running_pids); do kill -TERM "$pid"; done
fi
for _ in $(seq 100); do
  if [ -z "$(running_pids)" ]; then exit 0; fi
  sleep 0.1
done
die "still running: $(running_pids | tr '\n' ' ')"
