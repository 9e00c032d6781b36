"""Removes rumble and mains hum below the voice from a stream, block by block."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 160  # samples that are computed at once

Floats = NDArray[np.float32]
_Matrix = NDArray[np.float64]


class HighPass:
    """A Butterworth high-pass filter that keeps its state from one push to the next.

    The filter is a chain of second-order sections. Its output over a block of samples is linear in
    the block and in the state before it, so that a block costs two small matrix products in place
    of a Python loop over its samples.
    """

    def __init__(self, cutoff_hz: float, rate: int, order: int) -> None:
        """cutoff_hz: where the signal is 3 dB weaker. order: even; 6 dB per octave each."""
        a, b, c, d = _state_space(cutoff_hz, rate, order)
        powers = [np.eye(order)]
        for _ in range(BLOCK):
            powers.append(a @ powers[-1])
        # The response to an impulse, and to each state, over one block.
        impulse = np.array([d, *[(c @ p @ b).item() for p in powers[: BLOCK - 1]]])
        delay = np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK))
        self._response = np.where(delay >= 0, impulse[np.maximum(delay, 0)], 0.0)
        self._from_state = np.concatenate([c @ p for p in powers[:BLOCK]])
        self._to_state = np.concatenate([p @ b for p in reversed(powers[:BLOCK])], axis=1)
        self._powers = powers  # the state after so many samples without input
        self._state = np.zeros(order)

    def reset(self) -> None:
        """Forgets what was pushed."""
        self._state = np.zeros_like(self._state)

    def push(self, samples: Floats) -> Floats:
        """float32[n] -> float32[n], without delay."""
        x = samples.astype(np.float64)
        y = np.empty(len(x))
        for start in range(0, len(x), BLOCK):
            u = x[start : start + BLOCK]
            n = len(u)
            y[start : start + n] = self._response[:n, :n] @ u + self._from_state[:n] @ self._state
            self._state = self._powers[n] @ self._state + self._to_state[:, BLOCK - n :] @ u
        return y.astype(np.float32)


def _state_space(
    cutoff_hz: float, rate: int, order: int
) -> tuple[_Matrix, _Matrix, _Matrix, float]:
    """The chain of sections as x' = a x + b u, y = c x + d u."""
    a, b, c, d = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 1.0
    warped = math.tan(math.pi * cutoff_hz / rate)
    for section in range(order // 2):
        q = 1 / (2 * math.sin(math.pi * (2 * section + 1) / (2 * order)))
        scale = 1 + warped / q + warped * warped
        a1 = 2 * (warped * warped - 1) / scale
        a2 = (1 - warped / q + warped * warped) / scale
        gain = 1 / scale  # of the numerator 1 - 2 z^-1 + z^-2
        # transposed direct form II
        sa = np.array([[-a1, 1.0], [-a2, 0.0]])
        sb = np.array([[-2 * gain - a1 * gain], [gain - a2 * gain]])
        sc, sd = np.array([[1.0, 0.0]]), gain
        a = np.block([[a, np.zeros((len(a), 2))], [sb @ c, sa]])
        b = np.concatenate([b, sb * d])
        c = np.concatenate([sd * c, sc], axis=1)
        d *= sd
    return a, b, c, d
