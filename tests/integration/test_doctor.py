"""edged doctor: each finding with its remedy, with real parts where they can be had."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edged.config.settings import Settings
from edged.doctor import recogniser_check
from edged.doctor.broker_check import (
    check_broker,
    visit,
)
from edged.doctor.checkup import checkup
from edged.doctor.finding import Finding
from edged.doctor.recogniser_check import (
    check_load,
    check_models,
    check_other_models,
    check_speed,
    check_words,
)
from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.engine.load_prediction import LoadPrediction
from edged.models.loader import load as load_models
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.embedded_broker import EmbeddedBroker
from edged.options import Options
from edged.stt.family import LanguageTraits
from tests.conftest import SAMPLES
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until
from tests.support.toy_speech_model import ToySpeechModel, script, sentence


def levels(findings: list[Finding]) -> list[str]:
    return [f.level for f in findings]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast machine: a test must not depend on what else this one does."""
    monkeypatch.setattr(recogniser_check, "recognise", lambda *_: (5, 0.2))
    fast = LoadPrediction(LoadLevel.FULL, True, 0.1, 0.05)
    monkeypatch.setattr(recogniser_check, "predict_load", lambda _: fast)


def run(folder: Path, *lines: str, as_json: bool = False) -> tuple[int, str]:
    env_file = folder / "edged.env"
    env_file.write_text("\n".join([f"EDGED_STATE_DIR={folder}/state", *lines]))
    file = io.StringIO()
    return checkup(env_file, {}, Console(file=file, width=200), as_json), file.getvalue()


# -- the whole


@pytest.mark.usefixtures("quick")
def test_a_healthy_device_has_no_failure_and_every_line_is_complete(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        code, out = run(
            tmp_path, f"EDGED_MQTT_URL=mqtt://127.0.0.1:{broker.port}", "EDGED_ALSA_DEVICE=sample"
        )
    assert "fail" not in [line.split()[0] for line in out.splitlines()], out
    assert code == 0
    for what in ("machine", "permissions", "models", "speed", "microphone", "broker", "Home Assi"):
        assert f" {what}" in out
    assert "real-time factor" in out


def test_each_failure_names_one_remedy_and_the_exit_code_is_1(tmp_path: Path) -> None:
    code, out = run(
        tmp_path,
        f"EDGED_MQTT_URL=mqtt://127.0.0.1:{free_port()}",
        "EDGED_ALSA_DEVICE=file:/nowhere.wav",
        f"EDGED_MODELS_DIR={tmp_path}",
        as_json=True,
    )
    found = json.loads(out)
    assert code == 1
    assert found["ok"] is False
    failed = {f["what"]: f for f in found["findings"] if f["level"] == "fail"}
    assert set(failed) == {"models", "microphone", "broker"}
    assert all(f["remedy"] for f in failed.values())
    assert "edged models fetch" in failed["models"]["remedy"]


def test_wrong_settings_are_reported_line_by_line(tmp_path: Path) -> None:
    code, out = run(tmp_path, "EDGED_TEMP=7", "EDGED_TMP=1")
    assert code == 1
    assert out.count("fail settings:") == 2
    assert "did you mean EDGED_TEMP" in out


@pytest.mark.usefixtures("quick")
def test_while_edged_runs_its_own_report_about_the_microphone_counts(tmp_path: Path) -> None:
    """The daemon holds the device: opening it again would only give "busy"."""
    with Mosquitto(tmp_path / "broker") as broker, Subscriber(broker.port) as ear:
        with DaemonProcess(tmp_path, broker.port) as daemon:
            until(lambda: ear.on("state/mic"), "it reports its microphone", 15)
            file = io.StringIO()
            assert checkup(daemon.env_file, {}, Console(file=file, width=200)) == 0
    out = file.getvalue()
    assert "ok   daemon: edged is running as device" in out
    assert "ok   microphone: playing" in out
    assert "ok   Home Assistant: device is announced" in out


# -- broker and Home Assistant


def test_a_refused_login_and_a_refused_publish_are_distinguished(tmp_path: Path) -> None:
    from pydantic import SecretStr

    with Mosquitto(tmp_path / "b", protected=True) as broker:
        kitchen = BrokerSettings(
            BrokerAddress("127.0.0.1", broker.port),
            device="kitchen",
            username="kitchen",
            password=SecretStr("secret-kitchen"),
        )
        (good,) = check_broker(kitchen, visit(kitchen, ("x",)))
        assert good.level == "ok"
        wrong = replace(kitchen, password=SecretStr("wrong"))
        (login,) = check_broker(wrong, visit(wrong, ("x",)))
        assert login.level == "fail"
        assert "refuses kitchen: not authorized" in login.message
        other = replace(kitchen, device="elsewhere")
        (publish,) = check_broker(other, visit(other, ("x",)))
        assert "publishing is not authorized" in publish.message
        assert "secret" not in f"{login}{publish}"


def test_a_broker_that_knows_no_mqtt_5_is_connected_to_and_a_missing_one_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker inside edged is one of them: `edged doctor` reported that it did not answer,
    while `edged run` was connected to it."""
    monkeypatch.setattr("edged.doctor.broker_check.CONNECT_S", 1.0)
    port = free_port()
    address = BrokerSettings(BrokerAddress("127.0.0.1", port))
    (missing,) = check_broker(address, visit(address, ("x",)))
    assert missing.message == f"no broker listens at 127.0.0.1:{port}"
    broker = EmbeddedBroker(port)
    broker.start()
    try:
        for protocol in (5, 4):
            asked = replace(address, protocol=protocol)
            (found,) = check_broker(asked, visit(asked, ("x",)))
            assert found.level == "ok", found
    finally:
        broker.stop()


# -- models and speed


def test_missing_models_name_the_command_that_repairs_them(tmp_path: Path) -> None:
    models, findings = check_models(Settings(models_dir=tmp_path))
    assert models is None
    assert levels(findings) == ["fail"]
    assert "edged models fetch" in findings[0].remedy


def test_speed_is_measured_on_speech_and_judged_by_the_real_time_factor() -> None:
    """Three remedies began with `Recognise`, which a renaming had made of `Run`."""
    models = load_models()
    (measured,) = check_speed(models, Options(), SAMPLES / "mister-hale.flac")
    assert "real-time factor" in measured.message
    for rtf, words, level in [(0.2, 5, "ok"), (0.7, 5, "warn"), (1.2, 5, "fail"), (0.2, 0, "fail")]:
        given = (words, rtf)
        (finding,) = check_speed(models, Options(), run=lambda *_, given=given: given)
        assert finding.level == level
        if not words:
            assert finding.remedy == "Run `edged models verify`."
    (none,) = check_speed(models, Options(), Path("/nowhere.wav"))
    assert none.level == "warn"


def test_a_model_that_transcribes_the_sample_speech_is_told_from_one_that_does_not() -> None:
    """Files whose checksums are right may be of a model that edged runs in a wrong way."""
    models = load_models()
    (right,) = check_words(models, Options())
    assert right.level == "ok"
    assert re.fullmatch(r"\d of \d+ words of \d recordings in en are wrong \(.*\)", right.message)
    deaf = ToySpeechModel(script(*sentence("something else altogether")))
    deaf.languages = {"en": deaf.languages["en"]}
    (wrong,) = check_words(replace(models, recogniser=deaf), Options())
    assert wrong.level == "fail"
    assert "one was recognised as 'something else altogether'" in wrong.message
    assert "edged models verify tiny-en" in wrong.remedy
    deaf.languages = {"tl": LanguageTraits()}
    (unknown,) = check_words(replace(models, recogniser=deaf), Options())
    assert unknown.level == "ok"
    assert "no sample speech in tl" in unknown.message


def test_the_load_level_is_predicted_for_the_model_in_use() -> None:
    models = load_models()
    for level, fits, verdict in [
        (LoadLevel.FULL, True, "ok"),
        (LoadLevel.GREEDY, True, "warn"),
        (LAST_LEVEL, False, "fail"),
    ]:
        prediction = LoadPrediction(level, fits, 1.25, 0.5)
        (finding,) = check_load(models, lambda _: prediction)  # noqa: B023
        assert finding.level == verdict
        assert f"tiny-en: load level {level:d} of 4" in finding.message
        assert "recogniser 125%, second pass 50% of a core" in finding.message
        assert bool(finding.remedy) == (verdict != "ok")


def test_other_models_that_are_not_installed_are_not_mentioned(tmp_path: Path) -> None:
    assert check_other_models(Settings(models_dir=tmp_path), "tiny-en") == []


def test_another_installed_model_is_no_failure_however_slow() -> None:
    slow = LoadPrediction(LAST_LEVEL, False, 3.0, 1.0)
    others = check_other_models(Settings(), "tiny-ja", lambda _: slow)
    found, finding = [one for one in others if "tiny-en" in one.message]
    assert found.level == "ok"
    assert "tiny-en" in found.message
    assert "English (en)) is installed too" in found.message
    assert finding.level == "warn"
    assert "tiny-en" in finding.message
    assert finding.remedy == ""


# -- the machine
