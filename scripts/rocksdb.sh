#!/usr/bin/env bash
# Compiles RocksDB's C++ once per machine and prints the folder that holds librocksdb.a, for
#   ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh) ROCKSDB_STATIC=1 cargo build
#
# Why: the stock build of librocksdb-sys compiles every source by itself, once per profile and per
# target folder, and without SSE4.2, so that CRC32C runs in software. Here the crate's own list of
# sources is spread over a dozen files of includes and compiled once with hardware CRC; the archive
# serves every profile and every clone. Plain cargo without this script works too, only slower.
#
# The cache key is the crate's version, the compiler, and this script. Progress goes to stderr.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${DFS_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/distribute}
cxx=${CXX:-c++}
arch=$(uname -m)

cargo fetch --manifest-path "$here/Cargo.toml" --locked --quiet
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
version_of() { awk -v n="$1" '$1=="name" && $3=="\""n"\"" {getline; gsub(/"/,"",$3); print $3; exit}' "$here/Cargo.lock"; }
source_of() { ls -d "$registry"/*/"$1-$(version_of "$1")" 2>/dev/null | head -n 1; }
sys=$(source_of librocksdb-sys); lz4=$(source_of lz4-sys); zstd=$(source_of zstd-sys)
for dir in "$sys" "$lz4" "$zstd"; do
  [ -d "$dir" ] || { echo "rocksdb.sh: cargo fetch left no sources for RocksDB; run 'cargo fetch' and look at what it says" >&2; exit 1; }
done

key=$( { basename "$sys"; "$cxx" -dumpfullversion -dumpversion; echo "$arch"; cat "$0"; } | sha256sum | cut -c1-16)
out=$cache/rocksdb/$(version_of librocksdb-sys | tr '+' '_')-$key
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit 0; fi

mkdir -p "$out"
exec 9>"$out.lock"
flock 9
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit 0; fi

case $arch in
  x86_64) simd="-march=x86-64 -msse4.1 -msse4.2 -mpclmul" ;;
  aarch64) simd="-march=armv8-a+crc+aes+crypto" ;;
  *) simd="" ;;
esac
flags="-O2 -g0 -fPIC -std=c++20 -w -include cstdint $simd -DLZ4=1 -DZSTD=1 -DNDEBUG=1 -DHAVE_ALIGNED_NEW
  -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
  -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
  -DROCKSDB_RANGESYNC_PRESENT -I$sys/rocksdb/include -I$sys/rocksdb -I$sys
  -I$sys/rocksdb/third-party/gtest-1.8.1/fused-src -I$lz4/liblz4/lib -I$zstd/zstd/lib"

work=$(mktemp -d "$out.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
units=12
i=0
while IFS= read -r file; do
  case $file in ''|util/build_version.cc) continue ;; esac
  echo "#include \"$sys/rocksdb/$file\"" >> "$work/unit$((i % units)).cc"
  i=$((i + 1))
done < "$sys/rocksdb_lib_sources.txt"
echo "#include \"$sys/build_version.cc\"" >> "$work/unit0.cc"

jobs=$(nproc)
echo "RocksDB: compiling $i sources once for this machine ($jobs at a time; about $((400 / jobs / 60 + 1)) minutes)" >&2
start=$(date +%s)
export cxx flags work
# shellcheck disable=SC2016
ls "$work"/unit*.cc | xargs -P "$jobs" -I{} sh -c \
  '$cxx $flags -c {} -o {}.o && echo "RocksDB: $(basename {} .cc) done" >&2'
ar crs "$work/librocksdb.a" "$work"/*.o
mv "$work/librocksdb.a" "$out/librocksdb.a"
echo "RocksDB: ready after $(( $(date +%s) - start )) s in $out" >&2
echo "$out"
