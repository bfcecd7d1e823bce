"""A chat as the benchmark sees it, and the one call that every interface has."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol


class AnswerFailed(Exception):
    """The server refused or failed; the message has what it said."""


@dataclass(slots=True)
class Talk:
    """A chat under way.

    Args:
        picture: a PNG file, at the beginning of the first question.
        turns: questions with their answers, as far as they are known.
        handle: what the interface knows the chat by, where the server keeps chats.
        prompt_tokens: of the latest turn, as the server counted them; 0 where it does not tell.
    """

    picture: bytes
    turns: list[tuple[str, str]] = field(default_factory=list)
    handle: Any = None
    prompt_tokens: int = 0


class Interface(Protocol):
    """What the benchmark needs of a server."""

    def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """The answer to the next question, greedy, piece by piece as it comes.

        The caller appends the turn to `talk` once the answer is whole.

        Raises:
            AnswerFailed: there is none.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
