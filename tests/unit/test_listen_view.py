"""How `edged listen` displays messages, without a broker."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from edged.cli.listen import decode, split_topic
from edged.cli.listen_view import DeviceState, JsonLines, KnownDevices, LiveView, PlainLines, clean

STEP = {
    "type": "step",
    "vad": [{"horizon_s": h, "inactivity_prob": p} for h, p in ((0.5, 0.9), (1.0, 0.5), (2.0, 0))],
    "step_idx": 1,
}


def test_a_terminal_shows_the_words_as_they_come_the_bars_and_who_speaks() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    with LiveView(console) as view:
        view.notice("connecting to hub:1883")
        view.message("hall", "availability", "online")
        view.message("hall", "state/speaking", "on")
        view.message("hall", "text", {"text": "good"})
        view.message("hall", "text", {"text": "morning"})
        view.message("hall", "step", STEP)
        picture = Console(file=io.StringIO(), width=160)
        picture.print(view)
        live = picture.file.getvalue()  # type: ignore[attr-defined]
        view.message("hall", "turn", {"text": "Good morning."})
        picture.print(view)
        after = picture.file.getvalue()[len(live) :]  # type: ignore[attr-defined]
    assert "connecting to hub:1883" in live
    assert "hall ● speaking" in live
    assert "good morning" in live
    assert live.count("0.5 s") == live.count("2 s") == 1
    assert live.count("█") == 18 + 10
    assert "good morning" not in after
    assert "hall: Good morning." in file.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60, 44, 24])
def test_the_live_part_fits_the_terminal_and_keeps_the_newest_words(width: int) -> None:
    """At 80 columns the third bar broke into a second line, and the newest words of a long turn
    fell off the end of a small screen."""
    console = Console(file=io.StringIO(), width=width, height=24)
    view = LiveView(console)
    view.message("hall", "availability", "online")
    view.message("hall", "state/speaking", "on")
    view.message("hall", "step", STEP)
    for n in range(200):
        view.message("hall", "text", {"text": f"word{n}"})
    console.print(view)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("hall ● speaking")
    assert ("2 s" in lines[0]) == (width >= 60)
    assert len(lines) == 5
    assert lines[-1].endswith("word199")


def test_what_strangers_publish_cannot_steer_the_terminal() -> None:
    file = io.StringIO()
    view = PlainLines(Console(file=file))
    view.message("a\x1b]0;x\x07", "turn", {"text": "\x1b[31mred\x9b\nnext"})
    assert "\x1b" not in file.getvalue()
    assert "\x9b" not in file.getvalue()
    assert file.getvalue().count("\n") == 1
    assert clean("a" * 10_000) == "a" * 2000


def test_words_of_other_languages_are_shown_as_they_are_written() -> None:
    """Persian is spelled with a joiner that has no width; it became a space."""
    console = Console(file=io.StringIO(), width=80)
    view = LiveView(console)
    view.message("hall", "availability", "online")
    view.message("hall", "info", {"language": "fa"})
    view.message("hall", "text", {"text": "می\u200cخواهم"})
    view.message("hall", "text", {"text": "برم؟"})
    console.print(view)
    assert "می\u200cخواهم برم؟" in console.file.getvalue()  # type: ignore[attr-defined]
    assert clean("Straße, ça va\u202e?") == "Straße, ça va ?", "nobody may turn the line around"


def test_japanese_words_have_no_spaces_between_them() -> None:
    console = Console(file=io.StringIO(), width=80)
    view = LiveView(console)
    view.message("hall", "availability", "online")
    view.message("hall", "turn", {"text": "はい。", "language": "ja"})
    for text in ("電気を", "つけて"):
        view.message("hall", "text", {"text": text})
    console.print(view)
    assert "電気をつけて" in console.file.getvalue()  # type: ignore[attr-defined]


def test_memory_stays_bounded_however_many_devices_and_words_there_are() -> None:
    devices = KnownDevices()
    for n in range(1000):
        device = devices.of(f"d{n}")
        if device:
            device.update("text", {"text": "w"})
    assert len(devices.all) == 256
    one = DeviceState("x")
    for _ in range(1000):
        one.update("text", {"text": "w"})
    assert len(one.words) == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
NAMES = ["text", "turn", "step", "error", "end_of_stream", "state/mic", "state/mute", "x"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), VALUES | st.fixed_dictionaries({"vad": VALUES, "text": VALUES}))
def test_no_payload_can_stop_the_display(name: str, value: Any) -> None:
    console = Console(file=io.StringIO(), width=80)
    for view in (PlainLines(console), JsonLines(console), LiveView(console)):
        view.message("hall", "availability", "online")
        view.message("hall", name, value)
        if isinstance(view, LiveView):
            console.print(view)


def test_topics_and_payloads_are_parsed() -> None:
    assert split_topic("a/b/hall/state/mic", "a/b") == ("hall", "state/mic")
    assert split_topic("a/hall/text", "a/b") is None
    assert split_topic("a/b/hall", "a/b") is None
    assert decode(b'{"a": 1}') == {"a": 1}
    assert decode(b"on") == "on"
    assert decode(b"NaN") == "NaN"
    assert decode(b"[" * 100_000).startswith("[[")
    assert decode(b"\xff") == "\ufffd"
