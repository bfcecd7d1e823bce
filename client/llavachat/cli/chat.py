"""``llavachat chat``: a conversation at the terminal.

On a terminal: editing and history by prompt_toolkit, Markdown as it streams by rich, Ctrl-C
stops the answer and keeps what came. Without one, the lines of stdin are questions and stdout
carries the answers.
"""

import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from llavachat.cli.ask import find_last_chat
from llavachat.cli.characters import spell
from llavachat.cli.conversation import Conversation
from llavachat.cli.exchange import read_ending, write_file
from llavachat.cli.failure import ExitCode, Failure, judge, wrong_use
from llavachat.cli.options import QuestionOptions, ServerOptions
from llavachat.cli.output import (
    describe_end,
    describe_frames,
    describe_usage,
    note,
    open_stderr,
    open_stdout,
    write,
)
from llavachat.cli.prompt import make_reader
from llavachat.cli.state import write_last_chat
from llavachat.cli.thumbnail import can_show, draw_thumbnail
from llavachat.client import Client
from llavachat.errors import LlavaChatError
from llavachat.images import Picture
from llavachat.reply import Reply
from llavachat.types import Delta, FinishReason, Queued

_STOPPING = (
    "Ctrl-C stops an answer and keeps what came; it also stops /image and /save. A stopped answer "
    "is not part of later questions."
)
HELP = f"""\
/image PATH   add a picture (or an http(s) address) to the next question
/drop         take those pictures back, before they are asked about
/retry        ask the last question again, with some randomness
/save [FILE]  write the chat to FILE: Markdown, or JSON or HTML where its name ends so
/usage        tokens and times of the last answer
/help         this
/quit         leave; so does Ctrl-D

{_STOPPING}"""

_REFRESH_PER_SECOND = 12


def chat(pictures: Sequence[str], question: QuestionOptions, server: ServerOptions) -> ExitCode:
    """Talk until the user leaves.

    Raises:
        Failure: there is no last chat to go on with, or no picture.
        LlavaChatError: the server can not be reached; later errors are told and the talk
            goes on, where there is a terminal.
    """
    if "-" in pictures:
        raise wrong_use("`llavachat chat` reads questions from stdin; give the picture's path.")
    # Who types sees that the server is away, and decides for how long to try.
    wanted = {"restart_seconds": 0.0} if sys.stdin.isatty() else {}
    with Client.from_environment(**server.overrides(), **wanted) as client:
        chat_id = find_last_chat(client) if question.continue_last else question.chat_id
        conversation = Conversation(
            client,
            chat_id=chat_id,
            pictures=pictures,
            start={"system_prompt": question.system, "labels": question.labels},
            params=question.params,
        )
        return Talk(client, conversation).run()


class Talk:
    """The commands and the screen around a `Conversation`."""

    def __init__(self, client: Client, conversation: Conversation) -> None:
        self._client = client
        self._conversation = conversation
        self._screen = open_stdout()
        self._notes = open_stderr()
        self._is_terminal = sys.stdin.isatty() and self._screen.is_terminal
        self._reply: Reply | None = None

    def run(self) -> ExitCode:
        """Read and answer lines until there are no more."""
        # Before the first prompt, so that a wrong address is told before a question is typed.
        info = self._client.server_info()
        self._conversation.expect(info.limits.media_types)
        if self._is_terminal:
            name = info.model.name or info.model.profile
            self._note(f"{name} at {self._client.address}. /help lists the commands.")
            for named in self._conversation.pending:
                self._show(named.picture)
        read = make_reader(is_terminal=self._is_terminal)
        while True:
            try:
                line = read().strip()
            except EOFError:
                return ExitCode.OK
            except KeyboardInterrupt:
                self._note("Ctrl-D leaves.")
                continue
            if line == "/quit":
                return ExitCode.OK
            if line:
                self._handle(line)

    def _handle(self, line: str) -> None:
        try:
            if line.startswith("/"):
                command, _, argument = line.partition(" ")
                self._run_command(command, argument.strip())
            else:
                self._reply = self._conversation.ask(line, self._stream)
                self._remember()
        except LlavaChatError as error:
            failure = judge(error, self._conversation.asked_names)
            if not self._is_terminal:
                raise failure from None
            self._note(str(failure))
            self._tell_dropped(self._conversation.drop_refused(error))

    def _run_command(self, command: str, argument: str) -> None:
        match command:
            case "/image" if argument:
                with self._interruptible(command):
                    self._show(self._conversation.add_picture(_unquote(argument)))
                    self._note("The picture goes with the next question.")
            case "/image":
                self._note("Use: /image PATH")
            case "/drop":
                dropped = self._conversation.drop_pending()
                self._tell_dropped(dropped)
                if not dropped:
                    self._note("No picture waits for the next question.")
            case "/retry":
                reply = self._conversation.retry(self._stream)
                if reply is None:
                    self._note("Nothing was asked yet.")
                else:
                    self._reply = reply
                    self._remember()
            case "/save":
                with self._interruptible(command):
                    self._save(_unquote(argument))
            case "/usage":
                self._tell_usage()
            case "/help":
                self._note(HELP)
            case _:
                self._note(f"{command} is not a command; /help lists them.")

    def _tell_dropped(self, names: Sequence[str]) -> None:
        for name in names:
            self._note(f"{name} goes with no later question.")

    def _stream(self, reply: Reply) -> None:
        """Show an answer as it comes; Ctrl-C closes it."""
        with _interrupt_closes(reply):
            if not self._is_terminal:
                for text in reply:
                    write(text)
                write("\n")
            else:
                self._stream_markdown(reply)
        for sentence in describe_frames((), reply.images if reply.is_started else ()):
            self._note(sentence)
        if end := describe_end(reply):
            self._note(end)

    def _stream_markdown(self, reply: Reply) -> None:
        # The live part is cut at the screen's height; the whole is printed in its place.
        try:
            with Live(
                Text("..."),
                console=self._screen,
                transient=True,
                refresh_per_second=_REFRESH_PER_SECOND,
                vertical_overflow="ellipsis",
            ) as live:
                for event in reply.events():
                    if isinstance(event, Delta):
                        live.update(Markdown(spell(reply.text)))
                    elif isinstance(event, Queued):
                        live.update(Text(f"waiting, place {event.position}", style="dim"))
        finally:
            if reply.text:
                self._screen.print(Markdown(spell(reply.text)))

    def _remember(self) -> None:
        if self._conversation.chat_id is not None:
            write_last_chat(self._client.address, self._conversation.chat_id)

    def _save(self, name: str) -> None:
        chat_id = self._conversation.chat_id
        if chat_id is None:
            self._note("There is nothing to save yet.")
            return
        name = name or f"chat-{chat_id[:8]}.md"
        text = self._client.chat(chat_id).export(read_ending(name) or "markdown")
        try:
            path = write_file(name, text)
        except Failure as failure:
            self._note(str(failure))
            return
        self._note(f"Saved to {path}.")

    @contextmanager
    def _interruptible(self, command: str) -> Iterator[None]:
        """For the length of a command that waits for others, Ctrl-C at a terminal ends the
        command instead of the program."""
        try:
            yield
        except KeyboardInterrupt:
            if not self._is_terminal:
                raise
            self._note(f"{command} was stopped.")

    def _tell_usage(self) -> None:
        if self._reply is None or self._reply.finish_reason is FinishReason.CANCELLED:
            self._note("There is no whole answer to tell about.")
        else:
            self._note(describe_usage(self._reply))

    def _show(self, picture: Picture) -> None:
        is_read = picture.width_pixels > 0  # else the server alone may read it
        size = f", {picture.width_pixels} x {picture.height_pixels} pixels" if is_read else ""
        self._note(f"{picture.media_type}{size}, {len(picture.data) / 1024:.0f} KiB")
        if is_read and can_show(self._screen):
            with Image.open(io.BytesIO(picture.data)) as image:
                self._screen.print(draw_thumbnail(image))

    def _note(self, text: str) -> None:
        note(self._notes, spell(text))


@contextmanager
def _interrupt_closes(reply: Reply) -> Iterator[None]:
    """For the length of an answer, Ctrl-C ends the answer instead of the program. A second one
    ends the program."""

    def close(number: int, frame: Any) -> None:
        # From a thread: gRPC may hold its locks in the very frame that was interrupted.
        threading.Thread(target=reply.close).start()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, close)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unquote(argument: str) -> str:
    """A path as it was typed or dropped on the terminal: quotes and backslashes undone."""
    if len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "'\"":
        return argument[1:-1]
    return argument.replace("\\ ", " ")
