#!/usr/bin/env bash
# Builds kube-apiserver, kube-controller-manager and kube-scheduler from Debian 12's source package `kubernetes` with Debian's Go, and puts
# Debian's etcd beside them: once, into a cache outside the tree. Nothing is installed and no list of the machine's is touched: apt reads a list
# of its own here, and packages are unpacked, not configured. The network is needed for this alone.
# The folder appears whole or not at all; a build that was cut off is gone on with by the next one.
set -euo pipefail

version=1.20.2 package=1.20.5+really1.20.2 # Debian's name for it
cache="${XDG_CACHE_HOME:-$HOME/.cache}/falaj"
ready="$cache/kubernetes-$version" build="$cache/kubernetes-$version.build"

refuse() {
    echo "make test-cluster: $1" >&2
    exit 1
}

if [ -d "$ready" ]; then
    rm -rf "$build" # of a build that was cut off just after it was done
    exit 0
fi
for program in apt-get dpkg-deb flock; do
    command -v "$program" >/dev/null || refuse "$program is not on this machine; a Kubernetes control plane is built on Debian 12 or the like alone."
done
mkdir -p "$cache"
exec 9>"$build.lock"
flock --nonblock 9 || { echo "Another build is under way: waiting for it." && flock 9; }
[ -d "$ready" ] && exit 0
free=$(df --output=avail --block-size=1M "$cache" | tail -1)
[ "$free" -ge 5000 ] || refuse "$cache has $free MB free; building Kubernetes takes 5000."

rm -rf "$build/tree" "$build/root"
mkdir -p "$build"/{tree/src/k8s.io,tree/out,root,packages,apt/lists/partial,apt/archives/partial}
cd "$build/packages"

echo "Fetching Debian's Kubernetes source, Go and etcd (about 125 MB)"
# The machine's own mirror of Debian, with sources.
apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)|$(ORIGIN)' 'Created-By: Packages' |
    sed -n 's/ main|Debian$/ main/p' | sort -u | sed 'p; s/^deb /deb-src /' >"$build/apt/sources.list"
[ -s "$build/apt/sources.list" ] || refuse "apt knows no mirror of Debian's main; name one in its sources and call apt-get update once."
options=(-qq -o "Dir::Etc::SourceList=$build/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$build/apt/lists"
    -o "Dir::Cache=$build/apt" -o APT::Sandbox::User=root)
apt-get "${options[@]}" update || refuse "Debian's mirror does not answer; the network is needed this once."
apt-get "${options[@]}" source --download-only --only-source kubernetes || refuse "Debian's source package kubernetes could not be fetched."
archive="kubernetes_$package.orig.tar.gz"
[ -f "$archive" ] || refuse "Debian's source package kubernetes is $(ls -- *.dsc), not $package: this script builds Debian 12's."
apt-get "${options[@]}" download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server ||
    refuse "Debian's packages of Go 1.19 and etcd could not be fetched."

echo "Building Kubernetes $version (10 to 16 minutes of one core)"
for one in ./*.deb; do dpkg-deb --extract "$one" "$build/root"; done
tree="$build/tree/src/k8s.io/kubernetes"
mkdir "$tree"
tar -xzf "$archive" -C "$tree" --strip-components=1
cd "$tree"
# The vendored reflect2 reads maps as Go did before 1.18: custom resources and server-side apply end the process.
rm vendor/github.com/modern-go/reflect2/*.{go,s}
cp "$build"/root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2/
rm -f vendor/github.com/modern-go/reflect2/*_test.go

export HOME="$build" GOROOT="$build/root/usr/lib/go-1.19" GOPATH="$build/tree" GOCACHE="$build/go-cache"
export GO111MODULE=off CGO_ENABLED=0 GOFLAGS= GOMAXPROCS="${GOMAXPROCS:-2}"
go() { nice -n 19 "$GOROOT/bin/go" "$@"; }
# The one generated file that the source does not carry: what the API server tells of its types.
tagged=$(grep -rl --include='*.go' --exclude='*_test.go' '^// +k8s:openapi-gen=' cmd pkg staging/src/k8s.io |
    grep -v -e /code-generator/ -e /sample-apiserver/ | xargs -n1 dirname | sed 's,^staging/src/,vendor/,; s,^,k8s.io/kubernetes/,' |
    LC_ALL=C sort -u | paste -sd,)
go build -o "$build/tree/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
nice -n 19 "$build/tree/openapi-gen" --logtostderr -i "$tagged" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$build/tree/violations"

told=""
for room in component-base/version client-go/pkg/version; do
    for pair in "gitVersion=v$version" gitMajor=1 gitMinor=20 gitTreeState=archive; do
        told+=" -X k8s.io/kubernetes/vendor/k8s.io/$room.$pair"
    done
done
for name in kube-scheduler kube-controller-manager kube-apiserver; do
    go build -p "$GOMAXPROCS" -ldflags "-s -w$told" -o "$build/tree/out/$name" "./cmd/$name"
    echo "$name"
done
cp "$build/root/usr/bin/etcd" "$build/tree/out/"
sync -f "$build/tree/out"
mv "$build/tree/out" "$ready"
rm -rf "$build"
echo "Kubernetes $version is in $ready"
