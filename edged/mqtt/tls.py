"""The TLS context for connections to the broker."""

from __future__ import annotations

import ssl

from edged.certificates import load_certificate
from edged.errors import ConfigError
from edged.mqtt.broker_settings import BrokerSettings


def tls_context(broker: BrokerSettings) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 or later that checks the certificate and the host name.

    With `broker.insecure` it checks neither. Raises ConfigError for a file that cannot be used.
    """
    files: object = broker.ca_file
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
        if broker.cert_file is not None:
            files = f"{broker.cert_file} with {broker.key_file}"
            load_certificate(context, broker.cert_file, broker.key_file)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"the certificate {files} cannot be used: {why}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
