"""A Control over stand-ins for microphone, engine and publisher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edged.config.model_choice import choice_of
from edged.config.settings import Settings
from edged.config.settings_manager import SettingsManager
from edged.config.sources import load
from edged.config.startup import StartupSettings
from edged.config.state_file import StateFile
from edged.daemon.control import Control
from edged.daemon.model_loader import ModelLoader
from edged.daemon.systemd import Notifier
from edged.engine.background_worker import InlineExecutor
from edged.models.choice import ModelChoice
from tests.support.toy_speech_model import ToySpeechModel, script


class Recorder:
    """Takes the place of any part of the daemon, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.models = SimpleNamespace(recogniser=ToySpeechModel(script()))

    def reply(self, command: object, ok: bool, error: str | None = None, **more: Any) -> None:
        self.replies.append({"ok": ok, "error": error, **more})
        json.dumps(self.replies[-1], allow_nan=False)

    def submit(self, command: object) -> bool:
        self.calls.append(("submit", command))
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, args))


def settings_manager(folder: Path, text: str = "") -> SettingsManager:
    """Over an env file with this text and a state file, both in `folder`."""
    env_file = folder / "edged.env"
    env_file.write_text(text)
    return SettingsManager(StartupSettings(load(env_file), StateFile(folder)), env_file, {})


def control(
    folder: Path,
    text: str = "",
    models: ModelLoader | None = None,
    microphone: Any = None,
    choose: Callable[[Settings], ModelChoice] = choice_of,
) -> tuple[Control, SettingsManager, Recorder]:
    """The recorder is the publisher and the engine, and the microphone if none is given."""
    manager = settings_manager(folder, text)
    parts: Any = Recorder()
    made = Control(
        manager,
        microphone or parts,
        parts,
        parts,
        Notifier(),
        models or ModelLoader(lambda job: job(), executor=InlineExecutor()),
        lambda _: None,
        lambda: None,
        lambda _: None,
        choose(manager.settings),
        choose,
    )
    return made, manager, parts
