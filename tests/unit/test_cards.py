"""Sound cards: names that last, who uses them, and what is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from edged.audio import cards
from edged.errors import DeviceError
from tests.support.asound import asound_folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return asound_folder(tmp_path)


@pytest.mark.parametrize("name", ["hw:0", "plughw:2,0", "plughw:CARD=2,DEV=0", "sysdefault:1"])
def test_a_card_number_is_refused_since_it_changes_at_boot(name: str, proc: Path) -> None:
    with pytest.raises(DeviceError, match="by number, which can change at any boot"):
        cards.resolve(name, proc)


def test_a_refused_number_comes_with_the_name_to_use(proc: Path) -> None:
    with pytest.raises(DeviceError, match=r"use plughw:CARD=Device,DEV=0$"):
        cards.resolve("hw:2,0", proc)


@pytest.mark.parametrize(
    "name", ["default", "mic", "plughw:CARD=Device,DEV=0", "hw:Device", "pulse"]
)
def test_stable_names_are_passed_on_as_they_are(name: str, proc: Path) -> None:
    assert cards.resolve(name, proc) == name


def test_a_card_that_is_not_plugged_in_is_known_without_opening_anything(proc: Path) -> None:
    with pytest.raises(DeviceError, match=r"no sound card is called Mic: .*now: Device"):
        cards.resolve("plughw:CARD=Mic,DEV=0", proc)


def test_where_the_kernel_shows_no_cards_the_name_is_tried(tmp_path: Path) -> None:
    assert cards.resolve("plughw:CARD=Mic", tmp_path) == "plughw:CARD=Mic"


def test_a_usb_id_finds_its_card_wherever_it_was_plugged_in(proc: Path) -> None:
    assert cards.resolve("usb:0D8C:0014", proc) == "plughw:CARD=Device,DEV=0"


@pytest.mark.parametrize(("name", "says"), [("usb:1", "looks like"), ("usb:1234:5678", "no mic")])
def test_a_usb_id_that_leads_nowhere_is_reported(name: str, says: str, proc: Path) -> None:
    with pytest.raises(DeviceError, match=says):
        cards.resolve(name, proc)


def test_who_has_the_microphone_open_is_known(proc: Path) -> None:
    """The kernel notes the thread that opened it: its number was shown as the program's."""
    opened, done = threading.Event(), threading.Event()

    def hold() -> None:
        opened.set()
        done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    opened.wait()
    status = proc / "card2/pcm0c/sub0/status"
    status.write_text(f"state: RUNNING\nowner_pid   : {thread.native_id}\n")
    (busy,) = (cards.read_cards(proc) or [])[1].inputs
    done.set()
    assert f"(pid {os.getpid()})" in str(busy.owner)
