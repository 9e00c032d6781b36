"""From settings to a door: what the daemon and `edged serve` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edged.config.rules import split_host_port
from edged.config.settings import Settings
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.server.api_server import ApiServer
    from edged.server.streams import Source


def source(
    models: Callable[[], Any],
    settings: Callable[[], Settings],
    give_way: Callable[[], bool] | None = None,
) -> Source:
    """Of sessions through the door: the daemon's models and settings of that moment."""
    _need_packages()
    from edged.server.streams import Source

    return Source(models, lambda: settings().options(), give_way)


def api_server(
    settings: Settings,
    lent: Source,
    health: Callable[[], Mapping[str, Any]],
    problems: Callable[[], list[str]] = list,
    microphone: bool = False,
    mute: Callable[[bool], None] | None = None,
) -> ApiServer:
    """Not yet open. Raises ConfigError where the door's packages are not installed."""
    _need_packages()
    from edged.server.access import Origins, own_names
    from edged.server.api_server import Address, ApiServer
    from edged.server.routes import Access

    host, port = split_host_port(settings.listen)
    listed = (origin.strip().rstrip("/") for origin in settings.listen_origins.split(","))
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ApiServer(
        Address(host, port, settings.tls_cert_file, settings.tls_key_file),
        Access(key, Origins(frozenset(filter(None, listed)), own_names() | {host.lower()})),
        lent,
        settings.max_streams,
        health,
        problems,
        microphone,
        mute,
    )


def _need_packages() -> None:
    for package in ("aiohttp", "av", "prometheus_client"):
        if find_spec(package) is None:
            raise ConfigError(
                f"EDGED_LISTEN needs the Python package {package}, from edged's extra `door`"
            )
