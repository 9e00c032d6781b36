"""The commands about the daemon: run, serve, listen, doctor, config. The work is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        envvar="EDGED_ENV_FILE",
        metavar="FILE",
        help="Settings, as KEY=value lines; files *.env in FILE.d are read after it.",
    ),
]
BrokerUrl = Annotated[
    str | None,
    typer.Option("--mqtt-url", metavar="URL", help="mqtt://host, mqtts://host or embedded."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]

config = typer.Typer(help="Look at settings, check a file of them, or print an example.")


def add_to(app: typer.Typer) -> None:
    """Puts these commands among those of `edged`."""
    app.command()(run)
    app.command()(serve)
    app.command()(listen)
    app.command()(doctor)
    app.add_typer(config, name="config", no_args_is_help=True)


def run(
    env_file: EnvFile = None,
    mqtt_url: BrokerUrl = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="This box's part of every topic.")
    ] = None,
    alsa_device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Microphone (edged devices), sample, or file:PATH."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="Show here what is heard, as edged listen does.")
    ] = False,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Try it: a broker inside, captions here, sample speech if there is no microphone.",
        ),
    ] = False,
) -> None:
    """Listen to the microphone and publish what it hears to MQTT, until stopped.

    SIGHUP reads the settings again; SIGTERM finishes the sentence and ends.
    """
    from edged.cli.run import run as work

    flags = {
        "mqtt_url": mqtt_url,
        "device": device,
        "alsa_device": alsa_device,
        "log_level": log_level,
    }
    if demo:
        from rich.console import Console

        from edged.cli.demo import demo_flags

        flags = demo_flags(env_file, flags, Console())
    raise typer.Exit(work(env_file, flags, captions=captions or demo))


def serve(
    env_file: EnvFile = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Default: EDGED_LISTEN, else 127.0.0.1:8765."),
    ] = None,
    max_streams: Annotated[
        int | None, typer.Option(metavar="N", help="Most streams at once: EDGED_MAX_STREAMS.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
) -> None:
    """Serve Gradium's speech-to-text API, without microphone and broker, until stopped.

    edged serve --listen 127.0.0.1:8765
    """
    from edged.cli.serve import serve as work

    flags = {"listen": listen, "max_streams": max_streams, "log_level": log_level}
    raise typer.Exit(work(env_file, flags))


def listen(
    device: Annotated[
        str, typer.Argument(metavar="[DEVICE]", help="One box by name; without it, all of them.")
    ] = "+",
    env_file: EnvFile = None,
    mqtt_url: BrokerUrl = None,
    as_json: Json = False,
) -> None:
    """Show what the boxes of a broker hear, live. In a pipe: one line for each turn.

    edged listen --mqtt-url mqtt://hub.local kitchen
    """
    from rich.console import Console

    from edged.cli.listen import listen as work
    from edged.config.sources import load
    from edged.mqtt.embedded_broker import EmbeddedBroker

    settings = load(env_file, {"mqtt_url": mqtt_url}).settings
    work(settings.broker(EmbeddedBroker().address), Console(), device, as_json)


def doctor(env_file: EnvFile = None, mqtt_url: BrokerUrl = None, as_json: Json = False) -> None:
    """Check microphone, models, speed, broker, Home Assistant and permissions.

    One remedy for each finding. Exit code 1 if anything must be mended.
    """
    from rich.console import Console

    from edged.doctor.checkup import checkup

    raise typer.Exit(checkup(env_file, {"mqtt_url": mqtt_url}, Console(), as_json))


@config.command()
def show(env_file: EnvFile = None, as_json: Json = False) -> None:
    """Every setting in force and where its value comes from. Secrets are masked."""
    from rich.console import Console

    from edged.config.settings_report import show as work
    from edged.config.sources import load
    from edged.config.state_file import StateFile

    remembered = StateFile(load(env_file).settings.state_dir).read()
    work(load(env_file, None, remembered), Console(), as_json)


@config.command()
def check(
    env_file: Annotated[Path, typer.Argument(metavar="FILE", help="The env file.")],
    as_json: Json = False,
) -> None:
    """Every problem of an env file (and of FILE.d) at once. Exit code 1 if there is one."""
    from rich.console import Console

    from edged.config.settings_report import check as work

    raise typer.Exit(work(env_file, Console(), as_json))


@config.command()
def example() -> None:
    """An env file with every setting, its default and what it allows."""
    from edged.config.settings_report import example as work

    print(work(), end="")


@config.command()
def history(
    env_file: EnvFile = None,
    as_json: Json = False,
) -> None:
    """Settings files that worked, newest first: what rollback can go back to."""
    from rich.console import Console

    from edged.cli.config_history import DEFAULT_ENV_FILE
    from edged.cli.config_history import history as work

    work(env_file or DEFAULT_ENV_FILE, Console(), as_json)


@config.command()
def rollback(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="From edged config history; the last other one."),
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Put settings files back that worked. The running daemon takes them by itself."""
    from rich.console import Console

    from edged.cli.config_history import DEFAULT_ENV_FILE
    from edged.cli.config_history import rollback as work

    work(name, env_file or DEFAULT_ENV_FILE, Console())
