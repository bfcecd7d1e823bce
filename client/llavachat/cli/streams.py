"""What becomes of a stream that does not take what is written: one sentence, or none for a pipe.

Imports little: help and the version go this way too, and are to be quick.
"""

import os
from typing import Any, TextIO

from llavachat.cli.failure import ExitCode, Failure


class Guarded:
    """A stream whose failures to write are those of `put`, whoever writes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Put text on the stream at once."""
        # typer tries "" to learn what a stream takes, and passes over what comes of it.
        if text != "":
            put(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """For what was written past it, into its buffer."""
        try:
            self._stream.flush()
        except OSError as error:
            raise give_up(self._stream, error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def put(stream: TextIO, text: str) -> None:
    """Put text on a stream at once.

    Raises:
        Failure: whoever read it has stopped reading, its disk is full, or its encoding does not
            have a character.
    """
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError as error:
        unknown = ascii(error.object[error.start : error.start + 1])
        raise Failure(
            f"stdout's encoding, {stream.encoding}, does not have {unknown}; set "
            "PYTHONIOENCODING=utf-8."
        ) from None
    except OSError as error:
        raise give_up(stream, error) from None


def give_up(stream: TextIO, error: OSError) -> Failure:
    """The failure for a stream that could not be written; what is written next goes nowhere."""
    # The interpreter must not try again on its way out.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if isinstance(error, BrokenPipeError):
        return Failure("", ExitCode.BROKEN_PIPE)
    return Failure(f"stdout can not be written: {error.strerror}.")
