"""`edged run`: microphone to MQTT, for months."""
