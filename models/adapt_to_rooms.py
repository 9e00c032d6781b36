"""Teaches Moonshine tiny's encoders to hear through rooms and noise, by distillation.

No transcripts are needed. The teacher is upstream's encoder with full context; it hears a clean
clip with a second of faint noise around it. The student hears the same clip as a microphone in a
room records it, or (a third of the time) clean at another level. The loss is that of
`adapt_encoder.py`:

    KL(teacher's next-token distributions || student's) + 0.5 * relative squared error of states.

One set of differences is learnt for both encoders: that of the second pass (full context), which
starts from upstream's weights, and that of the first pass, which starts halfway between upstream's
and those of `adapt_encoder.py`. Half of the examples are for each. Those of the first pass see
what an update sees: a frame has at most LOOKAHEAD frames of future, and half of the clips end
anywhere; their loss is of the words that are older than the delay.

    python models/adapt_to_rooms.py models/built/tiny-en STREAMING.npz AUDIO_DIR OUT.npz

OUT.npz has the weights of the first pass under upstream's names and those of the second pass under
the same names behind `full.`. With --join, finished runs (--seed) are averaged into one file.

Needs torch and pyroomacoustics; one core suffices."""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from adapt_encoder import (
    Tensor,
    Weights,
    decode,
    encode,
    frontend,
    greedy,
    load,
    read_clips,
)
from room_sounds import Samples, in_room, noise_pool, room_responses

from edged.stt.family import RATE
from edged.stt.moonshine.dimensions import EOS, FRAME_SAMPLES

FULL_CONTEXT = "full."  # in front of the names of weights that are for the second pass
CHUNK, LOOKAHEAD = 10, 45  # frames: of an update, and revised by it
DELAY, EDGE = 20, 12  # frames: words and states that are younger have no loss
PADDING = 40  # frames of faint noise around the clip that the teacher hears
LESSONS = 600  # stretches of speech; each is heard again in other rooms
ROOMS, NOISE_ROUNDS = 300, 10
CLEAN_SHARE = 0.33
KEPT_TOKENS = 64  # the teacher's most probable tokens; the others count as one


@dataclass(frozen=True)
class Lesson:
    """speech: as the teacher heard it, without the padding. states: the teacher's, with those of
    the padding. tokens: its transcript with BOS. best, log_p: its most probable next tokens."""

    speech: Samples
    states: Tensor
    tokens: Tensor
    best: Tensor
    log_p: Tensor


# ---- what the teacher hears ----------------------------------------------------------------------
def stretch(clips: list[Samples], chance: np.random.Generator) -> Samples:
    """A part of a clip, as short as a word, or several with pauses; sometimes at another speed."""

    def part(low_s: float, high_s: float) -> Samples:
        clip = clips[int(chance.integers(len(clips)))]
        clip = clip / (np.sqrt(np.mean(clip**2)) + 1e-6) * 0.05
        return _cut_in_pauses(clip, int(chance.uniform(low_s, high_s) * RATE), chance)

    def silence(seconds: float) -> Samples:
        return np.zeros(int(seconds * RATE), np.float32)

    parts, form = [silence(chance.uniform(0, 0.5))], chance.random()
    if form < 0.2:
        parts.append(part(0.4, 1.6))
    elif form < 0.5:
        parts.append(part(1.5, 5))
    else:
        wanted = chance.uniform(3, 9) * RATE
        while sum(map(len, parts)) < wanted:
            parts += [part(1.5, 8), silence(abs(chance.normal(0, 0.25)))]
    x = np.concatenate([*parts, silence(chance.uniform(0.05, 0.8))])[: 10 * RATE]
    if chance.random() < 0.25:
        x = np.interp(np.arange(0, len(x) - 1, chance.uniform(0.88, 1.12)), np.arange(len(x)), x)
    return x.astype(np.float32)


def _cut_in_pauses(clip: Samples, length: int, chance: np.random.Generator) -> Samples:
    """About `length` samples of a clip, cut where it is quiet."""
    if len(clip) <= length:
        return clip

    def quietest(near: int) -> int:
        first = max(0, near - RATE // 5)
        frames = clip[first : near + RATE // 5]
        frames = frames[: len(frames) // 160 * 160].reshape(-1, 160)
        power = np.convolve((frames**2).mean(1), np.ones(5) / 5, "same")
        return first + int(power.argmin()) * 160

    start = int(chance.integers(len(clip) - length))
    first, last = quietest(start), quietest(start + length)
    if last - first > RATE // 4:
        return clip[first:last]
    return clip[start : start + length]


@torch.no_grad()
def lesson(
    encoder: Weights, decoder: Weights, speech: Samples, chance: np.random.Generator
) -> Lesson | None:
    """None if the teacher hears nothing, or loops."""
    silence = np.zeros(PADDING * FRAME_SAMPLES, np.float32)
    heard = np.concatenate([silence, speech, silence])
    heard += (chance.standard_normal(len(heard)) * 2e-4).astype(np.float32)
    features = frontend(encoder, heard, CHUNK, LOOKAHEAD)[0]
    states = encode(encoder, features, torch.arange(len(features)))
    tokens = greedy(decoder, states)
    if tokens is None or len(tokens) < 2:
        return None
    log_p, best = torch.log_softmax(decode(decoder, tokens, states)[0], -1).topk(KEPT_TOKENS)
    return Lesson(speech, states, tokens, best, log_p)


# ---- what the student hears ----------------------------------------------------------------------
def losses(
    encoder: Weights, decoder: Weights, student: Weights, given: Lesson, heard: Samples,
    streaming: bool, arrived: int | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Returns (KL, relative error of states). arrived: frames that the first pass has so far."""
    if arrived is not None:
        heard = heard[: arrived * FRAME_SAMPLES + 700]
    features = frontend(encoder, heard, CHUNK, LOOKAHEAD)[streaming]
    n = min(len(features), len(given.states) - PADDING)
    mask = _update_mask(n) if streaming else None
    states = encode(student, features[:n], torch.arange(n), mask)
    target = given.states[PADDING : PADDING + n]
    settled = n if arrived is None else max(1, n - EDGE)
    difference = (states - target)[:settled].pow(2).mean()
    error = difference / target[:settled].pow(2).mean()
    words = len(given.tokens)
    if arrived is not None:
        words = _words_due(decoder, given, max(1, n - DELAY))
    if not words:
        return torch.zeros(()), error
    logits = decode(decoder, given.tokens[:words], states)[0]
    got = torch.log_softmax(logits, -1).gather(-1, given.best[:words])
    want = given.log_p[:words]
    others_want, others_got = ((1 - log_p.exp().sum(-1)).clamp(min=1e-6) for log_p in (want, got))
    kl = (want.exp() * (want - got)).sum(-1) + others_want * (others_want / others_got).log()
    return kl.mean(), error


def _update_mask(n: int) -> Tensor | None:
    """A frame that is no longer revised had LOOKAHEAD frames of future when it was last encoded."""
    index = torch.arange(n)
    known = (index // CHUNK + 1) * CHUNK + LOOKAHEAD
    return torch.zeros(n, n).masked_fill(index[None] >= known[:, None], -1e9)


@torch.no_grad()
def _words_due(decoder: Weights, given: Lesson, frames: int) -> int:
    """How many tokens the teacher already knows from so many frames."""
    known = decode(decoder, given.tokens, given.states[: PADDING + frames])[0].argmax(-1)
    wrong = (known != torch.cat((given.tokens[1:], torch.tensor([EOS])))).nonzero()
    return min(len(given.tokens) - 1, int(wrong[0]) if len(wrong) else len(given.tokens))


# ---- training ------------------------------------------------------------------------------------
def train(
    model: Path, streaming: Path, audio: Path, out: Path, minutes: float, rate: float, seed: int
) -> None:
    """Trains for `minutes` and writes the running mean of the weights. rate: learning rate."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    random.seed(seed)
    chance = np.random.default_rng([3, seed])
    encoder, decoder = load(model)
    bases = _bases(encoder, streaming)
    clips = read_clips(audio)
    responses = np.stack([room_responses(number) for number in range(ROOMS)])
    pool = noise_pool(clips, np.random.default_rng(5), NOISE_ROUNDS)
    lessons: dict[int, Lesson | None] = {}
    moved = {name: torch.zeros_like(w).requires_grad_() for name, w in bases[True].items()}
    mean = {name: w.detach().clone() for name, w in moved.items()}
    optimiser = torch.optim.AdamW(moved.values(), betas=(0.9, 0.98), weight_decay=0.0)
    begun, step, log = time.monotonic(), 0, []
    while (left := 1 - (time.monotonic() - begun) / (minutes * 60)) > 0:
        number = int(chance.integers(LESSONS))
        if number not in lessons:
            own = np.random.default_rng([1, number])
            lessons[number] = lesson(encoder, decoder, stretch(clips, own), own)
        given = lessons[number]
        if given is None:
            continue
        streams, clean = bool(chance.random() < 0.5), bool(chance.random() < CLEAN_SHARE)
        heard = in_room(given.speech, responses, pool, chance, clean)
        frames, arrived = len(heard) // FRAME_SAMPLES, None
        if streams and frames > 35 and chance.random() < 0.5:
            arrived = int(chance.integers(30, frames))
        student = {name: bases[streams][name] + moved[name] for name in moved}
        kl, error = losses(encoder, decoder, student, given, heard, streams, arrived)
        for group in optimiser.param_groups:  # linear warm-up, then a half cosine down to a tenth
            cosine = 0.1 + 0.45 * (1 + np.cos(np.pi * (1 - left)))
            group["lr"] = rate * min(1, (step + 1) / 100) * cosine
        optimiser.zero_grad()
        (kl + 0.5 * error).backward()
        torch.nn.utils.clip_grad_norm_(list(moved.values()), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for name, average in mean.items():
                average.lerp_(moved[name], 1 - min(0.997, step / (step + 20)))
        log.append((kl.item(), error.item()))
        if step % 100 == 0:
            recent = np.mean(log[-400:], 0)
            print(f"{step}: KL {recent[0]:.4f}, relative error {recent[1]:.4f}", flush=True)
    _save(out, bases, mean)


def _bases(encoder: Weights, streaming: Path) -> dict[bool, Weights]:
    """The weights that the encoders of the second pass (False) and the first pass (True) have."""
    names = [n for n in encoder if n.startswith("layers.") or n == "layer_norm.weight"]
    with np.load(streaming) as arrays:
        adapted = {name: torch.tensor(arrays[name].astype(np.float32)) for name in names}
    halfway = {name: 0.5 * (encoder[name] + adapted[name]) for name in names}
    return {False: {name: encoder[name] for name in names}, True: halfway}


def _save(out: Path, bases: dict[bool, Weights], moved: Weights) -> None:
    arrays = {
        ("" if streams else FULL_CONTEXT) + name: (weights[name] + moved[name]).numpy()
        for streams, weights in bases.items()
        for name in moved
    }
    np.savez_compressed(out, **{name: array.astype(np.float16) for name, array in arrays.items()})


def join(parts: list[Path], out: Path) -> None:
    """Writes the mean of the weights of several runs."""
    runs = [dict(np.load(part)) for part in parts]
    means = {name: np.mean([run[name].astype(np.float32) for run in runs], 0) for name in runs[0]}
    np.savez_compressed(out, **{name: array.astype(np.float16) for name, array in means.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of upstream's .ort files")
    parser.add_argument("streaming", type=Path, help="weights of adapt_encoder.py")
    parser.add_argument("audio", type=Path, help="folder of speech")
    parser.add_argument("out", type=Path, help=".npz to write")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=1e-4, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--join", type=Path, nargs="+", help="average these files instead")
    given = parser.parse_args()
    if given.join:
        join(given.join, given.out)
        return
    train(
        given.model, given.streaming, given.audio, given.out, given.minutes, given.rate, given.seed
    )


if __name__ == "__main__":
    main()
