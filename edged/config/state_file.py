"""What must survive a restart: mute and the other live changes made over MQTT.

One small JSON file, written only on a change: to a new file, synced, then renamed over the old
one, so that a power cut leaves either the old or the new state.
"""

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
    """`state.json` in the state folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self.problem = ""
        """Why the last `write` failed; empty if it did not."""
        self.damaged = False
        """There was something to read, but `read` could not make it out."""

    def read(self) -> dict[str, RuntimeOverride]:
        """What was remembered. A missing or damaged file remembers nothing, and says so."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                str(name): RuntimeOverride(item["value"], item["file_value"])
                for name, item in stored["settings"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            self.damaged = True
            message = f"{self.path} cannot be used, live changes are forgotten: {problem}"
            log_event(_log, logging.WARNING, "state-damaged", message)
            return {}

    def write(self, remembered: Mapping[str, RuntimeOverride]) -> bool:
        """False if the disk refused, which is said once: `problem` has it. Trying again is up to
        the caller."""
        stored = {
            "version": _VERSION,
            "settings": {
                name: {"value": item.value, "file_value": item.file_value}
                for name, item in remembered.items()
            },
        }
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self.path, json.dumps(stored, indent=1) + "\n", mode=0o600)
        except OSError as problem:
            told = bool(self.problem)
            self.problem = f"{self.path} cannot be written: {problem.strerror}"
            if not told:
                log_event(_log, logging.WARNING, "state-unwritable", self.problem)
            return False
        if self.problem:
            log_event(_log, logging.INFO, "state-written", f"{self.path} is written again")
        self.problem = ""
        return True

    def supersede(self, remembered: Mapping[str, RuntimeOverride]) -> bool:
        """`write` over a damaged file, which is kept beside it as `state.damaged`."""
        kept = self.path.with_suffix(".damaged")
        with contextlib.suppress(OSError):  # it is only for who wants to know what happened
            kept.unlink(missing_ok=True)
            os.link(self.path, kept)  # a renamed one would be missing if the power goes now
        return self.write(remembered)
