"""LiveKit's OpenAI plug-in with edged's address: `livekit_openai_stt.py BASE_URL WAV` prints JSON.

Its realtime API is used, with turn detection by the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import sys
import wave

from livekit import rtc
from livekit.agents import stt, utils
from livekit.plugins import openai

STEP = 1920


def frames(path: str) -> list[rtc.AudioFrame]:
    with wave.open(path) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    data += bytes(3 * 2 * rate)  # silence, in which the turn ends
    return [
        rtc.AudioFrame(part, rate, 1, len(part) // 2)
        for part in (data[at : at + 2 * STEP] for at in range(0, len(data), 2 * STEP))
    ]


async def main(url: str, path: str) -> None:
    received: list[tuple[str, str]] = []
    async with utils.http_context.open():
        service = openai.STT(
            base_url=url,
            api_key="any",
            model="gpt-4o-transcribe",
            use_realtime=True,
            turn_detection={"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 700},
        )
        stream = service.stream()
        for frame in frames(path):
            stream.push_frame(frame)
        try:
            async with asyncio.timeout(60):
                async for event in stream:
                    text = event.alternatives[0].text if event.alternatives else ""
                    received.append((event.type.value, text))
                    if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                        break
        except TimeoutError:
            print("no final transcript within 60 s", file=sys.stderr)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await stream.aclose()
    print(json.dumps(received), flush=True)
    os._exit(0)  # does not wait for LiveKit's native threads


faulthandler.dump_traceback_later(90, exit=True)  # the test waits for 120 s
asyncio.run(main(*sys.argv[1:3]))
