"""The seam between chats and where they are kept.

Contract of every store:

- A method that writes returns when the write is durable, and not before: a turn's `finished`
  event is sent only after `finish_turn` has returned.
- Every write is whole or absent, whatever happens between; where nobody knows which,
  `StoreUnavailable.may_be_done` says so.
- A chat, turn, picture or request of another tenant does not exist.
- A turn that was RUNNING when a process died is CANCELLED when the store is opened again.

A store knows nothing of engines, streams or gRPC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from llavachat_server.chats.errors import StoreDamaged, StoreFull, StoreUnavailable
from llavachat_server.chats.record import Chat, ChatSummary, RequestClaim, Turn
from llavachat_server.images.intake import ImageInfo, Picture

MAX_PAGE_BYTES = 1024**2
"""A page ends once it has told so much, however many chats were asked for: a message is put
together and packed on the event loop, where others wait for it."""

FULL_RETRY_SECONDS = 5.0
"""When to try again what could not be kept: by then somebody may have made room."""


@dataclass(frozen=True, slots=True)
class PageMark:
    """Where a page of chats ended: the next one begins after this chat."""

    updated_at: datetime
    chat_id: str


@dataclass(frozen=True, slots=True)
class ChatQuery:
    """Which chats to list, the most recently used first.

    Args:
        limit: how many at most, 1 to 1000.
        after: where the page before ended.
        labels: only chats that have all of these.
        updated_since: only chats used at or after this time.
        updated_before: only chats used before this time.
    """

    limit: int = 50
    after: PageMark | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    updated_since: datetime | None = None
    updated_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class IdleChat:
    """A chat as it was found while nobody used it.

    Used again it has another time or another number of turns: the clock may have gone back.
    """

    tenant: str
    id: str
    updated_at: datetime
    num_turns: int


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A page of chats, and where it ended; `next` is None when nothing follows."""

    chats: tuple[ChatSummary, ...]
    next: PageMark | None


def fill_page(found: Iterable[ChatSummary], limit: int) -> ChatPage:
    """As many chats as a page may tell, one or more where there are any.

    Args:
        found: those that the page begins with, in order, and one that may follow them. It is read
            no further than needed.
        limit: how many at most.
    """
    page: list[ChatSummary] = []
    num_bytes = 0
    for chat in found:
        if len(page) >= limit or num_bytes >= MAX_PAGE_BYTES:
            return ChatPage(tuple(page), PageMark(page[-1].updated_at, page[-1].id))
        page.append(chat)
        num_bytes += chat.count_bytes()
    return ChatPage(tuple(page), None)


class ChatStore(Protocol):
    """Where chats are kept; see the module's contract."""

    async def begin_chat(
        self,
        chat: Chat,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """Keep a new chat with its first, running turn, its pictures and its claim, at once.

        Raises:
            StoreFull: nothing more can be kept.
        """
        ...

    async def add_chat(self, chat: Chat, pictures: tuple[Picture, ...]) -> None:
        """Keep a whole chat whose turns have all ended, with its pictures, at once.

        Whoever is cancelled in this leaves nothing: nobody learns the chat's id. It is not kept, or
        is erased as soon as it can be.

        Raises:
            ChatFull: it has more turns than a chat may have.
            StoreFull: nothing more can be kept.
        """
        ...

    async def begin_turn(
        self,
        tenant: str,
        chat_id: str,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """Keep a new, running turn with its pictures and its claim, at once.

        Raises:
            NotFound: no such chat.
            TurnRunning: another turn of this chat runs.
            ChatFull: it has as many turns as a chat may have.
            StoreFull: nothing more can be kept.
        """
        ...

    async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
        """Keep the end of a turn in place of its running self.

        Raises:
            NotFound: the chat was deleted meanwhile, or the turn was never kept.
            StoreFull, StoreUnavailable, StoreDamaged: not now; the end is kept once it can be.
        """
        ...

    def explain_debt(self) -> StoreFull | StoreUnavailable | StoreDamaged:
        """Why an end that `finish_turn` could not keep is not kept yet."""
        ...

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """Read a chat with all its turns.

        Raises:
            NotFound: no such chat.
        """
        ...

    async def get_opening(self, tenant: str, chat_id: str) -> Chat:
        """Read a chat with its first turn alone.

        Raises:
            NotFound: no such chat.
        """
        ...

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
        """Read a chat with the turns of one branch alone: from a first one down to `turn_id`.

        None is the latest finished turn; where there is none, the chat has no turns.

        Raises:
            NotFound: no such chat or turn.
        """
        ...

    async def get_branch_ids(self, tenant: str, chat_id: str, turn_id: str) -> tuple[str, ...]:
        """Read the ids of a branch's turns: from a first one down to `turn_id`.

        Raises:
            NotFound: no such chat or turn.
        """
        ...

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """Read one turn.

        Raises:
            NotFound: no such chat or turn.
        """
        ...

    async def list_chats(self, tenant: str, query: ChatQuery) -> ChatPage:
        """Read a page of chats, as `fill_page` ends it."""
        ...

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """Erase a chat, its claims, the pictures that no other chat of the tenant uses, and the
        files that it alone brought.

        Raises:
            NotFound: no such chat.
            StoreUnavailable: it stays; or it will be gone, where this `may_be_done`.
        """
        ...

    async def retire_chat(self, idle: IdleChat) -> bool:
        """Erase a chat as `delete_chat` does, unless it is used or was used since it was found.

        Returns:
            Whether it was erased.

        Raises:
            NotFound: no such chat.
        """
        ...

    async def get_image(self, tenant: str, image_id: str) -> ImageInfo:
        """Read what is told about a picture that a chat of this tenant uses.

        Raises:
            NotFound: no such picture.
        """
        ...

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """Read a picture that a chat of this tenant uses.

        Raises:
            NotFound: no such picture.
        """
        ...

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """Read a picture that a chat of this tenant uses, its pixels packed as a PNG.

        Raises:
            NotFound: no such picture.
        """
        ...

    async def get_original(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """Read the file of a picture that a chat of this tenant brought, as it came.

        Of several files with these pixels it is the one that was kept first.

        Raises:
            NotFound: no such picture, or no file of it is kept.
        """
        ...

    async def find_claim(self, tenant: str, request_id: str) -> RequestClaim | None:
        """Read what became of a request_id."""
        ...
