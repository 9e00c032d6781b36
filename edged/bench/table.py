"""Prints the figures of a measurement as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from edged import STEP_S
from edged.bench.report import BINS_MS, Figures
from edged.engine.run_stats import STEP_MS
from edged.languages import described

Row = tuple[str, list[str]]


def show(whole: Figures, console: Console) -> None:
    """Prints one column for each run and each other recogniser, then the first run's step times."""
    machine, runs = whole["machine"], whole["runs"]
    others = [*whole["offline"], *([whole["peer"]] if whole["peer"] else [])]
    several = len({run["model"] for run in runs}) > 1
    grid = Table(
        title=f"{whole['model']}, threads: {whole['threads']}, on {machine['cpu']}"
        + (f" as if {whole['slow']:g} times slower" if whole.get("slow") else ""),
        caption=f"{machine['arch']}, Python {machine['python']}, "
        f"onnxruntime {machine['onnxruntime']}, edged {machine['edged']}",
    )
    grid.add_column(f"{runs[0]['audio_s']:.0f} s of audio, {runs[0]['clips']} clips")
    for run in runs:
        name = f"{run['model']}, " if several else ""
        name += f"with {run['second_opinion']}, " if run.get("second_opinion") else ""
        terms = f", {run['terms']}" if "terms" in run else ""
        grid.add_column(f"{name}delay {run['delay_in_frames']}{terms}", justify="right")
    for other in others:
        grid.add_column(other["name"], justify="right")
    for label, cells in _rows(runs + others):
        grid.add_row(label, *cells)
    console.print(grid)
    console.print(_bars(runs[0]["step_histogram"]), highlight=False)


def _rows(columns: Sequence[Figures]) -> Iterable[Row]:
    """Yields labels and cells; a dash where a column has no such figure."""
    for label, key in (("words", "term_errors"), ("turn words", "turn_term_errors")):
        for group in ("listed", "others"):
            if any(key in c for c in columns):
                cells = [c[key][group] if key in c else None for c in columns]
                shown = [f"{c['wrong']} of {c['words']}" if c else "-" for c in cells]
                yield f"{group} {label} wrong", shown
    delays = [c.get("delay_in_frames") for c in columns]
    yield "delay of the setting, s", [_scaled(delay, STEP_S, 2) for delay in delays]
    for label, name, digits in (
        (f"step, ms (one every {STEP_MS:.0f})", "step_ms", 1),
        ("background work, ms", "background_ms", 0),
        ("word end to text, s", "lag_s", 2),
        ("flush, ms", "flush_ms", 0),
    ):
        yield label, [""] * len(columns)
        for part in ("p50", "p99", "max"):
            yield f"  {part}", [_scaled(c.get(name, {}).get(part), 1, digits) for c in columns]
    yield "CPU s per audio s", [_scaled(c["cpu_s_per_audio_s"], 1, 3) for c in columns]
    yield "peak resident, MB", [_scaled(c.get("peak_rss_mb"), 1, 0) for c in columns]
    yield (
        "  growth after the first quarter",
        [_scaled(c.get("rss_growth_mb"), 1, 1) for c in columns],
    )
    yield from _accuracy(columns)


def _accuracy(columns: Sequence[Figures]) -> Iterable[Row]:
    for name, title in (("wer", "WER of text"), ("turn_wer", "WER of turns")):
        for kind in _keys(columns, name):
            label = f"{title}, %" if kind == "all" else f"  {kind}"
            yield label, [_rate(c.get(name), kind) for c in columns]
        for condition in _keys(columns, f"{name.removesuffix('wer')}condition_wer"):
            key = f"{name.removesuffix('wer')}condition_wer"
            yield f"    {condition}", [_rate(c.get(key), condition) for c in columns]
        key = f"{name.removesuffix('wer')}language_wer"
        languages = _keys(columns, key)
        for language in languages if len(languages) > 1 else ():
            yield f"    {described(language)}", [_rate(c.get(key), language) for c in columns]
    for name, title in (("slots", "required words in text, %"), ("turn_slots", "  in turns, %")):
        if any(c.get(name) is not None for c in columns):
            yield title, [_scaled(c.get(name), 100, 1) for c in columns]
        key = f"{name.removesuffix('slots')}condition_slots"
        for condition in _keys(columns, key):
            cells = [_scaled(c.get(key, {}).get(condition), 100, 1) for c in columns]
            yield f"    {condition}", cells
    for kind in _keys(columns, "invented_texts"):
        counts = [c.get("invented_texts", {}).get(kind) for c in columns]
        yield f"texts on {kind}", [_scaled(count, 1, 0) for count in counts]
    for name, title in (("word_times", "word times"), ("turn_word_times", "  in turns")):
        if any(c.get(name) for c in columns):
            yield f"{title} error, median start / stop, ms", [_off(c.get(name)) for c in columns]
    for level in _keys(columns, "load_level_s"):
        seconds = [c.get("load_level_s", {}).get(level) for c in columns]
        yield f"s of audio at load level {level}", [_scaled(value, 1, 0) for value in seconds]
    for reason in _keys(columns, "dropped"):
        counts = [c.get("dropped", {}).get(reason) for c in columns]
        yield f"dropped: {reason}", [_scaled(count, 1, 0) for count in counts]


def _keys(columns: Sequence[Figures], name: str) -> list[str]:
    return list(dict.fromkeys(key for c in columns for key in c.get(name, {})))


def _off(times: Figures | None) -> str:
    if times is None:
        return "-"
    return f"{times['start_median_abs_ms']:.0f} / {times['stop_median_abs_ms']:.0f}"


def _bars(histogram: dict[str, int], width: int = 50) -> str:
    total, most = sum(histogram.values()), max(histogram.values(), default=0)
    lines = ["step time, ms"]
    for name, count in histogram.items():
        bar = "█" * -(-count * width // most) if count else ""
        lines.append(f"{name:>5} {bar:<{width}} {count} ({100 * count / max(1, total):.2f} %)")
        if name == f"<{BINS_MS[-1]}":
            lines.append("-" * 6 + f" {STEP_MS:.0f} ms: time of one step " + "-" * 20)
    return "\n".join(lines)


def _scaled(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"


def _rate(rates: dict[str, Figures] | None, kind: str) -> str:
    return _scaled((rates or {}).get(kind, {}).get("wer"), 100, 1)
