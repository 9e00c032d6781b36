"""Displays the messages of `edged listen`: live in a terminal, else as lines or JSON lines."""

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
from edged.languages import word_separator

REFRESH_PER_S = 12
BAR, SHORTEST_BAR = 20, 4  # characters; bars get shorter on narrow terminals
ROWS = 4  # most rows for the newest words of an unfinished turn
MAX_WORDS = 200  # kept of an unfinished turn
MAX_DEVICES = 256
JOINERS = "\u200c\u200d"


class ListenView:
    """Base class of the three displays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def message(self, device: str, name: str, value: Any) -> None:
        """Takes one message: `name` is the topic below the device, `value` the decoded payload."""

    def notice(self, text: str) -> None:
        """Takes a notice about the connection to the broker."""


class JsonLines(ListenView):
    """Prints every message as one JSON object a line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def message(self, device: str, name: str, value: Any) -> None:
        about = {"device": device, "topic": name}
        line = about | value | about if isinstance(value, dict) else about | {"value": value}
        _write(self._console, json.dumps(line, ensure_ascii=False))


@dataclass(slots=True)
class DeviceState:
    """What is known about one device; None is unknown."""

    name: str
    online: bool | None = None
    speaking: bool | None = None
    mute: bool | None = None
    microphone: str = ""  # message about a problem, "" if there is none
    inactivity: tuple[float, ...] | None = None
    words: list[str] = field(default_factory=list)
    language: str = ""  # of the last turn, or the one that is set

    def update(self, name: str, value: Any) -> str | None:
        """Takes one message; returns the line to print about it, None for none."""
        match name:
            case "text" if isinstance(value, dict):
                self.words.append(clean(value.get("text")))
                del self.words[:-MAX_WORDS]
            case "info" if isinstance(value, dict):
                self.language = clean(value.get("language"))
            case "turn" if isinstance(value, dict):
                self.words.clear()
                self.language = clean(value.get("language")) or self.language
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
            return None  # the usual state needs no line
        return None if old is value else (on if value else off)


def _inactivity(vad: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(v["inactivity_prob"]) for v in vad[: len(HORIZONS_S)])
    except (TypeError, KeyError, ValueError):
        return None


class KnownDevices:
    """The state of every device that has sent a message."""

    def __init__(self) -> None:
        self.all: dict[str, DeviceState] = {}

    def of(self, name: str) -> DeviceState | None:
        """Returns the state of a device; None if there are too many (anybody may publish names)."""
        if name not in self.all and len(self.all) >= MAX_DEVICES:
            return None
        return self.all.setdefault(name, DeviceState(clean(name)))


class PlainLines(ListenView):
    """Prints a line for each turn and each change of state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._devices = KnownDevices()

    def message(self, device: str, name: str, value: Any) -> None:
        known = self._devices.of(device)
        line = known.update(name, value) if known else None
        if line:
            _write(self._console, f"{time.strftime('%H:%M:%S')} {clean(device)}: {line}")


class LiveView(ListenView):
    """Prints turns; redraws each device's words and bars below them."""

    def __init__(self, console: Console, devices: KnownDevices | None = None) -> None:
        self._console = console
        self._devices = devices or KnownDevices()
        self._notice = ""
        self._live = Live(
            console=console,
            get_renderable=self.__rich__,
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
        line = known.update(name, value) if known else None
        if line:
            style = "yellow" if line.startswith("-- ") else ""
            head = Text(f"{time.strftime('%H:%M:%S')} {clean(device)}: ", style="dim")
            self._console.print(head + Text(line, style=style))

    def notice(self, text: str) -> None:
        self._notice = "" if text == "connected" else clean(text)

    def __rich__(self) -> RenderableType:
        """The live part: words and bars of every device that is online."""
        online = [device for device in list(self._devices.all.values()) if device.online]
        rows: list[RenderableType] = [_draw(device, self._console) for device in online]
        if self._notice:
            rows.append(Text(self._notice, style="yellow"))
        elif not rows:
            rows.append(Text("no device is online yet", style="dim"))
        return Group(*rows)


def _draw(device: DeviceState, console: Console) -> RenderableType:
    head = Text(f"{device.name} ", style="bold")
    if device.mute:
        head.append("muted", style="yellow")
    elif device.microphone:
        head.append(device.microphone, style="red")
    else:
        # Both texts have the same length, so that the bars beside them do not move.
        speaking = ("● speaking ", "green") if device.speaking else ("○ listening", "dim")
        head.append(*speaking)
        _add_bars(head, device.inactivity or (), console.width)
    text = word_separator(device.language).join(device.words)
    words = Text(text[-ROWS * console.width :], style="italic")
    return Group(head, *words.wrap(console, console.width)[-ROWS:])


def _add_bars(head: Text, inactivity: tuple[float, ...], width: int) -> None:
    """Adds a bar for each horizon, as long as the line allows, or none."""
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
    """Makes received text safe to print: no control characters, at most 2000 characters.

    The joiners stay, which Persian and the scripts of India are spelled with.
    """
    kept = (c if c.isprintable() or c in JOINERS else " " for c in str(value or ""))
    return "".join(kept)[:2000]


def _write(console: Console, line: str) -> None:
    """Writes a line without wrapping and flushes it, so that a reader gets it at once."""
    console.file.write(line + "\n")
    console.file.flush()
