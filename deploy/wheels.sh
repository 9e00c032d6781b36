#!/bin/bash
# Every Python package that edged needs on a box, as wheels: for `install.sh --wheels` on a box
# without a network, and for the .deb (deploy/deb/build.sh).
#
#   wheels.sh DIR [SUITE [ARCH]]     SUITE: bookworm or trixie; ARCH: amd64 or arm64.
#                                    Default: the system that this runs on.
#
# All but two come ready from pip's index. pyalsaaudio and systemd-python are C and come as source:
# they are compiled here if this is such a system, else in an unpacked Debian of that kind, which
# needs root, mmdebstrap and, for the other architecture, qemu-user-static. PIP names the pip to
# use, MIRROR a Debian mirror (default: the one that apt of this machine uses).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra PIP <<<"${PIP:-python3 -m pip}"
die() { echo "wheels: $*" >&2; exit 1; }

mkdir -p "$1"
dir=$(realpath "$1")
own_suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
own_arch=$(dpkg --print-architecture)
suite=${2:-$own_suite}
arch=${3:-$own_arch}
case $suite in
bookworm) python=3.11 ;;
trixie) python=3.13 ;;
*) die "edged knows bookworm and trixie, not '$suite'" ;;
esac
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) die "edged knows amd64 and arm64, not '$arch'" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "${PIP[@]}" --quiet --disable-pip-version-check "$@"; }

# The system's oldest glibc decides which wheels may be taken: 2.36 in bookworm, 2.41 in trixie.
platforms=()
for glibc in 2_36 2_35 2_34 2_31 2_28 2_27 2_26 2_24; do platforms+=(--platform "manylinux_${glibc}_$machine"); done
platforms+=(--platform "manylinux2014_$machine" --platform "linux_$machine")

compiled() { ls "$dir"/"$1"-*-cp"${python/./}"-*"$machine".whl >/dev/null 2>&1; }

compile() { # the two, from source
    compiled pyalsaaudio && compiled systemd_python && return
    echo "wheels: compiling pyalsaaudio and systemd-python for $suite, $arch" >&2
    if [ "$suite/$arch" = "$own_suite/$own_arch" ] &&
        "${PIP[0]}" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$python')" 2>/dev/null; then
        pip wheel --no-deps --wheel-dir "$dir" 'pyalsaaudio>=0.11' 'systemd-python>=235'
        return
    fi
    pip download --no-deps --no-binary :all: --dest "$work" 'pyalsaaudio>=0.11' 'systemd-python>=235'
    make_tree
    for source in "$work"/*.tar.gz; do
        tar -xf "$source" -C "$work/tree/src"
    done
    in_tree sh -c 'for d in /src/*/; do cd $d && CC=gcc python3 setup.py -q bdist_wheel -d /out || exit 1; done' >"$work/log" 2>&1 ||
        die "they do not compile: $(tail -5 "$work/log")"
    cp "$work"/tree/out/*.whl "$dir/"
}

make_tree() { # unpacked packages, none configured: enough for a compiler, and quick under emulation
    local mirror wanted=base-files,libc-bin,dash,coreutils,sed,python3-dev,python3-setuptools,python3-wheel,gcc,libc6-dev,pkgconf,libasound2-dev,libsystemd-dev
    [ "$(id -u)" -eq 0 ] || die "building for $suite, $arch on $own_suite, $own_arch needs root"
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt install mmdebstrap qemu-user-static binfmt-support"
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)}
    mkdir -p "$work/tree"
    mmdebstrap --quiet --variant=extract --architectures="$arch" --include=$wanted "$suite" - "$mirror" | tar -x -C "$work/tree"
    # What a configure step would have made.
    for link in bin sbin lib; do [ -e "$work/tree/$link" ] || ln -s "usr/$link" "$work/tree/$link"; done
    [ -e "$work/tree/usr/bin/sh" ] || ln -s dash "$work/tree/usr/bin/sh"
    mkdir -p "$work/tree/src" "$work/tree/out" "$work/tree/tmp"
}

in_tree() { # a mount namespace of its own: nothing stays mounted, however this ends
    TREE=$work/tree unshare --mount --propagation private sh -c '
        mount --rbind /dev "$TREE/dev" && mount -t proc proc "$TREE/proc"
        exec chroot "$TREE" env -i PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 "$@"' sh "$@"
}

# edged itself never comes from an index: whoever took the name there would be root on the boxes.
[ -e "$HERE/../pyproject.toml" ] || ls "$dir"/edged-*.whl >/dev/null 2>&1 ||
    die "this is no checkout, and there is no edged-*.whl in $dir"
compile
if [ -e "$HERE/../pyproject.toml" ]; then # a checkout
    rm -f "$dir"/edged-*.whl
    pip wheel --no-deps --wheel-dir "$dir" "$HERE/.."
fi
# pip itself too: `edged models fetch` asks it where the models are.
pip download --dest "$dir" --find-links "$dir" --only-binary=:all: --implementation cp --python-version "$python" \
    "${platforms[@]}" "$(ls "$dir"/edged-*.whl)[daemon,api]" pip
