"""A key that is encrypted is refused in one sentence; OpenSSL would ask for its pass phrase."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from edged.certificates import load_certificate
from edged.config.settings import Settings
from edged.config.startup import check_files
from edged.errors import ConfigError


def openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A certificate, its key, and the key with a pass phrase."""
    cert, key, encrypted = (tmp_path / name for name in ("cert.pem", "key.pem", "encrypted.pem"))
    new_key: list[str | Path] = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        key,
    ]
    openssl("req", "-x509", *new_key, "-out", cert, "-days", "1", "-subj", "/CN=test")
    openssl("pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", encrypted)
    return cert, key, encrypted


def test_a_key_without_a_pass_phrase_is_loaded(files: tuple[Path, Path, Path]) -> None:
    cert, key, _ = files
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)


def test_an_encrypted_key_is_refused_with_the_command_that_decrypts_it(
    files: tuple[Path, Path, Path],
) -> None:
    """The daemon waited for a pass phrase on its terminal, and without one it named no reason."""
    cert, _, encrypted = files
    with pytest.raises(ConfigError, match=f"openssl pkey -in {encrypted}"):
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, encrypted)
    settings = Settings(mqtt_url="mqtts://hub", mqtt_cert_file=cert, mqtt_key_file=encrypted)
    with pytest.raises(ConfigError, match="is encrypted"):
        check_files(settings)


def test_an_encrypted_key_in_the_file_of_the_certificate_is_refused_too(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(files[0].read_text() + files[2].read_text())
    with pytest.raises(ConfigError, match="is encrypted"):
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), both, None)
