"""Stores the changes made over MQTT (mute and other settings), so that they outlast a restart."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from edged.atomicfile import write_text
from edged.config.sources import RuntimeOverride
from edged.logs import log_event

_log = logging.getLogger(__name__)
_VERSION = 1


class StateFile:
    """`state.json` in the state directory.

    Attributes:
        path: of the file.
        write_error: why the last `write` failed; empty if it did not.
        damaged: whether `read` found a file that it could not understand.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self.write_error = ""
        self.damaged = False

    def read(self) -> dict[str, RuntimeOverride]:
        """Returns field -> override; empty if the file is missing, or damaged, which is logged."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                str(name): RuntimeOverride(item["value"], item["file_value"])
                for name, item in stored["settings"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.damaged = True
            message = f"{self.path} is damaged; settings changed over MQTT are lost: {error}"
            log_event(_log, logging.WARNING, "state-damaged", message)
            return {}

    def write(self, overrides: Mapping[str, RuntimeOverride]) -> bool:
        """Replaces the file. Returns False if the disk refused, see `write_error`.

        A failure is logged once, until a write succeeds again. The caller decides when to retry.
        """
        stored = {
            "version": _VERSION,
            "settings": {
                name: {"value": item.value, "file_value": item.file_value}
                for name, item in overrides.items()
            },
        }
        failed_before = bool(self.write_error)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self.path, json.dumps(stored, indent=1) + "\n", mode=0o600)
        except OSError as error:
            self.write_error = f"{self.path} cannot be written: {error.strerror}"
            if not failed_before:
                log_event(_log, logging.WARNING, "state-unwritable", self.write_error)
            return False
        self.write_error = ""
        if failed_before:
            log_event(_log, logging.INFO, "state-written", f"{self.path} can be written again")
        return True

    def replace_damaged(self, overrides: Mapping[str, RuntimeOverride]) -> bool:
        """As `write`, and keeps the damaged file as `state.damaged`, for whoever investigates."""
        kept = self.path.with_suffix(".damaged")
        with contextlib.suppress(OSError):
            kept.unlink(missing_ok=True)
            os.link(self.path, kept)  # a rename would leave no file if the power failed now
        return self.write(overrides)
