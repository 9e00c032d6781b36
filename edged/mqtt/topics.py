"""Where everything lives on the broker: `<base>/<device>/...`.

| topic | retained | QoS | payload |
|---|---|---|---|
| `availability` | yes | 1 | `online` or `offline` (also the Will) |
| `info`, `state/<name>` | yes | 1 | JSON, or a plain word |
| `text end_text turn flushed error end_of_stream` | no | 1 | the message, with session, seq, ts |
| `step` | no | 0 | the message, with session and ts |
| `event` | no | 1 | live copies of the QoS 1 messages for Home Assistant's one event entity |
| `cmd/<name>` | never | 1 | a command to us |
| `cmd/<name>/result` | no | 1 | `{ok, error?}`, unless the command named a response topic |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.errors import ConfigError

NUMBERED = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")
_DEVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_COMMAND = re.compile(r"[a-z0-9_-]{1,32}")
_LONGEST_BASE = 128
_A_BOX_SAYS = re.compile(
    rf"availability|info|step|event|{'|'.join(NUMBERED)}|(state|cmd)/.*", re.DOTALL
)


def check_device(device: str) -> str:
    """`device` itself, or ConfigError: 1 to 63 of a-z, 0-9 and inner dashes."""
    if not _DEVICE.fullmatch(device):
        raise ConfigError(
            f"EDGED_DEVICE must be 1 to 63 of a-z, 0-9 and - (not at an end), not {device!r}"
        )
    return device


def check_base(base: str, name: str = "EDGED_MQTT_BASE") -> str:
    """`base` itself, or ConfigError: topic levels without wildcards or empty levels."""
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
        """The full topic of `name`, e.g. `state/mute`."""
        return f"{self.base}/{self.device}/{name}"

    @property
    def commands(self) -> str:
        """The filter to subscribe to. It does not match our own `cmd/<name>/result`."""
        return self("cmd/+")

    def command_of(self, topic: str) -> str | None:
        """The command's name if `topic` is one of ours, else None."""
        prefix = self("cmd/")
        name = topic.removeprefix(prefix)
        return name if topic.startswith(prefix) and "/" not in name else None

    def result_of(self, command: str) -> str:
        """Where the answer to `command` goes when its sender named no response topic."""
        return self(f"cmd/{command if _COMMAND.fullmatch(command) else 'unknown'}/result")

    def may_answer_at(self, topic: str | None) -> bool:
        """Whether a response topic can be published to without speaking in somebody's name.

        Of what is below the base, these are barred: all of our own but the result of a command, and
        what another box says or is told (the table above; its results too). All other devices are
        taken for boxes, so `<base>/panel/answers` may be used, but not `<base>/panel/text`.
        """
        return (
            topic is not None
            and 0 < len(topic.encode(errors="replace")) <= 512
            and not any(c in "+#" or c < " " or "\ud800" <= c <= "\udfff" for c in topic)
            and not topic.startswith("$")
            and not self._names_somebody(topic)
        )

    def _names_somebody(self, topic: str) -> bool:
        if not topic.startswith(f"{self.base}/"):
            return False
        device, _, name = topic.removeprefix(f"{self.base}/").partition("/")
        if device == self.device:
            return not re.fullmatch(r"cmd/[^/]*/result", name)
        return bool(_A_BOX_SAYS.fullmatch(name))
