#!/bin/bash
# Installs edged as a service on Raspberry Pi OS or Debian (bookworm, trixie; 64-bit).
# The same command upgrades: settings, models and undelivered messages stay, and the version
# before comes back if the new one does not come up.
#
#   sudo ./install.sh                    from the checkout or the wheel beside it
#   sudo ./install.sh --from FILE.whl    this wheel
#   sudo ./install.sh --wheels DIR       every package from this folder, none from the network
#   sudo ./install.sh --models DIR       models from this folder (wheels or files), likewise
#   sudo ./install.sh --no-start         enabled, but started at the next boot
#   sudo ./install.sh uninstall          all but settings and data
#   sudo ./install.sh purge              those too
#
# Layout: /opt/edged/releases/VERSION (a virtual environment each), /opt/edged/current and
# /opt/edged/bin (links into the one in force), /etc/edged (settings), /var/lib/edged (models,
# state, undelivered messages). SYSROOT=DIR (for tests of the checks alone) is where /proc is read.
set -euo pipefail

APP=/opt/edged
ETC=/etc/edged
DATA=/var/lib/edged
UNITS=/etc/systemd/system
NEED_MB=440    # MemTotal of a 512 MB board without what its graphics keep
NEED_DISK_MB=900
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SYSROOT=${SYSROOT:-}

verb=install from="" wheels="" models="" start=yes

say() { printf 'edged: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

arguments() {
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

# ---- one sentence each, before anything is touched

check_machine() {
    local bits total glibc free
    [ "$(id -u)" -eq 0 ] || die "this must run as root: sudo $0"
    bits=$(getconf LONG_BIT)
    [ "$bits" = 64 ] || die "this system is $bits-bit, edged needs a 64-bit one (Raspberry Pi OS 64-bit)"
    case $(uname -m) in
    aarch64|arm64|x86_64) ;;
    *) die "edged runs on 64-bit ARM and x86-64 processors, not on $(uname -m)" ;;
    esac
    total=$(awk '/^MemTotal:/ {print int($2 / 1024)}' "$SYSROOT/proc/meminfo")
    [ "$total" -ge $NEED_MB ] || die "this machine has $total MB of memory, edged needs a 512 MB board at least"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}' || true) # musl knows no such name
    at_least "${glibc:-0}" 2.28 || die "the C library here is glibc ${glibc:-unknown}, edged needs 2.28 or newer (Debian 10)"
    command -v systemctl >/dev/null || die "there is no systemd here, which the service needs"
    command -v apt-get >/dev/null || die "there is no apt here: this installer is for Debian and Raspberry Pi OS"
    case $(dpkg-query -Wf '${db:Status-Status}' edged 2>/dev/null || true) in
    '' | not-installed | config-files) ;; # never there, or removed
    *) die "edged is installed from its .deb: upgrade that with apt, or remove it first" ;;
    esac
    ! command -v python3 >/dev/null || check_python
    free=$(df -Pm /opt | awk 'NR == 2 {print $4}')
    [ "$free" -ge $NEED_DISK_MB ] || die "only $free MB are free below /opt, edged needs $NEED_DISK_MB MB while it installs"
    [ -n "$wheels" ] || has_network || die "there is no network (no default route), and packages must be fetched: connect it, or use --wheels and --models"
    check_wheel
}

check_python() {
    python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        die "Python here is $(python3 -V | cut -d' ' -f2), edged needs 3.11 to 3.13 (bookworm, trixie)"
}

# What is installed never comes from a package index: whoever took the name there would be root here.
check_wheel() {
    [ -n "$from" ] || from=$(find "${wheels:-$HERE}" -maxdepth 1 -name 'edged-*.whl' | sort -V | tail -1)
    [ -n "$from" ] || [ -e "$HERE/../pyproject.toml" ] ||
        die "there is no edged-*.whl in ${wheels:-$HERE}: put one there, or name it with --from"
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$2" ]; }

has_network() { # a default route of either kind, or a proxy
    [ -n "${https_proxy:-}${HTTPS_PROXY:-}" ] && return 0
    awk '$2 == "00000000" && $8 == "00000000" {found = 1} END {exit !found}' "$SYSROOT/proc/net/route" 2>/dev/null && return 0
    awk '$1 == "00000000000000000000000000000000" && $2 == "00" && $10 != "lo" {found = 1} END {exit !found}' \
        "$SYSROOT/proc/net/ipv6_route" 2>/dev/null
}

# ---- what it stands on

system_packages() {
    local wanted="python3 python3-venv alsa-utils" missing="" package
    # Two Python packages compile, unless they come as wheels.
    if [ -z "$wheels" ] || ! ls "$wheels"/pyalsaaudio-*.whl "$wheels"/systemd_python-*.whl >/dev/null 2>&1; then
        wanted="$wanted python3-dev gcc libc6-dev pkg-config libasound2-dev libsystemd-dev"
    fi
    for package in $wanted; do
        [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        say "installing from Debian:$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update || die "apt-get update failed: is the network up, and the clock right?"
        # shellcheck disable=SC2086 # a list of words
        apt-get -qq install --no-install-recommends -y $missing >/dev/null || die "Debian's packages could not be installed:$missing"
    fi
    check_python # it was not there before, perhaps
}

account() {
    getent group audio >/dev/null || groupadd --system audio
    getent passwd edged >/dev/null || useradd --system --user-group --home-dir $DATA --no-create-home \
        --shell /usr/sbin/nologin --comment 'edged speech to text' edged
    usermod -aG audio edged
    install -d -m 755 $APP $APP/releases $ETC $ETC/edged.env.d
    install -d -m 700 $ETC/credentials
    install -d -m 750 -o edged -g edged $DATA
    install -d -m 755 -o edged -g edged $DATA/models
}

pip_options() { [ -z "$wheels" ] || echo "--no-index --find-links $wheels"; }

# The wheel to install, in $work: that one, or made from the checkout.
find_wheel() {
    if [ -n "$from" ]; then
        cp "$from" "$work/"
    else
        python3 -m venv "$work/pip"
        # shellcheck disable=SC2046
        "$work/pip/bin/pip" -q wheel --disable-pip-version-check --no-deps $(pip_options) -w "$work" "$HERE/.." ||
            die "the wheel could not be built from $(realpath "$HERE/..")"
    fi
    wheel=$(ls "$work"/edged-*.whl)
}

# A virtual environment of its own for each release, so that the one before is still whole.
build_release() {
    local version digest
    version=$(basename "$wheel" | cut -d- -f2)
    digest=$(sha256sum "$wheel" | cut -c1-8)
    release=$APP/releases/$version-$digest-py$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ ! -e "$release/.complete" ] || { say "$version is here already"; return; }
    say "installing edged $version (some minutes on a Pi)"
    rm -rf "$release"
    python3 -m venv "$release"
    # shellcheck disable=SC2046
    "$release/bin/pip" -q install --disable-pip-version-check --no-cache-dir $(pip_options) "${wheel}[daemon,api]" || {
        rm -rf "$release"
        die "the Python packages could not be installed; nothing was changed"
    }
    "$release/bin/python" -m compileall -q "$release/lib" >/dev/null || true
    touch "$release/.complete"
}

fetch_models() {
    say "models: fetching, verifying and building what is missing"
    as_edged "$release/bin/edged" models fetch --quiet --models-dir $DATA/models ${models:+--from "$models"} ||
        die "the models could not be had; edged $(basename "$(readlink $APP/current 2>/dev/null || echo 'is not installed')") goes on as it was"
}

as_edged() { setpriv --reuid edged --regid edged --init-groups env HOME=$DATA ORT_DISABLE_TELEMETRY=1 "$@"; }

# ---- what systemd and people see

files_of_release() { "$release/bin/python" -c 'from edged.resources import deploy_files; print(deploy_files())'; }

settings() {
    local source
    source=$(files_of_release)
    if [ ! -e $ETC/edged.env ]; then
        install -m 640 -g edged "$source/edged.env.example" $ETC/edged.env
    fi
    install -m 644 "$source/edged.env.example" $ETC/edged.env.example
    install -m 755 "$source/edged" /usr/local/bin/edged
    install -m 644 "$source/edged.service" $UNITS/edged.service
    systemctl daemon-reload
}

switch_to() { # the links, replaced in one go
    ln -sfn "$1" $APP/.next && mv -T $APP/.next $APP/current
    [ -e $APP/bin ] || ln -sfn current/bin $APP/bin
}

comes_up() { # ready, and still the same process some seconds later
    local before
    systemctl restart edged || return 1
    before=$(systemctl show -P MainPID edged)
    for _ in 1 2 3 4 5; do
        sleep 1
        [ "$(systemctl is-active edged)" = active ] || return 1
    done
    [ "$(systemctl show -P MainPID edged)" = "$before" ]
}

start_or_go_back() {
    local before
    before=$(readlink $APP/current 2>/dev/null || true)
    if [ "$before" = "$release" ] && systemctl -q is-active edged; then
        say "the same version runs already"
        return
    fi
    switch_to "$release"
    settings
    systemctl -q enable edged
    [ "$start" = yes ] || { say "it starts at the next boot"; return; }
    if comes_up; then
        tidy "$before"
        return
    fi
    journalctl -u edged -n 12 -o cat --no-pager >&2 || true
    if [ -z "$before" ] || [ "$before" = "$release" ]; then
        die "edged was installed but does not come up: journalctl -u edged says why"
    fi
    switch_to "$before"
    rejected=$release release=$before
    settings
    as_edged "$release/bin/edged" models fetch --quiet --models-dir $DATA/models || true
    comes_up || die "the new version did not come up, and neither does the one before: journalctl -u edged"
    rm -rf "$rejected"
    die "the new version did not come up and was taken back; $(basename "$before") runs again"
}

tidy() { # keeps the release in force and the one before
    local old
    for old in "$APP"/releases/*; do
        [ "$old" = "$release" ] || [ "$old" = "${1:-}" ] || rm -rf "$old"
    done
}

do_install() {
    check_machine
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    system_packages
    find_wheel
    account
    build_release
    fetch_models
    start_or_go_back
    [ "$start" = no ] || /usr/local/bin/edged doctor || say "the findings above want mending; edged runs meanwhile"
    say "settings: $ETC/edged.env (sudoedit; a change is taken within 3 s)   log: journalctl -u edged"
}

do_uninstall() {
    [ "$(id -u)" -eq 0 ] || die "this must run as root: sudo $0 $verb"
    systemctl -q disable --now edged 2>/dev/null || true
    rm -f $UNITS/edged.service /usr/local/bin/edged $ETC/edged.env.example
    rm -rf $APP
    systemctl daemon-reload 2>/dev/null || true
    if [ "$verb" = uninstall ]; then
        say "removed; settings ($ETC) and data ($DATA) are still there: $0 purge removes them too"
        return
    fi
    rm -rf $ETC $DATA $UNITS/edged.service.d
    ! getent passwd edged >/dev/null || userdel edged
    ! getent group edged >/dev/null || groupdel edged
    say "removed, with settings and data"
}

arguments "$@"
case "$verb" in
check) check_machine; say "this machine is fit for edged" ;;
install) do_install ;;
uninstall|purge) do_uninstall ;;
esac
