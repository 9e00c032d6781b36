"""The options of one session: the keys of `json_config` and their bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edged.errors import RequestError
from edged.keyterm_list import read_terms, split_terms
from edged.languages import is_language

DELAYS = (7, 8, 10, 12, 14, 16, 20, 24, 32, 36, 48)  # steps of 80 ms
DEFAULT_BOOST, MAX_BOOST = 1.5, 6.0  # of key terms


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one session. All may change while it runs (`Session.configure`).

    delay_in_frames: steps of 80 ms between the end of a word and its `text`.
    temp: 0 gives the most probable text; above 0, uncommitted words are sampled.
    padding_bonus: -4..4; below 0 words are committed sooner, above 0 with more agreement.
    language: a code (`edged.languages`), or `auto`: the model finds the language of each turn.
    seed: of the sampling.
    vad_threshold: the probability of speech that opens the voice gate.
    turn_threshold: P(nobody speaks for 2 s) above which the end of a turn is likely.
    turn_silence_ms: scales the silence that closes a turn (`edged.vad.endpoint.Endpoint`).
    turns: whether `turn` messages are given; clients of the API server have to ask for them.
    digits: whether turns write spoken numbers as digits.
    keyterms: terms that the recogniser should expect, valid lines of `edged.keyterm_list`.
    keyterm_boost: 0..6, the bonus of each step along a term; 0 is none.
    """

    delay_in_frames: int = 10
    temp: float = 0.0
    padding_bonus: float = 0.0
    language: str = "en"
    seed: int = 0
    vad_threshold: float = 0.5
    turn_threshold: float = 0.5
    turn_silence_ms: int = 700
    turns: bool = True
    digits: bool = False
    keyterms: tuple[str, ...] = ()
    keyterm_boost: float = DEFAULT_BOOST


def _number(key: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{key} must be a number from {low:g} to {high:g}, not {value!r}")
    if not low <= value <= high:  # NaN is in no range; an int may be too large for a float
        raise RequestError(f"{key} must be from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _delay(key: str, value: object) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value not in DELAYS:
        allowed = ", ".join(map(str, DELAYS))
        raise RequestError(f"{key} must be one of {allowed}, not {value!r}")
    return DELAYS[DELAYS.index(value)]


def _language(key: str, value: object) -> str:
    if not is_language(value):
        allowed = "auto or the code of a language, such as en, de or fr"
        raise RequestError(f"{key} must be {allowed}, not {value!r:.80}")
    return str(value)


def _keyterms(key: str, value: object) -> tuple[str, ...]:
    terms = split_terms(value) if isinstance(value, str) else value
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise RequestError(f"{key} must be a list of strings, not {value!r:.80}")
    found = read_terms(terms)
    if found.problems:
        raise RequestError(f"{key}: {'; '.join(found.problems)}")
    return found.lines


def from_json_config(config: Mapping[str, Any] | str | None, base: Options = Options()) -> Options:
    """Reads the options of a `json_config`, which is an object or a string that holds one.

    base: gives what the configuration does not.

    Unknown keys are ignored. Whether a model has the language is not checked.
    Raises RequestError (1008), which names the key and what it allows.
    """
    if config is None or config == "":
        return base
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"json_config is not valid JSON: {error}") from None
    if not isinstance(config, Mapping):
        raise RequestError("json_config must be a JSON object or a string holding one")
    changed: dict[str, Any] = {}
    for key, value in config.items():
        match key:
            case "language" if value is not None:
                changed["language"] = _language(key, value)
            case "temp" | "temperature" if value is not None:
                changed["temp"] = _number(key, value, 0, 1)
            case "delay_in_frames" | "delay_in_tokens" if value is not None:
                changed["delay_in_frames"] = _delay(key, value)
            case "padding_bonus" if value is not None:
                changed["padding_bonus"] = _number(key, value, -4, 4)
            case "keyterms" if value is not None:
                changed["keyterms"] = _keyterms(key, value)
            case "keyterm_boost" if value is not None:
                changed["keyterm_boost"] = _number(key, value, 0, MAX_BOOST)
            case "turns" | "digits":
                if not isinstance(value, bool):
                    raise RequestError(f"{key} must be true or false, not {value!r}")
                changed[key] = value
    return replace(base, **changed)
