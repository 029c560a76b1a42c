#!/usr/bin/env bash
# cargo, with this clone's target folder and the cached RocksDB: scripts/cargo.sh test -p chunk-format
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_target
use_rocksdb
cd "$here"
exec cargo "$@"
