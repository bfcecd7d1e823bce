"""One chat, for threads. Its twin for asyncio is `llavachat.aio.AsyncChat`."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from llavachat._wire import requests
from llavachat.errors import IncompleteReply, NotFound
from llavachat.export import check_format, list_pictures, write_export
from llavachat.images import Images, load_pictures
from llavachat.reply import Reply
from llavachat.transcript import pick_transcript
from llavachat.types import (
    ChatArchive,
    ChatRecord,
    ExportFormat,
    OverflowPolicy,
    ReplayVerdict,
    TokenCount,
    Turn,
)

if TYPE_CHECKING:
    from llavachat.client import Client


class Chat:
    """A chat on the server. It holds an id and nothing else: make as many as you like."""

    def __init__(self, client: "Client", chat_id: str) -> None:
        self._client = client
        self._id = chat_id

    @property
    def id(self) -> str:
        """The chat's id."""
        return self._id

    def __repr__(self) -> str:
        return f"Chat({self._id!r})"

    def ask(
        self,
        prompt: str,
        images: Images = None,
        *,
        parent: Turn | str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = (),
        overflow: OverflowPolicy | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Ask the next question; the answer streams.

        Args:
            prompt: the question.
            images: more pictures, which stand before this question.
            parent: the turn (or its id) to go on from. None: the latest finished one. An
                earlier turn opens a branch; "" asks a first question again.
            max_tokens, temperature, top_p, top_k, repetition_penalty, seed, stop: see `Params`.
                What is not given is the server's to choose.
            overflow: what to do when the context is full. None: the server decides.
            request_id: makes the call safe to repeat. None: a new UUID, which makes gRPC's own
                retries safe.
            metadata: sent with this call, such as ``{"traceparent": "00-..."}``; text, but bytes
                under a key that ends in "-bin".
            timeout_seconds: the deadline of the whole answer; `math.inf` for none. None: the
                client's.

        Raises:
            ImageError: a picture can not be read.
            InvalidRequest: an argument can not be sent. The server's refusals come when the
                reply is read.
        """
        operation = requests.continue_chat(
            self._id,
            load_pictures(images),
            prompt,
            parent_turn_id=parent.id if isinstance(parent, Turn) else parent,
            params=requests.collect_params(
                max_tokens, temperature, top_p, top_k, repetition_penalty, seed, stop
            ),
            overflow=overflow,
            request_id=request_id,
        )
        return self._client._stream(operation, timeout_seconds, metadata)

    def record(
        self, *, include_raw_prompts: bool = False, timeout_seconds: float | None = None
    ) -> ChatRecord:
        """The chat as the server keeps it, with all its turns.

        Raises:
            NotFound: the server does not know it (any more).
        """
        operation = requests.get_chat(self._id, include_raw_prompts=include_raw_prompts)
        return self._client._read(operation, timeout_seconds)

    def turn(
        self,
        turn_id: str,
        *,
        include_raw_prompt: bool = False,
        timeout_seconds: float | None = None,
    ) -> Turn:
        """One turn, also while it runs or when it was cut short: what came until then.

        Raises:
            NotFound: the server does not know the chat or the turn.
        """
        operation = requests.get_turn(self._id, turn_id, include_raw_prompt=include_raw_prompt)
        return self._client._call(operation, timeout_seconds)

    def history(self, *, timeout_seconds: float | None = None) -> tuple[Turn, ...]:
        """All turns, parents before children, in the order in which they were asked.

        Raises:
            NotFound: the server does not know the chat.
        """
        return self.record(timeout_seconds=timeout_seconds).turns

    def transcript(
        self,
        format: Literal["markdown", "json"] = "markdown",
        *,
        timeout_seconds: float | None = None,
    ) -> str:
        """The chat as a text.

        Args:
            format: "markdown" for people, "json" for programs.
            timeout_seconds: as everywhere.

        Raises:
            ArchiveError: there is no such format; `export` writes more.
            NotFound: the server does not know the chat.
        """
        write = pick_transcript(format)
        return write(self.record(timeout_seconds=timeout_seconds))

    def export(
        self,
        format: ExportFormat = "json",
        *,
        originals: bool = False,
        timeout_seconds: float | None = None,
    ) -> str:
        """The chat to carry away.

        Args:
            format: "json" holds everything, pictures too, and can be read again by
                `Client.import_chat`; "html" is one page with its pictures; "markdown" is the
                transcript. A turn that still runs is not part of the JSON.
            originals: JSON also holds the files in which pictures came, with all their metadata,
                where the server kept them.
            timeout_seconds: the deadline of each of the calls that it takes.

        Raises:
            NotFound: the server does not know the chat (any more).
        """
        wanted = check_format(format, originals=originals)
        record = self.record(timeout_seconds=timeout_seconds)
        pictures: dict[str, bytes] = {}
        files: dict[str, bytes] = {}
        for image_id in list_pictures(record, wanted):
            picture = self._client.image(image_id, timeout_seconds=timeout_seconds)
            pictures[image_id] = picture.data
            if originals:
                with suppress(NotFound):
                    file = self._client.original(image_id, timeout_seconds=timeout_seconds)
                    files[image_id] = file.data
        return write_export(ChatArchive(record, pictures, files), wanted)

    def raw_prompt(
        self, turn: Turn | str | None = None, *, timeout_seconds: float | None = None
    ) -> str:
        """The whole prompt of a turn as the model saw it, special tokens shown.

        Args:
            turn: the turn or its id. None: the latest.
            timeout_seconds: the deadline of each of the calls that it takes.

        Raises:
            NotFound: the server does not know the chat or the turn, or the chat has no turns yet.
        """
        if turn is None:
            turn = requests.pick_latest_turn(self.record(timeout_seconds=timeout_seconds))
        turn_id = turn.id if isinstance(turn, Turn) else turn
        operation = requests.get_turn(self._id, turn_id, include_raw_prompt=True)
        return requests.read_raw_prompt(self._client._call(operation, timeout_seconds))

    def count_tokens(
        self,
        prompt: str,
        images: Images = None,
        *,
        parent: Turn | str | None = None,
        timeout_seconds: float | None = None,
    ) -> TokenCount:
        """Count the tokens that the next question would use, without asking it.

        Raises:
            NotFound: the server does not know the chat.
        """
        operation = requests.count_tokens(
            load_pictures(images),
            prompt,
            chat_id=self._id,
            parent_turn_id=parent.id if isinstance(parent, Turn) else parent,
        )
        return self._client._call(operation, timeout_seconds)

    def replay(
        self, turn: Turn | str | None = None, *, timeout_seconds: float | None = None
    ) -> ReplayVerdict:
        """Have the server generate a turn again from its record, and compare token by token.

        The chat is left as it is.

        Args:
            turn: the turn or its id. None: the latest that has ended.
            timeout_seconds: the deadline of the whole replay.

        Raises:
            NotFound: the server does not know the chat or the turn.
            TurnRunning: the turn has not ended.
        """
        if turn is None:
            turn = requests.pick_ended_turn(self.record(timeout_seconds=timeout_seconds))
        turn_id = turn.id if isinstance(turn, Turn) else turn
        stream = self._client._open(requests.replay_turn(self._id, turn_id), timeout_seconds)
        verdict: ReplayVerdict | None = None
        for event in stream:
            if isinstance(event, ReplayVerdict):
                verdict = event
        if verdict is None:
            raise IncompleteReply("The replay ended without its verdict.")
        return verdict

    def cancel(self, turn: Turn | str, *, timeout_seconds: float | None = None) -> Turn:
        """Stop a running turn at once, whoever reads it; what came is kept.

        Args:
            turn: the turn or its id.
            timeout_seconds: as everywhere.

        Returns:
            The turn as it is kept: cancelled, or as it had ended before.

        Raises:
            NotFound: the server does not know the chat or the turn.
        """
        turn_id = turn.id if isinstance(turn, Turn) else turn
        return self._client._call(requests.cancel_turn(self._id, turn_id), timeout_seconds)

    def delete(self, *, timeout_seconds: float | None = None) -> None:
        """Erase the chat on the server.

        Raises:
            NotFound: the server does not know it (any more).
        """
        self._client._call(requests.delete_chat(self._id), timeout_seconds)
