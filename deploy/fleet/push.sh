#!/bin/bash
# Pushes one settings file to many devices and waits until each has answered.
#
#   push.sh FILE.env HOST...           HOST: [USER@]NAME[:DEVICE]; DEVICE is EDGED_DEVICE there,
#                                      by default the host's name up to the first dot
#   push.sh FILE.env -- <hosts.txt     the same, one a line; # begins a comment
#
# FILE.env is copied to /etc/edged/edged.env.d/ on each, under its own name. A device applies it as
# a whole, or refuses it as a whole and keeps its settings. Its answer on the topic `state/config`
# is compared with the hash of the file. Exit code: 0 if all devices took it, 1 if some did not.
#
#   BROKER     options of mosquitto_sub, as in: BROKER='-h hub.local -p 8883 --cafile ca.crt -u fleet -P ...'
#              Without it the devices are asked over SSH (`edged config check`), and no broker is needed.
#   TIMEOUT    seconds to wait for a device (30)
#   ROLLBACK=1 removes the file from devices that refused it (edged config rollback)
#   SSH        the remote shell (ssh -o BatchMode=yes -o ConnectTimeout=10)
#   SUDO       before commands on the device (sudo -n; empty for root)
#   FOLDER     on the device (/etc/edged/edged.env.d)
#   BASE       EDGED_MQTT_BASE (edged)
set -euo pipefail
export SSH=${SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}
SUDO=${SUDO-sudo -n}
FOLDER=${FOLDER:-/etc/edged/edged.env.d}
BASE=${BASE:-edged}
TIMEOUT=${TIMEOUT:-30}
BROKER=${BROKER:-}

die() { echo "push: $*" >&2; exit 2; }
[ $# -ge 2 ] || { sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$1
shift
[ -r "$file" ] || die "$file cannot be read"
name=$(basename "$file")
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*\.env$ ]] || die "the name '$name' must end in .env, or no device reads it"
if [ "$1" = -- ]; then mapfile -t hosts < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d'); else hosts=("$@"); fi
sum=$(sha256sum "$file" | cut -d' ' -f1)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

device_of() { # the part after the colon, else the host's short name
    local host=${1##*@}
    [[ $host == *:* ]] && echo "${host##*:}" || echo "${host%%.*}"
}

answers() { # records state/config of every device, one message a line with its topic apart
    # shellcheck disable=SC2086 # words
    mosquitto_sub $BROKER -q 1 -F '%j' -t "$BASE/+/state/config" >"$work/heard" 2>"$work/trouble" &
    sleep 1
    kill -0 $! 2>/dev/null || die "the broker refuses: $(cat "$work/trouble")"
}

send() { # rsync renames the complete copy: a device never reads half a file
    local host=${1%:*}
    # shellcheck disable=SC2086
    rsync --checksum --chmod=F640 ${SUDO:+--chown=root:edged} --rsync-path="${SUDO:+$SUDO }rsync" \
        -e "$SSH" "$file" "$host:$FOLDER/$name" 2>"$work/rsync.$2"
}

verdict_mqtt() { # the last answer of this device, on its own topic, about this very file
    python3 - "$BASE/$1/state/config" "$name" "$sum" "$work/heard" <<'PY'
import json, pathlib, sys

topic, name, checksum, heard = sys.argv[1:]
verdict = ""
for line in pathlib.Path(heard).read_bytes().splitlines():
    try:
        message = json.loads(line)
        said = json.loads(message["payload"])
        files = {pathlib.PurePath(file["path"]).name: file["sha256"] for file in said["files"]}
        if message["topic"] == topic and files.get(name) == checksum:
            problems = "; ".join(map(str, said.get("problems", [])))
            verdict = "took it" if said["ok"] is True else f"REFUSED: {problems}"
    except (ValueError, KeyError, TypeError, AttributeError):
        continue  # not an answer of edged's
print(verdict.encode(errors="replace").decode().replace("\n", " "))
PY
}

verdict_ssh() { # without a broker: what edged on the device says about its files
    local said
    # shellcheck disable=SC2086
    said=$($SSH "${1%:*}" $SUDO edged config check "${FOLDER%.d}" 2>&1) && echo "took it" && return
    echo "REFUSED: $(echo "$said" | head -3 | paste -sd' ')"
}

push_to() { # prints one line; fails if the file is not in use there
    local host=$1 device answer=""
    device=$(device_of "$host")
    if ! send "$host" "$device"; then
        echo "$device: NOT REACHED: $(tail -1 "$work/rsync.$device")"
        return 1
    fi
    for _ in $(seq "$TIMEOUT"); do
        if [ -z "$BROKER" ]; then answer=$(verdict_ssh "$host"); else answer=$(verdict_mqtt "$device" || true); fi
        [ -z "$answer" ] || break
        sleep 1
    done
    echo "$device: ${answer:-NO ANSWER within $TIMEOUT s}"
    [ "$answer" = "took it" ] && return
    if [ "${ROLLBACK:-}" = 1 ] && [[ $answer == REFUSED* ]]; then
        # shellcheck disable=SC2086
        $SSH "${host%:*}" $SUDO edged config rollback --env-file "${FOLDER%.d}" >/dev/null && echo "$device: rolled back"
    fi
    return 1
}

[ -z "$BROKER" ] || answers
for host in "${hosts[@]}"; do
    # Twenty at a time, so that it does not take the sum of all times.
    while [ "$(jobs -rp | wc -l)" -ge 20 ]; do sleep 0.1; done
    { push_to "$host" || echo "$host" >>"$work/failed"; } &
    pids+=($!)
done
wait "${pids[@]}"
failed=$(wc -l 2>/dev/null <"$work/failed" || echo 0)
echo "$((${#hosts[@]} - failed)) of ${#hosts[@]} devices took $name (sha256 ${sum:0:12})"
[ "$failed" -eq 0 ]
