"""The family of Moonshine's streaming models. README.md in this folder."""
