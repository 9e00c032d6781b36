"""Runs all checks of `edged doctor` and shows each result at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from edged import resources
from edged.audio.file_capture import device_files, is_file_device
from edged.config.model_choice import choice_of, options_of
from edged.config.settings import Settings
from edged.config.sources import SettingsError, load
from edged.config.state_file import StateFile
from edged.doctor.broker_check import (
    check_broker,
    check_home_assistant,
    check_running,
    daemon_is_running,
    largest_message,
    visit,
    watched,
)
from edged.doctor.finding import Finding
from edged.doctor.machine_check import check_machine, check_permissions
from edged.doctor.microphone_check import check_microphone
from edged.doctor.recogniser_check import (
    check_load,
    check_models,
    check_other_models,
    check_speed,
    check_words,
)
from edged.errors import EdgedError
from edged.mqtt.embedded_broker import EmbeddedBroker

_MARK = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


def checkup(
    env_file: Path | None, flags: Mapping[str, Any], console: Console, as_json: bool = False
) -> int:
    """Runs all checks and prints the findings, or JSON.

    flags: settings from the command line (field -> value).
    Returns the exit code: 1 if a check failed; warnings alone give 0.
    """
    return show_findings(_checks(env_file, flags), console, as_json)


def show_findings(found: Iterable[Finding], console: Console, as_json: bool = False) -> int:
    """Prints findings as they come, or JSON at the end. Returns the exit code."""
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            _show(finding, console)
    failed = [f for f in findings if f.level == "fail"]
    if as_json:
        # `sentence` is the name that `message` had in version 0.1.
        listed = [{**asdict(f), "sentence": f.message} for f in findings]
        console.print_json(json.dumps({"ok": not failed, "findings": listed}))
    elif console.is_terminal:
        text = f"{len(failed)} of {len(findings)} checks failed" if failed else "no check failed"
        console.print(Text(text, style="bold red" if failed else "bold green"))
    return int(bool(failed))


def _checks(env_file: Path | None, flags: Mapping[str, Any]) -> Iterator[Finding]:
    yield from check_machine()
    try:
        loaded = load(env_file, flags)
        loaded = load(env_file, flags, StateFile(loaded.settings.state_dir).read())
    except SettingsError as error:
        for problem in error.problems:
            yield Finding(
                "fail", "settings", str(problem), "Run `edged config check FILE` for details."
            )
        return
    settings = loaded.settings
    for note in loaded.notes:
        yield Finding("warn", "settings", note)
    if settings.mqtt_insecure:
        remedy = "Set EDGED_MQTT_CA_FILE and remove EDGED_MQTT_INSECURE."
        yield Finding("warn", "settings", "the certificate of the broker is not checked", remedy)
    yield from check_permissions(settings)
    models, findings = check_models(settings)
    yield from findings
    if models is not None:
        options = options_of(settings, choice_of(settings))
        yield from check_speed(models, options)
        yield from check_words(models, options)
        yield from check_load(models)
        yield from check_other_models(settings, models.name)
    yield from _broker_and_microphone(settings)


def _broker_and_microphone(settings: Settings) -> Iterator[Finding]:
    """Checks the broker first: its messages show whether a running daemon holds the microphone."""
    embedded = settings.broker_address is None
    broker = settings.broker(EmbeddedBroker().address if embedded else None)
    seen = visit(broker, watched(settings), largest_message(settings))
    running = daemon_is_running(settings, seen)
    if running:
        yield from check_running(settings, seen)
    elif settings.mute:
        yield Finding("ok", "microphone", "not checked: it is muted (EDGED_MUTE or cmd/mute)")
    elif is_file_device(settings.alsa_device):
        yield from _playback(settings)
    else:
        yield from check_microphone(settings.alsa_device)
    if embedded and seen.broken:
        yield Finding("ok", "broker", "it runs inside edged, which is not running now")
        return
    findings = check_broker(broker, seen)
    yield from findings
    if all(f.level != "fail" for f in findings):
        yield from check_home_assistant(settings, seen)


def _playback(settings: Settings) -> Iterator[Finding]:
    device = settings.alsa_device
    try:
        count = len(device_files(device, resources.played_samples(settings.language)))
    except EdgedError as problem:
        yield Finding("fail", "microphone", str(problem), "Set EDGED_ALSA_DEVICE.")
    else:
        yield Finding(
            "ok", "microphone", f"{device}: {count} recordings are played instead of a microphone"
        )


def _show(finding: Finding, console: Console) -> None:
    if not console.is_terminal:
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        line = f"{finding.level:4} {finding.what}: {finding.message}{remedy}"
        console.file.write(line + "\n")
        console.file.flush()
        return
    mark, style = _MARK[finding.level]
    console.print(
        Text.assemble((f"{mark} ", style), (f"{finding.what}: ", "bold"), finding.message)
    )
    if finding.remedy:
        console.print(Text(f"  → {finding.remedy}", style="cyan"))
