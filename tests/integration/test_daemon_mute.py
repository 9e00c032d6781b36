"""A mute is obeyed at once, whatever the main thread is busy with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.audio.capture import MicrophoneState
from edged.daemon.control import Control
from edged.daemon.service import Daemon
from edged.mqtt.commands import Command
from tests.conftest import SAMPLES
from tests.support.mosquitto import until
from tests.unit.test_daemon_parts import Parts, control


class Busy:
    """A daemon whose main thread waits, until a test does the jobs that were put meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.lines = f"EDGED_ALSA_DEVICE=file:{SAMPLES}/mister-hale.flac\n"
        made, self.keeper, self.parts = control(folder, self.lines)
        self.daemon = Daemon(self.keeper)
        self.hearing = made._hearing = self.daemon._hearing
        self.control: Control = made
        self.daemon._control = made
        self.daemon._publisher = self.parts  # type: ignore[assignment]
        self.daemon._engine = Parts()  # type: ignore[assignment]
        self.hearing.start()
        self.waits_for(MicrophoneState.RUNNING)

    def waits_for(self, state: MicrophoneState) -> None:
        until(lambda: self.hearing.state.state is state, state.value)

    def does_its_jobs(self, most: int = 99) -> None:
        jobs = [self.daemon._jobs.get() for _ in range(min(most, self.daemon._jobs.qsize()))]
        for job in jobs:
            if getattr(job, "func", None) != self.daemon._say_state:
                job()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    made = Busy(tmp_path)
    made.does_its_jobs()  # only to tell of the microphone
    yield made
    made.hearing.stop()


@pytest.mark.parametrize("way", ["mute", "config", "api"])
def test_a_mute_does_not_wait_for_the_models_of_a_reload(busy: Busy, way: str) -> None:
    """The main thread alone muted, and a reload kept it for as long as models took to load, up to
    a quarter of an hour: the box listened on, against somebody's will."""
    if way == "api":
        busy.daemon._on_mute(True)
    else:
        payload = True if way == "mute" else {"mute": True}
        busy.daemon._on_command(Command(way, payload))
    busy.waits_for(MicrophoneState.MUTED)
    assert busy.hearing.ring.depth == 0
    assert not busy.keeper.settings.mute  # which is the main thread's
    busy.does_its_jobs()
    assert busy.keeper.settings.mute
    assert busy.hearing._silenced
    busy.daemon._on_command(Command("mute", False))
    assert busy.hearing._silenced
    busy.does_its_jobs()
    busy.waits_for(MicrophoneState.RUNNING)


def test_an_unmute_that_waited_does_not_undo_the_mute_behind_it(busy: Busy) -> None:
    """Between the two may lie another reload, with other models."""
    busy.control.mute(True)
    busy.daemon._on_command(Command("mute", False))
    busy.daemon._on_command(Command("mute", True))
    while busy.daemon._jobs.qsize():
        busy.does_its_jobs(1)
        assert busy.hearing._silenced
    assert busy.keeper.settings.mute


def test_a_mute_that_is_refused_is_taken_back(busy: Busy) -> None:
    busy.daemon._on_command(Command("config", {"mute": True, "temp": "hot"}))
    busy.waits_for(MicrophoneState.MUTED)
    busy.does_its_jobs()
    assert busy.parts.replies[-1]["ok"] is False
    busy.waits_for(MicrophoneState.RUNNING)


def test_a_pinned_microphone_is_not_muted_for_a_moment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGED_MUTE", "off")
    busy = Busy(tmp_path)
    busy.daemon._on_command(Command("mute", True))
    assert not busy.hearing._silenced
    busy.does_its_jobs()
    assert busy.parts.replies[-1]["ok"] is False
    busy.hearing.stop()
