"""What the microphone is doing, for the states on MQTT, `edged doctor` and the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

from edged.audio.alsa import NegotiatedFormat
from edged.logs import log_event


class MicrophoneState(StrEnum):
    OPENING = "opening"
    RUNNING = "running"
    SILENT = "silent"
    """It runs, and every sample is zero."""
    LOST = "lost"
    MUTED = "muted"


_CODES = {
    MicrophoneState.OPENING: "microphone-opening",
    MicrophoneState.RUNNING: "microphone-running",
    MicrophoneState.SILENT: "microphone-silent",
    MicrophoneState.LOST: "microphone-lost",
    MicrophoneState.MUTED: "microphone-muted",
}


@dataclass(frozen=True, slots=True)
class MicrophoneStatus:
    """One state of one device.

    Attributes:
        message: for people, with the remedy if something is wrong.
        since: Unix time of the change to this state.
        negotiated: the format of the open device; None while none is open.
    """

    state: MicrophoneState
    device: str
    message: str
    since: float
    negotiated: NegotiatedFormat | None = None

    @property
    def problem(self) -> bool:
        """Whether a person should look at it."""
        return self.state in (MicrophoneState.LOST, MicrophoneState.SILENT)


def log_status(logger: logging.Logger, status: MicrophoneStatus, is_new_problem: bool) -> None:
    """Logs a change: a warning when a problem begins, for information otherwise."""
    level = logging.WARNING if is_new_problem else logging.INFO
    log_event(logger, level, _CODES[status.state], f"microphone: {status.message}")
