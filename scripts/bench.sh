#!/usr/bin/env bash
# Figures of this machine: a cluster of its own in a temporary folder, `dfsctl bench`, CPU seconds over
# all processes, beside what the disk does by itself. SIZE and COUNT change the amounts.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
size=${SIZE:-1073741824} count=${COUNT:-10000}

data_dir=$(mktemp -d "${TMPDIR:-/tmp}/dfs-bench.XXXXXX")
export DFSCTL_CONFIG=$data_dir/dfsctl.toml
finish() {
  "$bin/dfsctl" dev down --data-dir "$data_dir" >/dev/null 2>&1 || true
  rm -rf "$data_dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

# User and system seconds of the servers so far.
servers_cpu() {
  for pid in $(running_pids); do cat "/proc/$pid/stat"; done |
    sed 's/^.*) //' | awk -v hz="$(getconf CLK_TCK)" '{ticks += $12 + $13} END {printf "%.2f\n", ticks / hz}'
}

measure() {
  local before after
  before=$(servers_cpu)
  "$bin/dfsctl" bench "$@"
  after=$(servers_cpu)
  awk -v a="$before" -v b="$after" 'BEGIN {printf "  CPU of all servers: %.2f s\n", b - a}'
}

echo "machine: $(nproc) cores, $(awk '/MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo), $(uname -sr)"
dd if=/dev/zero of="$data_dir/raw" bs=1M count=$((size / 1048576)) conv=fdatasync 2>&1 | tail -n 1 | sed 's/^/raw disk write: /'
rm -f "$data_dir/raw"
"$bin/dfsctl" dev up --detach --data-dir "$data_dir" >/dev/null
measure write --size "$size"
measure read --size "$size"
measure small-write --count "$count"
measure small-read --count "$count"
