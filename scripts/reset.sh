#!/usr/bin/env bash
# Stops this clone's cluster and deletes its data, after asking (YES=1 answers).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
if [ ! -e "$data_dir" ]; then say "No data in $data_dir"; exit 0; fi
# Nothing is deleted that `dev up` did not make.
[ -f "$data_dir/plan.json" ] || [ -f "$data_dir/state.lock" ] || die "$data_dir does not look like a cluster: not deleted"
if [ "${YES:-}" != 1 ]; then
  [ -t 0 ] || die "deleting all data of $data_dir needs an answer: make reset YES=1"
  printf 'Delete the cluster in %s and all files in it (%s)? [y/N] ' "$data_dir" "$(du -sh "$data_dir" | cut -f1)" >&2
  read -r answer
  case $answer in [yY]*) ;; *) say "Kept."; exit 1 ;; esac
fi
"$here/scripts/stop.sh"
rm -rf "$data_dir"
say "Deleted $data_dir"
