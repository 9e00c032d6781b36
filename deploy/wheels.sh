#!/bin/bash
# Collects every Python package that edged needs as a wheel, in the versions of constraints.txt:
# for `install.sh --wheels` on a device without a network, and for the .deb (deploy/deb/build.sh).
#
#   wheels.sh DIR [SUITE [ARCH]]     SUITE: bookworm or trixie; ARCH: amd64 or arm64.
#                                    Default: the system that this runs on.
#
# All but two are published as wheels. pyalsaaudio and systemd-python are C sources: they are
# compiled here if this is such a system, otherwise in an unpacked Debian of that kind, which needs
# root, mmdebstrap and, for the other architecture, qemu-user-static. PIP names the pip to use,
# MIRROR a Debian mirror (default: the one that apt of this machine uses).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra PIP <<<"${PIP:-python3 -I -m pip}"
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
*) die "edged supports bookworm and trixie, not '$suite'" ;;
esac
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) die "edged supports amd64 and arm64, not '$arch'" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "${PIP[@]}" --quiet --disable-pip-version-check "$@"; }

# pip evaluates the markers of a constraint for the Python that runs it, not for --python-version.
constraints=$work/constraints.txt
"${PIP[0]}" -I - "$HERE/constraints.txt" "$python" >"$constraints" <<'PYTHON' || die "constraints.txt cannot be read"
import sys
from pip._vendor.packaging.requirements import Requirement

target = {"python_version": sys.argv[2], "python_full_version": sys.argv[2] + ".0"}
for line in open(sys.argv[1]):
    if line.strip() and not line.startswith("#"):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(target):
            print(requirement.name + str(requirement.specifier))
PYTHON

# The older of glibc in the two suites (2.36 in bookworm, 2.41 in trixie) limits the wheels.
platforms=()
for glibc in 2_36 2_35 2_34 2_31 2_28 2_27 2_26 2_24; do platforms+=(--platform "manylinux_${glibc}_$machine"); done
platforms+=(--platform "manylinux2014_$machine" --platform "linux_$machine")

compiled() { ls "$dir"/"$1"-*-cp"${python/./}"-*"$machine".whl >/dev/null 2>&1; }

compile() { # the two that are published as source only
    compiled pyalsaaudio && compiled systemd_python && return
    echo "wheels: compiling pyalsaaudio and systemd-python for $suite, $arch" >&2
    if [ "$suite/$arch" = "$own_suite/$own_arch" ] &&
        "${PIP[0]}" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$python')" 2>/dev/null; then
        pip wheel --no-deps --wheel-dir "$dir" --constraint "$constraints" pyalsaaudio systemd-python
        return
    fi
    pip download --no-deps --no-binary :all: --dest "$work" --constraint "$constraints" pyalsaaudio systemd-python
    make_tree
    for source in "$work"/*.tar.gz; do
        tar -xf "$source" -C "$work/tree/src"
    done
    in_tree sh -c 'for d in /src/*/; do cd $d && CC=gcc python3 setup.py -q bdist_wheel -d /out || exit 1; done' >"$work/log" 2>&1 ||
        die "pyalsaaudio and systemd-python cannot be compiled: $(tail -5 "$work/log")"
    cp "$work"/tree/out/*.whl "$dir/"
}

make_tree() { # packages unpacked but not configured: enough for a compiler, and fast under emulation
    local mirror wanted=base-files,libc-bin,dash,coreutils,sed,python3-dev,python3-setuptools,python3-wheel,gcc,libc6-dev,pkgconf,libasound2-dev,libsystemd-dev
    [ "$(id -u)" -eq 0 ] || die "building for $suite, $arch on $own_suite, $own_arch needs root"
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt install mmdebstrap qemu-user-static binfmt-support"
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)}
    mkdir -p "$work/tree"
    mmdebstrap --quiet --variant=extract --architectures="$arch" --include=$wanted "$suite" - "$mirror" | tar -x -C "$work/tree"
    # Links that configuring the packages would have made.
    for link in bin sbin lib; do [ -e "$work/tree/$link" ] || ln -s "usr/$link" "$work/tree/$link"; done
    [ -e "$work/tree/usr/bin/sh" ] || ln -s dash "$work/tree/usr/bin/sh"
    mkdir -p "$work/tree/src" "$work/tree/out" "$work/tree/tmp"
}

in_tree() { # in a mount namespace, so that nothing stays mounted
    TREE=$work/tree unshare --mount --propagation private sh -c '
        mount --rbind /dev "$TREE/dev" && mount -t proc proc "$TREE/proc"
        exec chroot "$TREE" env -i PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 "$@"' sh "$@"
}

# edged itself is never taken from an index: whoever registered the name there would be root on the devices.
[ -e "$HERE/../pyproject.toml" ] || ls "$dir"/edged-*.whl >/dev/null 2>&1 ||
    die "this is not a checkout, and there is no edged-*.whl in $dir"
compile
if [ -e "$HERE/../pyproject.toml" ]; then # a checkout
    rm -f "$dir"/edged-*.whl
    pip wheel --no-deps --wheel-dir "$dir" "$HERE/.."
fi
# pip itself too: `edged models fetch` asks it where the models are.
pip download --dest "$dir" --constraint "$constraints" --find-links "$dir" --only-binary=:all: --implementation cp --python-version "$python" \
    "${platforms[@]}" "$(ls "$dir"/edged-*.whl)[daemon,api]" pip
