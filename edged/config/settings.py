"""Settings: every name, default, bound and whether it changes live. One class, frozen.

A setting `x` is `EDGED_X` in the environment and in env files. Where the values come from, and
which one counts, is `edged/config/sources.py`; this file says only what is allowed.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from edged.config.rules import (
    BROKER_URL,
    DEVICE,
    EMBEDDED,
    LISTEN,
    TOPIC,
    ConflictError,
    conflicts,
    one_of,
)
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from edged.options import DELAYS, LANGUAGES, Options

PREFIX = "EDGED_"
LOG_LEVELS = ("debug", "info", "warning", "error")


class Live(StrEnum):
    """What a changed setting costs while the daemon runs."""

    HOT = "live"
    MICROPHONE = "live, reopens the microphone"
    BROKER = "live, reconnects to the broker"
    RECOGNISER = "live, loads the recogniser again"
    RESTART = "at the next start"


def env_name(field: str) -> str:
    return PREFIX + field.upper()


def default_device() -> str:
    """The host name as a topic segment."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower())
    return name[:63].strip("-") or "edged"


def default_state_dir() -> Path:
    """systemd's StateDirectory=, else the user's own state folder."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "edged"


def _setting(default: Any, description: str, live: Live, unit: str = "", **bounds: Any) -> Any:
    """A documented field; `default` may be a function without arguments."""
    key = "default_factory" if callable(default) else "default"
    extra: dict[str, Any] = {"live": live.value, "unit": unit}
    return Field(**{key: default}, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseSettings):
    """All settings of the daemon, valid as a whole. Immutable: a reload builds a new one."""

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
        "Name of this box: its part of every topic, and its id in Home Assistant.",
        Live.RESTART,
    )
    alsa_device: str = _setting(
        "default",
        "Microphone, by a name that survives a reboot (`edged devices` lists them). "
        "`sample` plays the sample speech, `file:PATH` an audio file.",
        Live.MICROPHONE,
        min_length=1,
        max_length=256,
    )
    gain_db: float = _setting(
        0.0, "Digital gain.", Live.HOT, "dB", ge=-20, le=40, allow_inf_nan=False
    )
    mqtt_url: Annotated[str, BROKER_URL] = _setting(
        "mqtt://localhost",
        "The broker: mqtt://host, mqtts://host (TLS), or, to try it in a checkout, embedded (one "
        "inside the daemon).",
        Live.BROKER,
    )
    mqtt_username: str | None = _setting(None, "User at the broker.", Live.BROKER)
    mqtt_password: SecretStr | None = _setting(
        None,
        "Password at the broker. Better as the systemd credential edged_mqtt_password.",
        Live.BROKER,
    )
    mqtt_ca_file: Path | None = _setting(
        None, "Certificate of the authority that signed the broker's (mqtts).", Live.BROKER
    )
    mqtt_cert_file: Path | None = _setting(None, "This box's own certificate (mqtts).", Live.BROKER)
    mqtt_key_file: Path | None = _setting(None, "The key of that certificate.", Live.BROKER)
    mqtt_insecure: bool = _setting(
        False, "Do not check the broker's certificate (mqtts). For a test bench only.", Live.BROKER
    )
    mqtt_base: Annotated[str, TOPIC] = _setting("edged", "First part of every topic.", Live.BROKER)
    model: str = _setting(
        "tiny-en",
        "Speech model (`edged models list`).",
        Live.RECOGNISER,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
    )
    language: Annotated[str, one_of(*LANGUAGES)] = _setting("en", "Language spoken.", Live.HOT)
    models_dir: Path | None = _setting(
        None,
        "Folder of the built models. Default: where `edged models fetch` puts them.",
        Live.RECOGNISER,
    )
    threads: int = _setting(
        1,
        "Threads of the recogniser. 1 keeps a board cool, 2 answers sooner.",
        Live.RECOGNISER,
        ge=1,
        le=8,
    )
    delay_in_frames: Annotated[int, one_of(*DELAYS)] = _setting(
        Options().delay_in_frames,
        "How long a word is waited for before it is published. More is more accurate.",
        Live.HOT,
        "steps of 80 ms",
    )
    temp: float = _setting(
        0.0, "Sampling temperature; 0 takes the likeliest word.", Live.HOT, ge=0, le=1
    )
    padding_bonus: float = _setting(
        0.0,
        "Negative publishes sooner, positive waits for more agreement.",
        Live.HOT,
        ge=-4,
        le=4,
    )
    vad_threshold: float = _setting(
        Options().vad_threshold,
        "Probability of speech that opens the voice gate.",
        Live.HOT,
        ge=0.05,
        le=0.95,
    )
    turn_threshold: float = _setting(
        Options().turn_threshold,
        "Probability of two silent seconds that ends a turn.",
        Live.HOT,
        ge=0.05,
        le=0.95,
    )
    turn_silence_ms: int = _setting(
        Options().turn_silence_ms,
        "Unit of the waits for a turn's end: 0.7 of it if sure, 1.6 if unsure, 2.6 at most.",
        Live.HOT,
        "ms",
        ge=100,
        le=5000,
    )
    step_every: int = _setting(
        1,
        "Publish every n-th `step` message (12.5 a second); 0 publishes none.",
        Live.HOT,
        ge=0,
        le=1000,
    )
    mute: bool = _setting(False, "Microphone closed, nothing heard.", Live.HOT)
    mute_lock: bool = _setting(
        False, "MQTT may mute, but only this box itself may unmute.", Live.HOT
    )
    homeassistant: bool = _setting(True, "Announce the device to Home Assistant.", Live.HOT)
    homeassistant_prefix: Annotated[str, TOPIC] = _setting(
        "homeassistant", "Home Assistant's discovery prefix.", Live.HOT
    )
    health_every_s: int = _setting(
        60, "How often `state/health` is published.", Live.HOT, "s", ge=5, le=150
    )
    state_dir: Path = _setting(
        default_state_dir,
        "Folder for what must survive a restart (mute, live changes).",
        Live.RESTART,
    )
    spool_dir: Path | None = _setting(
        None,
        "Folder for messages kept while the broker is away. Default: STATE_DIR/spool.",
        Live.RESTART,
    )
    spool_max_mb: int = _setting(
        16,
        "Most disk space for those messages; the oldest go first.",
        Live.RESTART,
        "MB",
        ge=1,
        le=4096,
    )
    listen: Annotated[str, LISTEN] = _setting(
        "", "host:port of the WebSocket and HTTP door; empty is off.", Live.RESTART
    )
    api_key: SecretStr | None = _setting(
        None,
        "Key that clients of the door must send. Better as a systemd credential.",
        Live.RESTART,
    )
    listen_without_key: bool = _setting(
        False, "Serve the door beyond this machine without a key.", Live.RESTART
    )
    listen_origins: str = _setting(
        "",
        "Web pages that may use the door, as in https://kiosk.local (comma between them), beside "
        "those that this machine serves itself. A name of this machine that it does not know, as "
        "a router gives, is listed so too: http://kitchen.fritz.box:8080.",
        Live.RESTART,
    )
    tls_cert_file: Path | None = _setting(
        None, "Certificate of the door: with it, the door speaks TLS only.", Live.RESTART
    )
    tls_key_file: Path | None = _setting(None, "The key of that certificate.", Live.RESTART)
    max_streams: int = _setting(
        2, "Most streams through the door at once.", Live.RESTART, ge=1, le=64
    )
    log_level: Annotated[str, one_of(*LOG_LEVELS)] = _setting(
        "info", "Least serious log line that is written.", Live.HOT
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: `sources.load` reads the surroundings, and remembers
        where each value came from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _go_together(self) -> Settings:
        found = conflicts(self)
        if found:
            raise ConflictError(found)
        return self

    @property
    def spool_path(self) -> Path:
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
        """What of this a recognition session needs."""
        return Options(
            delay_in_frames=self.delay_in_frames,
            temp=self.temp,
            padding_bonus=self.padding_bonus,
            language=self.language,
            vad_threshold=self.vad_threshold,
            turn_threshold=self.turn_threshold,
            turn_silence_ms=self.turn_silence_ms,
        )


def live_class(field: str) -> Live:
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, Mapping)
    return Live(str(extra["live"]))


def unit(field: str) -> str:
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, Mapping)
    return str(extra["unit"])


def is_secret(field: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[field].annotation)


def mqtt_may_change(field: str) -> bool:
    """Live settings, but never the lock: it exists to be out of MQTT's reach."""
    return live_class(field) is Live.HOT and field != "mute_lock"


def changed_fields(old: Settings, new: Settings) -> tuple[str, ...]:
    """The fields that differ, in the order of their definition."""
    return tuple(f for f in Settings.model_fields if getattr(old, f) != getattr(new, f))
