"""OpenAI's API for files, with the unmodified `openai` package and a scripted session."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from edged.events import Event, Turn, Word
from edged.options import Options
from edged.server import access, openai_transcriptions
from edged.server.access import Origins
from edged.server.api_server import ApiServer
from tests.support.api_server import (
    SAMPLES,
    ScriptedSession,
    as_wav,
    client,
    open_api_server,
    scripted_sessions,
)
from tests.support.mosquitto import until

KEY = "correct horse"
CLIP = sorted(SAMPLES.glob("*.flac"))[0]
WORDS = (Word("Two", 0.5, 0.8), Word("turns.", 0.9, 1.4))


@pytest.fixture(autouse=True)
def _turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session says two turns: one at its third step, one at its end."""
    monkeypatch.setattr(access, "BURST", 1_000_000)
    push = ScriptedSession.push

    def with_turn(self: ScriptedSession, frame: Any, backlog: bool = False) -> list[Event]:
        events = push(self, frame, backlog)
        first = Turn("Two turns.", 0.5, 1.4, WORDS, 0.5)
        return [*events, first] if self.step_idx == 3 else events

    monkeypatch.setattr(ScriptedSession, "push", with_turn)


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    with open_api_server(scripted_sessions(), api_key=KEY) as opened:
        yield opened


@pytest.fixture
def sdk(api_server: ApiServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api_server.url}/v1", api_key=KEY, max_retries=0)


def speech() -> tuple[str, bytes]:
    return "speech.wav", as_wav(CLIP)


def post(api_server: ApiServer, files: Any = None, key: str = KEY, **fields: str) -> Any:
    return requests.post(
        f"{api_server.url}/v1/audio/transcriptions",
        files={"file": speech()} if files is None else files,
        data=fields,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )


def test_the_sdk_transcribes_a_file_with_any_model_name(sdk: openai.OpenAI) -> None:
    for model in ("whisper-1", "gpt-4o-transcribe", "tiny-en"):
        answer = sdk.audio.transcriptions.create(file=speech(), model=model, prompt="edged")
        assert answer.text == "Two turns. all"


def test_the_prompt_gives_key_terms(sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    init = ScriptedSession.__init__

    def record(self: ScriptedSession, models: object, options: Options, **executors: Any) -> None:
        seen.append(options.keyterms)
        init(self, models, options, **executors)

    monkeypatch.setattr(ScriptedSession, "__init__", record)
    for prompt in ("Ecobee, Helstone", ""):
        sdk.audio.transcriptions.create(file=speech(), model="whisper-1", prompt=prompt)
    assert seen == [("Ecobee", "Helstone"), ()]


def test_the_sdk_gets_every_format(sdk: openai.OpenAI) -> None:
    create = sdk.audio.transcriptions.create
    text = create(file=speech(), model="x", response_format="text", language="en")
    assert text == "Two turns. all\n"
    srt = create(file=speech(), model="x", response_format="srt")
    assert srt.startswith("1\n00:00:00,500 --> 00:00:01,500\nTwo turns.")
    vtt = create(file=speech(), model="x", response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.500")
    verbose = create(
        file=speech(),
        model="x",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert verbose.language == "english"
    assert verbose.duration > 1
    assert verbose.words is not None
    assert [(w.word, w.start, w.end) for w in verbose.words] == [
        ("Two", 0.5, 0.8),
        ("turns.", 0.9, 1.4),
    ]
    assert verbose.segments is not None
    assert [s.text for s in verbose.segments] == ["Two turns.", "all"]
    assert verbose.segments[0].avg_logprob == pytest.approx(-0.693, abs=1e-3)


def test_the_sdk_streams_words_and_then_the_text(sdk: openai.OpenAI) -> None:
    events = list(sdk.audio.transcriptions.create(file=speech(), model="x", stream=True))
    deltas = "".join(e.delta for e in events if e.type == "transcript.text.delta")
    assert deltas.startswith("w0 w1 w2")
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "Two turns. all"


def test_the_sdk_lists_the_model(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["tiny-en"]
    assert sdk.models.retrieve("tiny-en").owned_by == "edged"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gpt-9")


def test_fields_may_come_after_the_file(api_server: ApiServer) -> None:
    form = [("file", speech()), ("response_format", (None, "text")), ("x", (None, "unknown"))]
    assert post(api_server, files=form).text == "Two turns. all\n"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "xx"}, "language"),
        ({"response_format": "xml"}, "response_format"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities[]"),
    ],
)
def test_a_wrong_field_is_named(api_server: ApiServer, fields: dict[str, str], param: str) -> None:
    answer = post(api_server, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param.removesuffix("[]") in error["message"]


def test_errors_have_openais_form_and_status(
    api_server: ApiServer, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(openai.AuthenticationError, match="x-api-key"):
        openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="no", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError, match="file"):
        sdk.audio.transcriptions.create(file=("x.mp3", b"this is no audio at all"), model="x")
    with pytest.raises(openai.NotFoundError, match="does not translate"):
        sdk.audio.translations.create(file=speech(), model="x")
    assert post(api_server, files={"other": ("x", b"x")}).json()["error"]["param"] == "file"
    assert (
        requests.post(
            f"{api_server.url}/v1/audio/transcriptions",
            data=b"x",
            headers={"x-api-key": KEY},
            timeout=10,
        ).status_code
        == 400
    )
    monkeypatch.setattr(openai_transcriptions, "MAX_FILE", 1000)
    assert post(api_server).status_code == 413
    until(lambda: api_server.streams.count == 0, "all streams are free")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nabc",
        b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n\r\n--b--\r\n",
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n",
        b"--b\r\n\r\n\r\n" * 100,
        b"\xff" * 5000,
    ],
)
def test_a_malformed_form_is_a_400(api_server: ApiServer, body: bytes) -> None:
    answer = requests.post(
        f"{api_server.url}/v1/audio/transcriptions",
        data=body,
        headers={"x-api-key": KEY, "Content-Type": "multipart/form-data; boundary=b"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_device_whose_streams_are_in_use_answers_503(api_server: ApiServer) -> None:
    right: dict[str, Any] = {"additional_headers": {"x-api-key": KEY}}
    with client(api_server, **right) as one, client(api_server, **right) as two:
        for other in (one, two):
            other.setup()
            other.receive()
        answer = post(api_server)
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "server_error"
        assert answer.headers["Retry-After"] == "1"


def test_too_many_requests_are_a_429(
    api_server: ApiServer, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BURST", 1)
    monkeypatch.setattr(access, "NEW_PER_S", 1e-6)
    sdk.audio.transcriptions.create(file=speech(), model="x")
    with pytest.raises(openai.RateLimitError):
        sdk.audio.transcriptions.create(file=speech(), model="x")


def test_a_failure_of_the_recogniser_is_a_503(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ScriptedSession, frame: Any, backlog: bool = False) -> list[Event]:
        raise ZeroDivisionError

    monkeypatch.setattr(ScriptedSession, "push", fail)
    for stream in ("false", "true"):
        answer = post(api_server, stream=stream)
        assert answer.status_code == 503
        assert "ZeroDivisionError" in answer.json()["error"]["message"]


def test_a_client_that_disconnects_frees_its_stream(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcriptions, "CHECK_S", 0.05)
    push = ScriptedSession.push

    def slow(self: ScriptedSession, frame: Any, backlog: bool = False) -> list[Event]:
        time.sleep(0.05)
        return push(self, frame, backlog)

    monkeypatch.setattr(ScriptedSession, "push", slow)
    request = requests.Request(
        "POST",
        f"{api_server.url}/v1/audio/transcriptions",
        files={"file": speech()},
        headers={"x-api-key": KEY},
    ).prepare()
    assert isinstance(request.body, bytes)
    head = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items())
    port = int(api_server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
            + head.encode()
            + b"\r\n"
            + request.body
        )
        until(lambda: api_server.streams.count == 1, "its stream")
    until(lambda: api_server.streams.count == 0, "its stream is free", 10)


def test_a_streamed_answer_that_is_not_read_is_bounded(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcriptions, "MAX_WAITING", 5)
    answer = post(api_server, stream="true")
    assert "w2" in answer.text
    assert '"transcript.text.done"' in answer.text


def test_a_listed_page_may_send_the_headers_of_openais_client() -> None:
    page = "https://app.example"
    with open_api_server(scripted_sessions(), origins=Origins(frozenset({page}))) as server:
        answer = requests.options(
            f"{server.url}/v1/audio/transcriptions",
            headers={
                "Origin": page,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-stainless-os",
            },
            timeout=10,
        )
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os"
    assert answer.headers["Access-Control-Allow-Origin"] == page
