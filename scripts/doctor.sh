#!/usr/bin/env bash
# Checks what a build needs: cargo, a C++ compiler, libclang, free disk. As root it installs what is
# missing; with sudo it says what it will run and asks; else it prints the line to type and exits 1.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/Cargo.toml")
need_gib=8
# CPU minutes of a first build: RocksDB 7, dependencies and our own crates 17.
first_build_cpu_minutes=24

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

check_cargo() {
  if ! command -v cargo >/dev/null 2>&1; then
    # Distributions ship older ones, so this is not left to apt-get.
    die "cargo is missing; type: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
  fi
  local have
  have=$(cargo --version | awk '{print $2}')
  at_least "$need_rust" "$have" || die "cargo $have is older than $need_rust; type: rustup update stable"
}

has_cxx() { command -v "${CXX:-c++}" >/dev/null 2>&1; }

has_libclang() {
  local folder
  for folder in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib/llvm-*/lib /usr/lib64/llvm*/lib /usr/lib/*-linux-gnu \
    /usr/lib64 /usr/lib /usr/local/lib; do
    if compgen -G "$folder/libclang.so*" >/dev/null || compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null; then
      return 0
    fi
  done
  return 1
}

# The compiler's own headers (stddef.h): libclang without them finds none.
has_clang_headers() {
  compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null ||
    compgen -G '/usr/lib*/clang/*/include/stddef.h' >/dev/null ||
    compgen -G '/usr/local/lib/clang/*/include/stddef.h' >/dev/null
}

# The libclang that is this distribution's own. Not the newest on offer: package sources of others offer
# versions that bindgen does not know yet.
clang_version() {
  local own
  own=$(apt-cache show libclang-dev 2>/dev/null | sed -n 's/^Depends:.*libclang-\([0-9]*\)-dev.*/\1/p' | head -n 1)
  if [ -n "$own" ]; then echo "$own"; return; fi
  apt-cache search --names-only '^libclang1-[0-9]+$' 2>/dev/null | sed 's/^libclang1-\([0-9]*\) .*/\1/' | sort -n | head -n 1
}

check_packages() {
  local missing=() what=()
  if ! has_cxx; then missing+=(g++); what+=("a C++ compiler"); fi
  if ! { has_libclang && has_clang_headers; }; then missing+=(libclang); what+=("libclang"); fi
  [ ${#missing[@]} -gt 0 ] || return 0
  local list
  list=$(printf '%s, ' "${what[@]}")
  say "Missing: ${list%, }"
  if ! command -v apt-get >/dev/null 2>&1; then
    die "install them with your package manager; Fedora: dnf install gcc-c++ clang-devel; Arch: pacman -S gcc clang; Alpine: apk add g++ clang-dev"
  fi

  local as_root=() update=0 version
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  version=$(clang_version)
  # Without package lists (a fresh container) apt knows nothing: they come first.
  if [ -z "$version" ]; then update=1; fi
  local line="apt-get install -y --no-install-recommends"
  if [[ " ${missing[*]} " == *" g++ "* ]]; then line+=" g++"; fi
  if [[ " ${missing[*]} " == *" libclang "* ]]; then
    line+=" libclang1-${version:-14} libclang-common-${version:-14}-dev"
  fi
  if [ $update -eq 1 ]; then line="apt-get update && $line"; fi

  if [ ${#as_root[@]} -gt 0 ]; then
    local typed=${line//apt-get/sudo apt-get}
    if ! command -v sudo >/dev/null 2>&1 || [ ! -t 0 ]; then die "type: $typed"; fi
    printf 'This will run: %s\nGo ahead? [y/N] ' "$typed" >&2
    local answer
    read -r answer
    case $answer in [yY]*) ;; *) die "type: $typed" ;; esac
  fi
  if [ $update -eq 1 ]; then
    "${as_root[@]}" apt-get update -q
    version=$(clang_version)
    [ -n "$version" ] || die "this distribution has no package libclang1-N; install libclang by hand"
  fi
  local packages=()
  if [[ " ${missing[*]} " == *" g++ "* ]]; then packages+=(g++); fi
  if [[ " ${missing[*]} " == *" libclang "* ]]; then
    packages+=("libclang1-$version" "libclang-common-$version-dev")
  fi
  say "Installing ${packages[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" >&2
  { has_cxx && has_libclang && has_clang_headers; } || die "${list%, } still not found after installing ${packages[*]}"
}

check_disk() {
  mkdir -p "$cache"
  local folder free
  for folder in "$cache" "$here"; do
    free=$(df -Pk "$folder" | awk 'NR==2 {print int($4 / 1024 / 1024)}')
    # A clone that was built already needs no more room for it.
    if [ "$free" -lt $need_gib ] && [ ! -x "$bin/dfsctl" ]; then
      die "$folder has $free GiB free, a build needs $need_gib; make room, or set DFS_BUILD_CACHE to a folder elsewhere"
    fi
  done
}

say_how_long() {
  if compgen -G "$cache/targets/*/release/metadata-server" >/dev/null || [ -x "$bin/metadata-server" ]; then return 0; fi
  local cores
  cores=$(nproc)
  say "A first build takes about $(( (first_build_cpu_minutes + cores - 1) / cores + 1 )) minutes on these $cores cores; later ones take seconds."
}

check_cargo
check_packages
check_disk
say_how_long
