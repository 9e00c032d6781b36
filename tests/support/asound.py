"""/proc/asound of a Raspberry Pi with a USB microphone."""

from __future__ import annotations

from pathlib import Path

CARDS = """\
 0 [vc4hdmi0       ]: vc4-hdmi - vc4-hdmi-0
                      vc4-hdmi-0
 2 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media Electronics Inc. USB PnP Sound Device at usb-xhci-hcd.0-1, full speed
"""
PCMS = """\
00-00: MAI PCM i2s-hifi-0 : MAI PCM i2s-hifi-0 : playback 1
02-00: USB Audio : USB Audio : playback 1 : capture 1
"""


def asound_folder(folder: Path) -> Path:
    """Writes what the kernel shows into `folder`, and returns it."""
    status = folder / "card2/pcm0c/sub0/status"
    status.parent.mkdir(parents=True)
    status.write_text("closed\n")
    (folder / "cards").write_text(CARDS)
    (folder / "pcm").write_text(PCMS)
    (folder / "card2/usbid").write_text("0d8c:0014\n")
    return folder
