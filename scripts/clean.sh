#!/usr/bin/env bash
# Deletes build products of this clone; with --all, the build cache of the machine too. Never data.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
[ -z "$(running_pids)" ] || die "the cluster of this clone is running from ./bin: make stop, then clean"
rm -rf "$bin" "$here/target"
name=$(basename "$here")-$(printf '%s' "$here" | sha256sum | cut -c1-8)
rm -rf "$cache/targets/$name"
if [ "${1:-}" = --all ]; then
  rm -rf "$cache/targets" "$cache/rocksdb"
  say "Deleted the build products of this clone, the target folders of all clones and the compiled RocksDB in $cache"
else
  say "Deleted the build products of this clone (data is untouched)"
fi
