#!/bin/bash
# Adds a user of the broker, with a random password and with rules of its own.
#
#   add-user.sh DEVICE           a device; DEVICE is its EDGED_DEVICE. Prints the lines for its env file
#   add-user.sh --kiosk DEVICE   a captions page of that device: it may look, and mute
#   add-user.sh homeassistant    Home Assistant; edged.acl holds its rules
#   add-user.sh fleet            deploy/fleet/push.sh; edged.acl holds its rules
#   add-user.sh --rules DEVICE   only the rules: for a device that has its password already
#
# A user that exists gets a new password.
#
#   PASSWD   the password file (/etc/mosquitto/edged.passwd)
#   ACL      the file with the rules (/etc/mosquitto/edged.acl)
#   BASE     EDGED_MQTT_BASE (edged)
#   PREFIX   EDGED_HOMEASSISTANT_PREFIX (homeassistant)
set -euo pipefail
PASSWD=${PASSWD:-/etc/mosquitto/edged.passwd}
ACL=${ACL:-/etc/mosquitto/edged.acl}
BASE=${BASE:-edged}
PREFIX=${PREFIX:-homeassistant}

die() { echo "add-user: $*" >&2; exit 1; }
usage() { sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }

kind=device
case ${1:-} in
--kiosk) kind=kiosk; shift ;;
--rules) kind=rules; shift ;;
-*) usage ;;
esac
[ $# -eq 1 ] || usage
device=$1
[[ $device =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    die "a name has 1 to 63 of a-z, 0-9 and - (not at an end), not '$device'"
name=$device
[ "$kind" != kiosk ] || name=kiosk-$device

rules() { # the block of this user
    echo
    echo "user $name"
    if [ "$kind" = kiosk ]; then
        echo "topic read $BASE/$device/+"
        echo "topic read $BASE/$device/state/+"
        echo "topic write $BASE/$device/cmd/mute"
    else
        echo "topic readwrite $BASE/$device/#"
        echo "topic readwrite $PREFIX/device/$device/config"
        echo "topic read $PREFIX/status"
    fi
}

replace() { # replace FILE: with standard input, in one step, readable by the broker
    copy=$(mktemp "$1.XXXXXX")
    cat >"$copy"
    if getent group mosquitto >/dev/null && [ "$(id -u)" -eq 0 ]; then chgrp mosquitto "$copy"; chmod 640 "$copy"; fi
    mv "$copy" "$1"
}

umask 077
copy="" work=""
trap 'rm -rf "$copy" "$work"' EXIT
[ -e "$ACL" ] || die "$ACL is missing: copy edged.acl there first"
if ! grep -qx "user $name" "$ACL"; then
    [[ $kind != device || ($name != homeassistant && $name != fleet) ]] ||
        die "$ACL holds no rules for $name: copy edged.acl there first"
    { cat "$ACL"; rules; } | replace "$ACL"
fi
if [ "$kind" != rules ]; then
    password=$(openssl rand -base64 24 | tr '+/' '-_')
    work=$(mktemp -d)
    # Hashed from a file: everybody on this machine can read arguments.
    printf '%s:%s\n' "$name" "$password" >"$work/new"
    mosquitto_passwd -U "$work/new"
    { cat "$work/new"; [ ! -e "$PASSWD" ] || grep -v "^$name:" "$PASSWD" || true; } | replace "$PASSWD"
fi
if systemctl -q is-active mosquitto 2>/dev/null; then systemctl reload mosquitto; fi
[ "$kind" = rules ] || printf 'EDGED_MQTT_USERNAME=%s\nEDGED_MQTT_PASSWORD=%s\n' "$name" "$password"
