#!/bin/bash
# Compiles a package's Python files to byte code for the device's Python. The device would need
# minutes for it during installation (a Pi).
#
#   compile.sh ROOT SUITE     ROOT: the package's files; SUITE: bookworm or trixie
#
# Byte code fits one Python version and every processor. It is made by the Python of this machine, if
# the version is right, otherwise by one from an unpacked Debian, which needs root and mmdebstrap. If
# neither is possible, a message says so and the device compiles (postinst). Byte code records the
# dates of its sources, so the dates must be final before.
set -euo pipefail

[ $# -eq 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(realpath "$1")
suite=$2
python=$([ "$suite" = bookworm ] && echo 3.11 || echo 3.13)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile=(-I -m compileall -q -j 0 --invalidation-mode timestamp -s "$root" -p / "$root/opt") # with the paths of the device
failed=0 # some files of other packages are written for another Python
if "python$python" -I -c 'import sys; sys.exit(sys.version_info.releaselevel != "final")' 2>/dev/null; then
    "python$python" "${compile[@]}" >"$work/log" 2>&1 || failed=1
elif [ "$(id -u)" -eq 0 ] && command -v mmdebstrap >/dev/null; then
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)}
    mkdir "$work/tree"
    mmdebstrap --quiet --variant=extract --include=python3,libc6 "$suite" - "$mirror" | tar -x -C "$work/tree"
    for link in bin sbin lib lib64; do [ -e "$work/tree/$link" ] || ln -s "usr/$link" "$work/tree/$link"; done
    TREE=$work/tree ROOT=$root unshare --mount --propagation private sh -euc '
        mkdir -p "$TREE$ROOT" && mount --bind "$ROOT" "$TREE$ROOT" && mount --rbind /dev "$TREE/dev"
        exec chroot "$TREE" "$@"' sh "/usr/bin/python$python" "${compile[@]}" >"$work/log" 2>&1 || failed=1
else
    echo "deb: there is no Python $python here: the device will compile, which takes it minutes" >&2
    exit 0
fi
find "$root/opt" -path '*/edged/__pycache__/__init__.*.pyc' | grep -q . || {
    echo "deb: Python $python compiled nothing: $(tail -3 "$work/log")" >&2
    exit 1
}
[ $failed = 0 ] || echo "deb: not compiled: $(grep -c '^\*\*\* Error' "$work/log") files" >&2
