"""Damages recordings of every format at random and decodes them, each in bounded time and memory.

    python -m tests.bench.decoder_fuzz [--count 4000] [--seed 1] [--also FOLDER]

Each file goes through the decoder of files, WAV and Ogg Opus also through the API's. Only
InputError and RequestError may come out, within 10 s of processor time, with no more memory than
300 MiB in all and without a word on standard error (which is the caller's to look at). The exit
code is the number of files that broke this, at most 100; they are kept in the current folder.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

from edged.audio.files import open_audio
from edged.audio.stream_decoders import decoder
from edged.errors import InputError, RequestError
from tests.conftest import SAMPLES
from tests.support.recordings import recordings_of_every_format, with_random_damage

MAX_CPU_S = 10.0
MAX_MIB = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--also", type=Path, help="a folder of files to damage as well")
    args = parser.parse_args()
    speech, rate = soundfile.read(SAMPLES / "good-influence.flac")
    good = recordings_of_every_format(speech[:rate], rate)
    for path in sorted(args.also.iterdir()) if args.also else []:
        if path.stat().st_size:
            good[path.name] = path.read_bytes()[: 1 << 20]
    rng = random.Random(args.seed)
    outcomes: Counter[str] = Counter()
    slowest_s, broken = 0.0, 0
    path = Path("decoder-fuzz")
    for number in range(args.count):
        name = rng.choice(sorted(good))
        data = with_random_damage(good[name], rng)
        path.write_bytes(data)
        started = time.process_time()
        try:
            outcomes[_decode(path, data, rng)] += 1
        except Exception as error:
            broken += 1
            print(f"{number} {name}: {error!r}")
            path.rename(f"decoder-fuzz-{args.seed}-{number}-{name}")
        took_s = time.process_time() - started
        slowest_s = max(slowest_s, took_s)
        if took_s > MAX_CPU_S:
            broken += 1
            print(f"{number} {name}: {took_s:.1f} s")
    path.unlink(missing_ok=True)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{args.count} files: {dict(outcomes)}, slowest {slowest_s:.2f} s, {used} MiB at most")
    return min(100, broken + (used > MAX_MIB))


def _decode(path: Path, data: bytes, rng: random.Random) -> str:
    outcome = "whole"
    samples = 0
    try:
        with closing(open_audio(str(path))) as source:
            for frame in source.frames():
                samples += len(frame)
    except InputError:
        outcome = "damaged" if samples else "refused"
    for input_format in ("wav", "opus"):
        taken = decoder(input_format, whole=bool(rng.getrandbits(1)))
        size = rng.choice((100, 5000, 1 << 20))
        try:
            for at in range(0, min(len(data), 1 << 18), size):
                for frame in taken.push(data[at : at + size]):
                    assert frame.dtype == np.int16
            for _ in taken.finish():
                pass
        except RequestError:
            pass
    return outcome


if __name__ == "__main__":
    raise SystemExit(main())
