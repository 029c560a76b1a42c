#!/usr/bin/env bash
# `make docker-test`: scripts/docker.sh test with the programs of ./bin, also on a machine where no engine
# runs and no registry of images can be reached. Where an engine answers, that one is used. Else, as root,
# one is started for this test alone, with a data root of its own, and stopped again. A base image that is
# not there and cannot be pulled is stood in for by the same Debian release, made by debootstrap, under the
# tag that the Dockerfile names.
#
# SOURCE=1 compiles the programs inside the image, as `make docker-up` does where there is nothing but Docker:
# with a PATH of no more than that. A builder that cannot be pulled is stood in for by the same Debian release
# with a compiler of C and this machine's Rust. About half an hour of two cores, and 10 GB while it runs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$here"

work=$(mktemp -d)
engine=
finish() {
  status=$?
  if [ "${SOURCE:-0}" = 1 ] && [ -d "$work/path" ]; then
    docker_alone make --no-print-directory docker-down VOLUMES=1 YES=1 >/dev/null 2>&1 || true
    docker image rm -f distribute/{metadata-server,chunk-server,dfsctl}:source-$$ >/dev/null 2>&1 || true
  fi
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    for _ in $(seq 300); do kill -0 "$engine" 2>/dev/null || break; sleep 0.1; done
    # What is mounted below: overlays and namespaces of containers.
    grep -F " $work/" /proc/self/mounts | cut -d' ' -f2 | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
  fi
  rm -rf "$work"
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install() { # PACKAGE..
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 || lack "missing: $*; install them, or start a Docker engine"
  say "Installing $*"
  apt-get install -y -qq --no-install-recommends "$@" >"$work/apt.log" 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >"$work/apt.log" 2>&1 ||
    { cat "$work/apt.log" >&2; lack "apt-get could not install $*"; }
}

start_engine() {
  [ "$(id -u)" -eq 0 ] || lack "no Docker engine answers, and only root can start one for this test"
  command -v dockerd >/dev/null 2>&1 && command -v docker-compose >/dev/null 2>&1 ||
    install docker.io docker-compose iptables ca-certificates
  # The distribution's own command line goes with its engine; another one may lack BuildKit.
  if [ -x /usr/bin/docker ]; then PATH=/usr/bin:$PATH; fi
  stage "A Docker engine of our own in $work"
  mkdir "$work/docker"
  export DOCKER_HOST=unix://$work/docker/socket
  # Out of this group: whoever ends that must not end the engine before what runs on it is deleted.
  setsid dockerd --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
    --host "$DOCKER_HOST" >"$work/docker.log" 2>&1 </dev/null &
  engine=$!
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$work/docker.log" >&2
  die "the Docker engine does not start"
}

need_base() { # IMAGE RELEASE
  docker image inspect "$1" >/dev/null 2>&1 && return 0
  timeout 60 docker pull -q "$1" >/dev/null 2>&1 && return 0
  local tar=$cache/docker-bases/$2.tar
  stage "No registry has $1 for us: $2 by debootstrap in its place"
  if [ ! -f "$tar" ]; then
    command -v debootstrap >/dev/null 2>&1 || install debootstrap
    debootstrap --variant=minbase "$2" "$work/root" >"$work/debootstrap.log" 2>&1 ||
      { tail -n 20 "$work/debootstrap.log" >&2; die "debootstrap $2 failed"; }
    mkdir -p "$(dirname "$tar")"
    tar -C "$work/root" --exclude=./var/cache/apt/archives/'*' --exclude=./var/lib/apt/lists/'*' -cf "$work/root.tar" .
    mv "$work/root.tar" "$tar"
  fi
  docker import "$tar" "$1" >/dev/null
}

# rust:VERSION-RELEASE: no more than what that image, in its slim form, has.
need_builder() { # IMAGE
  docker image inspect "$1" >/dev/null 2>&1 && return 0
  timeout 60 docker pull -q "$1" >/dev/null 2>&1 && return 0
  local rust release=${1##*-} version
  version=${1#*:}
  version=${version%%-*}
  rust=$(rustc --print sysroot) || die "no registry has $1, and there is no Rust here to stand in for it"
  [[ $("$rust/bin/rustc" --version) == "rustc $version."* ]] || die "$1 is wanted, and here is $("$rust/bin/rustc" --version)"
  need_base "debian:$release-slim" "$release"
  stage "No registry has $1 for us: $release with the Rust of this machine in its place"
  mkdir "$work/builder"
  cp /etc/ssl/certs/ca-certificates.crt "$work/builder/"
  cat >"$work/builder/Dockerfile" <<LINES
FROM debian:$release-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin /usr/local/cargo/bin
COPY lib /usr/local/cargo/lib
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LINES
  tar -ch -C "$work/builder" Dockerfile ca-certificates.crt -C "$rust" bin lib | DOCKER_BUILDKIT=1 docker build -q -t "$1" - >/dev/null
}

# A machine with Docker, make and what every system has. Whatever else the way needs is missing here.
docker_alone() {
  local name at
  mkdir -p "$work/path" "$work/home"
  for name in bash sh env make docker docker-compose dirname basename mktemp rm mkdir cat cut head tail sed grep sha256sum seq sleep; do
    at=$(command -v "$name") || continue
    ln -sf "$at" "$work/path/$name"
  done
  env -i "PATH=$work/path" "HOME=$work/home" "DOCKER_HOST=${DOCKER_HOST:-}" "TMPDIR=$work" \
    COMPOSE_PROJECT_NAME="dfs-source-$$" DFS_IMAGE_TAG="source-$$" DFS_PORT=0 "$@"
}

from_source() {
  need_builder "$(sed -n 's/^ARG BUILDER=//p' docker/Dockerfile)"
  local verb start
  for verb in docker-up docker-down docker-up "docker-down VOLUMES=1 YES=1"; do
    start=$SECONDS
    # shellcheck disable=SC2086 # words of a command line
    docker_alone make --no-print-directory $verb
    stage "make $verb: $((SECONDS - start)) s"
  done
  docker images --format '{{.Repository}} {{.Size}}' --filter "reference=distribute/*:source-$$"
}

base=$(sed -n 's/^ARG BASE=//p' docker/Dockerfile)
release=$(sed 's/.*:\([a-z]*\).*/\1/' <<<"$base")
if [ "${SOURCE:-0}" != 1 ]; then use_programs "$release"; fi
if ! docker info >/dev/null 2>&1; then start_engine; fi
need_base "$base" "$release"
if [ "${SOURCE:-0}" = 1 ]; then from_source; else PREBUILT=1 scripts/docker.sh test; fi
