"""What can go wrong, and whose fault it is.

Every error a user can meet is one of these, says one clear sentence, and ends a command with
the exit code below. Anything else that escapes is a bug in edged (exit code 70).

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a check found problems (doctor, config check, models verify) |
| 2 | the command line itself is wrong |
| 3 | an input file could not be read; the others of the same call were still done |
| 4 | a model file is missing, damaged or could not be fetched |
| 5 | a setting is wrong, or the result could not be written |
| 6 | the broker or another network peer cannot be reached or refused us |
| 7 | a device (microphone) cannot be used |
| 70 | a bug in edged; a thread of the daemon that hung, where no watchdog ended it |
| 130, 141 | ended by Ctrl-C; the reader of a pipe has gone (edged/cli/stdout.py) |
"""


class EdgedError(Exception):
    """Base: `str(error)` is one sentence for people; `exit_code` is for scripts."""

    exit_code = 70


class InputError(EdgedError):
    """Audio that cannot be read: says which file and what is accepted."""

    exit_code = 3


class ModelError(EdgedError):
    """A model file is missing, wrong or cannot be fetched: names the mending command."""

    exit_code = 4


class ConfigError(EdgedError):
    """A setting is wrong: names it and what it allows. Or there is no room for the result."""

    exit_code = 5


class PeerError(EdgedError):
    """A broker or server cannot be reached, or said no."""

    exit_code = 6


class DeviceError(EdgedError):
    """A sound device cannot be used as asked."""

    exit_code = 7


class RequestError(EdgedError):
    """A client's message is wrong: becomes an `error` event with code 1008."""

    exit_code = 2
    code = 1008
