"""edged: real-time speech recognition on the device, published over MQTT."""

import os

# onnxruntime's Linux wheels send telemetry unless this is set before their first import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.2.0"

SAMPLE_RATE = 24_000  # Hz; every source delivers signed 16-bit mono at this rate
STEP_SAMPLES = 1_920  # samples in one step
STEP_S = 0.08  # seconds in one step
