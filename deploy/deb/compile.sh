#!/bin/bash
# Compiles a package's Python files to byte code as the box's Python would, so that the box, which
# is slower, need not: minutes of an installation on a Pi.
#
#   compile.sh ROOT SUITE     ROOT: the package's files; SUITE: bookworm or trixie
#
# Byte code fits one Python and every processor. That Python is taken from this machine if it has
# it, else from an unpacked Debian, which needs root and mmdebstrap. With neither it says so and
# leaves it to the box (postinst). The files' dates must be right before: byte code notes them.
set -euo pipefail

[ $# -eq 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(realpath "$1")
suite=$2
python=$([ "$suite" = bookworm ] && echo 3.11 || echo 3.13)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile=(-m compileall -q -j 0 --invalidation-mode timestamp -s "$root" -p / "$root/opt") # with the box's own paths
failed=0 # of others' files some are for another Python
if "python$python" -c 'import sys; sys.exit(sys.version_info.releaselevel != "final")' 2>/dev/null; then
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
    echo "deb: there is no Python $python here: the box compiles, which takes it minutes" >&2
    exit 0
fi
find "$root/opt" -path '*/edged/__pycache__/__init__.*.pyc' | grep -q . || {
    echo "deb: Python $python compiled nothing: $(tail -3 "$work/log")" >&2
    exit 1
}
[ $failed = 0 ] || echo "deb: not compiled: $(grep -c '^\*\*\* Error' "$work/log") files" >&2
