#!/usr/bin/env bash
# Prints docs/metrics.md, made of what the programs in ./bin/ (or DFS_BIN_DIR) say they record. The
# scenario metrics-walk fails while the document is another.
set -euo pipefail
bin=${DFS_BIN_DIR:-$(cd "$(dirname "$0")/.." && pwd -P)/bin}
cat <<'TEXT'
# Metrics

Made by `make docs` from the tables in the code; do not edit. Every series has the label `node`, the server's name. "Leader"
marks what only the leader of the metadata service tells; other members say 0.

TEXT
"$bin/metadata-server" --print-metrics
echo
"$bin/chunk-server" --print-metrics | sed -n '/^## chunk-server/,$p'
