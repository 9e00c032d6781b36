"""Smart Turn's network on real speech."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edged.models.loader import load
from edged.vad.smart_turn import SmartTurn

SENTENCE = Path(__file__).parents[1] / "support" / "speech" / "mister-hale.flac"

pytestmark = pytest.mark.models


def test_a_sentence_sounds_complete_at_its_end_and_not_in_its_middle() -> None:
    session = load().smart_turn
    assert session is not None
    smart_turn = SmartTurn(session)
    x, rate = soundfile.read(SENTENCE, dtype="float32")
    silence = np.zeros(rate // 5, np.float32)
    whole = smart_turn.probability(np.append(x, silence))
    broken = smart_turn.probability(np.append(x[: 3 * rate], silence))
    assert broken < 0.5 < whole
    assert smart_turn.run_time_s() > 0


def test_a_run_leaves_no_memory_behind() -> None:
    """Its arena, without which each of its tensors is mapped anew, would keep 15 MB for good."""
    script = """
import numpy as np, psutil
from edged.models.loader import load
from edged.vad.smart_turn import SAMPLES, SmartTurn
models = load()
smart_turn, rss = SmartTurn(models.smart_turn), psutil.Process().memory_info
before = rss().rss
for _ in range(3):
    smart_turn.probability(np.zeros(SAMPLES, np.float32))
print(rss().rss - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 12e6
