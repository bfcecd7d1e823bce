"""Where the questions of ``llavachat chat`` come from: a line editor, or the lines of stdin."""

import contextlib
from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from llavachat.cli.input import read_line
from llavachat.cli.state import find_history_file

COMMANDS = ("/image", "/drop", "/retry", "/save", "/usage", "/help", "/quit")

Reader = Callable[[], str]
"""The next line. Raises EOFError at the end, and KeyboardInterrupt where Ctrl-C clears it."""


def make_reader(*, is_terminal: bool) -> Reader:
    """A line editor for a terminal, plain lines of stdin otherwise."""
    if not is_terminal:
        return _read_stdin
    session: PromptSession[str] = PromptSession(
        history=_open_history(), completer=_CommandCompleter(), complete_while_typing=False
    )
    return lambda: session.prompt("> ")


def _read_stdin() -> str:
    line = read_line()
    if not line:
        raise EOFError
    return line


def _open_history() -> History:
    path = find_history_file()
    return _Remembered(str(path)) if path else InMemoryHistory()


class _Remembered(FileHistory):
    """A file that may turn out to be another user's, or full: what is typed is then forgotten at
    the end, and is no reason not to answer it."""

    def load_history_strings(self) -> Iterable[str]:
        """See prompt_toolkit."""
        try:
            return super().load_history_strings()
        except OSError:
            return ()

    def store_string(self, string: str) -> None:
        """See prompt_toolkit."""
        with contextlib.suppress(OSError):
            super().store_string(string)


class _CommandCompleter(Completer):
    """Commands, and paths behind the commands that take one."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """See prompt_toolkit."""
        text = document.text_before_cursor
        for command in ("/image ", "/save "):
            if text.startswith(command):
                rest = Document(text.removeprefix(command))
                yield from self._paths.get_completions(rest, complete_event)
                return
        if text.startswith("/"):
            for command in COMMANDS:
                if command.startswith(text):
                    yield Completion(command, start_position=-len(text))
