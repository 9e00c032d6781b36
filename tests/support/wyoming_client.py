"""The client of the `wyoming` package, with what several tests send and expect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event

CHUNK = 2048  # bytes, as Home Assistant sends


async def send_audio(
    client: AsyncTcpClient,
    audio: bytes,
    rate: int = 16_000,
    width: int = 2,
    channels: int = 1,
    stop: bool = True,
    pace: float = 0.0,
) -> None:
    """Sends one utterance. `pace` 1.0 sends it in real time, 0 as fast as possible."""
    await client.write_event(AudioStart(rate, width, channels).event())
    chunk_s = CHUNK / (rate * width * channels)
    for at in range(0, len(audio), CHUNK):
        chunk = AudioChunk(rate, width, channels, audio[at : at + CHUNK])
        await client.write_event(chunk.event())
        if pace:
            await asyncio.sleep(chunk_s * pace)
    if stop:
        await client.write_event(AudioStop().event())


async def receive_until(client: AsyncTcpClient, kind: str, timeout_s: float = 30) -> list[Event]:
    """All events up to the first of type `kind`, which is the last of them."""
    events: list[Event] = []
    async with asyncio.timeout(timeout_s):
        while not events or events[-1].type != kind:
            event = await client.read_event()
            assert event is not None, [(e.type, e.data) for e in events]
            events.append(event)
    return events


async def transcribe(
    url: str, audio: bytes, rate: int = 16_000, width: int = 2, channels: int = 1
) -> str:
    """The final transcript of one utterance."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    async with AsyncTcpClient(host, int(port)) as client:
        await client.write_event(Transcribe(language="en").event())
        await send_audio(client, audio, rate, width, channels)
        return text_of(await receive_until(client, TranscriptStop().event().type))


def text_of(events: Sequence[Event]) -> str:
    """The text of the only `transcript`."""
    (text,) = [Transcript.from_event(e).text for e in events if Transcript.is_type(e.type)]
    return text


def streamed_text(events: Sequence[Event]) -> str:
    """The text of the `transcript-chunk`s."""
    chunks = [TranscriptChunk.from_event(e) for e in events if TranscriptChunk.is_type(e.type)]
    return "".join(chunk.text for chunk in chunks)
