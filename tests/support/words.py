"""Compares a transcript with what was said."""

from __future__ import annotations

from edged.bench import wer


def error_rate(spoken: str, text: str) -> float:
    """Wrong words of `text` for each word of `spoken`, which must not be empty."""
    rate = wer.errors(spoken, text).rate
    assert rate is not None
    return rate
