#!/bin/sh
# Build the inference image: infra/docker/build-inference.sh BASE_IMAGE NAME:TAG, from a checkout with .venv. The base has Python 3.11 with venv.
set -eu
if [ $# -ne 2 ]; then
    echo "build-inference.sh: right would be BASE_IMAGE NAME:TAG" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
.venv/bin/python - >"$context/requirements" <<'PYTHON'
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["serve"]))
PYTHON
.venv/bin/pip download -q -c constraints.txt --only-binary=:all: -d "$context/wheels" -r "$context/requirements"
mkdir -p "$context/platform_assets/stages"
cp -r platform_assets/*.py platform_assets/sealing platform_assets/specs "$context/platform_assets/"
cp -r platform_assets/stages/__init__.py platform_assets/stages/serving "$context/platform_assets/stages/"
podman build -q --network=none --build-arg "BASE=$1" --build-arg "COMMIT=$(git rev-parse HEAD)" -t "$2" -f infra/docker/Containerfile.inference "$context"
