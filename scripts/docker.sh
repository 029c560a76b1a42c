#!/usr/bin/env bash
# Images and a cluster of containers; nothing but Docker is needed (the programs compile in the image).
#   scripts/docker.sh build          the three images
#   scripts/docker.sh up             build, start three and three, a file in and out, one killed, out again
#   scripts/docker.sh down           stop; the data stays. VOLUMES=1 deletes it and the keys, after asking (YES=1 answers)
#   scripts/docker.sh test           all of it under a name of its own, then deleted
# PREBUILT=1 puts the programs of ./bin into the images instead of compiling (same distribution as the base).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$here"
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1

need_docker() {
  command -v docker >/dev/null 2>&1 || die "docker is missing; Debian and Ubuntu: apt-get install docker.io docker-compose; else see docs.docker.com/engine/install"
  docker info >/dev/null 2>&1 || die "no Docker engine answers$(docker info 2>&1 | sed -n 's/^ERROR: /: /p' | head -n 1); start it (systemctl start docker), or become a member of the group docker"
  if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
  elif command -v docker-compose >/dev/null 2>&1; then
    compose=(docker-compose)
  else
    die "neither 'docker compose' nor docker-compose is there; Debian: apt-get install docker-compose"
  fi
  compose+=(--project-directory docker -f docker/compose.yaml)
}

build() {
  local target context=. args=(-q)
  if [ "${PREBUILT:-0}" = 1 ]; then
    bin=${DFS_BIN_DIR:-$bin}
    context=$(mktemp -d)
    args+=(--build-arg BINARIES=prebuilt)
    local name
    for name in metadata-server chunk-server dfsctl; do
      [ -x "$bin/$name" ] || die "$bin/$name is missing: make build"
      strip --strip-debug -o "$context/$name" "$bin/$name" 2>/dev/null || cp "$bin/$name" "$context/$name"
    done
  fi
  if [ "$context" = . ]; then
    say "Everything is compiled the first time: some ten minutes on two cores, and 10 GB of disk."
    # At a terminal the build shows how far it is.
    if [ -t 2 ]; then args=(); fi
  fi
  # A folder without git has no commit to tell of, which is not worth a failure.
  args+=(--build-arg "DFS_BUILD_COMMIT=${DFS_BUILD_COMMIT:-$(git describe --always --dirty --abbrev=12 2>/dev/null || true)}")
  for target in metadata-server chunk-server dfsctl; do
    stage "image distribute/$target:$tag"
    docker build -f docker/Dockerfile "${args[@]}" --target "$target" -t "distribute/$target:$tag" "$context" >&2 || {
      [ "$context" = . ] || rm -rf "$context"
      die "the image of $target could not be built; to see why: DOCKER_BUILDKIT=1 docker build -f docker/Dockerfile --target $target ."
    }
  done
  [ "$context" = . ] || rm -rf "$context"
}

dfsctl() { "${compose[@]}" run --rm -T dfsctl "$@" 2>"$work/stderr" || { cat "$work/stderr" >&2; return 1; }; }
container() { "${compose[@]}" ps -q "$1"; }

# The cluster is ready when all servers say so themselves.
wait_ready() {
  local name id deadline=$((SECONDS + 180)) missing
  while :; do
    missing=()
    for name in m1 m2 m3 n1 n2 n3; do
      id=$(container "$name")
      [ -n "$id" ] && [ "$(docker inspect -f '{{.State.Health.Status}}' "$id" 2>/dev/null)" = healthy ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ $SECONDS -gt $deadline ]; then
      for name in "${missing[@]}"; do
        say "-- $name"
        docker inspect -f '{{range .State.Health.Log}}{{.Output}}{{end}}' "$(container "$name")" 2>/dev/null | tail -n 3 >&2 || true
        "${compose[@]}" logs --tail 20 "$name" >&2 || true
      done
      die "not ready after 180 s: ${missing[*]}"
    fi
    sleep 1
  done
}

same() { [ "$1" = "$2" ] || die "the file came back different: sha256 $2 instead of $1"; }
sum() { sha256sum | cut -d' ' -f1; }

walk() {
  stage "Starting three metadata servers and three chunk servers"
  "${compose[@]}" up -d --no-build >&2
  wait_ready
  stage "One file in, and out again"
  local want got
  # A real file of several chunks, and one that is small enough to live in the metadata service.
  head -c 20000000 /dev/urandom > "$work/file"
  want=$(sum < "$work/file")
  dfsctl bucket show demo >/dev/null 2>&1 || dfsctl bucket create demo
  dfsctl put - dfs://demo/file < "$work/file"
  dfsctl put - dfs://demo/README.md < README.md
  got=$(dfsctl cat dfs://demo/file | sum)
  same "$want" "$got"
  printf 'put  sha256 %s\nget  sha256 %s\n' "$want" "$got"

  stage "A chunk server and a metadata server killed, the file read again"
  docker kill "$(container n1)" "$(container m1)" >/dev/null
  got=$(dfsctl cat dfs://demo/file | sum)
  same "$want" "$got"
  same "$(sum < README.md)" "$(dfsctl cat dfs://demo/README.md | sum)"
  printf 'get  sha256 %s  without n1 and m1\n' "$got"

  stage "Both started again"
  docker start "$(container_any n1)" "$(container_any m1)" >/dev/null
  wait_ready
  dfsctl cluster status
}

# Also of a container that does not run.
container_any() { docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1" | head -n 1; }

check_hardening() {
  stage "What a container may do"
  local name id
  for name in m1 m2 m3 n1 n2 n3; do
    id=$(container "$name")
    [ "$(docker exec "$id" id -u)" = 10001 ] || die "$name runs as $(docker exec "$id" id)"
    ! docker exec "$id" sh -c 'echo x > /etc/x' 2>/dev/null || die "$name can write its root file system"
    ! docker exec "$id" sh -c 'echo x >> /etc/dfs/key.pem' 2>/dev/null || die "$name can write its key"
    docker exec "$id" sh -c '! ls /etc/dfs/ca.key /etc/dfs/authority 2>/dev/null' || die "$name sees the authority's key"
    docker exec "$id" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status || die "$name has capabilities"
  done
  echo "user 10001, no capabilities, read-only root, own keys only, read-only"
}

down() {
  if [ "${VOLUMES:-0}" != 1 ]; then "${compose[@]}" down --remove-orphans; return; fi
  if [ "${YES:-0}" != 1 ]; then
    [ -t 0 ] || die "this deletes all files and keys of the containers' cluster; YES=1 to go on"
    local answer
    read -r -p "Delete all files and keys of the containers' cluster $COMPOSE_PROJECT_NAME? [y/N] " answer
    [ "$answer" = y ] || die "nothing was deleted"
  fi
  "${compose[@]}" down --volumes --remove-orphans
}

verb=${1:-}
case $verb in build | up | down | test) ;; *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-distribute}
tag=${DFS_IMAGE_TAG:-dev}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
need_docker
case $verb in
  build) build ;;
  up)
    build
    walk
    cat <<LINES

The cluster is up: https://localhost:${DFS_PORT:-8080} and, with dfsctl,

  alias dfsctl='${compose[*]} run --rm -T dfsctl'
  dfsctl put - dfs://demo/notes.txt < notes.txt
  dfsctl ls -l dfs://demo/
  make docker-down
LINES
    ;;
  down) down ;;
  test)
    export COMPOSE_PROJECT_NAME=dfs-test-$$ DFS_IMAGE_TAG=test-$$ DFS_PORT=0
    tag=$DFS_IMAGE_TAG
    clean() {
      status=$?
      if [ $status -ne 0 ]; then "${compose[@]}" ps >&2 || true; "${compose[@]}" logs --tail 15 >&2 || true; fi
      "${compose[@]}" --profile tools down --volumes --remove-orphans >/dev/null 2>&1 || true
      docker image rm -f "distribute/metadata-server:$tag" "distribute/chunk-server:$tag" "distribute/dfsctl:$tag" >/dev/null 2>&1 || true
      rm -rf "$work"
      exit $status
    }
    trap clean EXIT
    build
    walk
    check_hardening
    docker images --format '{{.Repository}} {{.Size}}' --filter "reference=distribute/*:$tag"
    ;;
esac
