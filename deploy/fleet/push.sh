#!/bin/bash
# Pushes one settings file to many boxes and waits until each has said what it made of it.
#
#   push.sh FILE.env BOX...            BOX: [USER@]HOST[:DEVICE]; DEVICE is EDGED_DEVICE there,
#                                      by default the host's name up to the first dot
#   push.sh FILE.env -- <boxes.txt     the same, one a line; # begins a note
#
# FILE.env goes to /etc/edged/edged.env.d/ on each, under its own name. A box takes it by itself,
# or refuses it as a whole and goes on with what it had; either way it says so on the topic
# `state/config`, which is compared with the hash of what was sent. Exit code: 0 all took it,
# 1 some did not.
#
#   BROKER     options of mosquitto_sub, as in: BROKER='-h hub.local -p 8883 --cafile ca.crt -u fleet -P ...'
#              Without it the answers are asked for over SSH (`edged config check`): no broker needed.
#   TIMEOUT    seconds to wait for a box (30)
#   ROLLBACK=1 takes the file away again from boxes that refused it (edged config rollback)
#   SSH        the remote shell (ssh -o BatchMode=yes -o ConnectTimeout=10)
#   SUDO       before commands on the box (sudo -n; empty for root)
#   FOLDER     on the box (/etc/edged/edged.env.d)
#   BASE       EDGED_MQTT_BASE (edged)
set -euo pipefail
export SSH=${SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}
SUDO=${SUDO-sudo -n}
FOLDER=${FOLDER:-/etc/edged/edged.env.d}
BASE=${BASE:-edged}
TIMEOUT=${TIMEOUT:-30}
BROKER=${BROKER:-}

die() { echo "push: $*" >&2; exit 2; }
[ $# -ge 2 ] || { sed -n '2,23s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1
shift
[ -r "$file" ] || die "$file cannot be read"
name=$(basename "$file")
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*\.env$ ]] || die "the name '$name' must end in .env, or no box reads it"
if [ "$1" = -- ]; then mapfile -t boxes < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d'); else boxes=("$@"); fi
sum=$(sha256sum "$file" | cut -d' ' -f1)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

device_of() { # the part after the colon, else the host's short name
    local box=${1##*@}
    [[ $box == *:* ]] && echo "${box##*:}" || echo "${box%%.*}"
}

answers() { # every state/config of every box, as it comes
    # shellcheck disable=SC2086 # words
    mosquitto_sub $BROKER -q 1 -v -t "$BASE/+/state/config" >"$work/heard" 2>"$work/trouble" &
    sleep 1
    kill -0 $! 2>/dev/null || die "the broker refuses: $(cat "$work/trouble")"
}

send() { # rsync renames a finished copy: the box never sees half a file
    local host=${1%:*}
    # shellcheck disable=SC2086
    rsync --checksum --chmod=F640 ${SUDO:+--chown=root:edged} --rsync-path="${SUDO:+$SUDO }rsync" \
        -e "$SSH" "$file" "$host:$FOLDER/$name" 2>"$work/rsync.$2"
}

verdict_mqtt() { # the last answer of this device that names this very file
    local line
    line=$(grep -F "$BASE/$1/state/config " "$work/heard" 2>/dev/null | grep -F "$sum" | tail -1 || true)
    [ -n "$line" ] || return 1
    python3 - "$line" <<'PY'
import json, sys
said = json.loads(sys.argv[1].partition(" ")[2])
print("took it" if said["ok"] else "REFUSED: " + "; ".join(said["problems"]))
PY
}

verdict_ssh() { # without a broker: what the box's own edged says of its files
    local said
    # shellcheck disable=SC2086
    said=$($SSH "${1%:*}" $SUDO edged config check "${FOLDER%.d}" 2>&1) && echo "took it" && return
    echo "REFUSED: $(echo "$said" | head -3 | paste -sd' ')"
}

one_box() { # prints one line; fails if the file is not in force there
    local box=$1 device said=""
    device=$(device_of "$box")
    if ! send "$box" "$device"; then
        echo "$device: NOT REACHED: $(tail -1 "$work/rsync.$device")"
        return 1
    fi
    for _ in $(seq "$TIMEOUT"); do
        if [ -z "$BROKER" ]; then said=$(verdict_ssh "$box"); else said=$(verdict_mqtt "$device" || true); fi
        [ -z "$said" ] || break
        sleep 1
    done
    echo "$device: ${said:-NO ANSWER within $TIMEOUT s}"
    [ "$said" = "took it" ] && return
    if [ "${ROLLBACK:-}" = 1 ] && [[ $said == REFUSED* ]]; then
        # shellcheck disable=SC2086
        $SSH "${box%:*}" $SUDO edged config rollback --env-file "${FOLDER%.d}" >/dev/null && echo "$device: rolled back"
    fi
    return 1
}

[ -z "$BROKER" ] || answers
for box in "${boxes[@]}"; do
    # Twenty at a time: the slowest decides how long it takes, not the sum.
    while [ "$(jobs -rp | wc -l)" -ge 20 ]; do sleep 0.1; done
    { one_box "$box" || echo "$box" >>"$work/failed"; } &
    pids+=($!)
done
wait "${pids[@]}"
failed=$(wc -l 2>/dev/null <"$work/failed" || echo 0)
echo "$((${#boxes[@]} - failed)) of ${#boxes[@]} boxes took $name (sha256 ${sum:0:12})"
[ "$failed" -eq 0 ]
