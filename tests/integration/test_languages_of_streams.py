"""Streams of the API server that ask for another language than the microphone's."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from wyoming.asr import Transcribe, TranscriptChunk, TranscriptStart
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

from edged.errors import ModelError
from edged.server.api_server import ApiServer, WyomingAddress
from edged.server.listener import ListenAddress
from tests.support.api_server import (
    ScriptedSession,
    client,
    open_api_server,
    sessions_of,
    silence,
)


def models(name: str, *languages: str) -> Any:
    recogniser = SimpleNamespace(has_keyterms=False)
    return SimpleNamespace(name=name, languages=languages, recogniser=recogniser)


ENGLISH, WHISPER, GERMAN = (
    models("tiny-en", "en"),
    models("whisper", "de", "fr"),
    models("german", "de"),
)


class Speaking(ScriptedSession):
    """Says which model recognises in which language."""

    def __init__(self, models: Any, options: Any, **executors: object) -> None:
        super().__init__(models, options, **executors)
        self.word = f"{models.name}:{options.language}:"


class Gate(Executor):
    """Loads begin when the test opens the gate."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.loads = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Any] = Future()

        def work() -> None:
            self.opened.wait(20)
            self.loads += 1
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future


@contextlib.contextmanager
def server(*others: Any, **given: Any) -> Iterator[ApiServer]:
    sessions = sessions_of(ENGLISH, Speaking, *others)  # type: ignore[arg-type]
    given.setdefault("wyoming", WyomingAddress(ListenAddress("127.0.0.1", 0)))
    with open_api_server(sessions, **given) as opened:
        yield opened


def said(api_server: ApiServer, language: str | None) -> tuple[dict[str, Any], str]:
    """`ready`, and the first word."""
    with client(api_server) as c:
        c.setup(json_config={} if language is None else {"language": language})
        c.audio(silence(3))
        ready = c.receive_until("ready")
        return ready, c.receive_until("text")["text"]


def test_a_stream_gets_a_model_for_its_language_and_ready_says_which() -> None:
    with server(WHISPER) as api_server:
        for language, expected in [
            (None, ("tiny-en", "en")),
            ("fr", ("whisper", "fr")),
            ("de", ("whisper", "de")),
            ("en", ("tiny-en", "en")),
        ]:
            ready, word = said(api_server, language)
            assert (ready["model_name"], ready["language"]) == expected
            assert word == f"{expected[0]}:{expected[1]}:0"


def test_a_language_without_an_installed_model_is_an_error_that_names_the_command() -> None:
    with server() as api_server, client(api_server) as c:
        c.setup(json_config={"language": "de"})
        (error,) = c.receive_all()
        assert (error["type"], error["code"]) == ("error", 1008)
        assert "there is no model that recognises German (de)" in error["message"]


def test_audio_that_arrives_while_the_model_loads_is_kept_and_other_streams_go_on() -> None:
    with server(WHISPER) as api_server:
        gate = Gate()
        api_server.streams._sessions.models._executor = gate
        with client(api_server) as german, client(api_server) as english:
            german.setup(json_config={"language": "de"})
            german.audio(silence(5))
            german.send(type="end_of_stream")
            english.setup()
            english.audio(silence(2))
            assert english.receive_until("text")["text"] == "tiny-en:en:0"
            assert german.messages == []
            gate.opened.set()
            assert german.receive_all()[0]["type"] == "ready"
            assert german.types()["text"] == 5
    assert gate.loads == 1


def test_streams_of_one_language_share_a_model_that_is_loaded_once() -> None:
    with server(WHISPER, max_streams=3) as api_server:
        gate = Gate()
        api_server.streams._sessions.models._executor = gate
        with client(api_server) as one, client(api_server) as two:
            for c in (one, two):
                c.setup(json_config={"language": "de"})
                c.audio(silence(1))
            gate.opened.set()
            assert one.receive_until("text")["text"] == "whisper:de:0"
            assert two.receive_until("text")["text"] == "whisper:de:0"
            assert gate.loads == 1
            assert list(api_server.streams._sessions.models.names) == ["tiny-en", "whisper"]


def test_more_models_than_may_be_in_memory_are_refused_while_all_are_in_use() -> None:
    french = models("french", "fr")
    with server(GERMAN, french, max_streams=3) as api_server:
        with client(api_server) as german:
            german.setup(json_config={"language": "de"})
            german.receive_until("ready")
            with client(api_server) as c:
                c.setup(json_config={"language": "fr"})
                (error,) = c.receive_all()
                assert error["code"] == 1011
                assert "EDGED_MAX_MODELS" in error["message"]
        ready, _ = said(api_server, "fr")  # the German one is idle now
        assert ready["model_name"] == "french"


def test_a_model_that_cannot_be_loaded_is_an_error_of_that_stream_only() -> None:
    with server(WHISPER) as api_server:
        pool = api_server.streams._sessions.models

        def fail(*_: Any) -> Any:
            raise ModelError("decoder.onnx is damaged")

        pool._load, load = fail, pool._load
        with client(api_server) as c:
            c.setup(json_config={"language": "de"})
            (error,) = c.receive_all()
            assert (error["code"], "decoder.onnx is damaged" in error["message"]) == (1011, True)
        pool._load = load
        assert said(api_server, "de")[1] == "whisper:de:0"


def test_a_client_may_name_an_installed_model() -> None:
    with server(WHISPER, GERMAN) as api_server, client(api_server) as c:
        c.setup(model_name="german", json_config={"language": "de"})
        assert c.receive_until("ready")["model_name"] == "german"


def test_a_named_model_recognises_its_own_language_unless_another_is_asked_for() -> None:
    """A client that took a model from the list of those that are installed, and said no language,
    was refused because that model does not have the language of the settings."""
    with server(WHISPER, GERMAN, max_streams=3) as api_server:
        for name, language in (("german", "de"), ("whisper", "auto"), ("tiny-en", "en")):
            with client(api_server) as c:
                c.setup(model_name=name)
                ready = c.receive_until("ready")
                assert (ready["model_name"], ready["language"]) == (name, language)
        sdk = openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="none", max_retries=0)
        data = io.BytesIO()
        soundfile.write(data, np.zeros(7200), 24_000, format="WAV")
        file = ("a.wav", data.getvalue())
        assert sdk.audio.transcriptions.create(file=file, model="whisper").text == "all"
        with pytest.raises(openai.BadRequestError, match="does not recognise French"):
            sdk.audio.transcriptions.create(file=file, model="german", language="fr")


def test_openai_clients_ask_for_a_language_and_see_what_is_installed() -> None:
    with server(WHISPER) as api_server:
        sdk = openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="none", max_retries=0)
        data = io.BytesIO()
        soundfile.write(data, np.zeros(7200), 24_000, format="WAV")
        file = ("a.wav", data.getvalue())
        text = sdk.audio.transcriptions.create(file=file, model="whisper-1", language="de")
        assert text.text == "all"
        with pytest.raises(openai.BadRequestError, match="recognises Japanese") as caught:
            sdk.audio.transcriptions.create(file=file, model="whisper-1", language="ja")
        assert caught.value.param == "language"
        assert [model.id for model in sdk.models.list()] == ["tiny-en", "whisper"]


def test_wyoming_lists_installed_models_and_recognises_in_the_language_of_the_pipeline() -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await wyoming.write_event(Describe().event())
        event = await wyoming.read_event()
        assert event is not None
        (program,) = Info.from_event(event).asr
        listed = [(m.name, m.languages, m.installed) for m in program.models]
        assert listed == [("tiny-en", ["en"], True), ("whisper", ["de", "fr"], True)]
        for sent in (
            Transcribe(language="de-DE"),
            AudioStart(24_000, 2, 1),
            AudioChunk(24_000, 2, 1, silence(1)),
        ):
            await wyoming.write_event(sent.event())
        started = await wyoming.read_event()
        assert started is not None
        assert TranscriptStart.from_event(started).language == "de"
        chunk = await wyoming.read_event()
        assert chunk is not None
        assert TranscriptChunk.from_event(chunk).text == "whisper:de:0"

    async def talk(port: int) -> None:
        async with AsyncTcpClient("127.0.0.1", port) as wyoming:
            await conversation(wyoming)

    with server(WHISPER) as api_server:
        asyncio.run(talk(int(api_server.wyoming_url.rpartition(":")[2])))
