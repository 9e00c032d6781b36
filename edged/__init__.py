"""edged: a microphone in, timed words out over MQTT, nothing leaves the house."""

import os

# onnxruntime's Linux wheels call home unless this is set before the first import of it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

SAMPLE_RATE = 24_000  # Hz, signed 16-bit mono: what every source delivers to a session
STEP_SAMPLES = 1_920  # one step
STEP_S = 0.08
