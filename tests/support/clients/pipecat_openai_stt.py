"""Pipecat's OpenAI services with edged's address: `pipecat_openai_stt.py BASE_URL WAV` prints JSON.

The realtime service is used, with turn detection by the server.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import sys
import wave

from loguru import logger
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.tests.utils import SleepFrame, run_test

logger.remove()


async def main(url: str, path: str) -> None:
    with wave.open(path) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    data += bytes(3 * 2 * rate)  # silence, in which the turn ends
    step = 2 * rate * 80 // 1000
    audio = [
        InputAudioRawFrame(part, rate, 1)
        for part in (data[at : at + step] for at in range(0, len(data), step))
    ]
    service = OpenAIRealtimeSTTService(
        api_key="any",
        base_url=url.replace("http", "ws", 1) + "/realtime",
        turn_detection={"type": "server_vad"},
    )
    down, _ = await run_test(
        service,
        frames_to_send=[SleepFrame(2.0), *audio, SleepFrame(float(sys.argv[3]))],
        pipeline_params=PipelineParams(audio_in_sample_rate=rate),
        start_timeout=30.0,
    )
    kinds = (InterimTranscriptionFrame, TranscriptionFrame)
    print(json.dumps([(type(f).__name__, f.text) for f in down if isinstance(f, kinds)]))


faulthandler.dump_traceback_later(90, exit=True)  # the test waits for 120 s
asyncio.run(main(*sys.argv[1:3]))
