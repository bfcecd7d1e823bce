"""The options that commands share: how to reach the server, and how to draw an answer.

A dataclass whose fields are options is a group, see `groups`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import typer

from llavachat.cli.failure import wrong_use


class Overflow(Enum):
    """What to do when a chat has outgrown the model's context."""

    error = "error"
    drop = "drop"


class Format(Enum):
    """What a chat is written as."""

    md = "md"
    json = "json"
    html = "html"


_INT32_MAX = 2**31 - 1
"""The contract's numbers end here; a model's own limits are lower, and the server tells them."""
_MAX_STOPS, _MAX_STOP_CHARS = 8, 64
"""Source: `stop` of GenerationParams in the contract."""


def _over_zero(high: float) -> Callable[[float | None], float | None]:
    """What checks a range that 0 is no part of, which typer's `min` can not say."""

    def check(value: float | None) -> float | None:
        if value is not None and not 0 < value <= high:
            raise typer.BadParameter(f"{value} is not in the range 0<x<={high:g}.")
        return value

    return check


def _check_stops(texts: list[str] | None) -> list[str] | None:
    if texts is not None and len(texts) > _MAX_STOPS:
        raise typer.BadParameter(f"{len(texts)} texts are given; at most {_MAX_STOPS} are taken.")
    for text in texts or ():
        if not 1 <= len(text) <= _MAX_STOP_CHARS:
            raise typer.BadParameter(
                f"{text!r} has {len(text)} characters; it must have 1 to {_MAX_STOP_CHARS}."
            )
    return texts


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach the server."""

    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            "-a",
            metavar="HOST[:PORT]",
            envvar="LLAVACHAT_ADDRESS",
            help="The server; port 50051 unless named. [default: the saved one, or "
            "localhost:50051]",
            show_default=False,
        ),
    ] = None
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            envvar="LLAVACHAT_TLS",
            help="Encrypt. [default: when a CA file or a pin is given]",
            show_default=False,
        ),
    ] = None
    ca_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="LLAVACHAT_TLS_CA_FILE",
            help="PEM of the authority behind the server's certificate.",
        ),
    ] = None
    pin: Annotated[
        str | None,
        typer.Option(
            metavar="sha256:DIGITS",
            envvar="LLAVACHAT_TLS_PIN",
            help="Trust the certificate with this SHA-256, and no other.",
        ),
    ] = None
    timeout_seconds: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            envvar="LLAVACHAT_TIMEOUT_SECONDS",
            help="The longest to wait for a whole answer. [default: 300]",
            show_default=False,
        ),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """As arguments of `Client.from_environment`, completed from a saved server.

        Raises:
            Failure: that server can not be used.
        """
        from llavachat.cli.profiles import complete_arguments

        arguments = {
            "address": self.address,
            "tls": self.tls,
            "tls_ca_file": self.ca_file,
            "tls_pin": self.pin,
            "timeout_seconds": self.timeout_seconds,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        return complete_arguments(given)


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Which chat a question belongs to."""

    continue_last: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the last chat on this server.")
    ] = False
    chat_id: Annotated[
        str | None, typer.Option("--chat", metavar="ID", help="Go on with this chat.")
    ] = None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How to draw an answer, as it was typed; `collect_question` checks it."""

    system: Annotated[
        str | None,
        typer.Option(
            "--system", "-s", metavar="TEXT", help="Replaces the model's own system sentence."
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=_INT32_MAX, help="The longest answer in tokens."),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", min=0, max=2, help="Randomness; 0 is greedy."),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            callback=_over_zero(1),
            help="Keep the likeliest tokens up to this sum.  [0<x<=1]",
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=_INT32_MAX, help="Keep the N likeliest tokens; 0: all."
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            callback=_over_zero(2),
            help="Makes what was said less likely; 1: not.  [0<x<=2]",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=2**64 - 1, help="The same seed, the same answer."),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            callback=_check_stops,
            help="End the answer before this text, of 1 to 64 characters; may be repeated, up to "
            "8 times.",
        ),
    ] = None
    overflow: Annotated[
        Overflow | None,
        typer.Option(help="When the context is full: refuse, or drop the oldest turns."),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="Mark the chat; may be repeated."),
    ] = None


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """How to draw an answer, and in which chat."""

    chat_id: str | None
    continue_last: bool
    system: str | None
    labels: dict[str, str]
    params: dict[str, Any]
    """Arguments that `Client.start` and `Chat.ask` have in common."""


def collect_question(chat: ChatOptions, answer: AnswerOptions) -> QuestionOptions:
    """The question's options as one value.

    Raises:
        Failure: they contradict each other.
    """
    if chat.chat_id is not None and chat.continue_last:
        raise wrong_use("--chat and --continue both name a chat; give one of them.")
    continued = chat.chat_id is not None or chat.continue_last
    if continued and (answer.system is not None or answer.label):
        raise wrong_use("--system and --label belong to a new chat, not to one that goes on.")
    names = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
    params = {name: getattr(answer, name) for name in names}
    params["stop"] = tuple(answer.stop) if answer.stop else None
    params["overflow"] = _choose_policy(answer.overflow)
    return QuestionOptions(
        chat.chat_id,
        chat.continue_last,
        answer.system,
        parse_labels(answer.label),
        {name: value for name, value in params.items() if value is not None},
    )


def parse_labels(labels: Sequence[str] | None) -> dict[str, str]:
    """KEY=VALUE pairs.

    Raises:
        Failure: one of them is not a pair.
    """
    return parse_pairs("--label", "KEY=VALUE", labels)


def parse_time(option: str, text: str | None) -> datetime | None:
    """A date, which is its first moment, or a time; in ISO's form. None stays None.

    Returns:
        With its time zone: this machine's, where the text names none.

    Raises:
        Failure: it is neither.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return time if time.tzinfo is not None else time.astimezone()
    except (ValueError, OverflowError, OSError):  # the last before 1970, on Windows
        raise wrong_use(
            f"{option} {text!r} is no time; give one such as 2026-11-30 or 2026-11-30T18:00."
        ) from None


def parse_pairs(
    option: str, form: str, given: Sequence[str] | None, *, empty: bool = False
) -> dict[str, str]:
    """What a repeated option with an equal sign holds; the first one parts name and value.

    Args:
        empty: a value may be empty.

    Raises:
        Failure: one of them is not of that form, or a name has two values.
    """
    pairs: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and (value or empty)):
            raise wrong_use(f"{option} {text!r} is not {form}.")
        if pairs.setdefault(name, value) != value:
            raise wrong_use(f"{option} {name!r} is given twice, as {pairs[name]!r} and {value!r}.")
    return pairs


def _choose_policy(overflow: Overflow | None) -> Any:
    from llavachat.types import OverflowPolicy

    policies = {
        Overflow.error: OverflowPolicy.ERROR,
        Overflow.drop: OverflowPolicy.DROP_OLDEST_TURNS,
    }
    return None if overflow is None else policies[overflow]
