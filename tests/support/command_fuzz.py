"""Commands that are wrong in every way that one could think of."""

from __future__ import annotations

import json
import random

from edged.config.settings import Settings
from edged.mqtt import commands


def fuzzed(dice: random.Random) -> tuple[str, bytes]:
    """A command's name and payload: noise, near misses, wrong types, nothing that is right."""
    name = dice.choice([*commands.NAMES[1:3], "config", "config", "restart!", "", "x" * 300])
    settings = [name for name in Settings.model_fields if name != "keyterms"]  # any text may be one
    key = dice.choice([*settings, "temperature", "tmp", "", "é\u0000", "EDGED_TEMP"])
    value = dice.choice(
        ["no+pe", -1e9, 1e308, 10**30, [], {}, "\ud800", "x" * 5000, "#", "+1e999", -99]
    )
    payload = dice.choice(
        [
            json.dumps({key: value}),
            json.dumps({key: value, "temp": "x"}),
            json.dumps([key]),
            "{" * dice.randrange(3000),
            '{"temp": NaN}',
            '{"temp": Infinity}',
            str(value),
            "",
        ]
    ).encode("utf-8", "surrogatepass")
    if dice.random() < 0.2:
        payload = dice.randbytes(dice.randrange(60))
    if dice.random() < 0.02:
        payload += b" " * 20_000
    return name, payload
