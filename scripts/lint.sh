#!/usr/bin/env bash
# Formatting, lints, shell scripts; all must be clean. --quick: without clippy, for commits.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$here"
stage "rustfmt"
cargo fmt --all --check
stage "shell"
for script in scripts/*.sh .ci/run; do bash -n "$script"; done
if command -v shellcheck >/dev/null 2>&1; then shellcheck -x -S warning scripts/*.sh .ci/run; else say "shellcheck is not installed: skipped"; fi
if [ "${1:-}" = --quick ]; then exit 0; fi
stage "clippy"
use_target
use_rocksdb
cargo clippy --locked --workspace --all-targets -- -D warnings
