#!/bin/sh
# Deploy an overlay: infra/kubernetes/apply.sh OVERLAY CONTEXT. What breaks a rule is not applied; what does not come up is a failure.
set -eu
cd "$(dirname "$0")/../.."
if [ $# -ne 2 ] || [ ! -d "infra/kubernetes/overlays/$1" ]; then
    echo "apply.sh: found '$*'; right would be OVERLAY CONTEXT, the overlay one of $(ls infra/kubernetes/overlays | tr '\n' ' ')" >&2
    exit 2
fi
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
kubectl kustomize "infra/kubernetes/overlays/$1" >"$rendered"
.venv/bin/python -m platform_assets.stages.cluster "$rendered"
kubectl --context "$2" apply --server-side --filename "$rendered"
namespaces=$(kubectl --context "$2" get namespaces --selector falaj.ae/tenant --output 'jsonpath={.items[*].metadata.name}')
for namespace in $namespaces; do
    found=$(kubectl --context "$2" --namespace "$namespace" get deployments,statefulsets --output name)
    for work in $found; do
        kubectl --context "$2" --namespace "$namespace" rollout status "$work" --timeout 10m
    done
done
