"""The settings: names, defaults, bounds, and what a change of each costs while edged runs.

A setting `x` is `EDGED_X` in the environment and in env files. `edged/config/sources.py` reads the
values and decides which one counts.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from edged.config.rules import (
    BROKER_URL,
    DEVICE,
    EMBEDDED,
    KEYTERMS,
    LANGUAGE,
    LISTEN,
    TOPIC,
    ConflictError,
    conflicts,
    one_of,
)
from edged.keyterm_list import read_terms, split_terms
from edged.languages import DEFAULT_LANGUAGE
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from edged.options import DELAYS, MAX_BOOST, Options

PREFIX = "EDGED_"
LOG_LEVELS = ("debug", "info", "warning", "error")


class ReloadScope(StrEnum):
    """Which part of the running daemon must start again for a changed setting."""

    LIVE = "live"
    MICROPHONE = "live, reopens the microphone"
    BROKER = "live, reconnects to the broker"
    RECOGNISER = "live, loads the recogniser again"
    RESTART = "at the next start"


def env_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def default_device() -> str:
    """The host name, changed to be valid as one level of a topic."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower())
    return name[:63].strip("-") or "edged"


def default_state_dir() -> Path:
    """The directory of systemd's StateDirectory=, else `edged` in the user's state folder."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "edged"


def _setting(
    default: Any, description: str, scope: ReloadScope, unit: str = "", **bounds: Any
) -> Any:
    """Declares a field. `default` may be a function without arguments."""
    key = "default_factory" if callable(default) else "default"
    extra: dict[str, Any] = {"scope": scope.value, "unit": unit}
    return Field(**{key: default}, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseSettings):
    """All settings, valid as a whole. Immutable: a change makes a new object."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=False,
    )

    device: Annotated[str, DEVICE] = _setting(
        default_device,
        "Name of this device: a level of every topic, and its id in Home Assistant.",
        ReloadScope.RESTART,
    )
    alsa_device: str = _setting(
        "default",
        "Microphone, by a name that stays the same after a reboot (`edged devices` lists them). "
        "`sample` plays the sample speech, `file:PATH` plays an audio file.",
        ReloadScope.MICROPHONE,
        min_length=1,
        max_length=256,
    )
    gain_db: float = _setting(
        0.0, "Digital gain.", ReloadScope.LIVE, "dB", ge=-20, le=40, allow_inf_nan=False
    )
    mqtt_url: Annotated[str, BROKER_URL] = _setting(
        "mqtt://localhost",
        "Address of the MQTT broker: mqtt://host, mqtts://host (TLS), or, to try edged in a "
        "checkout, embedded (a broker inside edged).",
        ReloadScope.BROKER,
    )
    mqtt_username: str | None = _setting(None, "User name for the broker.", ReloadScope.BROKER)
    mqtt_password: SecretStr | None = _setting(
        None,
        "Password for the broker. Safer as the systemd credential edged_mqtt_password.",
        ReloadScope.BROKER,
    )
    mqtt_ca_file: Path | None = _setting(
        None, "CA certificate that signed the broker's certificate (mqtts).", ReloadScope.BROKER
    )
    mqtt_cert_file: Path | None = _setting(
        None, "Client certificate of this device (mqtts).", ReloadScope.BROKER
    )
    mqtt_key_file: Path | None = _setting(
        None, "Private key of that certificate, not encrypted.", ReloadScope.BROKER
    )
    mqtt_insecure: bool = _setting(
        False, "Accept any certificate of the broker (mqtts). For tests only.", ReloadScope.BROKER
    )
    mqtt_base: Annotated[str, TOPIC] = _setting(
        "edged", "First level or levels of every topic.", ReloadScope.BROKER
    )
    model: str = _setting(
        "auto",
        "Speech model (`edged models list`). auto takes the best installed one for EDGED_LANGUAGE.",
        ReloadScope.RECOGNISER,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
    )
    language: Annotated[str, LANGUAGE] = _setting(
        DEFAULT_LANGUAGE,
        "Language that is spoken: its code, or auto to find it for each turn, which needs a model "
        "of many languages. `edged models list` shows the languages of each model. A change may "
        "load another model in addition to the one in use.",
        ReloadScope.LIVE,
    )
    models_dir: Path | None = _setting(
        None,
        "Folder with the built models. Default: where `edged models fetch` puts them.",
        ReloadScope.RECOGNISER,
    )
    second_opinion: Annotated[str, one_of("auto", "off")] = _setting(
        "off",
        "A second speech model on the text of English turns: auto asks whisper-base where it is "
        "installed and the device has time to spare.",
        ReloadScope.RECOGNISER,
    )
    threads: int = _setting(
        1,
        "Threads of the recogniser. 1 uses less power, 2 gives results sooner.",
        ReloadScope.RECOGNISER,
        ge=1,
        le=8,
    )
    delay_in_frames: Annotated[int, one_of(*DELAYS)] = _setting(
        Options().delay_in_frames,
        "Time between a word and its publication. More time gives better accuracy.",
        ReloadScope.LIVE,
        "steps of 80 ms",
    )
    temp: float = _setting(
        0.0,
        "Sampling temperature; 0 always takes the most probable token.",
        ReloadScope.LIVE,
        ge=0,
        le=1,
    )
    padding_bonus: float = _setting(
        0.0,
        "Negative values publish words sooner, positive values wait for more certainty.",
        ReloadScope.LIVE,
        ge=-4,
        le=4,
    )
    keyterms: Annotated[str, KEYTERMS] = _setting(
        "",
        "Names of people, places, devices and products that the recogniser should expect, "
        "separated by commas; at most 200 of 60 characters. `Ecobee: echo bee` writes Ecobee where "
        "exactly `echo bee` is recognised.",
        ReloadScope.LIVE,
    )
    keyterms_file: Path | None = _setting(
        None,
        "File with more such terms, one a line. A changed file is applied at once; lines that "
        "cannot be used are left out and reported.",
        ReloadScope.LIVE,
    )
    keyterm_boost: float = _setting(
        Options().keyterm_boost,
        "How much such terms are preferred to other words that sound alike; 0 is not at all.",
        ReloadScope.LIVE,
        ge=0,
        le=MAX_BOOST,
        allow_inf_nan=False,
    )
    vad_threshold: float = _setting(
        Options().vad_threshold,
        "Speech probability above which the recogniser starts.",
        ReloadScope.LIVE,
        ge=0.05,
        le=0.95,
    )
    turn_threshold: float = _setting(
        Options().turn_threshold,
        "Probability of two seconds of silence above which a turn ends.",
        ReloadScope.LIVE,
        ge=0.05,
        le=0.95,
    )
    turn_silence_ms: int = _setting(
        Options().turn_silence_ms,
        "Pause that ends a turn: 0.7 times this if the turn sounds finished, 1.6 times if it is "
        "uncertain, 2.3 times at most.",
        ReloadScope.LIVE,
        "ms",
        ge=100,
        le=5000,
    )
    digits: bool = _setting(
        False,
        "Write spoken numbers as digits in the text of turns (twenty-three becomes 23).",
        ReloadScope.LIVE,
    )
    step_every: int = _setting(
        1,
        "Publish every n-th `step` message (there are 12.5 per second); 0 publishes none.",
        ReloadScope.LIVE,
        ge=0,
        le=1000,
    )
    mute: bool = _setting(False, "Close the microphone.", ReloadScope.LIVE)
    mute_lock: bool = _setting(
        False,
        "Allow MQTT to mute but not to unmute; only the settings files can.",
        ReloadScope.LIVE,
    )
    homeassistant: bool = _setting(True, "Announce the device to Home Assistant.", ReloadScope.LIVE)
    homeassistant_prefix: Annotated[str, TOPIC] = _setting(
        "homeassistant", "Home Assistant's discovery prefix.", ReloadScope.LIVE
    )
    health_every_s: int = _setting(
        60, "Interval between `state/health` messages.", ReloadScope.LIVE, "s", ge=5, le=150
    )
    state_dir: Path = _setting(
        default_state_dir,
        "Folder for data that must outlast a restart (mute, changes made over MQTT, spool).",
        ReloadScope.RESTART,
    )
    spool_dir: Path | None = _setting(
        None,
        "Folder for messages stored while the broker is unreachable. Default: STATE_DIR/spool.",
        ReloadScope.RESTART,
    )
    spool_max_mb: int = _setting(
        16,
        "Disk space for those messages; when it is full, the oldest are dropped.",
        ReloadScope.RESTART,
        "MB",
        ge=1,
        le=4096,
    )
    listen: Annotated[str, LISTEN] = _setting(
        "", "host:port of the API server (WebSocket and HTTP); empty is off.", ReloadScope.RESTART
    )
    api_key: SecretStr | None = _setting(
        None,
        "Key that clients of the API server must send. Safer as the systemd credential "
        "edged_api_key.",
        ReloadScope.RESTART,
    )
    listen_without_key: bool = _setting(
        False, "Serve other machines without a key.", ReloadScope.RESTART
    )
    listen_origins: str = _setting(
        "",
        "Origins of web pages that may use the API server besides its own, separated by commas: "
        "https://kiosk.local. Other names of this device, such as the one that a router gives it, "
        "are listed the same way: http://kitchen.fritz.box:8080.",
        ReloadScope.RESTART,
    )
    tls_cert_file: Path | None = _setting(
        None, "Certificate of the API server, which then accepts TLS only.", ReloadScope.RESTART
    )
    tls_key_file: Path | None = _setting(
        None, "Private key of that certificate, not encrypted.", ReloadScope.RESTART
    )
    wyoming: Annotated[str, LISTEN] = _setting(
        "",
        "host:port of the Wyoming server, for voice assistants of Home Assistant; empty is off. "
        "The protocol has neither a key nor encryption.",
        ReloadScope.RESTART,
    )
    wyoming_zeroconf: bool = _setting(
        True,
        "Announce the Wyoming server in the local network, unless it listens on loopback only.",
        ReloadScope.RESTART,
    )
    max_streams: int = _setting(
        2, "Streams that the API server accepts at the same time.", ReloadScope.RESTART, ge=1, le=64
    )
    max_models: int = _setting(
        2,
        "Speech models in memory at the same time, where streams of the API server ask for another "
        "language than the microphone. One that no stream uses is unloaded after five minutes.",
        ReloadScope.RESTART,
        ge=1,
        le=16,
    )
    log_level: Annotated[str, one_of(*LOG_LEVELS)] = _setting(
        "info", "Lowest level of log lines that are written.", ReloadScope.LIVE
    )

    _terms_in_file: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: `sources.load` reads the environment, and records where each value
        came from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _without_conflicts(self) -> Settings:
        found = conflicts(self)
        if found:
            raise ConflictError(found)
        return self

    @property
    def active_keyterms(self) -> tuple[str, ...]:
        """The key terms of `keyterms`, then those of the file; see `with_terms_in_file`."""
        return read_terms((*split_terms(self.keyterms), *self._terms_in_file)).lines

    @property
    def terms_in_file(self) -> tuple[str, ...]:
        """The valid lines of `keyterms_file` when it was read."""
        return self._terms_in_file

    def with_terms_in_file(self, lines: tuple[str, ...]) -> Settings:
        """These settings with the valid lines of `keyterms_file`."""
        changed = self.model_copy()
        changed._terms_in_file = lines
        return changed

    @property
    def spool_path(self) -> Path:
        """The folder of the spool."""
        return self.spool_dir or self.state_dir / "spool"

    @property
    def broker_address(self) -> BrokerAddress | None:
        """Where the broker listens; None if it is the embedded one."""
        return None if self.mqtt_url == EMBEDDED else BrokerAddress.parse(self.mqtt_url)

    def broker(self, embedded: BrokerAddress | None = None) -> BrokerSettings:
        """Returns what the publisher needs.

        `embedded` is the address of the embedded broker, which only the daemon knows.
        """
        return BrokerSettings(
            address=self.broker_address or embedded or BrokerAddress(),
            base=self.mqtt_base,
            device=self.device,
            username=self.mqtt_username,
            password=self.mqtt_password,
            ca_file=self.mqtt_ca_file,
            cert_file=self.mqtt_cert_file,
            key_file=self.mqtt_key_file,
            insecure=self.mqtt_insecure,
            protocol=4 if self.broker_address is None else 5,  # amqtt never answers MQTT 5
        )

    def options(self) -> Options:
        """The part of the settings that a recognition session needs."""
        return Options(
            delay_in_frames=self.delay_in_frames,
            temp=self.temp,
            padding_bonus=self.padding_bonus,
            language=self.language,
            vad_threshold=self.vad_threshold,
            turn_threshold=self.turn_threshold,
            turn_silence_ms=self.turn_silence_ms,
            digits=self.digits,
            keyterms=self.active_keyterms,
            keyterm_boost=self.keyterm_boost,
        )


def reload_scope(field: str) -> ReloadScope:
    """What a change of this field costs while the daemon runs."""
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, Mapping)
    return ReloadScope(str(extra["scope"]))


def unit(field: str) -> str:
    """The unit of a field's value; empty if it has none."""
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, Mapping)
    return str(extra["unit"])


def is_secret(field: str) -> bool:
    """Whether the value must not be shown."""
    return "SecretStr" in str(Settings.model_fields[field].annotation)


def mqtt_may_change(field: str) -> bool:
    """Whether MQTT may change this field: the live ones, except the lock against MQTT and the
    name of a file, whose lines edged reports."""
    return reload_scope(field) is ReloadScope.LIVE and field not in ("mute_lock", "keyterms_file")


def changed_fields(old: Settings, new: Settings) -> tuple[str, ...]:
    """The fields that differ, in the order of their definition. `keyterms_file` differs if the
    terms in the file do."""
    fields = {f for f in Settings.model_fields if getattr(old, f) != getattr(new, f)}
    if old.terms_in_file != new.terms_in_file:
        fields.add("keyterms_file")
    return tuple(f for f in Settings.model_fields if f in fields)
