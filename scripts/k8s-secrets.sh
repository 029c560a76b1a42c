#!/usr/bin/env bash
# The Secrets of a cluster on Kubernetes, as YAML on standard output, out of a folder that `dfsctl pki`
# made. Asks no cluster. The authority's key is not among them.
#   scripts/k8s-secrets.sh init FOLDER [CHUNK_SERVERS]   dfsctl pki init with the pods' names, then as below
#   scripts/k8s-secrets.sh print FOLDER                  the Secrets | kubectl apply -f -
set -euo pipefail
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case ${1:-} in init | print) ;; *) usage ;; esac
folder=${2:-}
[ -n "$folder" ] || usage
members=3
here=$(cd "$(dirname "$0")/.." && pwd -P)
dfsctl=${DFSCTL:-$here/bin/dfsctl}

if [ "$1" = init ]; then
  metadata='' chunk=''
  for ((i = 0; i < members; i++)); do metadata+=",metadata-$i=metadata-$i.metadata.dfs.svc:8080"; done
  for ((i = 0; i < ${3:-3}; i++)); do chunk+=",chunk-$i=chunk-$i.chunk.dfs.svc"; done
  # --keep: what is there stays, so the same line with a greater number adds servers.
  "$dfsctl" pki init "$folder" --keep --metadata "${metadata#,}" --chunk-server "${chunk#,}" --also api.dfs.svc >&2
fi

secret() { # NAMESPACE NAME, then KEY FILE in turn
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ntype: Opaque\ndata:\n' "$2" "$1"
  shift 2
  while [ $# -gt 0 ]; do
    printf '  %s: %s\n' "$1" "$(base64 < "$2" | tr -d '\n')"
    shift 2
  done
}

tls() { # NAME PREFIX
  local pairs=(ca.pem "$folder/client/ca.pem") dir id
  for dir in "$folder/$2"-*/; do
    id=$(basename "$dir")
    pairs+=("$id.pem" "$dir/cert.pem" "$id.key" "$dir/key.pem")
  done
  secret dfs "$1" "${pairs[@]}"
}

[ -f "$folder/client/ca.pem" ] || { echo "k8s-secrets.sh: $folder has no keys; make them with: $0 init $folder" >&2; exit 1; }
tls metadata-tls metadata
tls chunk-tls chunk
secret dfs cluster-keys master.key "$folder/metadata-0/master.key" admin.key "$folder/metadata-0/admin.key"
secret dfs-client dfsctl ca.pem "$folder/client/ca.pem" admin.key "$folder/client/admin.key" dfsctl.toml "$folder/client/dfsctl.toml"
