# shellcheck shell=bash
# Sourced by the other scripts: where things are, how they speak, and the environment of a build.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${DFS_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/distribute}
# The cluster of `make run`: inside the clone, so that two clones never meet.
data_dir=${DFS_DATA_DIR:-$here/.dfs}
# shellcheck disable=SC2034 # for those who source this
bin=$here/bin

say() { printf '%s\n' "$*" >&2; }
stage() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# What this machine cannot do, in distinction from what went wrong (69: EX_UNAVAILABLE of sysexits.h).
lack() { printf 'error: %s\n' "$*" >&2; exit 69; }

# One target folder per clone: cargo tells the same crate of two clones apart neither by name nor, if
# the files are older than the last build, by content, so in a shared folder one clone could get the
# other's servers. A clone's folder begins as a copy of another's without our own crates, which saves
# compiling some hundred dependencies again.
use_target() {
  if [ -z "${CARGO_TARGET_DIR:-}" ]; then
    local name
    name=$(basename "$here")-$(printf '%s' "$here" | sha256sum | cut -c1-8)
    CARGO_TARGET_DIR=$cache/targets/$name
    [ -d "$CARGO_TARGET_DIR" ] || seed_target "$CARGO_TARGET_DIR"
  fi
  export CARGO_TARGET_DIR
  # What /health, the log and fs_build_info call the commit; a container's build sets it from outside.
  if [ -z "${DFS_BUILD_COMMIT:-}" ]; then
    DFS_BUILD_COMMIT=$(git -C "$here" describe --always --dirty --abbrev=12 2>/dev/null || true)
  fi
  export DFS_BUILD_COMMIT
}

seed_target() (
  target=$1
  mkdir -p "$cache/targets"
  exec 8>"$cache/targets/.lock"
  flock 8
  [ ! -d "$target" ] || return 0
  work=$(mktemp -d "$cache/targets/.new.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # A folder whose clone is gone is taken over; a living clone's is copied.
  seed='' orphan=''
  for other in "$cache"/targets/*/; do
    [ -f "$other/.clone" ] || continue
    if [ -d "$(cat "$other/.clone")" ]; then seed=$other; else orphan=$other; fi
  done
  if [ -n "$orphan" ]; then
    rmdir "$work" && mv "$orphan" "$work"
  elif [ -n "$seed" ] && room_for "$seed"; then
    mkdir -p "$seed/debug" "$seed/release"
    say "Starting from the dependencies that $(cat "$seed/.clone") compiled"
    # Under cargo's own locks, so that no half-written crate is copied.
    exec 6>>"$seed/debug/.cargo-lock" 7>>"$seed/release/.cargo-lock"
    flock -w 1800 6 && flock -w 1800 7
    cp -a "$seed/." "$work/" || { rm -rf "$work" && mkdir "$work"; }
    exec 6>&- 7>&-
  fi
  forget_own_crates "$work"
  printf '%s\n' "$here" > "$work/.clone"
  mv "$work" "$target"
)

room_for() {
  local need free
  need=$(du -sk "$1" | cut -f1)
  free=$(df -Pk "$cache" | awk 'NR==2 {print $4}')
  [ "$free" -gt $((need + 8 * 1024 * 1024)) ]
}

# Without its fingerprint cargo compiles a crate anew.
forget_own_crates() {
  local profile manifest name
  for profile in debug release; do
    for manifest in "$here"/*/Cargo.toml; do
      name=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$manifest" | head -n 1)
      rm -rf "$1/$profile/.fingerprint/$name"-* "$1/$profile/incremental/${name//-/_}"-*
    done
  done
}

# RocksDB compiled once per machine; if that fails, cargo compiles it by itself, only slower.
use_rocksdb() {
  local dir
  if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
    if dir=$("$here/scripts/rocksdb.sh"); then
      export ROCKSDB_LIB_DIR=$dir ROCKSDB_STATIC=1
    else
      say "RocksDB could not be compiled for the cache; cargo will compile it by itself (about 15 minutes on 2 cores)"
    fi
  fi
}

# The programs that go into images: another folder's by DFS_BIN_DIR. They run on the release they were made on.
use_programs() { # RELEASE
  local name here_is
  bin=${DFS_BIN_DIR:-$bin}
  for name in metadata-server chunk-server dfsctl; do [ -x "$bin/$name" ] || die "$bin/$name is missing: make build"; done
  here_is=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null || true)
  [ "$here_is" = "$1" ] || lack "images are of Debian $1, and programs made on ${here_is:-another system} may not run there"
}

# The pids of cluster.json whose process still is a server of that cluster.
running_pids() {
  local pid
  [ -f "$data_dir/cluster.json" ] || return 0
  for pid in $(grep -o '"pid": *[0-9]*' "$data_dir/cluster.json" | grep -o '[0-9]*$'); do
    if grep -qzF "$data_dir/" "/proc/$pid/cmdline" 2>/dev/null; then echo "$pid"; fi
  done
}
