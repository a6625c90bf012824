#!/bin/sh
# Installs the bundle that this file lies in under /opt/falaj-edge and starts it; offline. PREFIX=DIR puts it elsewhere and starts nothing.
set -eu
cd "$(dirname "$0")"
sha256sum --quiet --check SHA256SUMS || { echo "install.sh: the bundle is not whole: copy and unpack it again." >&2; exit 1; }
prefix=${PREFIX:-/opt/falaj-edge}
name=$(basename "$PWD")
mkdir -p "$prefix"
if [ ! -d "$prefix/$name" ]; then
    rm -rf "$prefix/.incoming"
    cp -R . "$prefix/.incoming"
    sync -f "$prefix/.incoming" # on the disk before it has its name
    mv "$prefix/.incoming" "$prefix/$name"
fi
if [ -z "${PREFIX:-}" ]; then
    id falaj-edge >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin falaj-edge
    chown -R falaj-edge: "$prefix/$name"
fi
ln -sfn "$name" "$prefix/.current"
mv -T "$prefix/.current" "$prefix/current"
if [ -z "${PREFIX:-}" ]; then
    cp systemd/* /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --now falaj-edge.service falaj-edge-handover.timer
    systemctl restart falaj-edge.service
fi
echo "Installed: $prefix/current -> $name"
