"""Makes an API server from settings, for the daemon and for `edged serve`.

The packages that the server needs are optional: they are imported only here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edged.config.rules import split_host_port
from edged.config.settings import Settings
from edged.errors import ConfigError
from edged.languages import AUTO
from edged.models.catalogue import Entry, shipped
from edged.models.choice import ModelChoice, chosen, chosen_for_stream, installed_models
from edged.models.loader import has_language
from edged.models.pool import ModelPool
from edged.options import Options

if TYPE_CHECKING:
    from edged.server.api_server import ApiServer
    from edged.server.stream_pool import SessionProvider


def session_provider(
    models: ModelPool,
    settings: Callable[[], Settings],
    options: Callable[[], Options],
    microphone_waits: Callable[[], bool] | None = None,
) -> SessionProvider:
    """Gives each session the models and options of that moment. Raises ConfigError if a package
    is missing."""
    _check_packages()
    from edged.server.stream_pool import SessionProvider

    def choose(model: str, language: str) -> ModelChoice:
        now = settings()
        if model == AUTO and has_language(models.main, language):
            return ModelChoice(
                shipped().get(models.main.name), language
            )  # shared with the microphone
        if model == AUTO:
            return chosen_for_stream(now.models_dir, now.model, language)
        return chosen(now.models_dir, model, language)

    def installed() -> list[Entry]:
        return [shipped().get(name) for name in installed_models(settings().models_dir)]

    return SessionProvider(models, options, choose, installed, microphone_waits)


def api_server(
    settings: Settings,
    sessions: SessionProvider,
    health: Callable[[], Mapping[str, Any]],
    problems: Callable[[], list[str]] = list,
    microphone: bool = False,
    set_mute: Callable[[bool], None] | None = None,
) -> ApiServer:
    """An API server that is not open yet; see ApiServer for the arguments. Raises ConfigError if a
    package is missing."""
    _check_packages()
    from edged.server.access import AccessControl, Origins, own_names
    from edged.server.api_server import ApiServer, WyomingAddress
    from edged.server.listener import ListenAddress

    address, names = None, own_names()
    if settings.listen:
        host, port = split_host_port(settings.listen)
        address = ListenAddress(host, port, settings.tls_cert_file, settings.tls_key_file)
        names |= {host.lower()}
    wyoming = None
    if settings.wyoming:
        _check_packages("EDGED_WYOMING", ("wyoming", "zeroconf"))
        name = f"edged {settings.device}" if settings.wyoming_zeroconf else None
        wyoming = WyomingAddress(ListenAddress(*split_host_port(settings.wyoming)), name)
    listed = (origin.strip().rstrip("/") for origin in settings.listen_origins.split(","))
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ApiServer(
        address,
        AccessControl(key, Origins(frozenset(filter(None, listed)), names)),
        sessions,
        settings.max_streams,
        health,
        problems,
        microphone,
        set_mute,
        wyoming,
    )


def _check_packages(
    setting: str = "EDGED_LISTEN", packages: tuple[str, ...] = ("aiohttp", "prometheus_client")
) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(
                f"{setting} needs the Python package {package}, from edged's extra `api`"
            )
