#!/usr/bin/env bash
# Writes the documents that are made from the code: docs/rest.md, and docs/metrics.md with what the
# programs in ./bin/ say. A test or a scenario fails while one is stale.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_target
use_rocksdb
cd "$here"
DFS_WRITE_DOCS=1 cargo test --locked -q -p metadata-server --test rest_docs the_committed_book
"$here/scripts/metrics-doc.sh" > "$here/docs/metrics.md"
say "Wrote docs/rest.md and docs/metrics.md"
