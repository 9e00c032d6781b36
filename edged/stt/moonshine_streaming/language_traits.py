"""What decoding needs to know about the languages of these models."""

from __future__ import annotations

from edged.stt.family import LanguageTraits

OTHER_SCRIPTS = frozenset({"ar", "ja", "zh"})  # than Latin

LATIN_TOKENS_PER_S, OTHER_TOKENS_PER_S = 6.5, 13.0  # upstream's advice


def traits(language: str) -> LanguageTraits:
    """The traits of a language code."""
    return LanguageTraits(OTHER_TOKENS_PER_S if language in OTHER_SCRIPTS else LATIN_TOKENS_PER_S)
