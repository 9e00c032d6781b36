"""Good commands with a few bytes changed: some are still good, most are not."""

from __future__ import annotations

import random

from edged.errors import RequestError
from edged.mqtt.commands import NAMES, Command, parse


def command_or_sentence(name: str, raw: bytes) -> Command | str:
    try:
        return parse(name, raw)
    except RequestError as problem:
        return str(problem)


GOOD = (
    ("flush", b'{"flush_id": "turn-17"}'),
    ("flush", b"12"),
    ("mute", b"on"),
    ("mute", b'{"mute": true}'),
    ("config", b'{"delay_in_frames": 12, "temp": 0.2, "language": "en", "turn_silence_ms": 700}'),
    ("reload", b""),
    ("restart", b"{}"),
)


def mangled(pick: random.Random) -> tuple[str, bytes]:
    """A good command with a few bytes changed, cut, doubled, or swapped with another's."""
    name, raw = pick.choice(GOOD)
    data = bytearray(raw)
    for _ in range(pick.randrange(4)):
        at = pick.randrange(len(data) + 1)
        match pick.randrange(6):
            case 0:
                data[at:at] = bytes([pick.randrange(256)])
            case 1:
                del data[at : at + pick.randrange(1, 5)]
            case 2:
                data[at:at] = data
            case 3:
                data[at : at + 1] = pick.choice((b"{", b"[", b'"', b"null", b"1e400", b"\\u0000"))
            case 4:
                name = pick.choice((*NAMES, "flushed", "Mute", "state", "config2", "é", "a b"))
            case _:
                data[at:at] = str(pick.choice((-(2**70), 0.1, float("inf"), "x" * 30))).encode()
    return name, bytes(data)
