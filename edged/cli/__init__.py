"""The `edged` command.

main.py registers the commands. `*_command.py` and `*_commands.py` declare their arguments and
options and import nothing heavy, so that `--help` answers quickly; the other modules do the work.
"""
