#!/bin/sh
# Make the images' base, once: infra/docker/base.sh FOLDER. Root, debootstrap and a mirror of Debian are needed; `podman import` makes an
# image of the folder (docs/how-to/build-images.md).
set -eu
if [ $# -ne 1 ] || [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "base.sh: right would be one folder to be made, as root, with debootstrap installed ('apt-get install debootstrap')" >&2
    exit 2
fi
if [ -e "$1" ]; then
    echo "base.sh: $1 is there already; remove it to make it anew" >&2
    exit 2
fi
part="$1.part-$$"
trap 'rm -rf "$part"' EXIT
mkdir -p "$part"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,libgomp1 bookworm "$part" >"$part.log" || {
    tail -5 "$part.log" >&2
    exit 1
}
cksum <"$0" | cut -d ' ' -f 1 >"$part/etc/falaj-base" # what made it: a base of another recipe is made anew
rm -rf "$part.log" "$part"/var/cache/apt/archives/*.deb "$part"/var/lib/apt/lists/*
mv "$part" "$1"
