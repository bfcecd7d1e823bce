"""What went wrong, as one sentence on stderr and an exit code. Never a traceback."""

from collections.abc import Sequence
from enum import IntEnum

from llavachat.cli.wording import put
from llavachat.errors import (
    NOT_SENT,
    ArchiveError,
    AuthenticationFailed,
    CannotConnect,
    CertificateRefused,
    ConfigurationError,
    ImageError,
    InvalidRequest,
    LlavaChatError,
    ServerUnavailable,
)


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""
    BROKEN_PIPE = 141
    """128 + SIGPIPE, as shells have it."""


class Failure(Exception):
    """A command can not go on. The message is a sentence for the user."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def wrong_use(message: str) -> Failure:
    """The command was given something that it can not work with."""
    return Failure(message, ExitCode.USAGE)


def judge(error: LlavaChatError, pictures: Sequence[str] = ()) -> Failure:
    """The client's error as a command's: its sentence, what to do about it, the exit code.

    Args:
        error: what was raised.
        pictures: what those of the question are called, in their order.
    """
    message = put(error, pictures)
    match error:
        case CertificateRefused():
            # Nobody has mistyped: whoever answers there is not the one that is trusted.
            return Failure(message, ExitCode.UNAVAILABLE)
        case ConfigurationError() | ImageError() | ArchiveError():
            return Failure(message, ExitCode.USAGE)
        case InvalidRequest() if any(each.reason == NOT_SENT for each in error.violations):
            return Failure(message, ExitCode.USAGE)
        case CannotConnect():
            return Failure(message, ExitCode.UNAVAILABLE)
        case ServerUnavailable():
            return Failure(message + _say_when(error), ExitCode.UNAVAILABLE)
        case AuthenticationFailed():
            return Failure(message, ExitCode.FAILED)
    return Failure(message + _say_when(error), ExitCode.FAILED)


def _say_when(error: LlavaChatError) -> str:
    seconds = getattr(error, "retry_after_seconds", None)
    return f" Try again in {seconds:g} s." if seconds else ""
