"""The words about an answer: its tokens and times, for people and for programs."""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from llavachat.cli.characters import spell_for
from llavachat.cli.streams import Guarded, give_up, put
from llavachat.reply import Reply
from llavachat.transcript import to_plain
from llavachat.types import FinishReason, ImageInfo

_SET_OFF = re.compile(r" *(?:\S+(?: \S+)*? {2,})?")
"""What stands before the second column of a line that has one."""

_USUAL_COLUMNS = 80


def open_stderr() -> Console:
    """Where everything goes that is not the answer. Obeys NO_COLOR and FORCE_COLOR."""
    return _with_a_width(Console(stderr=True, highlight=False, soft_wrap=True))


def note(console: Console, text: str, *, style: str = "dim") -> None:
    """Put lines on `open_stderr`, folded between words where a terminal would fold within them."""
    if console.file.isatty():
        text = fold(text, console.width)
    console.print(Text(text, style=style))


def fold(text: str, width: int) -> str:
    """Lines that fit a width where their words do; a longer word, such as a path, stays whole.

    What was set off by two spaces or more, such as what a command does, stays set off.
    """
    folded = []
    for line in text.split("\n"):
        set_off = _SET_OFF.match(line)
        column = set_off.end() if set_off else 0
        folded += textwrap.wrap(
            line,
            width,
            # A column that leaves no room is none.
            subsequent_indent=" " * (column if column < width // 2 else 0),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(folded)


def open_stdout() -> Console:
    """Where answers and tables go. Obeys NO_COLOR and FORCE_COLOR; raises as `write` does, but
    texts of others are to be spelt before: what colours are made of is no different."""
    return _with_a_width(Console(highlight=False, file=cast(IO[str], Guarded(sys.stdout))))


def _with_a_width(console: Console) -> Console:
    """COLUMNS is 0 where whoever set it did not know the width; rich would show nothing in it."""
    if console.width < 1:
        console.width = _USUAL_COLUMNS
    return console


def write(text: str) -> None:
    """Put text on stdout at once; a terminal is not shown what it would obey.

    Raises:
        Failure: whoever read stdout has stopped reading, its disk is full, or its encoding does
            not have a character.
    """
    put(sys.stdout, spell_for(sys.stdout, text))


def write_bytes(data: bytes) -> None:
    """Put bytes on stdout at once, whatever its encoding is.

    Raises:
        Failure: whoever read stdout has stopped reading, or its disk is full.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise give_up(sys.stdout, error) from None


def say(message: str) -> None:
    """A line on stderr, without colours; a terminal is not shown what it would obey."""
    sys.stderr.write(spell_for(sys.stderr, f"{message}\n"))
    sys.stderr.flush()


def describe_usage(reply: Reply) -> str:
    """Tokens and times of a finished answer, in one line."""
    usage, timings = reply.usage, reply.timings
    prompt = f"{usage.prompt_tokens} tokens asked ({usage.image_tokens} picture"
    prompt += f", {usage.cached_tokens} cached)" if usage.cached_tokens else ")"
    return (
        f"{prompt}, {usage.completion_tokens} answered; first token "
        f"{timings.first_token_seconds * 1000:.0f} ms, {reply.tokens_per_second:.0f} tokens/s; "
        f"{usage.context_left_tokens} tokens of context left"
    )


def describe_end(reply: Reply) -> str | None:
    """Why an answer is not whole. None: it is."""
    match reply.finish_reason:
        case FinishReason.MAX_TOKENS:
            limit = reply.params.max_tokens
            return f"The answer stopped at the limit of {limit} tokens; see --max-tokens."
        case FinishReason.MAX_CONTEXT:
            return "The answer stopped because the model's context is full."
        case FinishReason.TIME_LIMIT:
            return "The answer stopped at the server's time limit."
        case FinishReason.SHUTDOWN:
            return "The answer stopped because the server is going down."
        case FinishReason.CANCELLED:
            return "The answer was stopped."
        case FinishReason.ERROR:
            return "The server failed while it answered; this is what came."
    return None


def describe_frames(names: Sequence[str], images: Sequence[ImageInfo]) -> Iterator[str]:
    """A sentence for each picture of which the first frame alone was looked at.

    Args:
        names: what the pictures are called; those that are missing go by their number.
        images: as the server knows them.
    """
    for index, image in enumerate(images):
        if image.num_frames > 1:
            name = names[index] if index < len(names) else f"Picture {index + 1}"
            yield f"{name} has {image.num_frames:,} frames; only the first was looked at."


def to_object(reply: Reply) -> dict[str, Any]:
    """A finished answer as one JSON object."""
    return {
        "answer": reply.text,
        "chat_id": reply.chat_id,
        "turn_id": reply.turn_id,
        "parent_turn_id": reply.parent_turn_id,
        "finish_reason": reply.finish_reason.value,
        "matched_stop": reply.matched_stop,
        "model": to_plain(reply.model),
        "params": to_plain(reply.params),
        "images": [to_plain(image) for image in reply.images],
        "usage": to_plain(reply.usage),
        "timings": to_plain(reply.timings),
    }
