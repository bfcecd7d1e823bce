"""What comes on stdin as text, for every command that reads it."""

import sys
from collections.abc import Callable

from llavachat.cli.failure import Failure, wrong_use


def read_text() -> str:
    """All of stdin.

    Raises:
        Failure: it can not be read, or is no text.
    """
    return _guard(lambda: sys.stdin.read())


def read_line() -> str:
    """The next line of stdin; "" at its end.

    Raises:
        Failure: it can not be read, or is no text.
    """
    return _guard(lambda: sys.stdin.readline())


def _guard(read: Callable[[], str]) -> str:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise wrong_use(f"stdin is no text in {error.encoding}.") from None
    except OSError as error:
        raise Failure(f"stdin can not be read: {error.strerror}.") from None
