"""Checks whether the microphone works: its real format, its level, and what disturbs it.

The limits are those of speech recognition: speech from a usable distance has an RMS level of -45 to
-15 dBFS, and background noise above -40 dBFS leaves too little room between noise and voice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edged.audio.alsa import Microphone, NegotiatedFormat, open_microphone
from edged.audio.converter import Converter
from edged.audio.level import CLIPPING, to_db
from edged.doctor.finding import Finding
from edged.errors import DeviceError

WHAT = "microphone"
NOISY_DBFS = -40.0
QUIET_PEAK_DBFS = -50.0  # a peak below this means that not even the room was heard
WINDOW_S = 0.1
START_S = 3.0  # sound servers take up to 2 s before the first data
LATE = 0.9  # least share of the audio that must arrive in real time


@dataclass(frozen=True, slots=True)
class LevelMeasurement:
    """Measurements of a recording: levels in dBFS, `clipped` as a share from 0 to 1."""

    seconds: float  # duration of the audio
    elapsed_s: float
    rms_dbfs: float
    peak_dbfs: float
    noise_dbfs: float  # RMS level of the quietest tenth
    clipped: float
    overruns: int


def check_microphone(device: str, seconds: float = 3.0) -> list[Finding]:
    """Records for `seconds`, measures and discards the recording. Never raises for a bad device."""
    try:
        microphone = open_microphone(device)
    except DeviceError as problem:
        return [_unusable(str(problem))]
    try:
        measured = _record(microphone, seconds)
    except DeviceError as problem:
        return [_unusable(f"{device} was lost while recording: {problem}")]
    finally:
        microphone.close()
    return [_format(device, microphone.negotiated), *_judge(device, measured)]


def _unusable(message: str) -> Finding:
    """Splits the remedy, after a colon, from the message of a DeviceError."""
    if "in use by edged (" in message:
        remedy = "To measure it, stop the service first (sudo systemctl stop edged)."
        return Finding("warn", WHAT, "not measured, because the running edged uses it", remedy)
    message, _, remedy = message.partition(": ")
    return Finding("fail", WHAT, message, remedy or "Run `edged devices` to list the microphones.")


def _record(microphone: Microphone, seconds: float) -> LevelMeasurement | None:
    """Records and measures. Returns None if no data arrived at all."""
    negotiated = microphone.negotiated
    converter = Converter(negotiated.rate, negotiated.channels, negotiated.format)
    blocks: list[np.ndarray] = []
    frames = overruns = 0
    started: float | None = None
    opened = now = time.monotonic()
    while now - (started or opened) < (seconds if started else START_S):
        data = microphone.read()
        now = time.monotonic()
        if data is None:
            overruns += 1
        elif data:
            started = started or now
            frames += microphone.frames(data)
            blocks.append(converter.push(data))
        else:
            microphone.wait(0.25)
    if started is None:
        return None
    samples = np.concatenate([*blocks, converter.flush()]) / 2.0**15
    return _measure(samples, frames / negotiated.rate, now - started, overruns)


def _measure(
    samples: np.ndarray, seconds: float, elapsed_s: float, overruns: int
) -> LevelMeasurement:
    window = round(WINDOW_S * 24_000)
    windows = samples[: len(samples) // window * window].reshape(-1, window)
    powers = np.mean(np.square(windows), axis=1) if len(windows) else np.zeros(1)
    loud = np.abs(samples)
    return LevelMeasurement(
        seconds,
        elapsed_s,
        to_db(float(np.sqrt(powers.mean()))),
        to_db(float(loud.max(initial=0.0))),
        to_db(float(np.sqrt(np.quantile(powers, 0.1)))),
        float(np.mean(loud >= CLIPPING)) if len(loud) else 0.0,
        overruns,
    )


def _format(device: str, negotiated: NegotiatedFormat) -> Finding:
    text = f"{device} delivers {negotiated}"
    if negotiated != NegotiatedFormat(period=negotiated.period, buffer=negotiated.buffer):
        text += "; edged converts it to 24000 Hz, mono"
    return Finding("ok", WHAT, text)


def _judge(device: str, measured: LevelMeasurement | None) -> list[Finding]:
    if measured is None:
        remedy = "Unplug it and plug it in again, or restart the sound server."
        return [Finding("fail", WHAT, f"{device} can be opened but delivers no data", remedy)]
    if measured.peak_dbfs <= -120.0:
        remedy = "Look for a mute switch on it, and raise its capture volume (alsamixer, F4)."
        return [Finding("fail", WHAT, f"{device} delivers only digital silence", remedy)]
    numbers = (
        f"level {measured.rms_dbfs:.0f} dBFS, peak {measured.peak_dbfs:.0f}, "
        f"noise floor {measured.noise_dbfs:.0f}"
    )
    findings = []
    if measured.clipped > 0.001:
        text = (
            f"the level is too high: {measured.clipped:.1%} of the samples are clipped ({numbers})"
        )
        remedy = "Lower its capture volume (alsamixer, F4), or stand further away."
        findings.append(Finding("warn", WHAT, text, remedy))
    elif measured.noise_dbfs > NOISY_DBFS:
        text = f"the background noise is loud ({numbers})"
        remedy = "Move it away from fans and loudspeakers, or lower its capture volume."
        findings.append(Finding("warn", WHAT, text, remedy))
    elif measured.peak_dbfs < QUIET_PEAK_DBFS:
        text = f"the level is very low ({numbers})"
        remedy = (
            "Speak during the check, or raise its capture volume (alsamixer, F4) or EDGED_GAIN_DB."
        )
        findings.append(Finding("warn", WHAT, text, remedy))
    else:
        findings.append(Finding("ok", WHAT, f"the level is good ({numbers})"))
    if measured.overruns or measured.seconds < LATE * measured.elapsed_s:
        text = (
            f"audio was lost: {measured.seconds:.1f} s arrived in {measured.elapsed_s:.1f} s, "
            f"overruns: {measured.overruns}"
        )
        remedy = "Find out what else keeps this machine busy (top), or try another USB port."
        findings.append(Finding("warn", WHAT, text, remedy))
    return findings
