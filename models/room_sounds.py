"""Simulated rooms and noise for training (`adapt_encoder.py rooms`).

A bank of impulse responses of random rooms, and a pool of noise made from nothing but random
numbers and the speech that is trained on. Nothing here is used by `tests/bench/rooms.py`, which
measures: its rooms, noises and clips are others.

Needs pyroomacoustics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged.stt.family import RATE

Samples: TypeAlias = NDArray[np.float32]
Chance: TypeAlias = np.random.Generator


RESPONSE_S = 0.7  # kept of an impulse response
NOISE_S = 60.0  # each recording of the pool
MAX_ORDER = 30  # reflections


# ---- rooms ---------------------------------------------------------------------------------------
def room_responses(seed: int) -> Samples:
    """Returns the impulse responses from a speaker, and from a source of noise, to a microphone.

    float32[2, n], the direct sound of each at its start. The room is 2.6 to 9 m long, its
    reverberation time (RT60) 0.3 to 0.8 s, the speaker 1 to 5 m away.
    """
    import pyroomacoustics

    chance = np.random.default_rng([22, seed])
    while True:
        size = (chance.uniform(2.6, 9), chance.uniform(2.4, 7), chance.uniform(2.3, 3.2))
        try:
            absorption, order = pyroomacoustics.inverse_sabine(chance.uniform(0.3, 0.8), size)
        except ValueError:
            continue  # no walls are that hard or soft
        shelf = (chance.uniform(0.3, 1.0), chance.uniform(0.3, size[1] - 0.3))
        microphone = np.array([*shelf, chance.uniform(0.7, 1.5)])
        speaker = _speaker(microphone, size, chance)
        if speaker is not None:
            break
    noise = np.array([chance.uniform(0.3, side - 0.3) for side in size[:2]])
    room = pyroomacoustics.ShoeBox(
        size,
        fs=RATE,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(order, MAX_ORDER),
        air_absorption=True,
    )
    room.add_microphone(microphone)
    room.add_source(speaker)
    room.add_source(np.array([*noise, chance.uniform(0.5, 1.8)]))
    room.compute_rir()
    return np.stack([_from_direct_sound(np.asarray(response)) for response in room.rir[0]])


def _speaker(
    microphone: NDArray[np.float64], size: Sequence[float], chance: Chance
) -> NDArray[np.float64] | None:
    """A place 1 to 5 m from the microphone; None if none was found in the room."""
    distance = chance.uniform(1, 5)
    for _ in range(50):
        angle = chance.uniform(-np.pi, np.pi)
        x, y = microphone[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        if 0.3 < x < size[0] - 0.3 and 0.3 < y < size[1] - 0.3:
            return np.array([x, y, chance.uniform(1.1, 1.75)])
    return None


def _from_direct_sound(response: NDArray[np.float64]) -> Samples:
    loud = np.abs(response) > 0.5 * np.abs(response).max()
    kept = response[max(0, int(np.argmax(loud)) - 8) :][: int(RESPONSE_S * RATE)]
    padded = np.pad(kept, (0, int(RESPONSE_S * RATE) - len(kept)))
    return np.asarray(padded / np.abs(padded).max(), np.float32)


# ---- noise ---------------------------------------------------------------------------------------
def noise_pool(clips: Sequence[Samples], chance: Chance, rounds: int) -> Samples:
    """Returns float32[4 * rounds, n]: fans, kitchens and televisions, each with an RMS of 1.

    clips: whose voices are heard on television.
    """
    pool = []
    for _ in range(rounds):
        pool += [fan(chance), kitchen(chance)]
        pool += [television(clips, chance) for _ in range(2)]
    return np.stack(pool).astype(np.float32)


def fan(chance: Chance) -> NDArray[np.float64]:
    """Noise that falls above a knee, and the tones of the blades."""
    count = int(NOISE_S * RATE)
    spectrum = np.fft.rfft(chance.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    slope = np.maximum(frequency, chance.uniform(150, 900)) ** chance.uniform(0.6, 1.3)
    noise = _scaled(np.fft.irfft(spectrum / slope, count))
    time, tone = np.arange(count) / RATE, chance.uniform(50, 180)
    blades = sum(
        np.sin(2 * np.pi * tone * n * time + chance.uniform(0, 2 * np.pi)) / n for n in range(1, 5)
    )
    return _scaled(noise + chance.uniform(0, 0.6) * blades)


def kitchen(chance: Chance) -> NDArray[np.float64]:
    """Running water that swells, a fan, and dishes."""
    count = int(NOISE_S * RATE)
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(chance.standard_normal(count))
    centre, width = chance.uniform(800, 3500), chance.uniform(600, 2500)
    water = _scaled(np.fft.irfft(spectrum / (1 + ((frequency - centre) / width) ** 2), count))
    points = int(NOISE_S * 3) + 2
    swell = np.interp(
        np.arange(count), np.linspace(0, count, points), chance.uniform(0.2, 1, points)
    )
    x = water * swell * chance.uniform(0.1, 1) + 0.2 * fan(chance)
    length = RATE // 2
    time = np.arange(length) / RATE
    for _ in range(int(NOISE_S * chance.uniform(0.5, 3))):
        dish = chance.standard_normal(length) * np.exp(-time / 0.004)
        for _ in range(6):
            ring = np.sin(2 * np.pi * chance.uniform(600, 6500) * time)
            dish += chance.uniform(0.2, 1) * ring * np.exp(-time / chance.uniform(0.005, 0.06))
        at = int(chance.integers(0, count - length))
        x[at : at + length] += dish * np.exp(chance.normal(0.3, 0.7))
    return _scaled(x)


def television(clips: Sequence[Samples], chance: Chance) -> NDArray[np.float64]:
    """One to five voices at once over chords, as small speakers sound."""
    count = int(NOISE_S * RATE)
    talk = np.zeros(count)
    for _ in range(int(chance.integers(1, 6))):
        voice: list[Samples] = []
        while sum(map(len, voice)) < count:
            clip = clips[int(chance.integers(len(clips)))]
            voice.append(clip / (clip.std() + 3e-5))
        talk += np.concatenate(voice)[:count]
    x = _scaled(talk) + _chords(chance) * 10 ** (-chance.uniform(0, 15) / 20)
    spectrum = np.fft.rfft(x)
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(frequency < 150) | (frequency > chance.uniform(4000, 7500))] = 0
    return _scaled(np.fft.irfft(spectrum, count))


def _chords(chance: Chance) -> NDArray[np.float64]:
    count = int(NOISE_S * RATE)
    x, beat_s = np.zeros(count), chance.uniform(0.25, 0.6)
    for start_s in np.arange(0, NOISE_S - 3, beat_s):
        at, root = int(start_s * RATE), 110 * 2 ** (chance.integers(0, 24) / 12)
        for step in chance.choice([0, 3, 4, 5, 7, 9, 12], 3, replace=False):
            time = np.arange(int(chance.uniform(0.3, 2) * RATE)) / RATE
            pitch = root * 2 ** (step / 12)
            note = sum(np.sin(2 * np.pi * pitch * n * time) / n**1.3 for n in range(1, 6))
            x[at : at + len(time)] += note * np.exp(-time * chance.uniform(1, 5))
    return _scaled(x)


def _scaled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / x.std()


# ---- recordings ----------------------------------------------------------------------------------
def in_room(
    speech: Samples, responses: Samples, pool: Samples, chance: Chance, clean: bool
) -> Samples:
    """Returns the speech as a microphone records it: as long, and with its start at the same place.

    responses: [rooms, 2, n] of `room_responses`. pool: of `noise_pool`. clean: without a room,
    and with little noise or none.
    """
    level = 10 ** ((chance.uniform(-45, -12) if clean else chance.uniform(-50, -20)) / 20)
    if clean:
        x = speech / _active_rms(speech) * level
        if chance.random() < 0.3:
            hiss = 10 ** (-chance.uniform(15, 35) / 20)
            x = x + chance.standard_normal(len(x)) * level * hiss
    else:
        to_speaker, to_noise = responses[int(chance.integers(len(responses)))]
        x = _convolved(speech, to_speaker)
        x = x / _active_rms(x) * level
        if chance.random() < 0.92:
            noise, before = pool[int(chance.integers(len(pool)))], len(to_noise)
            start = int(chance.integers(len(noise) - len(x) - before))
            part = noise[start : start + len(x) + before].astype(np.float32)
            if chance.random() < 0.7:
                part = _convolved(part, to_noise)
            part = part[before:]
            x = x + part / (part.std() + 1e-6) * level * 10 ** (-chance.uniform(4, 22) / 20)
    hiss = 10 ** (-chance.uniform(62, 80) / 20)
    return np.asarray(np.clip(x + chance.standard_normal(len(x)) * hiss, -1, 1), np.float32)


def _convolved(x: Samples, response: Samples) -> Samples:
    size = 1 << (len(x) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(x, size) * np.fft.rfft(response, size)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(x)], np.float32)


def _active_rms(x: Samples) -> float:
    """RMS of the loudest frames (20 ms), those within 20 dB of the loudest one."""
    power = (x[: len(x) // 320 * 320].reshape(-1, 320) ** 2).mean(1)
    return float(np.sqrt(power[power >= power.max() / 100].mean() + 1e-12))
