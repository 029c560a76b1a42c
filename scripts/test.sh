#!/usr/bin/env bash
# scripts/test.sh unit|integration|chaos|soak: runs the tests in a temporary folder of their own, and fails if
# they leave a process, a file there, or a change in the clone behind. T=NAME chooses tests by a part of the name.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
kind=${1:-unit}
chosen=()
if [ -n "${T:-}" ]; then chosen=("$T"); fi
use_target
use_rocksdb
cd "$here"

TMPDIR=$(mktemp -d /tmp/dfs-test.XXXXXX)
# What a test writes into the user's folders by mistake shows up here.
export TMPDIR XDG_STATE_HOME=$TMPDIR XDG_DATA_HOME=$TMPDIR XDG_CONFIG_HOME=$TMPDIR DFS_TEST_RUN=$TMPDIR
unset DFSCTL_CONFIG
home_before=$HOME/.local/share/distribute
[ -e "$home_before" ] && home_was=1 || home_was=0

# Processes of this run: with our mark in their environment, or, as servers hide theirs, with our folder
# on their command line. What looks for them finds itself too, and is gone when we look again.
leftovers() {
  local found pid
  found=$(
    grep -lzxF "DFS_TEST_RUN=$TMPDIR" /proc/[0-9]*/environ 2>/dev/null
    grep -lzF "$TMPDIR" /proc/[0-9]*/cmdline 2>/dev/null
  ) || true
  for pid in $(sed 's#^/proc/\([0-9]*\)/.*#\1#' <<<"$found" | sort -u); do
    if [ -d "/proc/$pid" ] && [ "$pid" != $$ ]; then echo "$pid"; fi
  done
}

tree() { git -C "$here" status --porcelain --ignored 2>/dev/null | grep -vE '^!! (bin|target|\.dfs|\.dfs-metadata)/$' | LC_ALL=C sort || true; }
tree_before=$(tree)

finish() {
  local status=$? pids
  pids=$(leftovers)
  if [ -n "$pids" ]; then
    say "error: the tests left processes behind:"
    # shellcheck disable=SC2086
    ps -o pid,ppid,args -p $pids >&2 || true
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    status=1
  fi
  if [ -n "$(ls -A "$TMPDIR")" ]; then
    say "error: the tests left files behind:"
    find "$TMPDIR" -maxdepth 2 >&2
    if [ "${CHAOS_KEEP:-}" = "" ]; then rm -rf "$TMPDIR"; fi
    status=1
  else
    rmdir "$TMPDIR"
  fi
  if [ "$(tree)" != "$tree_before" ]; then
    say "error: the clone changed during the tests:"
    diff <(echo "$tree_before") <(tree) >&2 || true
    status=1
  fi
  if [ "$home_was" -eq 0 ] && [ -e "$home_before" ]; then say "error: the tests wrote $home_before"; status=1; fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

nextest() { cargo nextest --version >/dev/null 2>&1; }
case $kind in
  unit)
    failed=0
    if nextest; then
      cargo nextest run --locked --workspace --no-fail-fast "${chosen[@]}" || failed=1
    else
      cargo test --locked --workspace --lib --bins --tests --no-fail-fast "${chosen[@]}" || failed=1
    fi
    stage "Examples in the documentation"
    cargo test --locked --workspace --doc --no-fail-fast || failed=1
    exit $failed
    ;;
  integration)
    for name in metadata-server chunk-server dfsctl chaos; do
      [ -x "$bin/$name" ] || die "bin/$name is missing: make build"
    done
    # One seed, so that a failure is one of the change under test; `make test-chaos` draws others.
    "$bin/chaos" test --seed "${CHAOS_SEED:-1}" "${chosen[@]}"
    ;;
  # Seeds are drawn anew each time and printed; CHAOS_SEED gives one, CHAOS_SECONDS the length of the mixture.
  chaos) CHAOS_SECONDS=${CHAOS_SECONDS:-300} "$bin/chaos" test "${chosen[@]}" ;;
  soak) CHAOS_SECONDS=${CHAOS_SECONDS:-3600} "$bin/chaos" run combined ;;
  *) die "unknown tests: $kind" ;;
esac
