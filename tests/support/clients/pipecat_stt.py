"""Pipecat's own Gradium service, pointed at edged: `pipecat_stt.py WS_URL WAV` prints JSON."""

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
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.gradium.stt import GradiumSTTService
from pipecat.tests.utils import SleepFrame, run_test

logger.remove()


async def main(url: str, path: str) -> None:
    with wave.open(path) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    step = 2 * rate * 80 // 1000
    audio = [
        InputAudioRawFrame(part, rate, 1)
        for part in (data[at : at + step] for at in range(0, len(data), step))
    ]
    service = GradiumSTTService(api_key="any", api_endpoint_base_url=url)
    down, _ = await run_test(
        service,
        frames_to_send=[
            VADUserStartedSpeakingFrame(),
            *audio,
            SleepFrame(1.0),  # the service's own queue
            VADUserStoppedSpeakingFrame(),  # the service sends a flush
            SleepFrame(float(sys.argv[3])),
        ],
        pipeline_params=PipelineParams(audio_in_sample_rate=rate),
        start_timeout=30.0,
    )
    kinds = (InterimTranscriptionFrame, TranscriptionFrame)
    print(json.dumps([(type(f).__name__, f.text) for f in down if isinstance(f, kinds)]))


faulthandler.dump_traceback_later(90, exit=True)  # the test waits for 120 s
asyncio.run(main(*sys.argv[1:3]))
