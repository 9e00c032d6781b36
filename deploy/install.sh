#!/bin/bash
# Installs edged as a service on Raspberry Pi OS or Debian (bookworm or trixie, 64-bit).
# Running it again upgrades: settings, models and undelivered messages stay. If the new version
# does not start, the previous version is restored.
#
#   sudo ./install.sh                    from this checkout, or from the wheel in this folder
#   sudo ./install.sh --from FILE.whl    from this wheel
#   sudo ./install.sh --wheels DIR       takes all Python packages from DIR, none from the network
#   sudo ./install.sh --models DIR       takes the models from DIR (wheels or model files)
#   sudo ./install.sh --no-start         enables the service, but does not start it now
#   sudo ./install.sh check              only checks that edged can be installed here
#   sudo ./install.sh uninstall          removes edged, keeps settings and data
#   sudo ./install.sh purge              removes edged with settings and data
#
# Layout: /opt/edged/releases/VERSION (one virtual environment each), /opt/edged/current and
# /opt/edged/bin (links to the active release), /etc/edged (settings), /var/lib/edged (models,
# state, undelivered messages).
#
# The service user owns /var/lib/edged and may replace anything in it with a symbolic link.
# Whatever this script does below that folder it does as that user (as_service), never as root.
set -euo pipefail

APP=/opt/edged
ETC=/etc/edged
DATA=/var/lib/edged
UNITS=/etc/systemd/system
COMMAND=/usr/local/bin/edged
NEED_MB=440    # MemTotal of a 512 MB board, less the memory of its graphics
NEED_DISK_MB=900
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SELF=$HERE/${BASH_SOURCE[0]##*/}
SYSROOT=${SYSROOT:-} # tests of the checks read $SYSROOT/proc

verb=install from="" wheels="" models="" start=yes

message() { printf 'edged: %s\n' "$*" >&2; }
die() { message "$*"; exit 1; }
usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "$SELF" >&2; exit 2; }

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        install|uninstall|purge|check) verb=$1 ;;
        --from) from=$(realpath -e "${2:?--from needs a wheel}"); shift ;;
        --wheels) wheels=$(realpath -e "${2:?--wheels needs a folder}"); shift ;;
        --models) models=$(realpath -e "${2:?--models needs a folder}"); shift ;;
        --no-start) start=no ;;
        *) usage ;;
        esac
        shift
    done
}

# ---- Checks. The first that fails prints one message; nothing has been changed by then.

check_root() { [ "$(id -u)" -eq 0 ] || die "this must run as root: sudo $SELF $verb"; }

check_machine() {
    local bits total glibc free
    check_root
    bits=$(getconf LONG_BIT)
    [ "$bits" = 64 ] || die "this system is $bits-bit, edged needs a 64-bit one (Raspberry Pi OS 64-bit)"
    case $(uname -m) in
    aarch64|arm64|x86_64) ;;
    *) die "edged runs on 64-bit ARM and x86-64 processors, not on $(uname -m)" ;;
    esac
    total=$(awk '/^MemTotal:/ {print int($2 / 1024)}' "$SYSROOT/proc/meminfo")
    [ "$total" -ge $NEED_MB ] || die "this machine has $total MB of memory, edged needs a board with at least 512 MB"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}' || true) # musl does not know this name
    at_least "${glibc:-0}" 2.28 || die "the C library is glibc ${glibc:-unknown}, edged needs 2.28 or newer (Debian 10)"
    command -v systemctl >/dev/null || die "there is no systemd here, and the service needs it"
    command -v apt-get >/dev/null || die "there is no apt here: this installer is for Debian and Raspberry Pi OS"
    case $(dpkg-query -Wf '${db:Status-Status}' edged 2>/dev/null || true) in
    '' | not-installed | config-files) ;; # never installed, or removed
    *) die "edged is installed from its .deb: upgrade it with apt, or remove it first" ;;
    esac
    ! command -v python3 >/dev/null || check_python
    free=$(df -Pm /opt | awk 'NR == 2 {print $4}')
    [ "$free" -ge $NEED_DISK_MB ] || die "only $free MB are free below /opt, edged needs $NEED_DISK_MB MB during installation"
    [ -n "$wheels" ] || has_network || die "there is no network (no default route), and packages must be downloaded: connect it, or use --wheels and --models"
    check_wheel
}

check_python() {
    python3 -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        die "the Python here is $(python3 -I -V | cut -d' ' -f2), edged needs 3.11 to 3.13 (bookworm, trixie)"
}

# edged itself is never taken from a package index: whoever registered the name there would be root here.
check_wheel() {
    [ -n "$from" ] || from=$(find "${wheels:-$HERE}" -maxdepth 1 -name 'edged-*.whl' | sort -V | tail -1)
    [ -n "$from" ] || [ -e "$HERE/../pyproject.toml" ] ||
        die "there is no edged-*.whl in ${wheels:-$HERE}: put one there, or name it with --from"
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$2" ]; }

has_network() { # a default route, IPv4 or IPv6, or a proxy
    [ -n "${https_proxy:-}${HTTPS_PROXY:-}" ] && return 0
    awk '$2 == "00000000" && $8 == "00000000" {found = 1} END {exit !found}' "$SYSROOT/proc/net/route" 2>/dev/null && return 0
    awk '$1 == "00000000000000000000000000000000" && $2 == "00" && $10 != "lo" {found = 1} END {exit !found}' \
        "$SYSROOT/proc/net/ipv6_route" 2>/dev/null
}

# ---- Packages, user and folders

install_system_packages() {
    local wanted="python3 python3-venv alsa-utils" missing="" package
    # Two Python packages are compiled, unless --wheels has them.
    if [ -z "$wheels" ] || ! ls "$wheels"/pyalsaaudio-*.whl "$wheels"/systemd_python-*.whl >/dev/null 2>&1; then
        wanted="$wanted python3-dev gcc libc6-dev pkg-config libasound2-dev libsystemd-dev"
    fi
    for package in $wanted; do
        [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        message "installing from Debian:$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update || die "apt-get update failed: check the network and the clock"
        # shellcheck disable=SC2086 # a list of words
        apt-get -qq install --no-install-recommends -y $missing >/dev/null || die "these Debian packages could not be installed:$missing"
    fi
    check_python # it may have been installed just now
}

create_user_and_folders() {
    getent group audio >/dev/null || groupadd --system audio
    getent passwd edged >/dev/null || useradd --system --user-group --home-dir $DATA --no-create-home \
        --shell /usr/sbin/nologin --comment 'edged speech to text' edged
    usermod -aG audio edged
    install -d -m 755 $APP $APP/releases $ETC $ETC/edged.env.d
    install -d -m 700 $ETC/credentials
    install -d -m 750 -o edged -g edged $DATA
    as_service mkdir -p -m 755 $DATA/models
}

as_service() { # as_service COMMAND...: runs it with the rights of the service user
    setpriv --reuid edged --regid edged --init-groups env HOME=$DATA ORT_DISABLE_TELEMETRY=1 "$@"
}

# ---- The release: one virtual environment for each, so that the previous one stays whole

pip_options() { # the exact versions of this release, from its own wheel
    [ -z "$wheels" ] || echo "--no-index --find-links $wheels"
    [ ! -e "$work/constraints.txt" ] || echo "--constraint $work/constraints.txt"
}

find_wheel() { # sets `wheel`: the one named, or one built from the checkout
    if [ -n "$from" ]; then
        cp "$from" "$work/"
    else
        python3 -I -m venv "$work/pip"
        # shellcheck disable=SC2046
        "$work/pip/bin/python" -I -m pip -q wheel --disable-pip-version-check --no-deps $(pip_options) -w "$work" "$HERE/.." ||
            die "the wheel could not be built from $(realpath "$HERE/..")"
    fi
    wheel=$(ls "$work"/edged-*.whl)
    python3 -I -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    if "edged/deploy/constraints.txt" in wheel.namelist():
        open(sys.argv[2], "wb").write(wheel.read("edged/deploy/constraints.txt"))
' "$wheel" "$work/constraints.txt"
}

build_release() { # sets `release`: its folder
    local version digest
    version=$(basename "$wheel" | cut -d- -f2)
    digest=$(sha256sum "$wheel" | cut -c1-8)
    release=$APP/releases/$version-$digest-py$(python3 -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ ! -e "$release/.complete" ] || { message "edged $version is installed already"; return; }
    message "installing edged $version (this takes some minutes on a Pi)"
    rm -rf "$release"
    python3 -I -m venv "$release"
    # shellcheck disable=SC2046
    "$release/bin/python" -I -m pip -q install --disable-pip-version-check --no-cache-dir $(pip_options) "${wheel}[daemon,api]" || {
        rm -rf "$release"
        die "the Python packages could not be installed; nothing was changed"
    }
    "$release/bin/python" -I -m compileall -q "$release/lib" >/dev/null || true
    touch "$release/.complete"
}

fetch_models() {
    message "fetching, verifying and building the models that are missing"
    as_service "$release/bin/edged" models fetch --quiet --models-dir $DATA/models ${models:+--from "$models"} ||
        die "the models could not be fetched; edged $(basename "$(readlink $APP/current 2>/dev/null || echo 'is not installed')") was not changed"
}

# ---- Activating a release

install_files_of() { # install_files_of RELEASE: its unit, its command, its example of the settings
    local files
    files=$(echo "$1"/lib/python3.*/site-packages/edged/deploy)
    [ -e $ETC/edged.env ] || install -m 640 -g edged "$files/edged.env.example" $ETC/edged.env
    install -m 644 "$files/edged.env.example" $ETC/edged.env.example
    install -m 755 "$files/edged" $COMMAND
    install -m 644 "$files/edged.service" $UNITS/edged.service
    systemctl daemon-reload
}

activate() { # activate RELEASE: each link is replaced in one step
    ln -sfn "$1" $APP/.next && mv -T $APP/.next $APP/current
    [ -e $APP/bin ] || ln -sfn current/bin $APP/bin
    install_files_of "$1"
}

starts() { # succeeds if the service gets ready and is the same process five seconds later
    local before
    systemctl restart edged || return 1
    before=$(systemctl show -P MainPID edged)
    for _ in 1 2 3 4 5; do
        sleep 1
        [ "$(systemctl is-active edged)" = active ] || return 1
    done
    [ "$(systemctl show -P MainPID edged)" = "$before" ]
}

start_or_roll_back() {
    local previous
    previous=$(readlink $APP/current 2>/dev/null || true)
    if [ "$previous" = "$release" ] && systemctl -q is-active edged; then
        message "the same version is running already"
        return
    fi
    activate "$release"
    systemctl -q enable edged
    [ "$start" = yes ] || { message "edged starts at the next boot"; return; }
    if starts; then
        remove_old_releases "$previous"
        return
    fi
    journalctl -u edged -n 12 -o cat --no-pager >&2 || true
    if [ -z "$previous" ] || [ "$previous" = "$release" ]; then
        die "edged was installed but does not start: see journalctl -u edged"
    fi
    roll_back "$previous"
}

roll_back() { # roll_back RELEASE: ends the script in any case
    activate "$1"
    as_service "$1/bin/edged" models fetch --quiet --models-dir $DATA/models || true
    starts || die "the new version did not start, and neither did the previous one: see journalctl -u edged"
    rm -rf "$release"
    die "the new version did not start and was rolled back; $(basename "$1") is running again"
}

remove_old_releases() { # keeps the active release and the one named, the previous
    local old
    for old in "$APP"/releases/*; do
        [ "$old" = "$release" ] || [ "$old" = "${1:-}" ] || rm -rf "$old"
    done
}

do_install() {
    check_machine
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    install_system_packages
    find_wheel
    create_user_and_folders
    build_release
    fetch_models
    start_or_roll_back
    [ "$start" = no ] || $COMMAND doctor || message "doctor found the problems above; edged is running nevertheless"
    message "settings: $ETC/edged.env (edit with sudoedit; a change is applied within 3 s)   log: journalctl -u edged"
}

do_uninstall() {
    check_root
    systemctl -q disable --now edged 2>/dev/null || true
    rm -f $UNITS/edged.service $COMMAND $ETC/edged.env.example
    rm -rf $APP
    systemctl daemon-reload 2>/dev/null || true
    if [ "$verb" = uninstall ]; then
        message "edged was removed; settings ($ETC) and data ($DATA) are still there: $SELF purge removes them too"
        return
    fi
    rm -rf $ETC $DATA $UNITS/edged.service.d
    ! getent passwd edged >/dev/null || userdel edged
    ! getent group edged >/dev/null || groupdel edged
    message "edged was removed, with settings and data"
}

main() {
    parse_arguments "$@"
    cd / # what root runs must not depend on the folder of the caller (Python would import from it)
    unset PYTHONPATH PYTHONHOME
    case "$verb" in
    check) check_machine; message "edged can be installed on this machine" ;;
    install) do_install ;;
    uninstall|purge) do_uninstall ;;
    esac
}

[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"
