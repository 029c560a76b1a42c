#!/usr/bin/env bash
# scripts/venv.sh REQUIREMENTS: prints the Python of a virtual environment that has exactly these packages. Made once
# in the build cache, for each content of the file.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
requirements=${1:?usage: scripts/venv.sh REQUIREMENTS}
python=$(command -v python3) || die "python3 is missing: apt-get install python3 python3-venv"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$cache/python/$version-$(sha256sum <"$requirements" | cut -c1-16)
mkdir -p "$cache/python"
exec 9>"$venv.lock"
flock 9
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv" >&2 || die "python3 cannot make virtual environments: apt-get install python3-venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements" >&2 ||
    die "pip could not install $requirements: is the Python registry reachable?"
  touch "$venv/complete"
fi
printf '%s\n' "$venv/bin/python"
