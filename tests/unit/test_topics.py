"""Where answers may go: nobody can make a device speak in another's name."""

from __future__ import annotations

import pytest

from edged.mqtt.topics import NUMBERED, Topics

NAMES = [*NUMBERED, "availability", "info", "state/mute", "step", "event", "cmd/mute"]
NAMES += ["cmd/x/result", "doctor", "state/a/b"]


def test_an_answer_may_go_to_any_place_of_the_askers_and_to_results() -> None:
    """A base may be shared with others: `home/panel/answers` is nobody's but the panel's."""
    may = Topics("home", "kitchen").may_answer_at
    assert may("home/panel/answers")
    assert may("home/kitchen/cmd/flush/result")
    assert may("home/kitchens")
    assert may("home/panel/texts")
    assert may("panel/response/42")
    assert may("home/text")
    assert not may("home/kitchen/cmd/flush/results")
    assert not may("home/kitchen/state/mute")


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_speak_as_another_device(name: str) -> None:
    """Only commands to other devices were barred: whoever may ask the kitchen could have it write
    words, or `availability`, for the hall, where he himself has no rights."""
    may = Topics("home", "kitchen").may_answer_at
    assert not may(f"home/hall/{name}")
    assert may(f"elsewhere/hall/{name}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base", ["home", "home/edged", "home/edged/upstairs"])
def test_nor_as_a_device_whose_base_is_above_or_below(base: str, name: str) -> None:
    """With the base `home/edged`, `home/edged/upstairs/hall/text` belongs to a device with the
    base `home/edged/upstairs`, and was taken for nobody's."""
    may = Topics(base, "kitchen").may_answer_at
    for other in ("home/hall", "home/edged/hall", "home/edged/upstairs/hall", "home/a/b/c/hall"):
        assert not may(f"{other}/{name}")


@pytest.mark.parametrize(
    "topic",
    [
        "homeassistant/device/kitchen/config",
        "homeassistant/device/hall/config",
        "homeassistant/sensor/x/config",
        "homeassistant/status",
        "homeassistant",
        "hub/ha/device/kitchen/config",
        "hub/ha/status",
    ],
)
def test_an_answer_does_not_announce_devices_to_home_assistant(topic: str) -> None:
    """Whoever may send a command could have this device write to the discovery topics."""
    assert not Topics("edged", "kitchen").may_answer_at(topic, ("hub/ha",))
    assert Topics("edged", "kitchen").may_answer_at(f"my/{topic}", ("hub/ha",))


@pytest.mark.parametrize(
    "topic", [None, "", "$SYS/x", "$share/a/b", "a/+", "a/#", "a\nb", "a\0", "\ud800", "a" * 513]
)
def test_an_answer_needs_a_valid_topic(topic: str | None) -> None:
    assert not Topics("edged", "kitchen").may_answer_at(topic)
