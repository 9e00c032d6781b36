"""How `edged listen` shows messages: live on a terminal, in lines in a pipe, or as JSON lines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from edged.events import HORIZONS_S

REFRESH_PER_S = 12
BAR, SHORTEST_BAR = 20, 4  # characters: as a terminal is wide
ROWS = 4  # of an unfinished turn: the newest words, whatever else there is to show
MAX_WORDS = 200  # of an unfinished turn
MAX_DEVICES = 256


class View:
    """The three ways have this in common."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def message(self, device: str, name: str, value: Any) -> None:
        """One message of a device; `name` is the topic below it, `value` its decoded payload."""

    def note(self, text: str) -> None:
        """About the connection itself."""


class JsonLines(View):
    """Every message, one JSON object a line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def message(self, device: str, name: str, value: Any) -> None:
        about = {"device": device, "topic": name}
        line = about | value | about if isinstance(value, dict) else about | {"value": value}
        _write(self._console, json.dumps(line, ensure_ascii=False))


@dataclass(slots=True)
class Device:
    """What is known of one box; None is unknown."""

    name: str
    online: bool | None = None
    speaking: bool | None = None
    mute: bool | None = None
    microphone: str = ""  # the sentence about a problem
    inactivity: tuple[float, ...] | None = None
    words: list[str] = field(default_factory=list)

    def line(self, name: str, value: Any) -> str | None:
        """Takes one message in; returns what is worth a line of its own."""
        match name:
            case "text" if isinstance(value, dict):
                self.words.append(clean(value.get("text")))
                del self.words[:-MAX_WORDS]
            case "turn" if isinstance(value, dict):
                self.words.clear()
                return clean(value.get("text")) or None
            case "step" if isinstance(value, dict):
                self.inactivity = _inactivity(value.get("vad"))
            case "error" if isinstance(value, dict):
                return f"-- error: {clean(value.get('message'))}"
            case "end_of_stream":
                self.words.clear()
                self.inactivity = None
            case "state/speaking":
                self.speaking = value == "on"
            case "state/mute":
                return self._changed("mute", value == "on", "-- muted", "-- no longer muted")
            case "availability":
                return self._changed("online", value == "online", "-- online", "-- offline")
            case "state/mic" if isinstance(value, dict):
                problem = "" if value.get("ok", True) else clean(value.get("message"))
                changed, self.microphone = problem != self.microphone, problem
                return f"-- microphone: {problem or 'works again'}" if changed else None
        return None

    def _changed(self, name: str, value: bool, on: str, off: str) -> str | None:
        old = getattr(self, name)
        setattr(self, name, value)
        if old is None and value == (name == "online"):
            return None  # the usual state is no news
        return None if old is value else (on if value else off)


def _inactivity(vad: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(v["inactivity_prob"]) for v in vad[: len(HORIZONS_S)])
    except (TypeError, KeyError, ValueError):
        return None


class Devices:
    """Every box that was heard of."""

    def __init__(self) -> None:
        self.all: dict[str, Device] = {}

    def of(self, name: str) -> Device | None:
        """None when there are too many: anybody may publish under a new name."""
        if name not in self.all and len(self.all) >= MAX_DEVICES:
            return None
        return self.all.setdefault(name, Device(clean(name)))


class PlainLines(View):
    """A line for each turn and each change of state: to read later, to grep, to pipe on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._devices = Devices()

    def message(self, device: str, name: str, value: Any) -> None:
        known = self._devices.of(device)
        line = known.line(name, value) if known else None
        if line:
            _write(self._console, f"{time.strftime('%H:%M:%S')} {clean(device)}: {line}")


class TerminalView(View):
    """Turns scroll by; below them each box's words and bars, redrawn."""

    def __init__(self, console: Console, devices: Devices) -> None:
        self._console = console
        self._devices = devices
        self._note = ""
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def message(self, device: str, name: str, value: Any) -> None:
        known = self._devices.of(device)
        line = known.line(name, value) if known else None
        if line:
            style = "yellow" if line.startswith("-- ") else ""
            head = Text(f"{time.strftime('%H:%M:%S')} {clean(device)}: ", style="dim")
            self._console.print(head + Text(line, style=style))

    def note(self, text: str) -> None:
        self._note = "" if text == "connected" else clean(text)

    def _picture(self) -> RenderableType:
        online = [device for device in list(self._devices.all.values()) if device.online]
        rows: list[RenderableType] = [_drawn(device, self._console) for device in online]
        if self._note:
            rows.append(Text(self._note, style="yellow"))
        elif not rows:
            rows.append(Text("no box is online yet", style="dim"))
        return Group(*rows)


def _drawn(device: Device, console: Console) -> RenderableType:
    head = Text(f"{device.name} ", style="bold")
    if device.mute:
        head.append("muted", style="yellow")
    elif device.microphone:
        head.append(device.microphone, style="red")
    else:
        # Of one length, so that the bars beside it do not jump.
        speaking = ("● speaking ", "green") if device.speaking else ("○ listening", "dim")
        head.append(*speaking)
        _add_bars(head, device.inactivity or (), console.width)
    words = Text(" ".join(device.words)[-ROWS * console.width :], style="italic")
    return Group(head, *words.wrap(console, console.width)[-ROWS:])


def _add_bars(head: Text, inactivity: tuple[float, ...], width: int) -> None:
    """A bar for each horizon, as long as the line has room for, or none."""
    labels = [f"  {horizon:g} s " for horizon in HORIZONS_S]
    left = width - head.cell_len - sum(map(len, labels))
    length = min(BAR, left // len(labels))
    if length < SHORTEST_BAR:
        return
    for label, probability in zip(labels, inactivity, strict=False):
        full = round(length * min(1.0, max(0.0, probability)))
        head.append(label, style="dim")
        head.append("█" * full, style="blue")
        head.append("░" * (length - full), style="dim")


def clean(value: Any) -> str:
    """Text of a stranger, without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value or ""))[:2000]


def _write(console: Console, line: str) -> None:
    """At once and as it is: a pipe must not wait, nor see lines broken to a width."""
    console.file.write(line + "\n")
    console.file.flush()
