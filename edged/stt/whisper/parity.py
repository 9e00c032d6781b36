"""Compares the built graphs with Whisper itself over a whole clip, for `edged models verify`.

Whisper itself is the float model with its window of 30 s (`reference.py`). The graphs are run here
apart from the recogniser, so that a mistake in the recogniser cannot hide one in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edged.ortsession import open_session
from edged.stt.family import Floats, SpeechCheck
from edged.stt.whisper.build_version import CROSS_PADDING, EMBEDDING, PADDING
from edged.stt.whisper.dimensions import (
    FRAME_SAMPLES,
    PADDED_STATES,
    PADDING_STRIDE,
    WINDOW_FRAMES,
)
from edged.stt.whisper.reference import WINDOW_SAMPLES, Reference, whole_log_mel
from edged.stt.whisper.vocabulary import NO_TIMES, START, TRANSCRIBE, BpeVocabulary

MAX_STATE_DIFFERENCE = 0.25  # relative RMS of encoder states; samples give 0.115 to 0.188
MAX_LOG_P_DEFICIT = 2.5  # by how much upstream's token may be less likely than the most probable
MAX_TOKENS = 200
COMPARED_TOKENS = 1000  # the most probable tokens among which upstream's is looked for


def check(
    upstream: Path, built: Path, samples: Floats, threads: int, language: str = "en"
) -> SpeechCheck:
    """Whether Whisper's own tokens are as probable as the best of the built graphs, and the encoder
    states close.

    upstream: folder of upstream's files. built: folder of the graphs. samples: float32[n], 16 kHz,
    speech in `language`; at most the first 30 s are compared.
    """
    samples = samples[:WINDOW_SAMPLES]
    frames = len(samples) // FRAME_SAMPLES
    vocabulary = BpeVocabulary.load(upstream / "vocabulary.txt")
    special = vocabulary.special
    prompt = [special(name) for name in (START, f"<|{language}|>", TRANSCRIBE, NO_TIMES)]
    config = json.loads((upstream / "config.json").read_bytes())
    reference = Reference.load(upstream / "model.bin")
    whole, _ = reference.window(samples)
    forbidden = [*config["suppress_ids"], *range(vocabulary.eos + 1, len(vocabulary))]
    tokens = reference.decode(
        whole, prompt, forbidden, MAX_TOKENS, vocabulary.eos, config["suppress_ids_begin"]
    )
    states, deficit = _run_built(built, reference, samples, prompt, [*tokens, vocabulary.eos])
    error, signal = states - whole[:frames], whole[:frames]
    difference = float(np.sqrt(np.square(error).mean() / np.square(signal).mean()))
    close = int(np.count_nonzero(deficit))
    return SpeechCheck(
        difference <= MAX_STATE_DIFFERENCE and bool(deficit.max() <= MAX_LOG_P_DEFICIT),
        f"{len(deficit) - close} of {len(deficit)} of Whisper's own tokens are the most probable"
        f" here, the others are up to {deficit.max():.2f} less likely (at most"
        f" {MAX_LOG_P_DEFICIT:.1f} is allowed); encoder states differ by {difference:.1%} (at most"
        f" {MAX_STATE_DIFFERENCE:.0%})",
    )


def _run_built(
    folder: Path, reference: Reference, samples: Floats, prompt: Sequence[int], text: Sequence[int]
) -> tuple[Floats, Floats]:
    """Encoder states, and by how much in log probability each token of `text` behind the prompt is
    less likely than the most probable one."""
    sizes = reference.sizes
    sessions = {
        name: open_session(folder / f"{name}.onnx", 1)
        for name in ("features", "encoder", "cross", "decoder")
    }
    frames = len(samples) // FRAME_SAMPLES
    kv = np.load(folder / PADDING)
    behind = np.fromfile(folder / CROSS_PADDING, "<f2").reshape(WINDOW_FRAMES, -1)
    window = np.zeros(WINDOW_SAMPLES, np.float32)
    window[: len(samples)] = samples
    mel = np.pad(whole_log_mel(window)[:, : 2 * frames + 1].T, ((2, 0), (0, 0)))
    mel = np.pad(mel, ((0, 2 * frames + 3 - len(mel)), (0, 0)))
    live = np.ones((2 * frames + 1, 1), np.float32)
    live[0] = 0
    places = np.arange(PADDING_STRIDE // 2, WINDOW_FRAMES, PADDING_STRIDE)
    some = kv[:, :, places >= frames]
    count = max(1, some.shape[2])
    bias = np.zeros(frames + some.shape[2], np.float32)
    bias[frames:] = np.log(max(1, WINDOW_FRAMES - frames) / count)
    nothing = np.zeros((sizes.heads, 0, sizes.head_dim), np.float32)
    feed = {
        "feat": sessions["features"].run(None, {"mel": mel, "live": live})[0],
        "pos0": np.array(0),
        "kept": np.array([0]),
        "bias": bias,
        **dict.fromkeys(sizes.past_names, nothing),
        **dict(zip(sizes.padding_names, some, strict=True)),
    }
    states = sessions["encoder"].run(["out"], feed)[0]
    cross = sessions["cross"].run(None, {"h": states})
    heard = [half for both in cross for half in np.split(both, 2)]
    padded = np.split(behind[frames:][:PADDED_STATES].astype(np.float32), len(heard), -1)
    each = [
        np.concatenate((a, b.reshape(len(b), *a.shape[::2]).transpose(1, 0, 2)), 1)
        for a, b in zip(heard, padded, strict=True)
    ]
    read = [*prompt, *text[:-1]]
    table = np.fromfile(folder / EMBEDDING, np.int8).reshape(-1, sizes.width + 4)[read]
    scale = np.ascontiguousarray(table[:, -4:]).view("<f4").astype(np.float32)
    feed = {
        "rows": table[:, :-4] * scale,
        "positions": np.arange(len(read)),
        "mask": np.triu(np.full((len(read), len(read)), -1e9, np.float32), 1),
        "most": np.array(
            [min(COMPARED_TOKENS, len(reference.variables["decoder/embeddings/weight"]))]
        ),
        "heard_frames": np.array([frames]),
        **dict.fromkeys(sizes.past_names, nothing),
        **dict(zip(sizes.cross_names, each, strict=True)),
    }
    best, p = sessions["decoder"].run(["tokens", "p"], feed)
    best, p = best[len(prompt) - 1 :], p[len(prompt) - 1 :]
    theirs = np.where(best == np.array(text)[:, None], p, 0).max(-1)
    return states, np.log(p[:, 0] / np.maximum(theirs, 1e-30))
