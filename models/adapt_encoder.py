"""Adapts Moonshine tiny's encoder to streaming, by distilling it from itself with full context.

No transcripts are needed. For each stretch of speech the unchanged model (the teacher) gives
encoder states with full context and a greedy transcript. The student starts with the same weights
and gets the audio as the streaming encoder does: chunks of C frames, each with R frames of
lookahead that are computed again for it, and group-norm statistics of the audio so far. The loss is

    KL(teacher's next-token distributions || student's) + 0.5 * relative squared error of states.

Only the six encoder layers and the final norm are trained.

A streamed pass is computed as one batch: the n final frames, then for every chunk its own copies
of its R lookahead frames. A frame of chunk b, final or copy, attends to the final frames of the
chunks up to b and to the copies of chunk b.

    python models/adapt_encoder.py models/built/tiny-en AUDIO_DIR OUT.npz --minutes 60

Needs torch (`pip install torch`); two cores suffice. AUDIO_DIR contains speech in any format that
libsndfile reads, mono or not, each file longer than half a second."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as functional

from edged.export.weights import read_weights
from edged.stt.moonshine.dimensions import BOS, EOS, TINY

RATE = 16_000
FRAME_S = 0.024
TOKENS_PER_S = 6.5  # a transcript with more is a loop and is skipped
# (chunk, lookahead) in frames: mostly what 0.56 s of delay allows, and a little less and more.
LAYOUTS = [(10, 20), (10, 20), (10, 20), (10, 14), (10, 30)]

Tensor = torch.Tensor
Weights = dict[str, Tensor]


# ---- upstream's weights --------------------------------------------------------------------------
def load(folder: Path) -> tuple[Weights, Weights]:
    """(encoder, decoder) as float tensors: `layers.0.self_attn.q_proj.weight` [out, in], ..."""
    encoder, decoder = read_weights(folder)
    prefix = "model.decoder."
    return _tensors(encoder), _tensors({k.removeprefix(prefix): v for k, v in decoder.items()})


def _tensors(weights: dict[str, object]) -> Weights:
    return {name: tensor for key, value in weights.items() for name, tensor in _named(key, value)}


def _named(key: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if key == "embed":
        yield "embed.weight", _float(value)
    elif isinstance(value, tuple):
        weight, bias = value
        # A quantised matrix is [in, out]; a convolution's kernel is an array as it should be.
        yield f"{key}.weight", _float(weight).T if isinstance(weight, tuple) else _tensor(weight)
        if bias is not None:
            yield f"{key}.bias", _tensor(bias)
    else:
        yield f"{key}.weight", _tensor(value)


def _float(quantised: object) -> Tensor:
    q, scale, zero = (np.asarray(part, np.float32) for part in quantised)  # type: ignore[attr-defined]
    return _tensor((q - zero) * scale)


def _tensor(array: object) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))


# ---- the model, differentiable -------------------------------------------------------------------
def angles(positions: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / (10_000 ** (torch.arange(0, TINY.rotary, 2).float() / TINY.rotary))
    f = positions[:, None].float() * inverse[None]
    return f.cos().repeat_interleave(2, -1), f.sin().repeat_interleave(2, -1)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Interleaved pairs of the first ROTARY dimensions of each head."""
    cos, sin = turn
    a, rest = x[..., : TINY.rotary], x[..., TINY.rotary :]
    swapped = torch.stack((-a[..., 1::2], a[..., ::2]), -1).flatten(-2)
    return torch.cat((a * cos + swapped * sin, rest), -1)


def attention(
    weights: Weights,
    place: str,
    asking: Tensor,
    heard: Tensor,
    turn: tuple[Tensor, Tensor] | None = None,
    past: tuple[Tensor, Tensor] | None = None,
    **mask: object,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    def heads(name: str, x: Tensor) -> Tensor:
        return (
            (x @ weights[f"{place}{name}.weight"].T)
            .view(len(x), TINY.heads, TINY.head_dim)
            .transpose(0, 1)
        )

    q, k, v = heads("q_proj", asking), heads("k_proj", heard), heads("v_proj", heard)
    if turn is not None:
        q, k = rotate(q, turn), rotate(k, turn)
    if past is not None:
        k, v = torch.cat((past[0], k), 1), torch.cat((past[1], v), 1)
    scale = TINY.head_dim**-0.5
    a = functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale, **mask)[0]
    joined = a.transpose(0, 1).reshape(len(asking), TINY.heads * TINY.head_dim)
    return joined @ weights[f"{place}o_proj.weight"].T, (k, v)


def norm(weights: Weights, place: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{place}.weight"])


def linear(weights: Weights, place: str, x: Tensor) -> Tensor:
    return x @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]


def encode(weights: Weights, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
    """Features [n, 288] at their positions -> states [n, 288]."""
    turn = angles(positions)
    for layer in range(TINY.layers):
        p = f"layers.{layer}."
        h = norm(weights, p + "input_layernorm", x)
        x = x + attention(weights, p + "self_attn.", h, h, turn, attn_mask=mask)[0]
        h = norm(weights, p + "post_attention_layernorm", x)
        x = x + linear(weights, p + "mlp.fc2", functional.gelu(linear(weights, p + "mlp.fc1", h)))
    return norm(weights, "layer_norm", x)


def decode(
    weights: Weights,
    tokens: Tensor,
    states: Tensor,
    past: list[tuple[Tensor, Tensor]] | None = None,
    start: int = 0,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Next-token logits [n, vocabulary] after tokens[n], and the self-attention cache."""
    x = weights["embed.weight"][tokens]
    turn = angles(torch.arange(start, start + len(tokens)))
    cache = []
    for layer in range(TINY.layers):
        p = f"layers.{layer}."
        h = norm(weights, p + "input_layernorm", x)
        causal = past is None and len(tokens) > 1
        before = past[layer] if past else None
        h, kept = attention(weights, p + "self_attn.", h, h, turn, before, is_causal=causal)
        cache.append(kept)
        x = x + h
        h = norm(weights, p + "post_attention_layernorm", x)
        x = x + attention(weights, p + "encoder_attn.", h, states)[0]
        h = norm(weights, p + "final_layernorm", x)
        up, gate = linear(weights, p + "mlp.fc1", h).chunk(2, -1)
        x = x + linear(weights, p + "mlp.fc2", up * functional.silu(gate))
    return norm(weights, "norm", x) @ weights["proj_out.weight"].T, cache


@torch.no_grad()
def greedy(weights: Weights, states: Tensor) -> Tensor | None:
    """Returns the teacher's transcript with BOS; None if it is a loop."""
    tokens, past = [BOS], None
    for i in range(int(len(states) * FRAME_S * TOKENS_PER_S) + 3):
        logits, past = decode(weights, torch.tensor(tokens[-1:]), states, past, i)
        best = int(logits[-1].argmax())
        if best == EOS:
            return torch.tensor(tokens)
        tokens.append(best)
    return None


@torch.no_grad()
def frontend(
    weights: Weights, samples: np.ndarray, chunk: int, lookahead: int
) -> tuple[Tensor, Tensor]:
    """Returns features [n, 288] with group-norm statistics of the whole, and of the past."""
    x = torch.tensor(samples)[None, None]
    a = torch.tanh(functional.conv1d(x, weights["conv1.weight"], stride=64))[0]

    def rest(mean: Tensor, variance: Tensor) -> Tensor:
        h = (a - mean) / torch.sqrt(variance + 1e-5)
        h = h * weights["groupnorm.Mul.weight"][:, None] + weights["groupnorm.Add.weight"][:, None]
        for name, stride in (("conv2", 3), ("conv3", 2)):
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            h = functional.gelu(functional.conv1d(h[None], kernel, bias, stride=stride))[0]
        return h.T

    n = torch.arange(1, a.shape[1] + 1)
    mean, square = a.mean(0).cumsum(0) / n, (a**2).mean(0).cumsum(0) / n
    # A frame is made of 6 columns of conv1; a chunk knows those up to its last lookahead frame.
    known = ((n - 1) // (6 * chunk) + 1) * 6 * chunk - 1 + 6 * lookahead
    at = torch.clamp(known, max=a.shape[1] - 1)
    return rest(a.mean(), a.var(unbiased=False)), rest(mean[at], (square - mean**2)[at])


def layout(n: int, chunk: int, lookahead: int) -> tuple[Tensor, Tensor]:
    """Returns (positions, attention mask) of the batch that is described above."""
    positions, chunks = [torch.arange(n)], [torch.arange(n) // chunk]
    copies = [torch.zeros(n, dtype=torch.bool)]
    for b in range((n + chunk - 1) // chunk):
        end = min(n, (b + 1) * chunk)
        ahead = torch.arange(end, min(n, end + lookahead))
        positions.append(ahead)
        chunks.append(torch.full((len(ahead),), b))
        copies.append(torch.ones(len(ahead), dtype=torch.bool))
    position, block, copy = map(torch.cat, (positions, chunks, copies))
    may = torch.where(copy[None], block[None] == block[:, None], block[None] <= block[:, None])
    return position, torch.zeros(may.shape).masked_fill(~may, -1e9)


# ---- training ------------------------------------------------------------------------------------
def read_clips(folder: Path) -> list[np.ndarray]:
    """Reads all audio below a folder as mono at 16 kHz."""
    clips = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue  # not audio: a text or a licence
        clip = soxr.resample(audio.mean(1), rate, RATE).astype(np.float32)
        if len(clip) > RATE // 2:
            clips.append(clip)
    return clips


def example_audio(clips: list[np.ndarray]) -> np.ndarray:
    """Joins clips to 4 to 16 s with pauses; often a silent start, another speed, level or noise."""
    want, parts = random.uniform(4, 14) * RATE, []
    if random.random() < 0.7:
        parts.append(np.zeros(int(random.uniform(0, 0.5) * RATE), np.float32))
    while sum(map(len, parts)) < want:
        clip = random.choice(clips)
        if len(clip) > 12 * RATE:
            start = random.randrange(len(clip) - 12 * RATE)
            clip = clip[start : start + 12 * RATE]
        if random.random() < 0.3:
            at = np.arange(0, len(clip) - 1, random.uniform(0.88, 1.12))
            clip = np.interp(at, np.arange(len(clip)), clip).astype(np.float32)
        parts += [clip, np.zeros(int(abs(random.gauss(0, 0.25)) * RATE), np.float32)]
    x = np.concatenate(parts)[: 16 * RATE] * 10 ** (random.uniform(-12, 3) / 20)
    if random.random() < 0.4:
        noise_db = -random.uniform(10, 35)
        x = x + np.random.randn(len(x)) * np.std(x) * 10 ** (noise_db / 20)
    return np.clip(x, -1, 1).astype(np.float32)


def losses_of_example(
    encoder: Weights, decoder: Weights, student: Weights, clips: list[np.ndarray]
) -> tuple[Tensor, Tensor] | None:
    """Returns (KL, relative error of states) of one example; None if there is next to no speech."""
    chunk, lookahead = random.choice(LAYOUTS)
    full, seen = frontend(encoder, example_audio(clips), chunk, lookahead)
    with torch.no_grad():
        target = encode(encoder, full, torch.arange(len(full)))
        tokens = greedy(decoder, target)
        if tokens is None or len(tokens) < 4:
            return None
        want = torch.log_softmax(decode(decoder, tokens, target)[0], -1)
    positions, mask = layout(len(seen), chunk, lookahead)
    states = encode(student, seen[positions], positions, mask)[: len(seen)]
    got = torch.log_softmax(decode(decoder, tokens, states)[0], -1)
    kl = (want.exp() * (want - got)).sum(-1).mean()
    return kl, (states - target).pow(2).mean() / target.pow(2).mean()


def train(folder: Path, audio: Path, out: Path, minutes: float, rate: float, seed: int) -> None:
    """Trains for `minutes` and writes the weights to `out`. rate: highest learning rate."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    encoder, decoder = load(folder)
    clips = read_clips(audio)
    student = {
        name: tensor.clone().requires_grad_()
        for name, tensor in encoder.items()
        if name.startswith("layers.") or name == "layer_norm.weight"
    }
    optimiser = torch.optim.AdamW(student.values(), betas=(0.9, 0.98), weight_decay=0.0)
    begun, step, log = time.monotonic(), 0, []
    while (left := 1 - (time.monotonic() - begun) / (minutes * 60)) > 0:
        losses = losses_of_example(encoder, decoder, student, clips)
        if losses is None:
            continue
        kl, error = losses
        for group in optimiser.param_groups:  # linear warm-up, then a half cosine down to a tenth
            cosine = 0.05 + 0.475 * (1 + np.cos(np.pi * (1 - left)))
            group["lr"] = rate * min(1, step / 80) * cosine
        optimiser.zero_grad()
        (kl + 0.5 * error).backward()
        torch.nn.utils.clip_grad_norm_(list(student.values()), 1.0)
        optimiser.step()
        step += 1
        log.append((kl.item(), error.item()))
        if step % 50 == 0:
            mean = np.mean(log[-50:], 0)
            print(f"{step}: KL {mean[0]:.4f}, relative error {mean[1]:.4f}", flush=True)
    arrays = {name: t.detach().numpy().astype(np.float16) for name, t in student.items()}
    np.savez_compressed(out, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of upstream's .ort files")
    parser.add_argument("audio", type=Path, help="folder of speech")
    parser.add_argument("out", type=Path, help=".npz to write")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=5e-5, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.model, given.audio, given.out, given.minutes, given.rate, given.seed)


if __name__ == "__main__":
    main()
