"""The state of ``llavachat chat``, apart from any terminal: which chat, which pictures wait,
what was asked last.

A stopped answer is no part of what the model sees later. So pictures that were added to it go
with the next question again; those that opened the chat stay with the chat. A picture that the
server refuses goes with no later question.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llavachat.client import Client
from llavachat.errors import ImageError, InvalidRequest, LlavaChatError
from llavachat.images import ImageSource, Picture, load_picture
from llavachat.reply import Reply
from llavachat.types import FinishReason

RETRY_TEMPERATURE = 0.8
"""For ``/retry``: a greedy model would say the same again."""

_LATER_SEES = {
    FinishReason.EOS,
    FinishReason.STOP_SEQUENCE,
    FinishReason.MAX_TOKENS,
    FinishReason.MAX_CONTEXT,
}


_PICTURE_FIELD = re.compile(r"images(?:\[(\d+)\].*)?")
"""Of a refusal: of one picture, or of their number."""


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture, and what it was called by who gave it."""

    name: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class _Question:
    prompt: str
    pictures: tuple[NamedPicture, ...]
    chat_id: str | None
    parent_turn_id: str | None


class Conversation:
    """One talk with the server.

    Args:
        client: the server.
        chat_id: go on with this chat. None: a new one.
        pictures: wait for the first question.
        start: arguments of `Client.start` alone (labels, the system prompt).
        params: arguments of every question.
    """

    def __init__(
        self,
        client: Client,
        *,
        chat_id: str | None,
        pictures: Sequence[ImageSource],
        start: dict[str, Any],
        params: dict[str, Any],
    ) -> None:
        self._client = client
        self._start = start
        self._params = params
        self._last: _Question | None = None
        self._latest_turn_id: str | None = None
        self.chat_id = chat_id
        self._media_types: Sequence[str] = ()
        self.pending = [self._load(source) for source in pictures]

    def expect(self, media_types: Sequence[str]) -> None:
        """Take what the server reads from now on; () where that is not known.

        Raises:
            ImageError: a picture that waits is nothing of it.
        """
        self._media_types = media_types
        for named in self.pending:
            self._check(named)

    def add_picture(self, source: ImageSource) -> Picture:
        """A picture for the next question.

        Raises:
            ImageError: it can not be read, here or by the server.
        """
        named = self._load(source)
        self._check(named)
        self.pending.append(named)
        return named.picture

    @property
    def asked_names(self) -> list[str]:
        """What the pictures of the last question are called."""
        return [named.name for named in self._last.pictures] if self._last else []

    def drop_refused(self, error: LlavaChatError) -> list[str]:
        """Leave out the pictures for which the last question was refused: so would be the next.

        Returns:
            What they are called; none where it was refused for something else.
        """
        if self._last is None or not isinstance(error, InvalidRequest):
            return []
        found = [_PICTURE_FIELD.fullmatch(each.field) for each in error.violations]
        numbers = [match[1] for match in found if match]
        asked = enumerate(self._last.pictures)
        return self._drop(
            [named for index, named in asked if str(index) in numbers or None in numbers]
        )

    def drop_pending(self) -> list[str]:
        """Leave out all pictures that wait for the next question.

        Returns:
            What they are called.
        """
        return self._drop(self.pending)

    def ask(self, prompt: str, on_reply: Callable[[Reply], None]) -> Reply:
        """Ask the next question.

        Args:
            prompt: the question.
            on_reply: reads the answer, and may close it.

        Raises:
            LlavaChatError: the server refused or failed.
        """
        question = _Question(prompt, tuple(self.pending), self.chat_id, self._latest_turn_id)
        return self._run(question, on_reply, self._params)

    def retry(self, on_reply: Callable[[Reply], None]) -> Reply | None:
        """Ask the last question again where it was asked, with some randomness.

        Returns:
            The answer; None when nothing was asked yet.

        Raises:
            LlavaChatError: the server refused or failed.
        """
        if self._last is None:
            return None
        return self._run(self._last, on_reply, {"temperature": RETRY_TEMPERATURE, **self._params})

    def _run(
        self, question: _Question, on_reply: Callable[[Reply], None], params: dict[str, Any]
    ) -> Reply:
        self._last = question
        opens = question.chat_id is None
        with self._open(question, params) as reply:
            on_reply(reply)
        if reply.is_started:
            self.chat_id = reply.chat_id
            # Asked again, the question is another branch at the same parent; "" is the root,
            # where the server takes over the pictures that opened the chat.
            self._last = _Question(
                question.prompt,
                () if opens else question.pictures,
                reply.chat_id,
                reply.parent_turn_id or "",
            )
            if opens:
                self.pending.clear()
        if reply.finish_reason in _LATER_SEES:
            self._latest_turn_id = reply.turn_id
            self.pending.clear()
        return reply

    def _drop(self, unwanted: Sequence[NamedPicture]) -> list[str]:
        def is_wanted(named: NamedPicture) -> bool:
            # The same file may have been asked about before, and given anew.
            return not any(named is each for each in unwanted)

        self.pending = list(filter(is_wanted, self.pending))
        if self._last is not None:
            left = tuple(filter(is_wanted, self._last.pictures))
            self._last = replace(self._last, pictures=left)
        return [named.name for named in unwanted]

    def _open(self, question: _Question, params: dict[str, Any]) -> Reply:
        pictures = [named.picture for named in question.pictures]
        if question.chat_id is None:
            return self._client.start(pictures, question.prompt, **self._start, **params)
        return self._client.chat(question.chat_id).ask(
            question.prompt, pictures, parent=question.parent_turn_id, **params
        )

    def _load(self, source: ImageSource) -> NamedPicture:
        name = source if isinstance(source, str) else "The picture"
        return NamedPicture(name, load_picture(source))

    def _check(self, named: NamedPicture) -> None:
        media_type = named.picture.media_type
        if self._media_types and media_type not in self._media_types:
            raise ImageError(
                f"{named.name} is {media_type}, which this server does not read; it reads "
                f"{', '.join(self._media_types)}."
            )
