"""``llavachat export`` and ``llavachat import``: a chat into a file, and from one."""

import sys
from enum import Enum
from pathlib import Path

from llavachat.cli.ask import find_last_chat
from llavachat.cli.failure import ExitCode, Failure, wrong_use
from llavachat.cli.files import replace_file
from llavachat.cli.options import ServerOptions
from llavachat.cli.output import say, write, write_bytes
from llavachat.cli.state import write_last_chat
from llavachat.client import Client
from llavachat.types import ExportFormat

MAX_FILE_BYTES = 1024**3
"""Four times the largest import that a server takes by default."""

_FORMATS: dict[str, ExportFormat] = {"md": "markdown", "json": "json", "html": "html"}
_ENDINGS: dict[str, ExportFormat] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".json": "json",
    ".html": "html",
    ".htm": "html",
}


def export_chat(
    chat_id: str | None,
    server: ServerOptions,
    *,
    continue_last: bool,
    output: str | None,
    format: Enum | None,
    originals: bool,
) -> ExitCode:
    """Write a chat to a file or to stdout.

    Raises:
        Failure: the arguments name no chat or no format, or the file can not be written.
        LlavaChatError: the server refused or failed.
    """
    if chat_id is None and not continue_last:
        raise wrong_use("There is no chat. Use: llavachat export CHAT, or -c for the last one.")
    if chat_id is not None and continue_last:
        raise wrong_use("CHAT and --last both name a chat; give one of them.")
    wanted = _FORMATS[format.value] if format is not None else choose_format(output)
    with Client.from_environment(**server.overrides()) as client:
        chat = client.chat(find_last_chat(client) if chat_id is None else chat_id)
        text = chat.export(wanted, originals=originals)
    if output in (None, "-"):
        if sys.stdout.isatty():
            write(text)
        else:
            # As a file has it: JSON and HTML say themselves that they are UTF-8.
            write_bytes(text.encode())
        return ExitCode.OK
    path = write_file(output or "", text)
    say(f"Saved to {path}.")
    return ExitCode.OK


def choose_format(output: str | None) -> ExportFormat:
    """The format that a file's name asks for; Markdown for stdout.

    Raises:
        Failure: its ending is none of those known.
    """
    if output in (None, "-"):
        return "markdown"
    wanted = read_ending(output or "")
    if wanted is None:
        raise wrong_use(
            f"{output} does not say in which format; end it in .md, .json or .html, or give "
            "--format."
        )
    return wanted


def read_ending(name: str) -> ExportFormat | None:
    """The format that the end of a file's name asks for, in whatever case. None: it asks for none
    of them."""
    return _ENDINGS.get(Path(name).suffix.lower())


def write_file(name: str, text: str) -> Path:
    """Write a text into a file, whole or not at all.

    Returns:
        Where it is.

    Raises:
        Failure: it can not be written; one that was there is as it was.
    """
    data = text.encode()
    try:
        path = Path(name).expanduser()
        replace_file(path, data)
    except OSError as error:
        raise Failure(f"{name} can not be written: {error.strerror}.") from None
    except (ValueError, RuntimeError):  # a NUL; ~ and the name of nobody
        raise wrong_use(f"{name} can not be written: its name is not a path.") from None
    return path


def import_chat(name: str, server: ServerOptions) -> ExitCode:
    """Bring an exported chat to the server, and print its new id.

    Raises:
        Failure: the file can not be read.
        LlavaChatError: it is no exported chat, or the server refused or failed.
    """
    data = _read(name)
    with Client.from_environment(**server.overrides()) as client:
        chat = client.import_chat(data)
        write_last_chat(client.address, chat.id)
    write(f"{chat.id}\n")
    return ExitCode.OK


def _read(name: str) -> bytes:
    """A file's bytes, or stdin's for -."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).expanduser().open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise wrong_use(f"{name} can not be read: {error.strerror}.") from None
    except (ValueError, RuntimeError):
        raise wrong_use(f"{name} can not be read: its name is not a path.") from None
    if len(data) > MAX_FILE_BYTES:
        raise wrong_use(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB.")
    return data
