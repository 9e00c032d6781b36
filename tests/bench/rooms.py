"""Builds a set of simulated rooms from recorded clips, for `edged bench --manifest`.

    python -m tests.bench.rooms MANIFEST OUT [--seed N] [--clips N]     (or: make bench-rooms)

Writes OUT/audio/*.flac (16 kHz, mono) and OUT/manifest.jsonl. Each clip of MANIFEST that is a
command, a digit or a short utterance appears clean, and once in each of three rooms: at 1 to 5 m
from the microphone, with a reverberation time of 0.3 to 0.8 s and with kitchen, fan or television
noise at a signal-to-noise ratio of 5 to 20 dB. Single words appear also cut tightly, and with long
silences around them. The same manifest and seed give the same files.

Levels are those of a USB microphone: speech at 1 m has an active level of -30 dBFS and becomes
quieter with the distance; the microphone adds noise of its own at -68 dBFS.

Needs pyroomacoustics (pip extra `rooms`).
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]  # [n], 16 kHz, full scale 1
Point: TypeAlias = tuple[float, float, float]  # metres
Entry: TypeAlias = dict[str, Any]

RATE = 16_000
SPEECH_AT_1M_DBFS = -30.0  # active level
MICROPHONE_NOISE_DBFS = -68.0
LEAD_S, TAIL_S = 1.0, 1.5  # background before and after the speech
LONG_SILENCE_S = 5.0
TIGHT_S = 0.02  # kept around a word that is cut tightly
SHORT_CLIP_S = 9.0  # longer utterances are left out
OTHERS = 40  # utterances that are neither commands nor digits
SINGLE_WORDS = 2  # a text with at most this many words counts as a single word
NOISE_ONLY_S = 60.0
TELEVISION_S = 60.0  # repeated after this time
SNR_DB = (5, 10, 15, 20)
NOISES = ("kitchen", "fan", "television")
KINDS = ("command", "digits", "read", "spontaneous", "speech")


@dataclass(frozen=True, slots=True)
class Room:
    """A rectangular room.

    size: width, depth and height, metres.
    reverberation_s: the reverberation times (RT60) it occurs with, seconds.
    distances_m: of the speaker from the microphone.
    microphone: on a shelf near a wall. noise: where the source of noise is.
    """

    name: str
    size: Point
    reverberation_s: tuple[float, ...]
    distances_m: tuple[float, ...]
    microphone: Point
    noise: Point

    def speaker(self, distance_m: float) -> Point:
        """The place of a standing or sitting speaker at this distance, on the room's diagonal."""
        x, y, _ = self.microphone
        width, depth, _ = self.size
        to_x, to_y = width - 0.4 - x, depth - 0.4 - y
        share = distance_m / float(np.hypot(to_x, to_y))
        return (x + share * to_x, y + share * to_y, 1.5)


FAR_M = (1, 2, 3, 4, 5)
ROOMS = (
    Room("kitchen", (3.6, 3.2, 2.5), (0.3, 0.5), (1, 2, 3), (0.4, 0.5, 1.2), (3.0, 0.5, 1.0)),
    Room("living room", (6.0, 4.6, 2.6), (0.4, 0.6), FAR_M, (0.4, 0.5, 1.0), (5.5, 0.6, 0.8)),
    Room("hall", (8.0, 6.0, 3.0), (0.6, 0.8), FAR_M, (0.5, 0.6, 1.2), (7.4, 1.0, 1.5)),
)  # fmt: skip

Simulate: TypeAlias = Callable[[Room, float, Point], Samples]
"""Returns the impulse response from a point to the microphone of a room with this RT60."""


def simulate(room: Room, reverberation_s: float, source: Point) -> Samples:
    """Computes an impulse response with the image source method (pyroomacoustics)."""
    import pyroomacoustics

    absorption, order = pyroomacoustics.inverse_sabine(reverberation_s, room.size)
    shoebox = pyroomacoustics.ShoeBox(
        room.size,
        fs=RATE,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(order, 40),
        air_absorption=True,
    )
    shoebox.add_microphone(room.microphone)
    shoebox.add_source(source)
    shoebox.compute_rir()
    return np.asarray(shoebox.rir[0][0], np.float32)


# ---- sound -----------------------------------------------------------------------------------
def active_rms(samples: Samples) -> float:
    """Returns the RMS of the loudest frames (20 ms), those within 20 dB of the loudest one."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    if not len(frames):
        return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    power = (frames**2).mean(axis=1)
    return float(np.sqrt(power[power >= power.max() / 100].mean()))


def trimmed(samples: Samples, margin_s: float) -> Samples:
    """Cuts silence (40 dB below the loudest frame) at both ends; keeps `margin_s` of it."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() / 1e4)
    margin = round(margin_s * RATE)
    start = max(0, int(loud[0]) * 160 - margin)
    return samples[start : (int(loud[-1]) + 1) * 160 + margin]


def fan(seconds: float, chance: np.random.Generator) -> Samples:
    """Returns the noise of a fan: falling by 6 dB an octave above 300 Hz, with blade tones."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(chance.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 300) * 300, count)
    time = np.arange(count) / RATE
    tone = sum(np.sin(2 * np.pi * 93 * n * time) / n for n in (1, 2, 3))
    mixed = noise / noise.std() + 0.5 * tone
    return np.asarray(mixed / mixed.std(), np.float32)


def television(voices: Sequence[Samples], music: Samples, seconds: float) -> Samples:
    """Returns several talkers at once over music 10 dB below, as small speakers sound.

    The talkers overlap so that single words are not intelligible: a recogniser that transcribes a
    television would otherwise count as wrong, and the better the more wrong.
    """
    count = round(seconds * RATE)
    layers = [np.concatenate([*voices[at:], *voices[:at]]) for at in range(min(4, len(voices)))]
    talk = np.sum([np.resize(layer / active_rms(layer), count) for layer in layers], axis=0)
    mixed = talk / active_rms(talk) + np.resize(music, count) / active_rms(music) / 10**0.5
    spectrum = np.fft.rfft(mixed)
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(frequency < 150) | (frequency > 7000)] = 0
    return np.asarray(np.fft.irfft(spectrum, count), np.float32)


def in_room(
    speech: Samples, noise: Samples, to_speaker: Samples, to_noise: Samples, snr_db: float,
    speech_dbfs: float, chance: np.random.Generator,
) -> Samples:  # fmt: skip
    """Mixes speech and noise as the microphone records them.

    to_speaker, to_noise: impulse responses.
    snr_db: active level of the reverberant speech above the noise.
    speech_dbfs: active level of the reverberant speech.
    """
    wet = _convolve(speech, to_speaker)
    wet *= 10 ** (speech_dbfs / 20) / active_rms(wet)
    padded = np.pad(wet, (round(LEAD_S * RATE), round(TAIL_S * RATE)))
    start = int(chance.integers(0, max(1, len(noise) - len(padded))))
    wet_noise = _convolve(np.resize(noise[start:], len(padded)), to_noise)[: len(padded)]
    wet_noise *= 10 ** ((speech_dbfs - snr_db) / 20) / float(wet_noise.std())
    return padded + wet_noise + _microphone_noise(len(padded), chance)


def _convolve(a: Samples, b: Samples) -> Samples:
    count = len(a) + len(b) - 1
    size = 1 << (count - 1).bit_length()
    return np.asarray(
        np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size), size)[:count], np.float32
    )


def _microphone_noise(count: int, chance: np.random.Generator) -> Samples:
    level = 10 ** (MICROPHONE_NOISE_DBFS / 20)
    return np.asarray(chance.standard_normal(count) * level, np.float32)


def quiet(speech: Samples, silence_s: float, chance: np.random.Generator) -> Samples:
    """Returns the speech at -30 dBFS with microphone noise, and `silence_s` of it around."""
    level = speech * 10 ** (SPEECH_AT_1M_DBFS / 20) / active_rms(speech)
    padded = np.pad(level, round(silence_s * RATE))
    return padded + _microphone_noise(len(padded), chance)


# ---- the set ---------------------------------------------------------------------------------
def chosen(entries: Sequence[Entry], others: int = OTHERS) -> list[Entry]:
    """Returns all commands and digits and, evenly spread, `others` more utterances.

    Takes short clips with an exact text or required words.
    """
    usable = [
        e
        for e in entries
        if e.get("kind") in KINDS
        and not e.get("dup_of")
        and (e.get("slots") or (e.get("text") and e.get("text_exact", True)))
        and e["duration_s"] <= (SHORT_CLIP_S if not e.get("slots") else np.inf)
    ]
    first = [e for e in usable if e["kind"] in ("command", "digits")]
    rest = [e for e in usable if e["kind"] not in ("command", "digits")]
    count = min(others, len(rest))
    return first + [rest[at * len(rest) // count] for at in range(count)]


def build(
    manifest: Path, out: Path, seed: int = 0, others: int = OTHERS, simulation: Simulate = simulate
) -> int:
    """Builds the set. Returns the number of recordings."""
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines() if line]
    clips = chosen(entries, others)
    noise = NoiseSources(entries, manifest.parent, seed)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    responses: dict[tuple[str, float, Point], Samples] = {}

    def response(room: Room, reverberation_s: float, source: Point) -> Samples:
        key = (room.name, reverberation_s, source)
        if key not in responses:
            responses[key] = simulation(room, reverberation_s, source)
        return responses[key]

    lines = []
    for entry, samples in _variants(clips, noise, manifest.parent, seed, response):
        file = f"audio/{entry['id']}.flac"
        pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
        soundfile.write(out / file, pcm, RATE)
        lines.append(json.dumps({**entry, "file": file}, ensure_ascii=False))
    (out / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _variants(
    clips: Sequence[Entry], noise: NoiseSources, folder: Path, seed: int, response: Simulate
) -> Iterator[tuple[Entry, Samples]]:
    for clip in clips:
        speech = load(folder / clip["file"])
        chance = np.random.default_rng([seed, zlib.crc32(clip["id"].encode())])
        group = "digits" if clip["kind"] == "digits" else (
            "single words" if _is_single(clip) else "commands" if clip["kind"] == "command"
            else "sentences"
        )  # fmt: skip
        yield _entry(clip, "clean", ["clean", f"clean, {group}"]), quiet(speech, LEAD_S, chance)
        if _is_single(clip):
            word = trimmed(speech, TIGHT_S)
            yield _entry(clip, "tight", ["clean, cut tightly"]), quiet(word, 0.0, chance)
            yield (
                _entry(clip, "long", ["clean, long silences"]),
                quiet(word, LONG_SILENCE_S, chance),
            )
        for room in ROOMS:
            reverberation_s = float(chance.choice(room.reverberation_s))
            distance = float(chance.choice(room.distances_m))
            snr_db, kind = int(chance.choice(SNR_DB)), str(chance.choice(NOISES))
            conditions = [
                "rooms", f"rooms, {group}", f"room: {room.name}", f"distance: {distance:g} m",
                f"reverberation: {reverberation_s:g} s", f"noise: {kind}", f"noise: at {snr_db} dB",
            ]  # fmt: skip
            at = room.speaker(distance)
            recorded = in_room(
                speech,
                noise.of(kind, clip),
                response(room, reverberation_s, at),
                response(room, reverberation_s, room.noise),
                snr_db,
                _level_dbfs(response, room, reverberation_s, at),
                chance,
            )
            yield _entry(clip, room.name.replace(" ", "-"), conditions), recorded
    for room, kind in ((ROOMS[0], "kitchen"), (ROOMS[1], "fan")):
        chance = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        wet = _convolve(
            np.resize(noise.of(kind, {"id": ""}), round(NOISE_ONLY_S * RATE)),
            response(room, room.reverberation_s[0], room.noise),
        )
        wet *= 10 ** ((SPEECH_AT_1M_DBFS - 10) / 20) / float(wet.std())
        entry = {"id": f"noise-{kind}-{room.name}".replace(" ", "-"), "kind": "noise"}
        yield entry, wet + _microphone_noise(len(wet), chance)


def _level_dbfs(response: Simulate, room: Room, reverberation_s: float, at: Point) -> float:
    """The active level at this place, if it is SPEECH_AT_1M_DBFS at 1 m in the same room."""
    near = response(room, reverberation_s, room.speaker(1.0))
    here = response(room, reverberation_s, at)
    return SPEECH_AT_1M_DBFS + 10 * float(np.log10((here**2).sum() / (near**2).sum()))


def _is_single(clip: Entry) -> bool:
    return bool(clip.get("text")) and len(clip["text"].split()) <= SINGLE_WORDS


def _entry(clip: Entry, name: str, conditions: list[str]) -> Entry:
    kept = {k: clip[k] for k in ("text", "kind", "slots", "speaker") if clip.get(k) is not None}
    return {"id": f"{clip['id']}-{name}", **kept, "condition": conditions, "from": clip["id"]}


class NoiseSources:
    """The sources of noise. Television talkers never include the speaker of the clip itself."""

    def __init__(self, entries: Sequence[Entry], folder: Path, seed: int) -> None:
        chance = np.random.default_rng([seed, 1])
        kitchen = next(e for e in entries if "kitchen" in str(e.get("conditions")))
        self._fixed = {"kitchen": load(folder / kitchen["file"]), "fan": fan(30.0, chance)}
        music = [e for e in entries if e.get("kind") == "music" and e["duration_s"] > 20]
        self._music = load(folder / music[0]["file"])
        self._talk = [e for e in entries if e.get("kind") == "read" and e["duration_s"] > 8][:8]
        self._folder = folder
        self._television: dict[str, Samples] = {}

    def talkers(self, speaker: str) -> list[Entry]:
        """Returns the clips that are heard on television, without those of this speaker."""
        return [e for e in self._talk if str(e.get("speaker")) != speaker]

    def of(self, kind: str, clip: Entry) -> Samples:
        """Returns the noise of this kind for a clip."""
        if kind in self._fixed:
            return self._fixed[kind]
        speaker = str(clip.get("speaker"))
        if speaker not in self._television:
            voices = [load(self._folder / e["file"]) for e in self.talkers(speaker)]
            self._television[speaker] = television(voices, self._music, TELEVISION_S)
        return self._television[speaker]


def load(path: Path) -> Samples:
    """Reads a file as mono at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return np.asarray(mono if rate == RATE else soxr.resample(mono, rate, RATE), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build simulated rooms from recorded clips.")
    parser.add_argument("manifest", type=Path, help="clips as JSON lines, as for edged bench")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, default=OTHERS, help="utterances besides commands")
    arguments = parser.parse_args()
    count = build(arguments.manifest, arguments.out, arguments.seed, arguments.others)
    print(f"{count} recordings in {arguments.out / 'manifest.jsonl'}")


if __name__ == "__main__":
    main()
