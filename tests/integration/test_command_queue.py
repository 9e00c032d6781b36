"""A mute takes effect at once, whatever the main thread is busy with."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.audio.microphone import MicrophoneManager
from edged.audio.microphone_status import MicrophoneState
from edged.daemon.command_queue import MAX_JOBS, CommandQueue, Job
from edged.mqtt.commands import Command
from tests.conftest import SAMPLES
from tests.support.control_parts import control
from tests.support.mosquitto import until


class BusyMainThread:
    """The command queue of a main thread that does its jobs when a test says so."""

    def __init__(self, folder: Path) -> None:
        device = f"file:{SAMPLES}/mister-hale.flac"
        self.microphone = MicrophoneManager(device, 0.0, False, lambda _: None)
        self.control, self.manager, self.parts = control(folder, microphone=self.microphone)
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        recorder: Any = self.parts
        self.commands = CommandQueue(
            self.jobs, self.control, self.manager, self.microphone, recorder, recorder
        )
        self.microphone.start()
        self.wait_for(MicrophoneState.RUNNING)

    def wait_for(self, state: MicrophoneState) -> None:
        until(lambda: self.microphone.status.state is state, state.value)

    def do_jobs(self, at_most: int = 99) -> None:
        for _ in range(min(at_most, self.jobs.qsize())):
            self.jobs.get()()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[BusyMainThread]:
    made = BusyMainThread(tmp_path)
    yield made
    made.microphone.stop()


@pytest.mark.parametrize("way", ["mute", "config", "api"])
def test_a_mute_does_not_wait_for_the_main_thread(busy: BusyMainThread, way: str) -> None:
    """Only the main thread muted, and it could be busy for a quarter of an hour: the device
    listened on against somebody's will."""
    if way == "api":
        busy.commands.api_mute(True)
    else:
        busy.commands.mqtt_command(Command(way, True if way == "mute" else {"mute": True}))
    busy.wait_for(MicrophoneState.MUTED)
    assert busy.microphone.ring.depth == 0
    assert not busy.manager.settings.mute
    busy.do_jobs()
    assert busy.manager.settings.mute
    assert busy.microphone.muted
    busy.commands.mqtt_command(Command("mute", False))
    assert busy.microphone.muted
    busy.do_jobs()
    busy.wait_for(MicrophoneState.RUNNING)


def test_an_unmute_that_waited_does_not_undo_the_mute_behind_it(busy: BusyMainThread) -> None:
    busy.control.mute(True)
    busy.commands.mqtt_command(Command("mute", False))
    busy.commands.mqtt_command(Command("mute", True))
    while busy.jobs.qsize():
        busy.do_jobs(1)
        assert busy.microphone.muted
    assert busy.manager.settings.mute


def test_a_mute_that_is_refused_is_undone(busy: BusyMainThread) -> None:
    busy.commands.mqtt_command(Command("config", {"mute": True, "temp": "hot"}))
    busy.wait_for(MicrophoneState.MUTED)
    busy.do_jobs()
    assert busy.parts.replies[-1]["ok"] is False
    busy.wait_for(MicrophoneState.RUNNING)


def test_a_microphone_that_the_environment_keeps_open_is_not_muted_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_MUTE", "off")
    busy = BusyMainThread(tmp_path)
    busy.commands.mqtt_command(Command("mute", True))
    assert not busy.microphone.muted
    busy.do_jobs()
    assert busy.parts.replies[-1]["ok"] is False
    busy.microphone.stop()


def test_commands_beyond_the_bound_are_refused(busy: BusyMainThread) -> None:
    for _ in range(MAX_JOBS):
        busy.commands.mqtt_command(Command("restart"))
    with pytest.raises(queue.Full):
        busy.commands.mqtt_command(Command("restart"))
    busy.commands.api_mute(True)
    assert not busy.microphone.muted
    assert busy.jobs.qsize() == MAX_JOBS
