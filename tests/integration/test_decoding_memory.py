"""Decoding takes the same memory however long the file is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 8000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "subtype"), [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("WAV", "GSM610")]
)
def test_memory_does_not_grow_with_the_length_of_a_file(
    tmp_path: Path, form: str, subtype: str
) -> None:
    """In a process of its own: most of the memory is FFmpeg's, which Python does not count."""
    program = (
        "import resource, sys\n"
        "from edged.audio.files import open_audio\n"
        "for path in sys.argv[1:]:\n"
        "    count = sum(1 for _ in open_audio(path).frames())\n"
        "    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 60)
    paths = []
    for name, minutes in (("short", 1), ("long", 10)):
        paths.append(str(tmp_path / name))
        soundfile.write(paths[-1], np.tile(noise, minutes), RATE, subtype, format=form)
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    (_, before), (count, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert count >= 7500
    assert after - before < 6_000, f"{after - before} KiB more for ten minutes than for one"
