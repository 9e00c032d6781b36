"""The code of every log line (the journal's field EDGED_CODE), in alphabetical order.

Codes are part of edged's interface: scripts and alerts search for them, so that a code keeps its
meaning and the text beside it may change. After a change here, run
`python -m edged.log_codes > deploy/log-codes.md`; `tests/unit/test_log_codes.py` compares this
table with the calls in the code and with that file.
"""

from __future__ import annotations

from typing import NamedTuple


class LogCode(NamedTuple):
    """What one code says.

    Attributes:
        level: `info`, `warning`, `error` or `critical`; several of them, separated by a blank,
            if it depends.
        meaning: one sentence.
        action: what the reader should do; empty if nothing.
    """

    level: str
    meaning: str
    action: str = ""


# fmt: off
CODES: dict[str, LogCode] = {
    "api-closed": LogCode("warning",
        "The API server cannot open its port; it tries again.",
        "Free the port or choose another one in EDGED_LISTEN."),
    "api-connections-refused": LogCode("warning",
        "Connections to the API server are refused: too many are open, or no descriptor is free.",
        "Find out which address opens so many; the message names one."),
    "api-failed": LogCode("error",
        "The API server failed for an unexpected reason; it starts again.",
        "Report the traceback."),
    "api-foreign": LogCode("warning",
        "A request for another host name, or from a page of another origin, was refused.",
        "If the page is yours, name its origin in EDGED_LISTEN_ORIGINS."),
    "api-job-failed": LogCode("error",
        "A stream of the API server failed in its worker thread.",
        "Report the traceback."),
    "api-loop-error": LogCode("error",
        "An error that nothing handles occurred in the API server; only the first one is logged.",
        "Report the traceback."),
    "api-not-announced": LogCode("warning",
        "The Wyoming server could not be announced in the local network; it serves all the same.",
        "Add it in Home Assistant by its address, or set EDGED_WYOMING_ZEROCONF=off."),
    "api-open": LogCode("info",
        "The API server accepts connections."),
    "api-request-failed": LogCode("error",
        "A request failed for an unexpected reason; the client got status 500.",
        "Report the traceback."),
    "api-stream-failed": LogCode("error",
        "A stream of the API server failed for an unexpected reason.",
        "Report the traceback."),
    "audio-dropped": LogCode("warning",
        "The recogniser was slower than the microphone; the oldest waiting audio was dropped.",
        "Choose a smaller model, or give the device less other work."),
    "embedded-broker": LogCode("info",
        "The broker inside edged listens (EDGED_MQTT_URL=embedded)."),
    "embedded-broker-failed": LogCode("error",
        "The broker inside edged failed for an unexpected reason.",
        "Report the traceback; install mosquitto."),
    "engine-failed": LogCode("error",
        "The recogniser failed and starts again after a pause.",
        "Report the traceback."),
    "engine-listener": LogCode("error",
        "Events of the recogniser could not be handed on.",
        "Report the traceback."),
    "engine-stuck": LogCode("error",
        "The recogniser did not finish in time when edged stopped; its last words may be missing."),
    "given-up": LogCode("critical",
        "A thread hangs and no systemd watchdog would end the process: edged exits with code 70.",
        "Let a restart policy start edged again; report which thread it was."),
    "heartbeat-back": LogCode("info",
        "Every thread sends heartbeats again."),
    "heartbeat-missing": LogCode("error",
        "A thread sends no heartbeats. Unless it recovers, edged is restarted.",
        "Report it if it happens again."),
    "history-unwritable": LogCode("warning",
        "The settings that were accepted cannot be kept for `edged config rollback`.",
        "See why the folder cannot be written: disk full, or its owner."),
    "job-failed": LogCode("error",
        "A task of the daemon's main thread failed for an unexpected reason.",
        "Report the traceback."),
    "journal-unusable": LogCode("warning",
        "The journal in memory cannot be used; a killed daemon may lose its last second.",
        "See why its folder cannot be written."),
    "libasound": LogCode("debug",
        "A message of the sound library libasound."),
    "load-level": LogCode("warning info",
        "The recogniser saves work because the device is too slow, or saves less again.",
        "If it happens often, stop other programs or choose a smaller model."),
    "microphone-failed": LogCode("error",
        "The capture thread failed for an unexpected reason; it tries again.",
        "Report the traceback."),
    "microphone-listener": LogCode("error",
        "The daemon could not take note of a change of the microphone.",
        "Report the traceback."),
    "microphone-lost": LogCode("warning info",
        "The microphone cannot be used; edged keeps trying. Warning once per episode.",
        "See what the message says; `edged devices` and `edged doctor` help."),
    "microphone-muted": LogCode("info",
        "The microphone is closed because it is muted."),
    "microphone-opening": LogCode("info",
        "edged opens the microphone."),
    "microphone-overrun": LogCode("warning",
        "The sound card overran and audio was lost; at most one line a minute.",
        "Give the device less other work; for a USB microphone, try another port."),
    "microphone-running": LogCode("info",
        "The microphone is being listened to."),
    "microphone-silent": LogCode("warning info",
        "The microphone gives nothing but zeros.",
        "Look for a mute switch on it, or a capture volume of zero (alsamixer)."),
    "models-failed": LogCode("error",
        "The models of a reload could not be loaded for an unexpected reason; the old ones stay.",
        "Report the traceback."),
    "mqtt-accepted": LogCode("info",
        "The broker accepts messages on a topic again that it had refused."),
    "mqtt-command-failed": LogCode("error",
        "A command failed for an unexpected reason; its sender was told.",
        "Report the traceback."),
    "mqtt-command-retained": LogCode("warning",
        "A retained command was ignored.",
        "Publish commands without retain; an empty retained message removes it."),
    "mqtt-exception": LogCode("error",
        "The MQTT thread met an unexpected exception and goes on.",
        "Report the traceback."),
    "mqtt-insecure": LogCode("warning",
        "EDGED_MQTT_INSECURE is on: the connection can be read and changed on its way.",
        "Give the broker's certificate in EDGED_MQTT_CA_FILE instead."),
    "mqtt-link-failed": LogCode("error",
        "The connection to the broker failed for an unexpected reason; edged connects again.",
        "Report the traceback."),
    "mqtt-listener-failed": LogCode("error",
        "The daemon could not take note of a change of the connection.",
        "Report the traceback."),
    "mqtt-lost": LogCode("warning",
        "Messages were lost; the message says how many and why.",
        "See why the broker was away so long, or give the spool more room (EDGED_SPOOL_MAX_MB)."),
    "mqtt-malformed": LogCode("error",
        "An event could not be written as JSON and was dropped.",
        "Report the traceback."),
    "mqtt-message-dropped": LogCode("error",
        "A message was dropped: too large, or the broker disconnects because of it.",
        "Raise the broker's max_packet_size and message_size_limit."),
    "mqtt-no-retain": LogCode("warning",
        "The broker keeps no retained messages; edged publishes its states without retain.",
        "Allow them (mosquitto: retain_available true)."),
    "mqtt-refused": LogCode("warning",
        "The broker refuses messages on a topic.",
        "Give the user of this device the right to write there."),
    "mqtt-status": LogCode("info warning",
        "The connection to the broker changed; the field EDGED_MQTT_STATUS holds its status.",
        "For a warning, see what the message says; `edged doctor` checks the broker."),
    "mqtt-thread-stuck": LogCode("error",
        "The MQTT thread did not end in time when edged stopped."),
    "mute-refused": LogCode("warning",
        "A client of the API server asked to mute or unmute, which the settings do not allow."),
    "muted-in-doubt": LogCode("warning",
        "The file that says whether the microphone is muted is damaged: edged stays muted.",
        "Send cmd/mute, or change the line EDGED_MUTE= of the settings file."),
    "no-turn-model": LogCode("warning",
        "The turn model is missing or too slow on this device; turns end by silence alone.",
        "Run `edged models fetch` if it is missing."),
    "ready": LogCode("info",
        "edged has started."),
    "recogniser-restarted": LogCode("info",
        "The recogniser was restarted by cmd/restart."),
    "second-opinion": LogCode("info",
        "Whether a second model is asked about the text of English turns."),
    "second-opinion-failed": LogCode("error",
        "The model of the second opinion failed; turns keep their text. Logged once.",
        "Report the traceback."),
    "settings-changed": LogCode("info",
        "Other settings are in force; the message names them."),
    "settings-note": LogCode("warning",
        "A settings file or the environment holds something that has no effect."),
    "settings-refused": LogCode("error",
        "The settings files have mistakes; the previous settings stay in force.",
        "Correct the line that the message names (`edged config check FILE`)."),
    "sound-server-hangs": LogCode("warning",
        "A sound server does not answer, so that its microphone could not be closed yet.",
        "Restart the sound server."),
    "spool-damaged": LogCode("warning",
        "The spool on disk is damaged; it was put aside and what can be read of it is sent.",
        "Check the disk or SD card."),
    "spool-found": LogCode("info",
        "Messages of an earlier run wait on disk and are published first."),
    "spool-lost": LogCode("error",
        "Messages are lost because edged stopped while the disk could not be written.",
        "See why the spool's folder cannot be written."),
    "spool-unreadable": LogCode("warning",
        "The spool cannot be read; edged tries again, and puts it aside if that does not help.",
        "Check the disk or SD card."),
    "spool-unusable": LogCode("warning",
        "The spool cannot be written (disk full, read-only or failing); messages wait in memory.",
        "Free the disk, or see who owns the folder."),
    "spool-usable": LogCode("info",
        "The spool can be written again."),
    "state-damaged": LogCode("warning",
        "The state file cannot be read; settings that were changed over MQTT are forgotten."),
    "state-unwritable": LogCode("warning",
        "Settings changed over MQTT cannot be saved; they are lost at the next restart.",
        "See why the state folder cannot be written: disk full, or its owner."),
    "state-written": LogCode("info",
        "The state file can be written again."),
    "stopped": LogCode("info",
        "edged has stopped."),
    "supervision-failed": LogCode("error",
        "The daemon's supervision failed for an unexpected reason; it goes on.",
        "Report the traceback."),
    "too-slow": LogCode("error",
        "The device does not keep up with live speech even at the last load level.",
        "Choose a smaller model, stop other programs, or use a faster board."),
}
# fmt: on


_HEAD = """\
# Log codes

Every line that edged logs has a stable code, the field EDGED_CODE of its journal entry. The text
of a line may change, its code does not.

```sh
journalctl -u edged EDGED_CODE=settings-refused       # all lines with one code
journalctl -u edged -o json --output-fields=EDGED_CODE,MESSAGE
```

This file is written by `python -m edged.log_codes`.

"""


def document() -> str:
    """The text of deploy/log-codes.md."""
    rows = ["| code | level | meaning | what to do |", "|---|---|---|---|"]
    rows += [
        f"| `{code}` | {entry.level.replace(' ', ', ')} | {entry.meaning} | {entry.action} |"
        for code, entry in CODES.items()
    ]
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(document(), end="")
