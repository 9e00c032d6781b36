"""The simulated rooms: levels, noise and the entries of the set, without the room simulator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edged.bench.manifest import read_manifest
from tests.bench import rooms
from tests.bench.rooms import RATE, ROOMS, Point, Room, Samples, active_rms, build, in_room, trimmed


def tone(seconds: float, level: float = 0.3) -> Samples:
    time = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(level * np.sin(2 * np.pi * 440 * time), np.float32)


def echo(room: Room, reverberation_s: float, source: Point) -> Samples:
    """An impulse response: the direct sound, weaker with the distance, and one echo."""
    distance = float(np.hypot(source[0] - room.microphone[0], source[1] - room.microphone[1]))
    response = np.zeros(800, np.float32)
    response[0], response[700] = 1 / max(distance, 0.5), 0.2
    return response


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Recordings of every kind that the set needs."""
    chance = np.random.default_rng(0)
    entries = [
        {"id": "seven", "kind": "digits", "text": "seven", "duration_s": 1.0, "speaker": "a"},
        {"id": "order", "kind": "command", "slots": {"size": "large"}, "duration_s": 2.0},
        {"id": "said", "kind": "read", "text": "one two three", "duration_s": 2.0, "speaker": "b"},
        {"id": "long", "kind": "read", "text": "a b c", "duration_s": 12.0, "speaker": "c"},
        {"id": "copy", "kind": "command", "text": "x", "duration_s": 1.0, "dup_of": "seven"},
        {"id": "kitchen", "kind": "noise", "conditions": "kitchen", "duration_s": 30.0},
        {"id": "tune", "kind": "music", "duration_s": 25.0},
    ]
    for entry in entries:
        entry["file"] = f"{entry['id']}.wav"
        samples = tone(float(str(entry["duration_s"])))
        if entry["kind"] in ("noise", "music"):
            samples = chance.standard_normal(len(samples)).astype(np.float32) * 0.1
        silence = np.zeros(RATE // 4, np.float32)
        soundfile.write(
            tmp_path / str(entry["file"]), np.concatenate([silence, samples, silence]), RATE
        )
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "NOISE_ONLY_S", 0.5)
    monkeypatch.setattr(rooms, "TELEVISION_S", 5.0)
    monkeypatch.setattr(rooms, "LONG_SILENCE_S", 1.0)


def test_speech_and_noise_have_the_levels_that_the_condition_names() -> None:
    chance = np.random.default_rng(1)
    noise = chance.standard_normal(20 * RATE).astype(np.float32)
    direct = np.ones(1, np.float32)
    mixed = in_room(tone(4), noise, direct, direct, 10, -30, chance)
    before = mixed[: RATE // 2]
    assert 20 * np.log10(before.std()) == pytest.approx(-40, abs=0.5)
    assert 20 * np.log10(active_rms(mixed[2 * RATE : 4 * RATE])) == pytest.approx(-29.6, abs=0.5)


def test_a_word_is_cut_at_its_edges() -> None:
    silence = np.zeros(RATE, np.float32)
    cut = trimmed(np.concatenate([silence, tone(0.5), silence]), 0.02)
    assert len(cut) / RATE == pytest.approx(0.54, abs=0.02)


def test_every_distance_of_a_room_lies_inside_it() -> None:
    for room in ROOMS:
        for distance in room.distances_m:
            x, y, z = room.speaker(distance)
            assert 0.3 < x < room.size[0] - 0.3
            assert 0.3 < y < room.size[1] - 0.3
            assert z < room.size[2]
            placed = np.hypot(x - room.microphone[0], y - room.microphone[1])
            assert placed == pytest.approx(distance)


def test_the_set_has_each_clip_clean_and_in_every_room(manifest: Path, tmp_path: Path) -> None:
    count = build(manifest, tmp_path / "out", simulation=echo)
    clips = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert len(clips) == count
    ids = {clip.id for clip in clips}
    for name in ("clean", *(room.name.replace(" ", "-") for room in ROOMS)):
        assert {f"seven-{name}", f"order-{name}", f"said-{name}"} <= ids
    assert {"seven-tight", "seven-long"} <= ids, "single words also cut and with long silences"
    assert not any(i.startswith(("long-", "copy-")) for i in ids), (
        "long clips and copies are left out"
    )
    assert sum(clip.kind == "noise" for clip in clips) == 2
    by_id = {clip.id: clip for clip in clips}
    assert by_id["order-hall"].slot_words == ("large",)
    conditions = by_id["seven-hall"].conditions
    assert {"rooms", "rooms, digits", "room: hall"} < set(conditions)
    assert any(c.startswith("reverberation: ") for c in conditions)


def test_the_same_seed_gives_the_same_files(manifest: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(manifest, tmp_path / name, seed, simulation=echo)
    for file in sorted((tmp_path / "a" / "audio").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / "audio" / file.name).read_bytes()
    first, other = (soundfile.read(tmp_path / n / "audio/seven-hall.flac")[0] for n in "ac")
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_television_never_has_the_speaker_of_the_clip(manifest: Path) -> None:
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    talkers = [{**entries[3], "speaker": name} for name in "xy"]
    noise = rooms.NoiseSources([*entries, *talkers], manifest.parent, 0)
    assert [e["speaker"] for e in noise.talkers("x")] == ["c", "y"]
