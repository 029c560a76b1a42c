#!/usr/bin/env bash
# `make docker-test`: scripts/docker.sh test with the programs of ./bin, also on a machine where no engine
# runs and no registry of images can be reached. Where an engine answers, that one is used. Else, as root,
# one is started for this test alone, with a data root of its own, and stopped again. A base image that is
# not there and cannot be pulled is stood in for by the same Debian release, made by debootstrap, under the
# tag that the Dockerfile names.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$here"

work=$(mktemp -d)
engine=
finish() {
  status=$?
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
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 || die "missing: $*; install them, or start a Docker engine"
  say "Installing $*"
  apt-get install -y -qq --no-install-recommends "$@" >"$work/apt.log" 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >"$work/apt.log" 2>&1 ||
    { cat "$work/apt.log" >&2; die "apt-get could not install $*"; }
}

start_engine() {
  [ "$(id -u)" -eq 0 ] || die "no Docker engine answers, and only root can start one for this test"
  command -v dockerd >/dev/null 2>&1 && command -v docker-compose >/dev/null 2>&1 ||
    install docker.io docker-compose iptables ca-certificates
  # The distribution's own command line goes with its engine; another one may lack BuildKit.
  if [ -x /usr/bin/docker ]; then PATH=/usr/bin:$PATH; fi
  stage "A Docker engine of our own in $work"
  mkdir "$work/docker"
  export DOCKER_HOST=unix://$work/docker/socket
  dockerd --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
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

if ! docker info >/dev/null 2>&1; then start_engine; fi
base=$(sed -n 's/^ARG BASE=//p' docker/Dockerfile)
need_base "$base" "$(sed 's/.*:\([a-z]*\).*/\1/' <<<"$base")"
PREBUILT=1 scripts/docker.sh test
