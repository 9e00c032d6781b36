"""What the words before a pause tell about the end of the turn."""

from __future__ import annotations

import pytest

from edged.vad.text_evidence import Evidence, TextEvidence


def evidence(
    speech_s: float, p_complete: float | None, text: TextEvidence | None = None
) -> Evidence:
    return Evidence((), 3.0, 0.5, speech_s, p_complete, text)


@pytest.mark.parametrize(
    ("text", "p_final", "dangling"),
    [
        ("Yes.", 0.8, False),
        ('She said "no."', 0.8, False),
        ("I would like a coffee and", 0.0, True),
        ("turn on the light", 0.0, False),
    ],
)
def test_a_final_mark_and_a_word_that_calls_for_another_are_found(
    text: str, p_final: float, dangling: bool
) -> None:
    assert TextEvidence.from_text(text, 0.7, 0.8) == TextEvidence(0.7, p_final, dangling)


def test_words_of_other_languages_call_for_nothing_and_their_marks_end_sentences() -> None:
    """Danish "to" (two) and Spanish "a" were held to be English words."""
    for text, language in (("ich sehe die", "de"), ("klokken er to", "da"), ("voy a", "es")):
        assert TextEvidence.from_text(text, 0.7, 0.8, language) == TextEvidence(0.7, 0.0, False)
    assert TextEvidence.from_text("電気をつけて。", 0.7, 0.8, "ja") == TextEvidence(0.7, 0.8, False)
    assert TextEvidence.from_text("متى؟", 0.7, 0.8, "ar") == TextEvidence(0.7, 0.8, False)
    assert TextEvidence.from_text("I see a", 0.7, 0.8, "en") == TextEvidence(0.7, 0.0, True)


def test_no_text_or_text_not_decoded_to_its_end_is_no_evidence() -> None:
    assert TextEvidence.from_text("", 0.9, 0.9) is None
    assert TextEvidence.from_text(" ... ", 0.9, 0.9) is None
    assert TextEvidence.from_text("yes", None, 0.9) is None


def test_words_are_conclusive_by_a_sure_full_stop_or_by_calling_for_more() -> None:
    assert TextEvidence(0.9, 0.95, False).is_conclusive(3.0)
    assert TextEvidence(0.1, 0.0, True).is_conclusive(3.0)
    assert not TextEvidence(0.9, 0.85, False).is_conclusive(3.0), "the mark is likely, no more"
    assert not TextEvidence(0.9, 0.95, False).is_conclusive(0.5), "a short answer needs both"


def test_a_short_answer_is_short_and_complete_to_smart_turn_and_to_the_recogniser() -> None:
    full_stop = TextEvidence(0.9, 0.9, False)
    assert evidence(0.3, 0.95, full_stop).short_answer
    assert not evidence(3.0, 0.95, full_stop).short_answer, "a sentence"
    assert not evidence(0.3, 0.5, full_stop).short_answer
    assert not evidence(0.3, None, full_stop).short_answer
    assert not evidence(0.3, 0.95, TextEvidence(0.9, 0.0, False)).short_answer, "no final mark"
    assert not evidence(0.3, 0.95, TextEvidence(0.9, 0.9, True)).short_answer
    assert not evidence(0.3, 0.95, None).short_answer


def test_a_sentence_that_breaks_off_or_dangles_is_unfinished_and_an_unknown_one_is_not() -> None:
    plain, dangling = TextEvidence(0.9, 0.0, False), TextEvidence(0.9, 0.0, True)
    assert evidence(1.0, 0.02, plain).unfinished
    assert evidence(1.0, 0.9, dangling).unfinished
    assert not evidence(1.0, 0.9, plain).unfinished
    assert evidence(1.0, 0.02, TextEvidence(0.9, 0.7, False)).unfinished
    assert not evidence(1.0, 0.02, TextEvidence(0.9, 0.95, False)).unfinished, "surely a sentence"
    assert not evidence(1.0, None, None).unfinished
