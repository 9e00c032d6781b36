"""Tests that Whisper's build version changes with everything that its built files are made from."""

from __future__ import annotations

import hashlib

from edged import resources
from edged.stt.whisper.build_version import BUILD_VERSION

SPEECH = {3: "0333b3b54790f51a"}  # by build version: SHA-256 of all sample speech, first 16 digits


def test_other_sample_speech_raises_the_build_version() -> None:
    """The padding constants are computed from the sample speech. When German, French, Spanish and
    Portuguese samples were added, a rebuild gave other constants under the same version, so that
    devices with the same model hash had different graphs. If this fails, raise BUILD_VERSION."""
    digest = hashlib.sha256()
    for path in sorted(resources.sample_speech().rglob("*.flac")):
        digest.update(path.read_bytes())
    assert SPEECH.get(BUILD_VERSION) == digest.hexdigest()[:16]
