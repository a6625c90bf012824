#!/bin/sh
# Makes .venv with the pinned set; does nothing where that was done already. Run by every `make` target.
set -eu
cd "$(dirname "$0")/.."

want=$(cat constraints.txt pyproject.toml infra/setup.sh | cksum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/.installed 2>/dev/null)" = "$want $PWD" ]; then
    exit 0
fi

if ! command -v git >/dev/null 2>&1; then
    echo "git is missing: install it with 'apt-get install git'." >&2
    exit 1
fi
python=
for name in python3.11 python3.12 python3.13 python3; do
    if "$name" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11, 3.12 or 3.13 is missing (found: $(python3 --version 2>&1 || echo none)): install it with 'apt-get install python3.11 python3.11-venv'." >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    echo "The venv module of $python is missing: install it with 'apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')'." >&2
    exit 1
fi

echo "Setting up .venv with $("$python" --version): about 3 GB, some minutes, once."
.venv/bin/python -c '' >/dev/null 2>&1 || rm -rf .venv
"$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet --quiet "$@"; }
pip install --upgrade pip
# torch before anything that needs it: otherwise its newest build, with gigabytes of CUDA, comes along.
pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
pip install --constraint constraints.txt --editable '.[dev]'
printf '%s' "$want $PWD" >.venv/.installed
