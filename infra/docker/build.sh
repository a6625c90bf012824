#!/bin/sh
# Build an image: infra/docker/build.sh inference|platform|trainer BASE NAME:TAG, from a checkout with .venv. BASE is named by version or
# digest and has this environment's Python; `platform` and `trainer` want its venv module, too, and `platform` libgomp.
set -eu
wrong() {
    echo "build.sh: found $1; right would be inference, platform or trainer, a base image by version or digest, and NAME:TAG" >&2
    exit 2
}
[ $# -eq 3 ] || wrong "$# arguments"
case $1 in inference | platform | trainer) ;; *) wrong "'$1'" ;; esac
for image in "$2" "$3"; do
    case ${image##*/} in *:latest | *: | :*) wrong "'$image'" ;; *:*) ;; *) wrong "'$image'" ;; esac
done
cd "$(dirname "$0")/../.."
commit=$(git rev-parse HEAD)
git diff --quiet HEAD -- || commit="$commit-dirty"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ "$1" != inference ]; then
    .venv/bin/python -m resources.images requirements "$1" >"$context/requirements"
    wheels() { .venv/bin/python -m pip --disable-pip-version-check --quiet wheel --constraint constraints.txt --wheel-dir "$context/wheels" "$@"; }
    # torch before anything that needs it: otherwise its newest build, with gigabytes of CUDA, comes along.
    wheels ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
    wheels --find-links "$context/wheels" --requirement "$context/requirements"
fi
.venv/bin/python -m resources.images context "$1" "$context"
podman image exists "$2" || podman pull --quiet "$2" >/dev/null
podman build --quiet --layers=false --network=none --build-arg "BASE=$2" --build-arg "COMMIT=$commit" \
    --label "org.opencontainers.image.base.name=$2" \
    --label "org.opencontainers.image.base.digest=$(podman image inspect --format '{{.Digest}}' "$2")" \
    --tag "$3" --file "infra/docker/Containerfile.$1" "$context"
