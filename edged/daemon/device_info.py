"""What the daemon publishes about itself: payloads of `info`, `state/config`, `state/mic`, ..."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edged import __version__
from edged.audio.capture import MicrophoneState, MicrophoneStatus
from edged.config.settings import Settings, mqtt_may_change
from edged.config.settings_report import effective, shown
from edged.config.sources import LoadedSettings, SettingsFile
from edged.models.loader import Models

_BOARD = Path("/proc/device-tree/model")


def info(loaded: LoadedSettings, mic: MicrophoneStatus, models: Models) -> dict[str, Any]:
    """Version, model, board, negotiated audio and the settings in force, without secrets."""
    negotiated = mic.negotiated
    return {
        "version": __version__,
        "device": loaded.settings.device,
        "model": {
            "name": models.name,
            "hash": models.hash,
            "licence": models.licence,
            "missing": list(models.missing),
            "too_slow": list(models.too_slow),
        },
        "board": board(),
        "python": platform.python_version(),
        "audio": None
        if negotiated is None
        else {
            "rate": negotiated.rate,
            "channels": negotiated.channels,
            "format": negotiated.format,
            "period": negotiated.period,
            "buffer": negotiated.buffer,
        },
        "settings": effective(loaded.settings),
    }


def board() -> str:
    """The board's own name for itself, else the architecture."""
    try:
        return _BOARD.read_text().rstrip("\0\n")
    except OSError:
        return platform.machine()


def microphone(mic: MicrophoneStatus) -> dict[str, Any]:
    return {
        "ok": not mic.problem,
        "state": str(mic.state),
        "device": mic.device,
        "message": mic.message,
        "format": None if mic.negotiated is None else str(mic.negotiated),
    }


def hears(mic: MicrophoneStatus) -> bool:
    """Whether sound reaches the recogniser."""
    return mic.state in (MicrophoneState.RUNNING, MicrophoneState.SILENT)


def live_settings(settings: Settings) -> dict[str, Any]:
    """What MQTT may change, for `state/settings`."""
    return {
        name: shown(getattr(settings, name))
        for name in Settings.model_fields
        if mqtt_may_change(name)
    }


def accepted(
    loaded: LoadedSettings, changed: Iterable[str], pending: Iterable[str]
) -> dict[str, Any]:
    """`state/config` after settings were taken: which files, and what they did.

    `files` carries what `sha256sum` says of each, so that who pushed them can compare.
    """
    return {
        "ok": True,
        "files": _files(loaded.files),
        "changed": sorted(changed),
        "at_next_start": sorted(pending),
        "notes": list(loaded.notes),
        "ts": now(),
    }


def refused(problems: Iterable[str], files: tuple[SettingsFile, ...]) -> dict[str, Any]:
    """`state/config` after a reload that changed nothing: the files' hashes and every reason."""
    return {"ok": False, "files": _files(files), "problems": list(problems), "ts": now()}


def _files(files: tuple[SettingsFile, ...]) -> list[dict[str, str]]:
    return [{"path": str(f.path), "sha256": f.sha256} for f in files]


def now() -> str:
    """RFC 3339, UTC."""
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
