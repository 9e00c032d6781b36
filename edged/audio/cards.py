"""The kernel's sound cards as /proc/asound lists them, and names that survive a reboot.

Card numbers change when devices start in another order, so edged takes card names only
(`plughw:CARD=Device,DEV=0`), or a USB id (`usb:0d8c:0014`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edged.errors import DeviceError

PROC = Path("/proc/asound")
_CARD_LINE = re.compile(r"^ *(\d+) \[(\S+) *\]: (.*)$")
_PCM_LINE = re.compile(r"^(\d+)-(\d+): ([^:]*):([^:]*):(.*)$")
# hw:Mic,0  plughw:CARD=Mic,DEV=0  sysdefault:CARD=Mic  usb:0d8c:0014
_NAME = re.compile(r"^(?:plug)?(?:hw|default|sysdefault|front|dsnoop|iec958):(?:CARD=)?([^,]+)")
_USB = re.compile(r"^usb:([0-9a-fA-F]{4}:[0-9a-fA-F]{4})$")


@dataclass(frozen=True, slots=True)
class Input:
    """One capture device of a card.

    Attributes:
        owner: the process that has it open, "name (pid 12)"; None if it is free.
    """

    number: int
    name: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A sound card.

    Attributes:
        id: its stable ALSA name.
        usb: its "vendor:product" if it has one.
    """

    index: int
    id: str
    name: str
    usb: str | None = None
    inputs: tuple[Input, ...] = ()

    def device(self, number: int | None = None) -> str:
        """The stable name of one of its inputs, the first one by default."""
        first = self.inputs[0].number if self.inputs else 0
        return f"plughw:CARD={self.id},DEV={first if number is None else number}"


def read_cards(proc: Path | None = None) -> list[Card] | None:
    """All cards in the kernel's order; None if the kernel has no sound support."""
    proc = proc or PROC
    try:
        lines = (proc / "cards").read_text(errors="replace").splitlines()
    except OSError:
        return None
    inputs = _read_inputs(proc)
    cards = []
    for line in lines:
        if match := _CARD_LINE.match(line):
            index, card_id, name = int(match[1]), match[2], match[3]
            usb = _read(proc / f"card{index}/usbid")
            name = name.partition(" - ")[2] or name
            cards.append(Card(index, card_id, name, usb, tuple(inputs.get(index, ()))))
    return cards


def resolve(device: str, proc: Path | None = None) -> str:
    """The ALSA name to open for a value of EDGED_ALSA_DEVICE.

    Raises DeviceError for a card number, for a malformed `usb:` name, and for a card that is not
    plugged in, without opening anything.
    """
    if not device.strip():
        raise DeviceError("the microphone's name is empty: `edged devices` lists what there is")
    cards = read_cards(proc)
    if device.startswith("usb:"):
        return _resolve_usb(device, cards or [])
    match = _NAME.match(device)
    if not match:
        return device
    wanted = match[1]
    if wanted.isdigit():
        raise DeviceError(_number_message(device, int(wanted), cards or []))
    if cards is not None and all(card.id != wanted for card in cards):
        raise DeviceError(f"no sound card is called {wanted}: {_plugged_in(cards)}")
    return device


def card_of(device: str, proc: Path | None = None) -> Card | None:
    """The card of a device name; None if the name has no card or the card is not there."""
    cards = read_cards(proc) or []
    if usb := _USB.match(device):
        return next((card for card in cards if card.usb == usb[1].lower()), None)
    match = _NAME.match(device)
    return next((card for card in cards if match and card.id == match[1]), None)


def is_card_name(device: str) -> bool:
    """Whether the name is that of a kernel card, whose return shows in /dev/snd."""
    return bool(_NAME.match(device) or device.startswith("usb:"))


def _resolve_usb(device: str, cards: list[Card]) -> str:
    match = _USB.match(device)
    if not match:
        raise DeviceError(f"{device} is not a USB id: it looks like usb:0d8c:0014 (see lsusb)")
    for card in cards:
        if card.usb == match[1].lower() and card.inputs:
            return card.device()
    raise DeviceError(f"no microphone with the USB id {match[1]} is plugged in")


def _number_message(device: str, number: int, cards: list[Card]) -> str:
    now = next((card for card in cards if card.index == number), None)
    advice = f"use {now.device()}" if now else "`edged devices` lists the names"
    return f"{device} names a card by number, which can change at any boot: {advice}"


def _plugged_in(cards: list[Card]) -> str:
    ids = [card.id for card in cards if card.inputs]
    if not ids:
        return "no microphone is plugged in"
    return f"plug it in, or choose another (plugged in now: {', '.join(ids)})"


def _read_inputs(proc: Path) -> dict[int, list[Input]]:
    inputs: dict[int, list[Input]] = {}
    for line in (_read(proc / "pcm") or "").splitlines():
        match = _PCM_LINE.match(line)
        if match and "capture" in match[5]:
            card, number = int(match[1]), int(match[2])
            owner = _owner(proc / f"card{card}/pcm{number}c")
            inputs.setdefault(card, []).append(Input(number, match[4].strip(), owner))
    return inputs


def _owner(folder: Path) -> str | None:
    """The process that has the device open; None if a substream is free."""
    owner = None
    for status in sorted(folder.glob("sub*/status")):
        text = _read(status) or "closed"
        pid = re.search(r"owner_pid\s*:\s*(\d+)", text)
        if text == "closed" or not pid:
            return None
        owner = _process_name(pid[1])
    return owner


def _process_name(thread: str) -> str:
    """ "name (pid 12)" of the process of a thread: the kernel notes who opened the device."""
    status = _read(Path(f"/proc/{thread}/status")) or ""
    process = re.search(r"^Tgid:\s*(\d+)", status, re.MULTILINE)
    pid = process[1] if process else thread
    return f"{_read(Path(f'/proc/{pid}/comm')) or 'a program'} (pid {pid})"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
