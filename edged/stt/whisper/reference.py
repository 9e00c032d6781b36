"""Whisper itself, in float32 and with its window of 30 s, written out in numpy.

What `edged models verify` compares with, and what the padding constants are computed with when the
graphs are built. Slow and simple: nothing here is shared with the recogniser but the mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edged.audio.mel import HOP, N_FFT, log10_mel
from edged.stt.family import Floats
from edged.stt.whisper.ctranslate2 import read_variables
from edged.stt.whisper.dimensions import FRAME_SAMPLES, WINDOW_FRAMES, Dimensions

WINDOW_SAMPLES = WINDOW_FRAMES * FRAME_SAMPLES
KeysValues = list[tuple[Floats, Floats]]  # of each layer, [heads, frames, head_dim]


def whole_log_mel(samples: Floats) -> Floats:
    """float32[n] at 16 kHz -> float32[80, n / 160]: log-mel of a whole clip, as upstream has it."""
    framed = sliding_window_view(np.pad(samples, N_FFT // 2, mode="reflect"), N_FFT)[::HOP]
    mel = log10_mel(framed[: len(samples) // HOP])
    result: Floats = (np.maximum(mel, mel.max() - 8) + 4) / 4
    return result


@dataclass
class Reference:
    """The float model. variables: of model.bin."""

    variables: dict[str, NDArray[Any]]
    sizes: Dimensions = field(init=False)

    def __post_init__(self) -> None:
        heads = int(self.variables["encoder/num_heads"])
        width = len(self.variables["encoder/conv1/bias"])
        layers = sum(
            name.startswith("encoder/layer_") and name.endswith("ffn/linear_0/bias")
            for name in self.variables
        )
        self.sizes = Dimensions(layers, heads, width // heads)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Reads model.bin. Raises ModelError."""
        return cls(read_variables(path))

    def weight(self, name: str) -> Floats:
        return np.asarray(self.variables[name], np.float32)

    # ---- encoder
    def window(self, samples: Floats) -> tuple[Floats, KeysValues]:
        """The encoder over a window of 30 s that begins with `samples` -> states [1500, width], and
        the keys and values of each layer."""
        window = np.zeros(WINDOW_SAMPLES, np.float32)
        window[: len(samples)] = samples[:WINDOW_SAMPLES]
        x = self.features(whole_log_mel(window)) + self.weight(
            "encoder/position_encodings/encodings"
        )
        own: KeysValues = []
        for layer in range(self.sizes.layers):
            place = f"encoder/layer_{layer}/"
            q, k, v = self._self_qkv(place, x)
            own.append((k, v))
            x = x + self._linear(place + "self_attention/linear_1", _attend(q, k, v))
            x = self._feed_forward(place, x)
        return self._norm("encoder/layer_norm", x), own

    def features(self, mel: Floats) -> Floats:
        """Two convolutions: log-mel [80, t] -> [t / 2, width]."""
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel = self.weight(f"encoder/{name}/weight")
            taps = sliding_window_view(np.pad(mel, ((0, 0), (1, 1))), 3, axis=1)[:, ::stride]
            flat = taps.transpose(1, 0, 2).reshape(taps.shape[1], -1)
            out = flat @ kernel.reshape(len(kernel), -1).T + self.weight(f"encoder/{name}/bias")
            mel = _gelu(out).T
        return mel.T

    def cross(self, states: Floats) -> Floats:
        """What the decoder attends to of states [n, width]: [n, 2 * layers * width], keys and then
        values of each layer."""
        layers = range(self.sizes.layers)
        places = (f"decoder/layer_{layer}/attention/linear_1" for layer in layers)
        return np.concatenate([self._linear(place, states) for place in places], -1)

    # ---- decoder
    def decode(
        self,
        states: Floats,
        prompt: Sequence[int],
        forbidden: Sequence[int],
        limit: int,
        end: int,
        first_forbidden: Sequence[int] = (),
    ) -> list[int]:
        """Greedy tokens behind the prompt. forbidden: tokens that a text may not have.
        first_forbidden: tokens with which it may not begin."""
        layers = np.split(self.cross(states), self.sizes.layers, -1)
        cross = [self._split(layer, 2) for layer in layers]
        past: KeysValues = []
        tokens: list[int] = []
        reading = list(prompt)
        while True:
            logits, past = self.step(reading, past, cross)
            logits[[*forbidden, *([] if tokens else first_forbidden)]] = -np.inf
            best = int(logits.argmax())
            if best == end or len(tokens) >= limit:
                return tokens
            tokens.append(best)
            reading = [best]

    def step(
        self, tokens: Sequence[int], past: KeysValues, cross: Sequence[Sequence[Floats]]
    ) -> tuple[Floats, KeysValues]:
        """Reads tokens behind `past` -> logits of what follows the last, and the longer past."""
        first = past[0][0].shape[1] if past else 0
        positions = self.weight("decoder/position_encodings/encodings")
        embedding = self.variables["decoder/embeddings/weight"]
        x = embedding[list(tokens)].astype(np.float32) + positions[first : first + len(tokens)]
        mask = np.triu(np.full((len(tokens), first + len(tokens)), -1e9, np.float32), first + 1)
        longer: KeysValues = []
        for layer in range(self.sizes.layers):
            place = f"decoder/layer_{layer}/"
            q, k, v = self._self_qkv(place, x)
            if past:
                k = np.concatenate((past[layer][0], k), 1)
                v = np.concatenate((past[layer][1], v), 1)
            longer.append((k, v))
            x = x + self._linear(place + "self_attention/linear_1", _attend(q, k, v, mask))
            h = self._norm(place + "attention/layer_norm", x)
            (q,) = self._split(self._linear(place + "attention/linear_0", h), 1)
            x = x + self._linear(place + "attention/linear_2", _attend(q, *cross[layer]))
            x = self._feed_forward(place, x)
        x = self._norm("decoder/layer_norm", x[-1:])
        return _product(x, self.variables["decoder/projection/weight"])[0], longer

    # ---- pieces
    def _linear(self, place: str, x: Floats) -> Floats:
        return _product(x, self.variables[place + "/weight"]) + self.weight(place + "/bias")

    def _norm(self, place: str, x: Floats) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scale = 1 / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        out: Floats = centred * scale * self.weight(place + "/gamma")
        return out + self.weight(place + "/beta")

    def _split(self, x: Floats, parts: int) -> list[Floats]:
        """[n, parts * width] -> `parts` arrays [heads, n, head_dim]"""
        return [
            part.reshape(len(x), self.sizes.heads, -1).transpose(1, 0, 2)
            for part in np.split(x, parts, -1)
        ]

    def _self_qkv(self, place: str, x: Floats) -> list[Floats]:
        h = self._norm(place + "self_attention/layer_norm", x)
        return self._split(self._linear(place + "self_attention/linear_0", h), 3)

    def _feed_forward(self, place: str, x: Floats) -> Floats:
        h = self._norm(place + "ffn/layer_norm", x)
        h = _gelu(self._linear(place + "ffn/linear_0", h))
        return x + self._linear(place + "ffn/linear_1", h)


def _product(x: Floats, weight: NDArray[Any]) -> Floats:
    """x[n, in], weight[out, in] -> [n, out]. The weight is converted in parts: it may be large."""
    parts = [
        x @ some.astype(np.float32).T for some in np.array_split(weight, -(-len(weight) // 8192))
    ]
    return np.concatenate(parts, -1)


def _attend(q: Floats, k: Floats, v: Floats, mask: Floats | None = None) -> Floats:
    """-> [n, width]; one head at a time, because scores are large"""
    heads = []
    for one_q, one_k, one_v in zip(q, k, v, strict=True):
        scores = one_q @ one_k.T * np.float32(q.shape[-1] ** -0.5)
        if mask is not None:
            scores += mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(scores / scores.sum(-1, keepdims=True) @ one_v)
    return np.concatenate(heads, -1)


def _gelu(x: Floats) -> Floats:
    """With the error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26), which numpy does not
    have."""
    a = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * a)
    powers = (
        (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
    ) + 0.254829592
    erf = np.copysign(1 - powers * t * np.exp(-a * a), x)
    result: Floats = (0.5 * x * (1 + erf)).astype(np.float32)
    return result
