"""Malformed messages from a seeded generator, the same at each run."""

from __future__ import annotations

import json
import random
from typing import Any

_VALUES: list[Any] = [
    None, True, 0, -1, 7, 2**31, 10**30, 1.5, "", "a", "\ud800", "\x00", "wav", "opus", "AAAA",
    "====", [], {}, [[]], {"temp": 2}, '{"temp": "x"}', "{", "x" * 300, {"delay_in_frames": 9},
    {"language": "xx"}, {"turns": 1}, {"padding_bonus": "1"},
]  # fmt: skip
_KEYS = (
    "audio", "flush_id", "client_req_id", "json_config", "model_name", "input_format",
    "close_ws_on_eos", "retry_for_s", "x",
)  # fmt: skip
_TYPES: tuple[Any, ...] = (
    "setup",
    "audio",
    "flush",
    "end_of_stream",
    "text",
    "ready",
    "",
    None,
    1,
    [],
)
_WHOLE = (
    '{"type": "setup", "input_format": "pcm", "client_req_id": "a", "close_ws_on_eos": false}',
    '{"type": "audio", "audio": "AAAAAAAA", "client_req_id": "a"}',
    '{"type": "flush", "flush_id": 1, "client_req_id": "a"}',
    '{"type": "end_of_stream", "client_req_id": "a"}',
)


def hostile_message(rng: random.Random) -> str:
    """Malformed JSON or JSON with wrong values, each half of the time."""
    match rng.randrange(4):
        case 0:  # a good one, cut or with one character changed
            text = rng.choice(_WHOLE)
            at = rng.randrange(len(text))
            return (
                text[:at]
                if rng.random() < 0.5
                else text[:at] + chr(rng.randrange(1, 256)) + text[at + 1 :]
            )
        case 1:  # noise
            return "".join(chr(rng.randrange(1, 0x2FFF)) for _ in range(rng.randrange(40)))
        case _:
            message = {key: rng.choice(_VALUES) for key in rng.sample(_KEYS, rng.randrange(6))}
            if rng.random() < 0.9:
                message["type"] = rng.choice(_TYPES)
            return json.dumps(message)
