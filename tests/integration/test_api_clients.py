"""Clients written for the cloud service, unmodified, with real models and real speech."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradium
import numpy as np
import openai
import pytest
import requests
import soundfile
import soxr

from edged.audio.files import open_audio
from edged.bench import wer
from edged.engine.session import Session
from edged.events import Text, Turn
from edged.models.loader import Models, load
from edged.models.samples import samples
from edged.options import Options
from edged.server import access
from edged.server.api_server import ApiServer, WyomingAddress
from edged.server.listener import ListenAddress
from tests.support import wyoming_client
from tests.support.api_server import as_wav, client, open_api_server, sessions_of
from tests.support.sample_audio import opus, pcm
from tests.support.words import error_rate

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("EDGED_TEST_CLIENTS", ROOT / ".venv-clients")) / "bin" / "python"
CLIPS = samples()
needs_clients = pytest.mark.skipif(
    not CLIENTS.exists() and "CI" not in os.environ,  # there it must not go unnoticed
    reason="LiveKit and Pipecat are 750 MB: `make clients` installs them",
)


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


@pytest.fixture(scope="module")
def api_server(models: Models) -> Iterator[ApiServer]:
    access.BURST, before = 1000, access.BURST
    wyoming = WyomingAddress(ListenAddress("127.0.0.1", 0))
    with open_api_server(sessions_of(models), wyoming=wyoming) as opened:
        yield opened
    access.BURST = before


@pytest.fixture
def cloud(api_server: ApiServer) -> gradium.client.GradiumClient:
    """The vendor's client with the address changed."""
    return gradium.client.GradiumClient(base_url=f"{api_server.url}/api/", api_key="any")


def transcribed(models: Models, path: Path) -> str:
    """The text that `edged transcribe --text-from words` gives: a file is read in larger chunks."""
    session, source = Session(models, replace(Options(), turns=False)), open_audio(str(path))
    events = [event for frame in source.frames() for event in session.push(frame, backlog=True)]
    events += session.end()
    return " ".join(event.text for event in events if isinstance(event, Text))


# -- the vendor's SDK


def test_the_sdks_stt_gives_the_text_of_transcribe_for_every_clip(
    cloud: Any, models: Models, tmp_path: Path
) -> None:
    for sample in CLIPS:
        data = as_wav(sample.path)
        path = tmp_path / "clip.wav"
        path.write_bytes(data)
        result = asyncio.run(cloud.stt({"model_name": "default", "input_format": "wav"}, data))
        assert result.text == transcribed(models, path)
        assert result.request_id
        starts = [word.start_s for word in result.text_with_timestamps]
        assert starts == sorted(starts)


def test_the_sdks_stt_accepts_arrays_and_json_config(cloud: Any) -> None:
    sample = CLIPS[0]
    setup = {"input_format": "pcm", "json_config": {"delay_in_frames": 16, "language": "en"}}
    result = asyncio.run(cloud.stt(setup, pcm(sample.path), sample_rate=24_000))
    assert error_rate(sample.text, result.text) < 0.2


def test_the_sdks_stt_stream_yields_single_words(cloud: Any) -> None:
    sample = CLIPS[1]

    async def audio() -> AsyncIterator[np.ndarray]:
        samples = pcm(sample.path)
        for at in range(0, len(samples), 1920):
            yield samples[at : at + 1920]

    async def run() -> tuple[int | None, list[str]]:
        stream = await cloud.stt_stream({"model_name": "default", "input_format": "pcm"}, audio())
        return stream.delay_in_frames, [word.text async for word in stream.iter_text()]

    delay, words = asyncio.run(run())
    assert delay == 10
    assert error_rate(sample.text, " ".join(words)) < 0.2


def test_the_sdks_stt_realtime_flushes_and_ends(cloud: Any) -> None:
    sample = CLIPS[0]

    async def run() -> list[dict[str, Any]]:
        samples = pcm(sample.path)
        async with cloud.stt_realtime(model_name="default", input_format="pcm") as stt:
            for at in range(0, len(samples), 1920):
                await stt.send_audio(samples[at : at + 1920])
            await stt.send_flush()
            await stt.send_flush("a string")
            await stt.send_flush(7)
            await stt.send_eos()
            received = [message async for message in stt]
            assert stt.ready["sample_rate"] == 24_000
            return received

    received = asyncio.run(run())
    kinds = [m["type"] for m in received]
    assert kinds[0] == "ready"
    assert kinds[-1] == "end_of_stream"
    flushed = [m["flush_id"] for m in received if m["type"] == "flushed"]
    assert flushed == [0, "a string", 7]
    first = kinds.index("flushed")
    words = " ".join(m["text"] for m in received[:first] if m["type"] == "text")
    assert error_rate(sample.text, words) < 0.2
    assert "text" not in kinds[first:]  # a hard barrier
    steps = [m for m in received if m["type"] == "step"]
    assert [m["step_idx"] for m in steps] == list(range(len(steps)))
    assert all(len(m["vad"]) == 3 for m in steps)


def test_the_sdk_raises_the_error_message(cloud: Any) -> None:
    with pytest.raises(Exception, match=r"input_format must be one of .*1008"):
        asyncio.run(cloud.stt({"input_format": "mp3"}, b"abc"))


def test_the_sdks_command_line_transcribes(api_server: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(as_wav(CLIPS[0].path))
    options = ("--gradium-base-url", f"{api_server.url}/api/", "--api-key", "any")
    ran = subprocess.run(
        [sys.executable, "-m", "gradium.cli", "stt", str(path), *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert error_rate(CLIPS[0].text, ran.stdout) < 0.2, ran.stderr


# -- the README's examples, which are the vendor's


def readme_examples(api_server: ApiServer) -> list[str]:
    text = (ROOT / "edged" / "server" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Gradium's API")[2].partition("\n## ")[0]
    found = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert all("http://127.0.0.1:8765" in example for example in found)
    return [example.replace("http://127.0.0.1:8765", api_server.url) for example in found]


def test_the_readmes_examples_transcribe(
    api_server: ApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = CLIPS[0]
    samples_24k = pcm(sample.path)

    async def microphone_chunks() -> AsyncIterator[np.ndarray]:
        for at in range(0, len(samples_24k), 1920):
            yield samples_24k[at : at + 1920]

    (tmp_path / "input.wav").write_bytes(as_wav(sample.path))
    monkeypatch.chdir(tmp_path)
    examples = readme_examples(api_server)
    assert len(examples) == 2
    for example in examples:
        exec(example, {"microphone_chunks": microphone_chunks})
        assert error_rate(sample.text, capsys.readouterr().out) < 0.2


# -- the others


@needs_clients
def test_livekits_plug_in_detects_speech_and_its_end(api_server: ApiServer, tmp_path: Path) -> None:
    """It does not wait for ready, never flushes, and detects the end of a turn by vad[2]."""
    received = _run("livekit_stt.py", speech_url(api_server), api_server, tmp_path)
    kinds = [kind for kind, _ in received]
    assert kinds[0] == "start_of_speech"
    assert kinds[-2:] == ["final_transcript", "end_of_speech"]
    assert error_rate(CLIPS[0].text, received[-2][1]) < 0.2


@needs_clients
def test_pipecats_service_flushes_and_gets_its_transcript(
    api_server: ApiServer, tmp_path: Path
) -> None:
    received = _run("pipecat_stt.py", speech_url(api_server), api_server, tmp_path, "5")
    kinds = [kind for kind, _ in received]
    assert kinds.count("InterimTranscriptionFrame") > 5
    assert kinds[-1] == "TranscriptionFrame"
    assert kinds.count("TranscriptionFrame") == 1
    assert error_rate(CLIPS[0].text, received[-1][1]) < 0.2


@needs_clients
def test_livekits_openai_plug_in_gets_a_turn_in_realtime(
    api_server: ApiServer, tmp_path: Path
) -> None:
    received = _run("livekit_openai_stt.py", f"{api_server.url}/v1", api_server, tmp_path)
    kinds = [kind for kind, _ in received]
    assert kinds[0] == "start_of_speech"
    assert kinds[-1] == "final_transcript"
    assert error_rate(CLIPS[0].text, received[-1][1]) < 0.2


@needs_clients
def test_pipecats_openai_service_gets_a_turn_in_realtime(
    api_server: ApiServer, tmp_path: Path
) -> None:
    received = _run("pipecat_openai_stt.py", f"{api_server.url}/v1", api_server, tmp_path, "8")
    kinds = [kind for kind, _ in received]
    assert kinds.count("InterimTranscriptionFrame") > 3
    assert kinds[-1] == "TranscriptionFrame"
    assert error_rate(CLIPS[0].text, received[-1][1]) < 0.2


def test_requests_uploads_a_file_as_the_vendors_guide_does(
    api_server: ApiServer, models: Models
) -> None:
    clip = CLIPS[0]
    with requests.post(
        f"{api_server.url}/api/post/speech/asr",
        data=as_wav(clip.path),
        headers={"x-api-key": "any", "Content-Type": "audio/wav"},
        stream=True,
        timeout=60,
    ) as answer:
        answer.raise_for_status()
        messages = [json.loads(line) for line in answer.iter_lines() if line]
    words = " ".join(m["text"] for m in messages if m["type"] == "text")
    assert words == transcribed(models, clip.path)


def test_a_far_too_quiet_upload_gives_the_text_of_transcribe(
    api_server: ApiServer, models: Models, tmp_path: Path
) -> None:
    samples_16k, rate = soundfile.read(CLIPS[0].path, dtype="float32")
    path = tmp_path / "quiet.wav"
    soundfile.write(path, samples_16k * (0.004 / np.abs(samples_16k).max()), rate, "PCM_24")
    url = f"{api_server.url}/api/post/speech/asr"
    answer = requests.post(url, data=path.read_bytes(), timeout=60)
    messages = [json.loads(line) for line in answer.text.splitlines()]
    words = " ".join(m["text"] for m in messages if m["type"] == "text")
    assert words == transcribed(models, path)
    assert error_rate(CLIPS[0].text, words) < 0.3


def turns_transcribed(models: Models, path: Path) -> str:
    """The text that `edged transcribe` gives."""
    session, source = Session(models, Options()), open_audio(str(path))
    events = [event for frame in source.frames() for event in session.push(frame, backlog=True)]
    events += session.end()
    return " ".join(event.text for event in events if isinstance(event, Turn))


def test_wyomings_client_gets_the_text_of_transcribe(
    api_server: ApiServer, models: Models, tmp_path: Path
) -> None:
    for clip in CLIPS:
        audio, rate = soundfile.read(clip.path, dtype="int16")
        path = tmp_path / "clip.wav"
        soundfile.write(path, audio, rate, "PCM_16")
        text = asyncio.run(wyoming_client.transcribe(api_server.wyoming_url, audio.tobytes(), rate))
        assert text == turns_transcribed(models, path)


def test_wyoming_bench_gets_transcripts_streamed_and_whole(
    api_server: ApiServer, tmp_path: Path
) -> None:
    audio, rate = soundfile.read(CLIPS[0].path, dtype="int16")
    soundfile.write(tmp_path / "clip_01.wav", audio, rate, "PCM_16")
    (tmp_path / "clip_01.txt").write_text(CLIPS[0].text)
    program = Path(sys.executable).with_name("wyoming-bench")
    address = api_server.wyoming_url.removeprefix("tcp://")
    ran = subprocess.run(
        [program, "stt", "--corpus", tmp_path, "--rounds", "1", address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.count("ok=1 fail=0") == 2, ran.stdout + ran.stderr
    assert "edged - non-streaming, streaming" in ran.stdout


def test_openais_sdk_gets_the_text_of_transcribe(api_server: ApiServer, models: Models) -> None:
    sdk = openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="any", max_retries=0)
    for clip in CLIPS:
        expected = turns_transcribed(models, clip.path)
        text = sdk.audio.transcriptions.create(file=clip.path, model="whisper-1").text
        assert text == expected
        events = list(
            sdk.audio.transcriptions.create(file=clip.path, model="whisper-1", stream=True)
        )
        assert events[-1].type == "transcript.text.done"
        assert events[-1].text == expected


def test_openais_realtime_gives_the_text_of_transcribe(
    api_server: ApiServer, models: Models, tmp_path: Path
) -> None:
    sdk = openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="any", max_retries=0)
    with sdk.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        update: Any = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        connection.session.update(session=update)
        for clip in CLIPS:
            samples = pcm(clip.path)
            path = tmp_path / "clip.wav"
            soundfile.write(path, samples, 24_000, "PCM_16")
            for at in range(0, len(samples), 24_000):
                part = base64.b64encode(samples[at : at + 24_000].tobytes()).decode()
                connection.input_audio_buffer.append(audio=part)
            connection.input_audio_buffer.commit()
            deltas = ""
            while not (event := connection.recv()).type.endswith(".completed"):
                assert event.type != "error", event
                if event.type == "conversation.item.input_audio_transcription.delta":
                    deltas += event.delta or ""
            assert event.type == "conversation.item.input_audio_transcription.completed"
            assert event.transcript == turns_transcribed(models, path)
            assert deltas == transcribed(models, path)


def test_a_websockets_client_gets_turns_if_it_asks_for_them(api_server: ApiServer) -> None:
    clip = CLIPS[0]
    with client(api_server) as c:
        c.setup(input_format="wav", json_config='{"turns": true}')
        data = as_wav(clip.path)
        for at in range(0, len(data), 999):
            c.audio(data[at : at + 999])
        c.send(type="end_of_stream")
        received = c.receive_all(60)
    (turn,) = [m for m in received if m["type"] == "turn"]
    assert error_rate(clip.text, turn["text"]) < 0.2
    assert turn["words"][0]["start_s"] < 1.5


# -- formats, by their words


def test_opus_at_24_kbit_costs_at_most_one_word_in_64(cloud: Any, tmp_path: Path) -> None:
    """The goal is one point of word errors; `make api-bench` measures it on more clips. These
    clips have 64 words. Heard once, four of them were wrong in one form and two in the other, so
    each is begun at ten moments; six of 640 are a point already, so one in 64 is allowed.
    """
    sums = {"wav": wer.Errors(), "opus": wer.Errors()}
    for later in range(10):
        for sample in CLIPS:
            audio, rate = soundfile.read(sample.path, dtype="float32")
            moved = replace(sample, path=tmp_path / "moved.wav")
            soundfile.write(moved.path, np.pad(audio, (later * rate // 100, 0)), rate, "PCM_16")
            for form in sums:
                data = as_wav(moved.path) if form == "wav" else opus(moved.path, 24_000)
                text = asyncio.run(cloud.stt({"input_format": form}, data)).text
                sums[form] += wer.errors(sample.text, text)
    opus_rate, wav_rate = sums["opus"].rate, sums["wav"].rate
    assert opus_rate is not None
    assert wav_rate is not None
    assert opus_rate <= wav_rate + 1 / 64, sums


@pytest.mark.parametrize("form", ["pcm_8000", "pcm_44100", "ulaw_8000", "alaw_8000"])
def test_every_format_is_understood(cloud: Any, form: str) -> None:
    sample = CLIPS[0]
    kind, rate = form.split("_")
    audio, native = soundfile.read(sample.path, dtype="float32")
    buffer = io.BytesIO()
    subtype = {"pcm": "PCM_16", "ulaw": "ULAW", "alaw": "ALAW"}[kind]
    resampled = soxr.resample(audio, native, int(rate))
    soundfile.write(buffer, resampled, int(rate), format="RAW", subtype=subtype)
    result = asyncio.run(cloud.stt({"input_format": form}, buffer.getvalue()))
    assert error_rate(sample.text, result.text) < 0.3


def speech_url(api_server: ApiServer) -> str:
    return api_server.url.replace("http", "ws", 1) + "/api/speech/asr"


def _run(
    script: str, url: str, api_server: ApiServer, folder: Path, *more: str
) -> list[tuple[str, str]]:
    wav = folder / "clip.wav"
    soundfile.write(wav, pcm(CLIPS[0].path), 24_000)
    ran = subprocess.run(
        [str(CLIENTS), str(ROOT / "tests" / "support" / "clients" / script), url, str(wav), *more],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, (
        ran.stderr,
        requests.get(f"{api_server.url}/metrics", timeout=9).text,
    )
    return [tuple(item) for item in json.loads(ran.stdout.splitlines()[-1])]
