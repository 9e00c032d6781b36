#!/bin/bash
# A user of the broker with a password that nobody has to think of. For a box: its EDGED_DEVICE.
#
#   add-user.sh NAME      prints the lines for the box's env file; a user that exists gets a new one
#
# PASSWD names the password file (default /etc/mosquitto/edged.passwd).
set -euo pipefail
PASSWD=${PASSWD:-/etc/mosquitto/edged.passwd}
name=${1:?which user? add-user.sh NAME}
[[ $name =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    { echo "add-user: a name is 1 to 63 of a-z, 0-9 and - (not at an end), not '$name'" >&2; exit 1; }

umask 077
work=$(mktemp "$PASSWD.XXXXXX")
trap 'rm -f "$work"' EXIT
password=$(openssl rand -base64 24 | tr '+/' '-_')
# Hashed from a file: arguments can be read by everybody on this machine.
printf '%s:%s\n' "$name" "$password" >"$work"
mosquitto_passwd -U "$work"
{ [ ! -e "$PASSWD" ] || grep -v "^$name:" "$PASSWD" || true; } >>"$work"
if getent group mosquitto >/dev/null && [ "$(id -u)" -eq 0 ]; then chgrp mosquitto "$work"; chmod 640 "$work"; fi
mv "$work" "$PASSWD"
trap - EXIT
if systemctl -q is-active mosquitto 2>/dev/null; then systemctl reload mosquitto; fi
printf 'EDGED_MQTT_USERNAME=%s\nEDGED_MQTT_PASSWORD=%s\n' "$name" "$password"
