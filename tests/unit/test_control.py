"""Commands and reloads: applied as a whole or not at all, and always answered."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.config.settings import Settings
from edged.config.sources import load
from edged.config.startup import check_files
from edged.config.state_file import StateFile
from edged.daemon.control import MAX_WAITING_CHANGES
from edged.daemon.model_loader import ModelLoader
from edged.engine.background_worker import InlineExecutor
from edged.errors import ConfigError, EdgedError, ModelError, RequestError
from edged.models.catalogue import Catalogue, shipped
from edged.models.choice import ModelChoice, choose
from edged.mqtt import commands
from edged.mqtt.commands import Command
from tests.support.command_fuzz import fuzzed
from tests.support.control_parts import control

Job = Callable[[], None]


def test_ten_thousand_wrong_commands_change_nothing_and_are_all_answered(tmp_path: Path) -> None:
    made, manager, parts = control(tmp_path)
    before = manager.loaded
    dice = random.Random(7)
    refused = 0
    for _ in range(10_000):
        name, payload = fuzzed(dice)
        try:
            command = commands.parse(name, payload, retained=dice.random() < 0.05)
        except RequestError as error:
            refused += bool(str(error))
            continue
        made.execute(command)
        refused += 1
        assert parts.replies[-1]["ok"] is False, (name, payload)
        assert parts.replies[-1]["error"]
    assert refused == 10_000
    assert manager.loaded is before
    assert not (tmp_path / "state.json").exists()
    assert not [call for call in parts.calls if call[0] in ("mute", "submit", "set_device")]


def test_a_change_reaches_exactly_the_parts_it_concerns(tmp_path: Path) -> None:
    made, manager, parts = control(tmp_path)
    made.execute(commands.parse("config", b'{"gain_db": 3, "step_every": 5}'))
    assert parts.replies[-1]["changed"] == {"gain_db": 3.0, "step_every": 5}
    assert {name for name, _ in parts.calls} == {"set_gain", "step_every", "state"}
    parts.calls.clear()
    made.execute(commands.parse("config", b'{"temp": 0.5}'))
    assert [name for name, _ in parts.calls] == ["submit", "state", "state"]
    assert manager.settings.temp == 0.5


def test_a_setting_that_needs_a_restart_waits_and_the_rest_is_applied(tmp_path: Path) -> None:
    made, manager, parts = control(tmp_path)
    (tmp_path / "edged.env").write_text("EDGED_DEVICE=other\nEDGED_TEMP=0.5\n")
    before = manager.settings.device
    answer = {"ok": True, "error": None, "changed": ["temp"], "at_next_start": ["device"]}
    made.execute(Command("reload"))
    assert parts.replies[-1] == answer
    assert manager.settings.device == before
    assert manager.settings.temp == 0.5
    made.execute(Command("reload"))
    assert parts.replies[-1] == answer | {"changed": []}


def test_models_that_do_not_load_refuse_the_whole_reload(tmp_path: Path) -> None:
    made, manager, parts = control(tmp_path)
    before = manager.loaded
    (tmp_path / "edged.env").write_text(f"EDGED_MODELS_DIR={tmp_path}\nEDGED_TEMP=0.5\n")
    made.execute(Command("reload"))
    assert manager.loaded is before
    assert parts.replies[-1]["ok"] is False
    assert not [call for call in parts.calls if call[0] == "submit"]
    (config,) = [args for name, args in parts.calls if name == "state"]
    assert config[0] == "config"
    assert config[1]["ok"] is False
    assert "not applied" in made.reload_error


class SlowModels:
    """A model loader whose results arrive on the main thread when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.loaded: list[int] = []
        self.now = 0.0
        self.loader = ModelLoader(
            self.jobs.append, self._load, InlineExecutor(), clock=lambda: self.now
        )

    def _load(self, settings: Settings) -> Any:
        self.loaded.append(settings.threads)
        return f"models for {settings.threads} threads"

    def arrive(self) -> None:
        jobs = list(self.jobs)
        self.jobs.clear()
        for job in jobs:
            job()


def test_commands_are_answered_while_a_reload_loads_models(tmp_path: Path) -> None:
    """Commands, states and health waited for the models, on a slow board for a minute."""
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader)
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    assert parts.replies == []
    made.execute(Command("mute", True))
    assert parts.replies == [{"ok": True, "error": None, "changed": {"mute": True}}]
    assert manager.settings.threads == 1
    models.arrive()
    assert parts.replies[-1]["changed"] == ["threads"]
    assert manager.settings.threads == 2
    assert manager.settings.mute
    submitted: list[Any] = [call[1] for call in parts.calls if call[0] == "submit"]
    assert [command.models for command in submitted] == ["models for 2 threads"]


def test_a_reload_that_is_asked_for_meanwhile_joins_and_the_newest_files_count(
    tmp_path: Path,
) -> None:
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader)
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    (tmp_path / "edged.env").write_text("EDGED_THREADS=3\nEDGED_TEMP=0.5\n")
    made.execute(Command("reload"))
    models.arrive()
    assert models.loaded == [2, 3]
    assert parts.replies == []
    models.arrive()
    assert (manager.settings.threads, manager.settings.temp) == (3, 0.5)
    assert [reply["changed"] for reply in parts.replies] == [["temp", "threads"]] * 2


def test_mistakes_that_are_pushed_while_models_load_are_refused(tmp_path: Path) -> None:
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader)
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    (tmp_path / "edged.env").write_text("EDGED_THREADS=99\n")
    models.arrive()
    assert manager.settings.threads == 1
    assert "EDGED_THREADS" in parts.replies[-1]["error"]


def test_models_that_take_too_long_are_given_up_and_the_next_reload_says_why(
    tmp_path: Path,
) -> None:
    """The result may still arrive, when nobody waits for it any more."""
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader)
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    made.check_models(899.0)
    assert parts.replies == []
    made.check_models(900.0)
    assert "not loaded after 900 s" in parts.replies[-1]["error"]
    models.arrive()
    assert manager.settings.threads == 1
    assert len(parts.replies) == 1


def test_a_failure_of_the_loader_itself_is_an_answer_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Settings) -> Any:
        raise ZeroDivisionError

    loader = ModelLoader(lambda job: job(), fail, InlineExecutor())
    made, _, parts = control(tmp_path, models=loader)
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    assert "ZeroDivisionError" in parts.replies[-1]["error"]
    assert "Traceback" in caplog.text


def test_a_reload_is_refused_while_an_earlier_load_hangs() -> None:
    from concurrent.futures import Executor, Future

    class Hanging(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            return Future()

    results: list[Any] = []
    now = 0.0
    loader = ModelLoader(lambda job: job(), executor=Hanging(), clock=lambda: now)
    loader.start(Settings(), results.append)
    loader.check(900.0)
    assert isinstance(results[0], EdgedError)
    assert not loader.idle
    with pytest.raises(ConfigError, match="restart edged"):
        loader.start(Settings(), results.append)


def test_a_certificate_that_the_settings_name_must_be_readable() -> None:
    check_files(Settings())
    with pytest.raises(ConfigError, match="EDGED_MQTT_CA_FILE: /nowhere"):
        check_files(Settings(mqtt_url="mqtts://x", mqtt_ca_file=Path("/nowhere")))


def keyterms(payload: str) -> Command:
    return commands.parse("keyterms", payload.encode())


def test_key_terms_are_changed_answered_and_kept_over_a_restart(tmp_path: Path) -> None:
    made, _, parts = control(tmp_path, "EDGED_KEYTERMS=Thornton\n")
    made.execute(keyterms('{"add": ["Helstone", "Ecobee: echo bee", "thornton"]}'))
    assert parts.replies[-1]["ok"], parts.replies
    assert parts.replies[-1]["terms"] == ["Helstone", "Ecobee: echo bee", "thornton"]
    submitted = [args for name, args in parts.calls if name == "submit"]
    assert submitted[-1].options.keyterms == ("Helstone", "Ecobee: echo bee", "thornton")
    made.execute(keyterms('{"remove": ["ECOBEE", "nobody"]}'))
    assert parts.replies[-1]["terms"] == ["Helstone", "thornton"]
    _, later, _ = control(tmp_path, "EDGED_KEYTERMS=Thornton\n")
    assert later.settings.active_keyterms == ("Thornton",), "the rig reads no state file"
    overrides = StateFile(tmp_path).read()
    restarted = load(tmp_path / "edged.env", overrides=overrides).settings
    assert restarted.active_keyterms == ("Helstone", "thornton")
    made.execute(keyterms('{"set": []}'))
    assert parts.replies[-1]["terms"] == []


def test_bad_key_terms_change_nothing_and_each_is_named(tmp_path: Path) -> None:
    made, manager, parts = control(tmp_path, "EDGED_KEYTERMS=Thornton\n")
    before = manager.loaded
    made.execute(keyterms('{"add": ["Helstone", "x", "Lamp, left"]}'))
    assert not parts.replies[-1]["ok"]
    assert "term 2: 'x' has fewer than 2" in parts.replies[-1]["error"]
    assert "term 3: 'Lamp, left' contains a comma" in parts.replies[-1]["error"]
    assert manager.loaded is before


def test_terms_of_the_file_are_live_and_its_bad_lines_are_notes(tmp_path: Path) -> None:
    """A bad line must neither stop the start nor hide the good lines."""
    terms = tmp_path / "terms.txt"
    terms.write_text("# rooms\nHelstone\nx\n")
    made, manager, parts = control(tmp_path, f"EDGED_KEYTERMS_FILE={terms}\n")
    assert manager.settings.options().keyterms == ("Helstone",)
    assert [n for n in manager.loaded.notes if "term 3: 'x' has fewer than 2" in n]
    terms.write_text("Helstone\nMilton\n")
    made.execute(Command("reload"))
    assert parts.replies[-1]["changed"] == ["keyterms_file"]
    assert manager.settings.options().keyterms == ("Helstone", "Milton")
    made.execute(keyterms('{"set": ["Thornton"]}'))
    assert manager.settings.options().keyterms == ("Thornton", "Helstone", "Milton")
    made.execute(keyterms('{"remove": ["milton"]}'))
    assert "comes from EDGED_KEYTERMS_FILE" in parts.replies[-1]["error"]
    made.execute(commands.parse("config", b'{"keyterms_file": "/etc/passwd"}'))
    assert "cannot be changed over MQTT" in parts.replies[-1]["error"]
    terms.unlink()
    made.execute(Command("reload"))
    assert manager.settings.options().keyterms == ("Thornton",)
    assert [n for n in manager.loaded.notes if "cannot be read" in n]


# -- language

GERMAN = replace(shipped().get("tiny-en"), name="german", languages=("de",), default=False)
CATALOGUE = Catalogue((shipped().get("tiny-en"), GERMAN))


def chosen(settings: Settings, installed: tuple[str, ...] = ("tiny-en", "german")) -> ModelChoice:
    return choose(CATALOGUE, installed, settings.model, settings.language)


def config(payload: str) -> Command:
    return commands.parse("config", payload.encode())


def test_another_language_loads_its_model_beside_the_one_in_use(tmp_path: Path) -> None:
    """The engine gets options and models in one command, when they are loaded and not before."""
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader, choose=chosen)
    made.execute(config('{"language": "de", "temp": 0.5}'))
    assert parts.replies == []
    assert parts.calls == []
    assert (manager.settings.language, manager.settings.temp) == ("en", 0)
    models.arrive()
    assert parts.replies[-1]["changed"] == {"language": "de", "temp": 0.5}
    (submitted,) = [call[1] for call in parts.calls if call[0] == "submit"]
    assert submitted.models == "models for 1 threads"
    assert (submitted.options.language, submitted.options.temp) == ("de", 0.5)
    assert made.options == submitted.options
    (announced,) = [args[0] for name, args in parts.calls if name == "homeassistant"]
    assert announced.model == "edged german"


def test_a_language_that_is_not_installed_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    models = SlowModels()
    made, manager, parts = control(
        tmp_path, models=models.loader, choose=lambda s: chosen(s, ("tiny-en",))
    )
    before = manager.loaded
    made.execute(config('{"language": "de", "temp": 0.5}'))
    assert "Run `edged models fetch german`." in parts.replies[-1]["error"]
    assert manager.loaded is before
    assert parts.calls == []
    assert models.loaded == []


def test_a_model_that_cannot_be_loaded_leaves_the_old_language_in_force(tmp_path: Path) -> None:
    def fail(_: Settings) -> Any:
        raise ModelError("decoder.onnx is damaged")

    loader = ModelLoader(lambda job: job(), fail, InlineExecutor())
    made, manager, parts = control(tmp_path, models=loader, choose=chosen)
    before = manager.loaded
    made.execute(config('{"language": "de"}'))
    assert parts.replies[-1]["ok"] is False
    assert "decoder.onnx is damaged" in parts.replies[-1]["error"]
    assert manager.loaded is before
    assert parts.calls == []


def test_a_language_of_the_same_model_changes_at_once(tmp_path: Path) -> None:
    both = replace(GERMAN, name="both", languages=("de", "en"))
    catalogue = Catalogue((both,))
    models = SlowModels()
    made, _, parts = control(
        tmp_path,
        models=models.loader,
        choose=lambda s: choose(catalogue, ("both",), s.model, s.language),
    )
    made.execute(config('{"language": "auto"}'))
    assert parts.replies[-1]["changed"] == {"language": "auto"}
    (submitted,) = [call[1] for call in parts.calls if call[0] == "submit"]
    assert (submitted.models, submitted.options.language) == (None, "auto")
    assert models.loaded == []


def test_changes_that_need_models_are_made_one_after_the_other(tmp_path: Path) -> None:
    """A reload of a pushed file that came while a model was loaded must not be lost; a change that
    needs no model does not wait."""
    models = SlowModels()
    made, manager, parts = control(tmp_path, models=models.loader, choose=chosen)
    made.execute(config('{"language": "de"}'))
    (tmp_path / "edged.env").write_text("EDGED_THREADS=2\n")
    made.execute(Command("reload"))
    made.execute(config('{"temp": 0.5}'))
    assert [reply["changed"] for reply in parts.replies] == [{"temp": 0.5}]
    models.arrive()
    assert manager.settings.language == "de"
    assert manager.settings.threads == 1
    models.arrive()
    assert (manager.settings.language, manager.settings.threads) == ("de", 2)
    assert [reply["ok"] for reply in parts.replies] == [True] * 3
    assert models.loaded == [1, 2]


def test_too_many_changes_that_wait_for_models_are_refused(tmp_path: Path) -> None:
    models = SlowModels()
    made, _, parts = control(tmp_path, models=models.loader, choose=chosen)
    for _ in range(MAX_WAITING_CHANGES + 2):
        made.execute(config('{"language": "de"}'))
    assert [reply["ok"] for reply in parts.replies] == [False]
    assert "busy" in parts.replies[-1]["error"]
    models.arrive()
    assert [reply["ok"] for reply in parts.replies] == [False] + [True] * (MAX_WAITING_CHANGES + 1)
