"""Payloads that describe the device: `info`, `state/config`, `state/mic`, `state/settings`."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable
from typing import Any

from edged import __version__
from edged.audio.microphone_status import MicrophoneStatus
from edged.config.settings import Settings, mqtt_may_change
from edged.config.settings_report import effective, shown
from edged.config.sources import LoadedSettings, SettingsFile
from edged.daemon.machine import board
from edged.models.loader import Models
from edged.stt.keyterms import keyterms_of


def info(
    loaded: LoadedSettings, microphone: MicrophoneStatus, models: Models, language: str
) -> dict[str, Any]:
    """`info`: version, model, board, audio format and the settings in force, secrets masked.

    language: what is recognised: a code, or `auto`.
    """
    negotiated = microphone.negotiated
    return {
        "version": __version__,
        "device": loaded.settings.device,
        "model": {
            "name": models.name,
            "hash": models.hash,
            "licence": models.licence,
            "languages": list(models.languages),
            "missing": list(models.missing),
            "too_slow": list(models.too_slow),
            "second_opinion": models.second_opinion.name if models.second_opinion else None,
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
        "language": language,
        "keyterms": keyterms(models, loaded.settings),
        "settings": effective(loaded.settings),
    }


def keyterms(models: Models, settings: Settings) -> dict[str, Any]:
    """The key terms: how many are active, and those that the model cannot spell."""
    compiled = keyterms_of(models.recogniser, settings.options())
    return {
        "active": 0 if compiled is None else len(compiled.terms),
        "unspellable": [] if compiled is None else [t.term for t in compiled.unspellable],
        "supported": models.recogniser.has_keyterms,
    }


def microphone(status: MicrophoneStatus) -> dict[str, Any]:
    """`state/mic`."""
    return {
        "ok": not status.problem,
        "state": str(status.state),
        "device": status.device,
        "message": status.message,
        "format": None if status.negotiated is None else str(status.negotiated),
    }


def live_settings(settings: Settings) -> dict[str, Any]:
    """`state/settings`: what MQTT may change."""
    return {
        name: shown(getattr(settings, name))
        for name in Settings.model_fields
        if mqtt_may_change(name)
    }


def config_accepted(
    loaded: LoadedSettings, changed: Iterable[str], pending: Iterable[str]
) -> dict[str, Any]:
    """`state/config` after settings were accepted: the files, and which settings changed.

    `files` has the SHA-256 of each, so that whoever pushed them can compare.
    """
    return {
        "ok": True,
        "files": _files(loaded.files),
        "changed": sorted(changed),
        "at_next_start": sorted(pending),
        "notes": list(loaded.notes),
        "ts": now(),
    }


def config_rejected(errors: Iterable[str], files: tuple[SettingsFile, ...]) -> dict[str, Any]:
    """`state/config` after a reload that changed nothing: the files, and every mistake."""
    return {"ok": False, "files": _files(files), "problems": list(errors), "ts": now()}


def _files(files: tuple[SettingsFile, ...]) -> list[dict[str, str]]:
    return [{"path": str(f.path), "sha256": f.sha256} for f in files]


def now() -> str:
    """The time, RFC 3339 in UTC."""
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
