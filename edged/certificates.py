"""Loads a certificate and its private key."""

from __future__ import annotations

import ssl
from pathlib import Path

from edged.errors import ConfigError


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Loads a certificate chain and its key into `context`.

    Args:
        key_file: None if the key is in `cert_file` too.

    Raises:
        ConfigError: the key is encrypted. OpenSSL would ask for its pass phrase on the terminal,
            and a daemon would wait there for ever.
        OSError, ValueError: a file cannot be read, or is no certificate or key.
    """

    def refuse() -> str:
        key = key_file or cert_file
        raise ConfigError(
            f"the key {key} is encrypted, and edged cannot ask for its pass phrase: "
            f"`openssl pkey -in {key} -out NEW` writes it without one"
        )

    context.load_cert_chain(cert_file, key_file, refuse)
