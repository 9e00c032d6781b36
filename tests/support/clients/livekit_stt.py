"""LiveKit's own Gradium plug-in, pointed at edged: `livekit_stt.py WS_URL WAV` prints JSON.

Its threshold for the end of a turn is set to 0.5, as in the contract. With the plug-in's default of
0.9 most turns end late or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import sys
import wave

import aiohttp
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import gradium

STEP = 1920


def frames(path: str) -> list[rtc.AudioFrame]:
    with wave.open(path) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    data += bytes(2 * 2 * rate)  # 2 s of silence: the plug-in waits for the end of speech
    return [
        rtc.AudioFrame(part, rate, 1, len(part) // 2)
        for part in (data[at : at + 2 * STEP] for at in range(0, len(data), 2 * STEP))
    ]


async def main(url: str, path: str) -> None:
    received: list[tuple[str, str]] = []
    async with aiohttp.ClientSession() as session:
        service = gradium.STT(
            api_key="any", model_endpoint=url, http_session=session, vad_threshold=0.5
        )
        stream = service.stream()
        for frame in frames(path):
            stream.push_frame(frame)
        try:
            async with asyncio.timeout(60):
                async for event in stream:
                    text = event.alternatives[0].text if event.alternatives else ""
                    received.append((event.type.value, text))
                    if event.type is stt.SpeechEventType.END_OF_SPEECH:
                        break
        except TimeoutError:
            print("no end of speech within 60 s", file=sys.stderr)
        # If a message arrives while it is cancelled, `wait_for` of Python 3.11 loses the
        # cancellation, and the plug-in's task never ends.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await stream.aclose()
    print(json.dumps(received), flush=True)
    os._exit(0)  # does not wait for LiveKit's native threads


faulthandler.dump_traceback_later(90, exit=True)  # the test waits for 120 s
asyncio.run(main(*sys.argv[1:]))
