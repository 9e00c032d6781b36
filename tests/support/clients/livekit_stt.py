"""LiveKit's own Gradium plug-in, pointed at edged: `livekit_stt.py WS_URL WAV` prints JSON.

The one option that is not the plug-in's default is its threshold of a turn's end: 0.5 is the
contract's; 0.9 is surer than edged ever is that nobody will speak for two more seconds.
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
    heard: list[tuple[str, str]] = []
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
                    heard.append((event.type.value, text))
                    if event.type is stt.SpeechEventType.END_OF_SPEECH:
                        break
        except TimeoutError:  # told by the test: what was heard says what was not
            print("no end of speech within 60 s", file=sys.stderr)
        # Where a message comes as it is cancelled, `wait_for` of Python 3.11 forgets the
        # cancellation, and the plug-in's task goes on for ever: all was heard, and we hung.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await stream.aclose()
    print(json.dumps(heard), flush=True)
    os._exit(0)  # what LiveKit's native threads still do is not the test's affair


faulthandler.dump_traceback_later(90, exit=True)  # the test waits for 120 s
asyncio.run(main(*sys.argv[1:]))
