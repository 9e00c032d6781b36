"""Errors that a user can meet, and the exit codes of commands.

Such an error says in one clear sentence what is wrong and what to do, and ends a command with its
exit code. Any other exception is a bug in edged (exit code 70).

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | a check found problems (doctor, config check, models verify) |
| 2 | the command line is wrong |
| 3 | an input file could not be read; the other files of the call were processed |
| 4 | a model file is missing, damaged or could not be fetched |
| 5 | a setting is wrong, or the result could not be written |
| 6 | the broker or another network peer cannot be reached, or refused |
| 7 | a device (microphone) cannot be used |
| 70 | a bug in edged; or a thread of the daemon hung, and no watchdog ended the process |
| 130, 141 | ended by Ctrl-C; the reader of a pipe has gone (edged/cli/stdout.py) |
"""


class EdgedError(Exception):
    """Base class. `str(error)` is for people, `exit_code` is for scripts.

    message: what happened and where.
    remedy: what to do about it, as a sentence; "" if that is part of the message.
    """

    exit_code = 70

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}. {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class InputError(EdgedError):
    """Audio cannot be read. The message names the file and what is accepted."""

    exit_code = 3


class ModelError(EdgedError):
    """A model file is missing, wrong or cannot be fetched. The message names the command to run."""

    exit_code = 4


class ConfigError(EdgedError):
    """A setting is wrong, or a result cannot be written. The message says what is allowed."""

    exit_code = 5


class PeerError(EdgedError):
    """A broker or server cannot be reached, or refused."""

    exit_code = 6


class DeviceError(EdgedError):
    """A sound device cannot be used as requested."""

    exit_code = 7


class RequestError(EdgedError):
    """A message of a client is wrong. The client gets an `error` event with this `code`."""

    exit_code = 2
    code = 1008
