"""The `edged` command."""
