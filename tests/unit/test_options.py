"""json_config: what a client may ask of a session."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import RequestError
from edged.options import DELAYS, Options, from_json_config


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_an_object_and_a_string_holding_one_mean_the_same(form: Any) -> None:
    asked = {"language": "en", "temp": 0.5, "delay_in_frames": 7, "padding_bonus": -4}
    options = from_json_config(form(asked))
    assert (options.temp, options.delay_in_frames, options.padding_bonus) == (0.5, 7, -4)


def test_older_names_are_taken_too() -> None:
    options = from_json_config({"temperature": 1, "delay_in_tokens": 48})
    assert (options.temp, options.delay_in_frames) == (1, 48)


def test_unknown_keys_are_ignored_and_the_rest_stays_as_it_was() -> None:
    base = Options(delay_in_frames=16, turns=False)
    assert from_json_config({"beam": 4, "language": None}, base) == base


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"delay_in_frames": 9}, "delay_in_frames must be one of 7, 8, 10, 12"),
        ({"delay_in_frames": True}, "delay_in_frames"),
        ({"delay_in_frames": 10.5}, "delay_in_frames"),
        ({"temp": 1.01}, "temp must be from 0 to 1"),
        ({"temp": "hot"}, "temp must be a number from 0 to 1"),
        ({"temp": float("nan")}, "temp"),
        ({"padding_bonus": -4.1}, "padding_bonus must be from -4 to 4"),
        (
            {"language": "tlh"},
            "language must be auto or the code of a language, such as en, de or fr, not 'tlh'",
        ),
        ({"turns": 1}, "turns must be true or false"),
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        (3, "must be a JSON object"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(config: Any, named: str) -> None:
    with pytest.raises(RequestError, match=named.replace("(", r"\(")):
        from_json_config(config)


@given(st.sampled_from(DELAYS), st.floats(0, 1), st.floats(-4, 4))
def test_every_allowed_value_is_taken(delay: int, temp: float, bonus: float) -> None:
    asked = {"delay_in_frames": delay, "temp": temp, "padding_bonus": bonus}
    options = from_json_config(asked)
    assert (options.delay_in_frames, options.temp, options.padding_bonus) == (delay, temp, bonus)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_json_value_whatever_crashes_it(value: Any) -> None:
    for key in ("delay_in_frames", "temp", "padding_bonus", "language", "turns"):
        with contextlib.suppress(RequestError):
            assert isinstance(from_json_config({key: value}), Options)
