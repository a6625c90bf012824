#!/bin/sh
# Push the images of a version and sign each by its digest: infra/docker/publish.sh REGISTRY VERSION KEY. The digests go to standard output,
# to be named in infra/kubernetes/components/images. A signature is of the digest, so that nobody can put another image under the name.
set -eu
if [ $# -ne 3 ] || [ ! -r "$3" ]; then
    echo "publish.sh: found $# arguments${3:+ and the key '$3'}; right would be REGISTRY VERSION KEY, the key a file that can be read" >&2
    exit 2
fi
for program in podman cosign; do
    command -v $program >/dev/null || { echo "publish.sh: $program is missing; install it" >&2; exit 1; }
done
digest=$(mktemp)
trap 'rm -f "$digest"' EXIT
for kind in inference platform trainer; do
    podman push --quiet --digestfile "$digest" "$1/falaj/$kind:$2"
    cosign sign --yes --tlog-upload=false --key "$3" "$1/falaj/$kind@$(cat "$digest")"
    echo "$1/falaj/$kind@$(cat "$digest")"
done
