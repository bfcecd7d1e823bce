"""``llavachat ask``: one question, one answer. stdout carries the answer alone."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from llavachat.cli.failure import ExitCode, judge, wrong_use
from llavachat.cli.input import read_text
from llavachat.cli.options import QuestionOptions, ServerOptions
from llavachat.cli.output import (
    describe_end,
    describe_frames,
    describe_usage,
    say,
    to_object,
    write,
)
from llavachat.cli.state import read_last_chat, write_last_chat
from llavachat.client import Client
from llavachat.errors import ImageError, InvalidRequest
from llavachat.images import ImageSource, is_address, is_picture_file, load_picture
from llavachat.reply import Reply
from llavachat.types import FinishReason

_ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".heic", ".heif", ".avif", ".jp2"),
    *(".bmp", ".dib", ".tif", ".tiff", ".ico", ".ppm", ".pgm", ".pbm", ".tga", ".dcm", ".svg"),
)
"""Of files that somebody may take for the picture."""

_USE = "Use: llavachat ask PICTURE QUESTION"

_UNFINISHED = {
    FinishReason.CANCELLED,  # by somebody else: Ctrl-C does not come here
    FinishReason.ERROR,
    FinishReason.SHUTDOWN,
    FinishReason.TIME_LIMIT,
}


def ask(
    arguments: Sequence[str],
    question: QuestionOptions,
    server: ServerOptions,
    *,
    as_json: bool,
    show_usage: bool,
) -> ExitCode:
    """Ask, and write the answer to stdout as it comes.

    Raises:
        Failure: the arguments make no question.
        LlavaChatError: the server refused or failed.
    """
    continued = question.continue_last or question.chat_id is not None
    pictures, prompt = split_arguments(arguments, continued=continued)
    names = [name if isinstance(name, str) else "The picture" for name in pictures]
    try:
        with (
            Client.from_environment(**server.overrides()) as client,
            open_reply(client, pictures, prompt, question) as reply,
        ):
            code = _write(client, reply, as_json=as_json, show_usage=show_usage)
            for sentence in describe_frames(names, reply.images):
                say(f"llavachat: {sentence}")
            return code
    except InvalidRequest as error:
        raise judge(error, names) from None


def split_arguments(
    arguments: Sequence[str], *, continued: bool
) -> tuple[tuple[ImageSource, ...], str]:
    """Which arguments are pictures, and which is the question.

    The last is the question and what stands before it are pictures, "-" being stdin. Where the
    last is a picture too, an address or a file that is there and called or made as one, stdin is
    the question.

    Raises:
        Failure: there is no question, or no picture for it.
    """
    names, prompt = list(arguments[:-1]), arguments[-1] if arguments else ""
    is_typed = bool(prompt) and not _is_picture(prompt)
    if not is_typed:
        # "" is no question, and no picture either.
        names += [prompt] if prompt else []
        if sys.stdin.isatty() or "-" in names:
            raise wrong_use(f"There is no question{_explain(prompt)}. {_USE}.")
        prompt = read_text().strip()
    elif _names_picture(prompt) and _is_one_word(prompt):
        raise wrong_use(_find_fault(prompt))
    if not prompt.strip():
        raise wrong_use(f"The question is blank. {_USE}.")
    if not names and not continued and is_typed and _names_file(prompt):
        raise wrong_use(f"There is no picture: {_find_fault(prompt)}")
    if not names and not continued:
        raise wrong_use(f"There is no picture. {_USE}, or -c to go on with the last chat.")
    if names.count("-") > 1:
        raise wrong_use("stdin can be read once; give - once.")
    return tuple(sys.stdin.buffer if name == "-" else name for name in names), prompt


def open_reply(
    client: Client,
    pictures: Sequence[ImageSource],
    prompt: str,
    question: QuestionOptions,
) -> Reply:
    """Begin the answer, in a new chat or in the one that is named.

    Raises:
        Failure: there is no last chat to go on with.
    """
    chat_id = question.chat_id
    if question.continue_last:
        chat_id = find_last_chat(client)
    if chat_id is None:
        return client.start(
            pictures,
            prompt,
            system_prompt=question.system,
            labels=question.labels,
            **question.params,
        )
    return client.chat(chat_id).ask(prompt, pictures, **question.params)


def find_last_chat(client: Client) -> str:
    """The chat for ``-c``.

    Raises:
        Failure: there is none.
    """
    chat_id = read_last_chat(client.address)
    if chat_id is None:
        raise wrong_use(f"There is no last chat with {client.address} to go on with.")
    return chat_id


def _write(client: Client, reply: Reply, *, as_json: bool, show_usage: bool) -> ExitCode:
    try:
        for text in reply:
            if not as_json:
                write(text)
    finally:
        if reply.is_started:
            write_last_chat(client.address, reply.chat_id)
        # Whatever stops the answer, the shell's prompt goes on a line of its own.
        if reply.text and not as_json:
            write("\n")
    if as_json:
        write(json.dumps(to_object(reply), ensure_ascii=False) + "\n")
    if end := describe_end(reply):
        say(f"llavachat: {end}")
    if show_usage:
        say(describe_usage(reply))
    return ExitCode.FAILED if reply.finish_reason in _UNFINISHED else ExitCode.OK


def _is_picture(argument: str) -> bool:
    # A question may begin with an address.
    if argument == "-" or (is_address(argument) and _is_one_word(argument)):
        return True
    try:
        path = Path(argument).expanduser()
        if not path.exists() or path.is_dir():
            return False
        if path.suffix[1:].isalnum() or not path.is_file():
            # What can not be one is told as what it is. A pipe's bytes can be read once: not here.
            return True
        try:
            return is_picture_file(path)  # a text may be called as the question is
        except PermissionError:  # which is told when it is opened
            return True
    except (OSError, ValueError, RuntimeError):  # longer than any file's name, a NUL, ~ of nobody
        return False


def _is_one_word(argument: str) -> bool:
    return len(argument.split()) == 1


def _names_picture(argument: str) -> bool:
    """True for what would be a picture's name, whether there is such a file or not."""
    return argument.lower().endswith(_ENDINGS)


def _names_file(argument: str) -> bool:
    """True for what would be a picture's name here; words that begin as an address are none, and
    go nowhere."""
    return _names_picture(argument) and not is_address(argument)


def _explain(argument: str) -> str:
    """Why the last argument is not the question, after a sentence's first part."""
    if argument in {"", "-"}:
        return ""
    kind = "an address" if is_address(argument) else "a file here"
    return f": {argument} is {kind}, and was taken for a picture"


def _find_fault(name: str) -> str:
    """Why what is called as a picture can not be opened as one."""
    try:
        load_picture(name)
    except ImageError as error:
        return str(error)
    return f"{name} is a picture, and no question."  # it has come just now
