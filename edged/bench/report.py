"""Computes the figures of a measurement, by name, ready for JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edged import __version__
from edged.bench import wer
from edged.bench.manifest import NO_SPEECH, Clip
from edged.bench.measure import ClipResult, RunResult
from edged.engine.run_stats import percentile
from edged.events import Word

Figures: TypeAlias = dict[str, Any]
MB = 1e6
BINS_MS = (1, 2, 5, 10, 20, 40, 80)  # upper edges of the step-time histogram


def machine() -> Figures:
    """Describes this machine and the versions in use."""
    return {
        "edged": __version__,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
    }


def figures(measured: RunResult) -> Figures:
    """Returns all figures by name; None for what could not be measured."""
    steps, audio_s = measured.steps.step_ms, measured.steps.audio_s
    results = measured.clips
    clips = [h.clip for h in results]
    return {
        "delay_in_frames": measured.options.delay_in_frames,
        "clips": len(results),
        "audio_s": round(audio_s, 2),
        "step_ms": _percentiles(steps),
        "step_histogram": _histogram(steps),
        "background_ms": _percentiles([s * 1000 for s in measured.background_s]),
        "cpu_s_per_audio_s": _rounded(measured.cpu_s / audio_s if audio_s else None, 4),
        "lag_s": _percentiles(measured.lags_s, 3),
        "flush_ms": _percentiles([s * 1000 for s in measured.flushes_s]),
        "peak_rss_mb": megabytes(measured.peak_rss),
        "rss_growth_mb": None if measured.rss_growth is None else megabytes(measured.rss_growth),
        "wer": error_rates(clips, [h.text for h in results], measured.joined),
        "turn_wer": error_rates(clips, [h.turn_text for h in results], measured.joined),
        "condition_wer": condition_error_rates(clips, [h.text for h in results]),
        "turn_condition_wer": condition_error_rates(clips, [h.turn_text for h in results]),
        "language_wer": language_error_rates(clips, [h.text for h in results]),
        "turn_language_wer": language_error_rates(clips, [h.turn_text for h in results]),
        "slots": slots(clips, [h.text for h in results]),
        "turn_slots": slots(clips, [h.turn_text for h in results]),
        "condition_slots": condition_slots(clips, [h.text for h in results]),
        "turn_condition_slots": condition_slots(clips, [h.turn_text for h in results]),
        "invented_texts": {
            kind: sum(h.text_events for h in results if h.clip.kind == kind)
            for kind in NO_SPEECH
            if any(h.clip.kind == kind for h in results)
        },
        "word_times": word_times((h, h.words) for h in results),
        "turn_word_times": word_times((h, h.turn_words) for h in results),
        "dropped": dict(measured.dropped),
        "slow": measured.slow,
        "load_level_s": {str(k): round(v, 1) for k, v in sorted(measured.load_s.items())},
        "lost_audio_s": round(measured.lost_s, 2),
    }


def word_times(results: Iterable[tuple[ClipResult, Sequence[Word]]]) -> Figures | None:
    """Returns errors in ms against hand labels, over the words that were recognised correctly."""
    starts: list[float] = []
    stops: list[float] = []
    for one, found in results:
        labels = one.clip.word_times
        expected = [" ".join(wer.words(label[0])) for label in labels]
        got = [" ".join(wer.words(word.text)) for word in found]
        for a, b in wer.align(expected, got) if labels else []:
            if a is not None and b is not None and expected[a] == got[b]:
                starts.append((found[b].start_s - labels[a][1]) * 1000)
                stops.append((found[b].stop_s - labels[a][2]) * 1000)
    if not starts:
        return None
    return {
        "words": len(starts),
        "start_median_abs_ms": round(statistics.median(map(abs, starts)), 1),
        "start_median_ms": round(statistics.median(starts), 1),
        "stop_median_abs_ms": round(statistics.median(map(abs, stops)), 1),
        "stop_median_ms": round(statistics.median(stops), 1),
    }


def other(
    name: str, clips: Sequence[Clip], texts: Sequence[str], audio_s: float, cpu_s: float
) -> Figures:
    """Returns the same figures for another recogniser, as far as they exist."""
    return {
        "name": name,
        "clips": len(clips),
        "audio_s": round(audio_s, 2),
        "cpu_s_per_audio_s": _rounded(cpu_s / audio_s if audio_s else None, 4),
        "wer": error_rates(clips, texts),
        "condition_wer": condition_error_rates(clips, texts),
        "language_wer": language_error_rates(clips, texts),
        "slots": slots(clips, texts),
        "condition_slots": condition_slots(clips, texts),
    }


def megabytes(value: float) -> float:
    """Converts bytes to megabytes, rounded to 0.1."""
    return round(value / MB, 1)


def error_rates(
    clips: Sequence[Clip], texts: Sequence[str], joined: bool = False
) -> dict[str, Figures]:
    """Returns the word error rate of all clips with a text ("all") and of each kind.

    Errors are summed over clips, so that long clips weigh more.
    joined: the clips were one stream. Clips that follow each other are then compared as one text,
    because otherwise a word at the edge of a clip whose time is slightly off is wrong twice.
    """
    sums: dict[str, wer.Errors] = {}
    for some in _compared_together(clips, texts, joined):
        errors = wer.errors_of_each(
            [clip.text or "" for clip, _ in some],
            [text for _, text in some],
            [clip.text_language or "en" for clip, _ in some],
        )
        for (clip, _), of_clip in zip(some, errors, strict=True):
            for kind in ("all", clip.kind):
                sums[kind] = sums.get(kind, wer.Errors()) + of_clip
    if len(sums) == 2:  # a single kind is the same as all
        sums = {"all": sums["all"]}
    return {kind: _rate(errors) for kind, errors in sums.items()}


def condition_error_rates(clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, Figures]:
    """Returns the word error rate of each condition, in order of appearance.

    A clip counts in each of its conditions.
    """
    return _rates_by_group(clips, texts, lambda clip: clip.conditions)


def language_error_rates(clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, Figures]:
    """Returns the word error rate of each language, of clips that name theirs."""
    return _rates_by_group(clips, texts, lambda clip: (clip.language,) if clip.language else ())


def _rates_by_group(
    clips: Sequence[Clip], texts: Sequence[str], groups: Callable[[Clip], Sequence[str]]
) -> dict[str, Figures]:
    sums: dict[str, wer.Errors] = {}
    for clip, text in zip(clips, texts, strict=True):
        if clip.text is None or not groups(clip):
            continue
        errors = wer.errors(clip.text, text, clip.text_language or "en")
        for group in groups(clip):
            sums[group] = sums.get(group, wer.Errors()) + errors
    return {group: _rate(errors) for group, errors in sums.items()}


def _rate(errors: wer.Errors) -> Figures:
    return {
        "wer": _rounded(errors.rate, 4),
        "wrong": errors.wrong,
        "words": errors.reference_words,
    }


def _compared_together(
    clips: Sequence[Clip], texts: Sequence[str], joined: bool
) -> list[list[tuple[Clip, str]]]:
    """Groups clips and texts that are compared as one: each clip alone, or (`joined`) all clips
    with a text that follow each other."""
    groups: list[list[tuple[Clip, str]]] = [[]]
    for clip, text in zip(clips, texts, strict=True):
        if clip.text is None or not joined:
            groups.append([])
        if clip.text is not None:
            groups[-1].append((clip, text))
    return [group for group in groups if group]


def slots(clips: Sequence[Clip], texts: Sequence[str]) -> float | None:
    """Returns the share of required words that were recognised; None if there are none."""
    found = wanted = 0
    for clip, text in zip(clips, texts, strict=True):
        got = set(wer.words(text))
        slot_words = [word for slot in clip.slot_words for word in wer.words(slot)]
        wanted += len(slot_words)
        found += sum(word in got for word in slot_words)
    return _rounded(found / wanted, 4) if wanted else None


def condition_slots(clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, float]:
    """Returns the share of required words that were recognised, for each condition with any."""
    pairs = list(zip(clips, texts, strict=True))
    shares = {}
    for condition in dict.fromkeys(c for clip in clips for c in clip.conditions):
        of_condition = [(clip, text) for clip, text in pairs if condition in clip.conditions]
        share = slots([clip for clip, _ in of_condition], [text for _, text in of_condition])
        if share is not None:
            shares[condition] = share
    return shares


def _percentiles(values: Sequence[float], digits: int = 2) -> Figures:
    return {
        "p50": _rounded(percentile(values, 50), digits),
        "p99": _rounded(percentile(values, 99), digits),
        "max": _rounded(max(values, default=None), digits),
        "count": len(values),
    }


def _histogram(step_ms: Sequence[float]) -> dict[str, int]:
    edges = [0.0, *BINS_MS, float("inf")]
    counts = np.histogram(np.asarray(step_ms), edges)[0]
    names = [f"<{edge}" for edge in BINS_MS] + [f">={BINS_MS[-1]}"]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _cpu_name() -> str:
    """Returns the name of the board (device tree) or of the processor."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if not key:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
