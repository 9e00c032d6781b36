#!/bin/bash
# Builds the Debian packages:
#
#   build.sh DIR [SUITE [ARCH]]     DIR/edged_VERSION_ARCH.deb and DIR/edged-models_VERSION_all.deb
#
# `edged` contains the program and every Python package that it needs, in a virtual environment below
# /opt/edged: nothing is compiled or downloaded on the device. Compiled Python packages fit one Python
# version, so there is a package for each Debian release: +deb12 for bookworm (3.11), +deb13 for
# trixie (3.13). `edged-models` contains the model files, for devices without a network; without it
# `edged` fetches them during installation.
#
# WHEELS names a folder filled by deploy/wheels.sh (default: this script calls it), MODELS a folder
# with the fetched models (default: models/built of this checkout; without one edged-models is not
# built). VERSION_SUFFIX is appended to the version. Needs Debian, dpkg-deb and pip (PIP).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(realpath "$HERE/../..")
read -ra PIP <<<"${PIP:-python3 -I -m pip}"
die() { echo "deb: $*" >&2; exit 1; }

mkdir -p "$1"
out=$(realpath "$1")
# shellcheck source=/dev/null
suite=${2:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}
arch=${3:-$(dpkg --print-architecture)}
case $suite in
bookworm) python=3.11 next=3.12 release=deb12 alsa=libasound2 ;;
trixie) python=3.13 next=3.14 release=deb13 alsa=libasound2t64 ;;
*) die "edged supports bookworm and trixie, not '$suite'" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
: "${SOURCE_DATE_EPOCH:=$(git -C "$TOP" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

wheels=${WHEELS:-$work/wheels}
[ -n "${WHEELS:-}" ] || "$HERE/../wheels.sh" "$wheels" "$suite" "$arch"
wheel=$(ls "$wheels"/edged-*.whl)
version=$(basename "$wheel" | cut -d- -f2)
full=$version+$release${VERSION_SUFFIX:-}
root=$work/edged
app=$root/opt/edged
site=$app/lib/python$python/site-packages
machine=$([ "$arch" = arm64 ] && echo aarch64 || echo x86_64)
platforms=() # the same as in wheels.sh
for kind in manylinux_2_{36,35,34,31,28,27,26,24} manylinux2014 linux; do platforms+=(--platform "${kind}_$machine"); done

environment() { # a virtual environment like that of venv, without running the device's Python
    local tree=$work/unzipped
    "${PIP[@]}" --quiet --disable-pip-version-check install --no-index --no-deps --ignore-requires-python --no-compile --target "$tree" \
        --find-links "$wheels" --only-binary=:all: --implementation cp --python-version "$python" \
        "${platforms[@]}" "$wheels"/*.whl
    rm -rf "${tree:?}/bin"
    mkdir -p "$app/bin" "$(dirname "$site")"
    mv "$tree" "$site"
    # The tests of these packages, 40 MB.
    find "$site" -type d \( -path '*/numpy/*/tests' -o -path '*/onnx/backend/test' -o -path '*/onnx/test' \) -prune -exec rm -rf {} +
    find "$site" -name __pycache__ -prune -exec rm -rf {} +
    printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' $python >"$app/pyvenv.cfg"
    ln -s /usr/bin/python$python "$app/bin/python3"
    ln -s python3 "$app/bin/python"
    printf '#!/opt/edged/bin/python3\nimport sys\n\nfrom edged.cli.main import main\n\nsys.exit(main())\n' >"$app/bin/edged"
    chmod 755 "$app/bin/edged"
}

system_files() {
    install -D -m 644 "$HERE/../edged.service" "$root/usr/lib/systemd/system/edged.service"
    install -D -m 755 "$HERE/../edged" "$root/usr/bin/edged"
    install -d "$root/usr/share/edged" "$root/usr/share/doc/edged" "$root/usr/share/lintian/overrides"
    ln -s "/opt/edged/lib/python$python/site-packages/edged/deploy" "$root/usr/share/edged/deploy"
    { cat "$TOP/LICENSE"; printf '\nModels and samples:\n\n'; cat "$TOP/models/NOTICES.md"
      printf '\nPackages of others, in /opt/edged: each has its licence in its .dist-info folder.\n'; } >"$root/usr/share/doc/edged/copyright"
    printf 'edged (%s) %s; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n -- edged <edged@localhost>  %s\n' \
        "$full" "$suite" "$(date -R -d "@$SOURCE_DATE_EPOCH")" |
        gzip -9n >"$root/usr/share/doc/edged/changelog.gz"
    # /opt is for add-on packages (FHS 3.13); only Debian's own packages must not use it.
    printf 'edged: dir-or-file-in-opt\nedged: embedded-library\n' >"$root/usr/share/lintian/overrides/edged"
}

control() { # control FOLDER: reads the fields from standard input
    mkdir -p "$1/DEBIAN"
    { cat; echo "Installed-Size: $(du -sk --exclude=DEBIAN "$1" | cut -f1)"; } >"$1/DEBIAN/control"
    (cd "$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$1/DEBIAN/md5sums"
}

limit_dates() { # no file is newer than the last commit, so that the same source gives the same package
    find "$1" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

pack() {
    limit_dates "$1"
    dpkg-deb --root-owner-group -Zzstd -z15 --build "$1" "$out" >&2
}

environment
system_files
limit_dates "$root"
"$HERE/compile.sh" "$root" "$suite"
control "$root" <<FIELDS
Package: edged
Version: $full
Architecture: $arch
Maintainer: edged <edged@localhost>
Section: sound
Priority: optional
Depends: python3 (>= $python), python3 (<< $next~), $alsa, libsystemd0, libstdc++6, libc6 (>= 2.36), passwd, init-system-helpers
Recommends: alsa-utils, edged-models | ca-certificates
Suggests: mosquitto, cage, chromium
Description: private, real-time speech transcription, published over MQTT
 Reads a microphone, recognises speech with a small neural model in steps of
 80 ms, and publishes timed words and finished turns. No audio leaves the device.
FIELDS
for script in preinst postinst prerm postrm triggers; do
    install -m "$([ $script = triggers ] && echo 644 || echo 755)" "$HERE/$script" "$root/DEBIAN/$script"
done
pack "$root"

models=${MODELS:-$TOP/models/built}
[ -d "$models" ] || exit 0
more=$work/edged-models
mkdir -p "$more/usr/share/edged/models" "$more/usr/share/doc/edged-models"
# Only upstream's files: the graphs are built from them on the device, for its own versions.
find "$models" -maxdepth 2 -type f \( -name '*.ort' -o -name '*.onnx' -o -name '*.bin' \) -exec cp -t "$more/usr/share/edged/models" {} +
cp "$TOP/models/NOTICES.md" "$more/usr/share/doc/edged-models/copyright"
control "$more" <<FIELDS
Package: edged-models
Version: $version${VERSION_SUFFIX:-}
Architecture: all
Maintainer: edged <edged@localhost>
Section: sound
Priority: optional
Enhances: edged
Description: models of edged, for devices without a network
 What \`edged models fetch\` would download: the models for speech recognition
 (English), voice activity detection and turn ends.
FIELDS
pack "$more"
