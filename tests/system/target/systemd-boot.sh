#!/bin/bash
# Boots a Debian (systemd as pid 1, in systemd-nspawn) for tests of the installer and the unit.
#
#   systemd-boot.sh make  DIR SUITE [PKG,PKG]   minimal Debian of this machine's architecture, once
#   systemd-boot.sh start DIR [NSPAWN ARGS...]  boot it and wait until it is running
#   systemd-boot.sh exec  DIR CMD [ARGS...]     run CMD inside
#   systemd-boot.sh stop  DIR                   shut it down
#
# Needs root. Inside there is only a loopback network: nothing outside can be reached.
# MIRROR names a Debian mirror (default: the one that apt of this machine uses).
set -euo pipefail
verb=${1:?make, start, exec or stop}
dir=$(realpath -m "${2:?folder}")
shift 2
pid_file=$dir.pid

first_process() { # the pid of the container's first process on this machine
    local nspawn
    nspawn=$(cat "$pid_file" 2>/dev/null) || return 1
    tr ' ' '\n' <"/proc/$nspawn/task/$nspawn/children" 2>/dev/null | grep -m1 .
}

inside() {
    local pid
    pid=$(first_process) || { echo "not booted: $dir" >&2; return 1; }
    nsenter -t "$pid" -m -u -i -n -p -C -r -w -- env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        LANG=C.UTF-8 HOME=/root SYSTEMD_PAGER= SYSTEMD_COLORS=0 "$@"
}

up() { inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; }

case $verb in
make)
    [ -e "$dir/.made" ] && exit 0
    suite=${1:?suite}
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)}
    packages="systemd,systemd-sysv,dbus,udev,procps,python3${2:+,$2}"
    mkdir -p "$dir"
    mmdebstrap --variant=minbase --include="$packages" "$suite" - "$mirror" | tar -x -C "$dir"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$dir/etc/hosts"
    rm -f "$dir/etc/systemd/system/multi-user.target.wants/mosquitto.service" # tests start it
    touch "$dir/.made" ;;
start)
    first_process >/dev/null 2>&1 && exit 0
    # Only cgroup v2 inside, even if this machine uses both: systemd 256 refuses v1.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn -q --register=no --keep-unit -b -D "$dir" \
        -M "edged-$$" --private-network --console=pipe --kill-signal=SIGRTMIN+3 "$@" \
        </dev/null >"$dir.log" 2>&1 &
    echo $! >"$pid_file"
    for _ in $(seq 150); do
        up && exit 0
        sleep 0.2
    done
    echo "the system did not start: see $dir.log" >&2
    exit 1 ;;
exec) inside "$@" ;;
stop)
    pid=$(first_process) || { rm -f "$pid_file"; exit 0; }
    kill -s RTMIN+4 "$pid"
    for _ in $(seq 50); do
        first_process >/dev/null 2>&1 || break
        sleep 0.2
    done
    first_process >/dev/null 2>&1 && kill -KILL "$(cat "$pid_file")"
    rm -f "$pid_file" ;;
*) sed -n '2,11p' "$0"; exit 2 ;;
esac
