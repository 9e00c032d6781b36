"""Lists the capture devices of this machine, under names that survive a reboot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edged.audio import alsa
from edged.audio.cards import Card, read_cards
from edged.errors import DeviceError

# Plugins that every installation defines and that give no audio, or need arguments.
_NOT_MICROPHONES = frozenset(
    ("null", "lavrate", "samplerate", "speexrate", "speex", "jack", "oss", "upmix", "vdownmix")
)
_SERVERS = {"pulse": "PulseAudio or PipeWire", "pipewire": "PipeWire"}


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    """A device that can be recorded from.

    Attributes:
        name: the value for EDGED_ALSA_DEVICE.
        default: whether ALSA's `default` leads here.
        in_use: the process that has it open; None if it is free, or unknown (sound servers share).
        usb: another name, which fits any USB port.
    """

    name: str
    description: str
    default: bool = False
    in_use: str | None = None
    usb: str | None = None


def list_devices(proc: Path | None = None) -> list[CaptureDevice]:
    """Lists cards in the kernel's order, then `default`, then what the ALSA configuration adds.

    `default` and what the configuration adds are opened for a moment, to learn where they lead and
    whether they work. Raises DeviceError if pyalsaaudio is missing.
    """
    names = alsa.capture_names()
    cards = read_cards(proc) or []
    leads_to, description = _default(cards)
    found = [
        CaptureDevice(
            card.device(each.number),
            f"{card.name}, {each.name}" if each.name not in card.name else card.name,
            card.index == leads_to and each.number == card.inputs[0].number,
            each.owner,
            f"usb:{card.usb}" if card.usb else None,
        )
        for card in cards
        for each in card.inputs
    ]
    found.append(
        CaptureDevice("default", description, default=leads_to is None and bool(description))
    )
    return [each for each in found if each.description] + _configured(names)


def _default(cards: list[Card]) -> tuple[int | None, str]:
    """The number of the card that `default` leads to, and a description, "" if it is no device."""
    try:
        microphone = alsa.open_microphone("default")
    except DeviceError as error:
        busy = "in use" in str(error)
        return None, "what ALSA chooses (in use now)" if busy else ""
    number = microphone.card_number
    microphone.close()
    card = next((card for card in cards if card.index == number), None)
    if card is None:
        return None, "what ALSA chooses: a sound server or the ALSA configuration"
    return number, f"what ALSA chooses, now {card.name}"


def _configured(names: list[str]) -> list[CaptureDevice]:
    """Devices of the ALSA configuration: sound servers, and what the owner defined."""
    ours = {*_NOT_MICROPHONES, "default"}
    return [
        CaptureDevice(name, _SERVERS.get(name, "from the ALSA configuration"))
        for name in names
        if name not in ours and ":" not in name and _opens(name)
    ]


def _opens(name: str) -> bool:
    """Whether it can be opened: sound servers are listed whether they run or not."""
    try:
        alsa.open_microphone(name).close()
    except DeviceError as error:
        return "in use" in str(error)
    return True
