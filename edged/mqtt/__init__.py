"""The MQTT client: what it publishes, what it receives, and where messages wait. See README.md."""
