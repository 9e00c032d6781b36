"""The daemon behind `edged run`: microphone to MQTT."""
