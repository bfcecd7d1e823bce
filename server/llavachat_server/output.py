"""What a command says on stdout, which may be a full disk or a pipe that nobody reads."""

import os
import sys


class NotSaid(Exception):
    """stdout could not be written to; the message is the system's reason."""


def say(text: str) -> None:
    """Write a line to stdout, and wait until it is written.

    Raises:
        NotSaid: it is not. Nothing more is written to stdout from then on.
    """
    if sys.stdout is None:
        raise NotSaid("it is closed")
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        _leave_the_rest()
        raise NotSaid(error.strerror) from error


def describe(error: OSError) -> str:
    """The system's reason, after the file that it is about where there is one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _leave_the_rest() -> None:
    """Else Python tries once more at its end, and puts its own words and exit code in the place
    of ours."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
