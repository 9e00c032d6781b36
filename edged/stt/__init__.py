"""Speech recognition: audio of a segment in, committed words out. See README.md in this folder."""
