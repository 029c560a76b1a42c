#!/usr/bin/env bash
# Builds the three programs and puts them into ./bin/, each replaced in one step, so that a server that
# runs keeps its file and nobody ever starts half a program.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

use_target
stage "1/2 RocksDB"
use_rocksdb
stage "2/2 metadata-server, chunk-server, dfsctl"
cd "$here"
cargo build --release --locked --workspace --bins

mkdir -p "$bin"
for name in metadata-server chunk-server dfsctl chaos; do
  new=$(mktemp "$bin/.$name.XXXXXX")
  cp "$CARGO_TARGET_DIR/release/$name" "$new"
  chmod 755 "$new"
  if cmp -s "$new" "$bin/$name"; then rm -f "$new"; else mv -f "$new" "$bin/$name"; fi
done
say "Built into $bin"
