"""Whatever a device gives, the words stay: capture, ring and recogniser together.

A card that can only do 48 kHz stereo is the commonest USB microphone. The real device of the tests
converts by itself, so here a fake one gives what such a card gives; kernel cards are in `tests/vm`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.audio.capture import Capture
from edged.audio.files import open_audio
from edged.audio.ring import Gap, Ring
from edged.bench import wer
from edged.engine.session import Session
from edged.events import Text
from edged.models.loader import Models, load
from tests.conftest import SAMPLES
from tests.support.fake_alsa import FakeCard
from tests.support.mosquitto import until

Samples = NDArray[np.int16]
PAUSE = np.zeros(12 * STEP_SAMPLES, np.int16)


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


@pytest.fixture(scope="module")
def spoken() -> Samples:
    """A sentence, 24 kHz."""
    with contextlib.closing(open_audio(str(SAMPLES / "peaceful-night.flac"))) as source:
        return np.concatenate([*source.frames(), PAUSE])


def captured(seconds: float) -> Iterator[Samples]:
    """What the capture thread makes of it, in frames."""
    ring = Ring()
    capture = Capture(ring, "any", 0.0, lambda state: None)
    capture.start()
    try:
        until(lambda: ring.depth * 0.08 >= seconds - 0.2, "all of it was heard", seconds + 30)
        assert capture.xruns == 0
    finally:
        capture.stop()
    for item in ring.take(10**6):
        assert not isinstance(item, Gap)
        yield item


def words(models: Models, frames: Iterator[Samples]) -> list[Text]:
    session = Session(models)
    events = [event for frame in frames for event in session.push(frame)] + session.end()
    return [e for e in events if isinstance(e, Text)]


def text(words: list[Text]) -> str:
    return " ".join(word.text for word in words)


@pytest.mark.parametrize(
    ("rate", "channels", "form"), [(48_000, 2, "S16_LE"), (44_100, 2, "S32_LE")]
)
def test_a_card_that_must_be_converted_gives_the_words_of_a_24_khz_mono_one(
    monkeypatch: pytest.MonkeyPatch,
    models: Models,
    spoken: Samples,
    rate: int,
    channels: int,
    form: str,
) -> None:
    wide = np.asarray(soxr.resample(spoken.astype(np.float32), SAMPLE_RATE, rate), np.float32)
    wide = np.clip(np.rint(wide), -32768, 32767).astype(np.int16)

    def sound(first: int, count: int) -> Samples:
        piece = wide[first : first + count]
        return np.pad(piece, (0, count - len(piece)))

    FakeCard(rate, channels, (form,), sound).install(monkeypatch)
    seconds = len(spoken) / SAMPLE_RATE
    heard = words(models, captured(seconds))
    expected = words(models, iter(spoken.reshape(-1, STEP_SAMPLES)))
    assert len(expected) > 8
    # The recogniser hears the last bit: another resampler gives another word here and there
    # ("life" for "lives"). Nonsense in place of the sound gives other words altogether.
    wrong = wer.errors(text(expected), text(heard)).rate
    assert wrong is not None
    assert wrong <= 0.1
    offsets = [h.start_s - e.start_s for h, e in zip(heard, expected, strict=False)]
    assert abs(np.median(offsets)) < 0.05
