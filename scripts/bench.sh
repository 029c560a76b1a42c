#!/usr/bin/env bash
# Figures of this machine: `dfsctl bench` on a cluster of its own in a temporary folder. dfsctl measures the
# raw disk and loopback TCP beside it, and sums the CPU time of all processes. SIZE and COUNT change the amounts.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
size=${SIZE:-1G} count=${COUNT:-10000}

data_dir=$(mktemp -d "${TMPDIR:-/tmp}/dfs-bench.XXXXXX")
export DFSCTL_CONFIG=$data_dir/dfsctl.toml
finish() {
  "$bin/dfsctl" dev down --data-dir "$data_dir" >/dev/null 2>&1 || true
  rm -rf "$data_dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

echo "machine: $(nproc) cores, $(awk '/MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo), $(uname -sr)"
"$bin/dfsctl" dev up --detach --data-dir "$data_dir" >/dev/null
"$bin/dfsctl" bench write --size "$size"
"$bin/dfsctl" bench read --size "$size"
"$bin/dfsctl" bench small-write --count "$count"
"$bin/dfsctl" bench small-read --count "$count"
"$bin/dfsctl" bench rest-list --count "$count"
