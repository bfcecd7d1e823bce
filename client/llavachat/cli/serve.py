"""``llavachat serve``: becomes the server, whose package is another one than the client's."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from llavachat.cli.failure import Failure, wrong_use

_EXAMPLES = ("torch", "transformers", "pydantic_settings")


def find_server_command() -> list[str]:
    """How to start the server.

    Raises:
        Failure: it is not installed, or without what it needs.
    """
    missing = [name for name in ("llavachat_server", *_EXAMPLES) if find_spec(name) is None]
    if missing:
        raise wrong_use(
            "The server is not installed here; in a checkout of llavachat: "
            "pip install -c constraints.txt '.[server]'"
        )
    return [sys.executable, "-m", "llavachat_server"]


def serve(arguments: Sequence[str]) -> None:
    """Replace this process by the server's, with the same arguments. Does not return.

    Raises:
        Failure: the server is not installed.
    """
    command = [*find_server_command(), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(command[0], command)  # noqa: S606 - our own interpreter, and no shell
    except OSError as error:
        raise Failure(f"The server can not be started: {error.strerror}.") from None
