"""Decides in which language somebody speaks, from what the model hears and what was spoken so far.

A second of speech is little: without the language so far, every fourth short answer would be taken
for one in another language (README.md, Decisions).
"""

from __future__ import annotations

from collections.abc import Mapping

SURE_AFTER_S = 3.0  # from this much audio on, the probabilities count as they are
MAX_ADVANTAGE = 20.0  # of the language so far, by how many times, where there is next to no audio


def spoken_language(
    probabilities: Mapping[str, float], seconds: float, expected: str | None = None
) -> str:
    """The most probable language.

    probabilities: of `edged.stt.family.SpeechModel.detect_language`, not empty. seconds: of audio
    that they were computed from. expected: the language so far; None if nothing is known. It has an
    advantage that shrinks as `seconds` grow.
    """
    missing = max(0.0, 1.0 - seconds / SURE_AFTER_S)
    advantage = 1.0 + (MAX_ADVANTAGE - 1.0) * missing

    def weight(code: str) -> float:
        return probabilities[code] * (advantage if code == expected else 1.0)

    return max(probabilities, key=weight)
