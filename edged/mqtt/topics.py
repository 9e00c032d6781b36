"""The topics of one device: `<base>/<device>/...`. README.md lists them with their messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edged.errors import ConfigError

DISCOVERY_PREFIX = "homeassistant"  # Home Assistant's default
NUMBERED = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")
_DEVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_COMMAND = re.compile(r"[a-z0-9_-]{1,32}")
_LONGEST_BASE = 128  # bytes
_LONGEST_RESPONSE_TOPIC = 512  # bytes
_LAST_LEVELS = ("availability", "info", "step", "event", "doctor", *NUMBERED)


def check_device(device: str) -> str:
    """Returns `device`. Raises ConfigError unless it is 1 to 63 of a-z, 0-9 and inner dashes."""
    if not _DEVICE.fullmatch(device):
        raise ConfigError(
            f"EDGED_DEVICE must be 1 to 63 of a-z, 0-9 and - (not at an end), not {device!r}"
        )
    return device


def check_base(base: str, name: str = "EDGED_MQTT_BASE") -> str:
    """Returns `base`. Raises ConfigError unless it is made of topic levels that are not empty.

    `name` is the setting that the error names.
    """
    if (
        not 1 <= len(base.encode(errors="replace")) <= _LONGEST_BASE
        or base.startswith("$")
        or any(c in "+#" or c < " " for c in base)
        or "" in base.split("/")
    ):
        raise ConfigError(
            f"{name} must be 1 to {_LONGEST_BASE} bytes of topic levels such as 'home/edged', "
            f"without + # or empty levels, not {base!r}"
        )
    return base


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device. Raises ConfigError for a base or device that cannot be one."""

    base: str
    device: str

    def __post_init__(self) -> None:
        check_base(self.base)
        check_device(self.device)

    def __call__(self, name: str) -> str:
        """Returns the full topic of `name`, for instance of `state/mute`."""
        return f"{self.base}/{self.device}/{name}"

    @property
    def commands(self) -> str:
        """The filter to subscribe to. It does not match `cmd/<name>/result`."""
        return self("cmd/+")

    def command_of(self, topic: str) -> str | None:
        """Returns the name of the command if `topic` is one of this device, else None."""
        prefix = self("cmd/")
        name = topic.removeprefix(prefix)
        return name if topic.startswith(prefix) and "/" not in name else None

    def result_of(self, command: str) -> str:
        """Returns where the answer to `command` goes if its sender named no response topic."""
        return self(f"cmd/{command if _COMMAND.fullmatch(command) else 'unknown'}/result")

    def may_answer_at(self, topic: str | None, barred: Iterable[str] = ()) -> bool:
        """Returns whether an answer may be published to a response topic that a client named.

        The client must not be able to make this device speak in another's name. Barred are:
        what is no valid topic, `$` topics, the trees below `barred` and below Home Assistant's
        default prefix, all own topics but the result of a command, and, anywhere in the tree that
        the base is in, what looks like the topic of a device. Other devices may use a base above
        or below ours, so `home/panel/answers` may be used, but not `home/upstairs/panel/text`.
        """
        return (
            topic is not None
            and 0 < len(topic.encode(errors="replace")) <= _LONGEST_RESPONSE_TOPIC
            and not any(c in "+#" or c < " " or "\ud800" <= c <= "\udfff" for c in topic)
            and not topic.startswith("$")
            and not any(_is_below(topic, tree) for tree in (DISCOVERY_PREFIX, *barred))
            and not self._is_a_devices(topic)
        )

    def _is_a_devices(self, topic: str) -> bool:
        own = f"{self.base}/{self.device}/"
        if topic.startswith(own):
            return not re.fullmatch(r"cmd/[^/]*/result", topic.removeprefix(own))
        levels = topic.split("/")
        if levels[0] != self.base.split("/")[0] or len(levels) < 3:
            return False
        return levels[-1] in _LAST_LEVELS or "state" in levels[2:] or "cmd" in levels[2:]


def _is_below(topic: str, tree: str) -> bool:
    return topic == tree or topic.startswith(f"{tree}/")
