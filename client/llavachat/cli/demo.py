"""``llavachat demo``: the whole journey in one command, on this machine and offline.

Starts a server with the embedded model, asks about the picture beside this file, asks again,
tells tokens and times, stops the server. The picture was drawn with Pillow: on white, a large
red circle on the left and a small blue square on the right; the model has not seen it before.
"""

import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from llavachat.cli.failure import ExitCode
from llavachat.cli.output import describe_end, describe_usage, note, open_stderr, open_stdout
from llavachat.cli.serve import find_server_command
from llavachat.cli.server_process import ServerProcess
from llavachat.cli.thumbnail import can_show, draw_thumbnail
from llavachat.client import Client
from llavachat.reply import Reply
from llavachat.types import FinishReason

PICTURE = Path(__file__).with_name("demo.png")
QUESTION = "What is in the picture?"
FOLLOW_UP = "What about the one on the right?"


def demo() -> ExitCode:
    """Run the demonstration.

    Returns:
        OK only if both answers came whole.

    Raises:
        Failure: the server is not installed or does not start.
        LlavaChatError: the server refused or failed.
    """
    command = find_server_command()
    console, notes = open_stdout(), open_stderr()
    began = time.monotonic()
    note(notes, "Starting a server with the embedded model", style="bold")

    def tell_stage(seconds: float, stage: str) -> None:
        note(notes, f"  {seconds:5.1f} s  {stage}")

    with ServerProcess(command, tell_stage) as server:
        note(notes, f"Serving on {server.address} after {server.start_seconds:.1f} s", style="")
        with Client(server.address, timeout_seconds=60) as client:
            _show_picture(console)
            first = client.start(PICTURE, QUESTION, temperature=0)
            is_whole = _tell(console, notes, QUESTION, first)
            second = first.chat.ask(FOLLOW_UP, temperature=0)
            is_whole = _tell(console, notes, FOLLOW_UP, second) and is_whole
    note(notes, f"Server stopped. {time.monotonic() - began:.1f} s in all.")
    return ExitCode.OK if is_whole else ExitCode.FAILED


def _show_picture(console: Console) -> None:
    with Image.open(PICTURE) as picture:
        width, height = picture.size
        console.print(f"\n{PICTURE.name}, {width} x {height} pixels", style="bold")
        if can_show(console):
            console.print(draw_thumbnail(picture, max_columns=32, max_rows=12))


def _tell(console: Console, notes: Console, question: str, reply: Reply) -> bool:
    console.print()
    console.print(Text.assemble(("You:   ", "bold cyan"), question))
    console.print(Text("Model: ", style="bold green"), end="")
    with reply:
        for text in reply:
            console.print(text, end="", markup=False, soft_wrap=True)
            console.file.flush()
    console.print()
    note(notes, f"       {describe_usage(reply)}")
    if end := describe_end(reply):
        note(notes, end, style="")
    return bool(reply.text.strip()) and reply.finish_reason in {
        FinishReason.EOS,
        FinishReason.STOP_SEQUENCE,
        FinishReason.MAX_TOKENS,
    }
