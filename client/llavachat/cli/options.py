"""The options that commands share: how to reach the server, and how to draw an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
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


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        metavar="HOST[:PORT]",
        envvar="LLAVACHAT_ADDRESS",
        help="The server; port 50051 unless named. [default: the saved one, or localhost:50051]",
        show_default=False,
    ),
]
Tls = Annotated[
    bool | None,
    typer.Option(
        "--tls/--no-tls",
        envvar="LLAVACHAT_TLS",
        help="Encrypt. [default: when a CA file or a pin is given]",
        show_default=False,
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="LLAVACHAT_TLS_CA_FILE",
        help="PEM of the authority behind the server's certificate.",
    ),
]
Pin = Annotated[
    str | None,
    typer.Option(
        "--pin",
        metavar="sha256:DIGITS",
        envvar="LLAVACHAT_TLS_PIN",
        help="Trust the certificate with this SHA-256, and no other.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        envvar="LLAVACHAT_TIMEOUT_SECONDS",
        help="The longest to wait for a whole answer. [default: 300]",
        show_default=False,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system", "-s", metavar="TEXT", help="Replaces the model's own system sentence."
    ),
]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="The longest answer in tokens.")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", "-t", min=0, max=2, help="Randomness; 0 is greedy."),
]
TopP = Annotated[
    float | None, typer.Option(min=0, max=1, help="Keep the likeliest tokens up to this sum.")
]
TopK = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Keep the N likeliest tokens; 0: all.")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(min=0, max=2, help="Makes what was said less likely; 1: not.")
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="The same seed, the same answer.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End the answer before this text; may be repeated."),
]
OnOverflow = Annotated[
    Overflow | None,
    typer.Option("--overflow", help="When the context is full: refuse, or drop the oldest turns."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Mark the chat; may be repeated."),
]
Continue = Annotated[
    bool, typer.Option("--continue", "-c", help="Go on with the last chat on this server.")
]
ChatId = Annotated[str | None, typer.Option("--chat", metavar="ID", help="Go on with this chat.")]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach the server."""

    address: str | None
    tls: bool | None
    ca_file: str | None
    pin: str | None
    timeout_seconds: float | None

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
class QuestionOptions:
    """How to draw an answer, and in which chat."""

    chat_id: str | None
    continue_last: bool
    system: str | None
    labels: dict[str, str]
    params: dict[str, Any]
    """Arguments that `Client.start` and `Chat.ask` have in common."""


def collect_question(
    *,
    chat_id: str | None,
    continue_last: bool,
    system: str | None,
    labels: Sequence[str] | None,
    overflow: Overflow | None,
    stop: Sequence[str] | None,
    **params: Any,
) -> QuestionOptions:
    """The question's options as one value.

    Raises:
        Failure: they contradict each other.
    """
    if chat_id is not None and continue_last:
        raise wrong_use("--chat and --continue both name a chat; give one of them.")
    continued = chat_id is not None or continue_last
    if continued and (system is not None or labels):
        raise wrong_use("--system and --label belong to a new chat, not to one that goes on.")
    given = {name: value for name, value in params.items() if value is not None}
    if stop:
        given["stop"] = tuple(stop)
    if overflow is not None:
        from llavachat.types import OverflowPolicy

        policies = {
            Overflow.error: OverflowPolicy.ERROR,
            Overflow.drop: OverflowPolicy.DROP_OLDEST_TURNS,
        }
        given["overflow"] = policies[overflow]
    return QuestionOptions(chat_id, continue_last, system, parse_labels(labels), given)


def parse_labels(labels: Sequence[str] | None) -> dict[str, str]:
    """KEY=VALUE pairs.

    Raises:
        Failure: one of them is not a pair.
    """
    pairs = {}
    for label in labels or ():
        key, equals, value = label.partition("=")
        if not (key and equals and value):
            raise wrong_use(f"--label {label!r} is not KEY=VALUE.")
        pairs[key] = value
    return pairs
