"""A store that forgets at the end of the process, and before that what was used longest ago.

Contract: `store.ChatStore`, bounded in chats and in bytes of pictures. It belongs to one event
loop; no method awaits between reading and writing, so that every write is whole.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Set
from dataclasses import replace

from llavachat_server.chats.errors import (
    ChatFull,
    NotFound,
    StoreFull,
    StoreUnavailable,
    TurnRunning,
)
from llavachat_server.chats.pixels import write_png
from llavachat_server.chats.record import Chat, RequestClaim, Turn, TurnState
from llavachat_server.chats.store import (
    FULL_RETRY_SECONDS,
    ChatPage,
    ChatQuery,
    IdleChat,
    fill_page,
)
from llavachat_server.images.intake import ImageInfo, Picture


class MemoryStore:
    """Keeps chats in memory.

    Args:
        max_chats: more forget the chat that was used longest ago; one with a running turn stays.
        max_picture_bytes: likewise, for the decoded pixels and the files of all kept pictures.
        max_turns_per_chat: a chat takes no more turns than this.
    """

    def __init__(
        self,
        *,
        max_chats: int = 10_000,
        max_picture_bytes: int = 1024**3,
        max_turns_per_chat: int = 10_000,
    ) -> None:
        self._max_chats = max_chats
        self._max_picture_bytes = max_picture_bytes
        self._max_turns_per_chat = max_turns_per_chat
        # The least recently used first.
        self._chats: OrderedDict[tuple[str, str], Chat] = OrderedDict()
        self._claims: dict[tuple[str, str], RequestClaim] = {}
        self._pictures: dict[tuple[str, str], Picture] = {}
        self._picture_users: dict[tuple[str, str], set[str]] = {}
        # By picture, then by the chat that brought the file; the first one first.
        self._originals: dict[tuple[str, str], dict[str, Picture]] = {}
        self._picture_bytes = 0

    async def begin_chat(
        self,
        chat: Chat,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """See `ChatStore.begin_chat`."""
        self._make_room(chat.tenant, pictures, more_chats=1, keep=chat.id)
        self._chats[chat.tenant, chat.id] = replace(chat, turns=(turn,))
        self._keep(chat.tenant, chat.id, pictures, claim)

    async def add_chat(self, chat: Chat, pictures: tuple[Picture, ...]) -> None:
        """See `ChatStore.add_chat`."""
        if len(chat.turns) > self._max_turns_per_chat:
            raise ChatFull(self._max_turns_per_chat)
        self._make_room(chat.tenant, pictures, more_chats=1, keep=chat.id)
        self._chats[chat.tenant, chat.id] = chat
        self._keep(chat.tenant, chat.id, pictures, None)

    async def begin_turn(
        self,
        tenant: str,
        chat_id: str,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """See `ChatStore.begin_turn`."""
        chat = self._find(tenant, chat_id)
        if _is_running(chat):
            raise TurnRunning
        if len(chat.turns) >= self._max_turns_per_chat:
            raise ChatFull(len(chat.turns))
        self._make_room(tenant, pictures, more_chats=0, keep=chat_id)
        self._chats[tenant, chat_id] = replace(
            chat, turns=(*chat.turns, turn), updated_at=max(chat.updated_at, turn.created_at)
        )
        self._keep(tenant, chat_id, pictures, claim)

    async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
        """See `ChatStore.finish_turn`."""
        chat = self._find(tenant, chat_id)
        if chat.turn(turn.id) is None:
            raise NotFound("turn", turn.id)
        turns = tuple(turn if kept.id == turn.id else kept for kept in chat.turns)
        updated_at = max(chat.updated_at, turn.finished_at or turn.created_at)
        self._chats[tenant, chat_id] = replace(chat, turns=turns, updated_at=updated_at)
        self._chats.move_to_end((tenant, chat_id))

    def explain_debt(self) -> StoreFull | StoreUnavailable:
        """See `ChatStore.explain_debt`. It owes none: an end takes no room of its own."""
        return StoreUnavailable(FULL_RETRY_SECONDS)

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_chat`."""
        return self._find(tenant, chat_id)

    async def get_opening(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_opening`."""
        chat = self._find(tenant, chat_id)
        return replace(chat, turns=chat.turns[:1])

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
        """See `ChatStore.get_branch`."""
        chat = self._find(tenant, chat_id)
        if turn_id is None:
            leaf = chat.latest_finished()
        elif (leaf := chat.turn(turn_id)) is None:
            raise NotFound("turn", turn_id)
        return replace(chat, turns=chat.branch(leaf.id if leaf else None))

    async def get_branch_ids(self, tenant: str, chat_id: str, turn_id: str) -> tuple[str, ...]:
        """See `ChatStore.get_branch_ids`."""
        return tuple(turn.id for turn in (await self.get_branch(tenant, chat_id, turn_id)).turns)

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """See `ChatStore.get_turn`."""
        turn = self._find(tenant, chat_id).turn(turn_id)
        if turn is None:
            raise NotFound("turn", turn_id)
        return turn

    async def list_chats(self, tenant: str, query: ChatQuery) -> ChatPage:
        """See `ChatStore.list_chats`."""
        chats = sorted(
            (chat for chat in self._chats.values() if _matches(chat, tenant, query)),
            key=_order,
            reverse=True,
        )
        return fill_page((chat.summarise() for chat in chats), query.limit)

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """See `ChatStore.delete_chat`."""
        self._find(tenant, chat_id)
        self._forget(tenant, chat_id)

    async def retire_chat(self, idle: IdleChat) -> bool:
        """See `ChatStore.retire_chat`."""
        chat = self._find(idle.tenant, idle.id)
        found = (idle.updated_at, idle.num_turns)
        if _is_running(chat) or found != (chat.updated_at, len(chat.turns)):
            return False
        self._forget(idle.tenant, idle.id)
        return True

    async def get_image(self, tenant: str, image_id: str) -> ImageInfo:
        """See `ChatStore.get_image`."""
        return self._find_picture(tenant, image_id).info

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """See `ChatStore.get_picture`."""
        return self._find_picture(tenant, image_id)

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_png`."""
        picture = await self.get_picture(tenant, image_id)
        return picture.info, await asyncio.to_thread(write_png, picture.pixels)

    async def get_original(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_original`."""
        for picture in self._originals.get((tenant, image_id), {}).values():
            return picture.info, picture.original or b""
        raise NotFound("original", image_id)

    async def find_claim(self, tenant: str, request_id: str) -> RequestClaim | None:
        """See `ChatStore.find_claim`."""
        return self._claims.get((tenant, request_id))

    def _find(self, tenant: str, chat_id: str) -> Chat:
        try:
            return self._chats[tenant, chat_id]
        except KeyError:
            raise NotFound("chat", chat_id) from None

    def _find_picture(self, tenant: str, image_id: str) -> Picture:
        try:
            return self._pictures[tenant, image_id]
        except KeyError:
            raise NotFound("image", image_id) from None

    def _keep(
        self,
        tenant: str,
        chat_id: str,
        pictures: Iterable[Picture],
        claim: RequestClaim | None,
    ) -> None:
        for picture in pictures:
            key = (tenant, picture.info.id)
            if key not in self._pictures:
                self._pictures[key] = replace(picture, original=None)
                self._picture_bytes += picture.num_bytes
            self._picture_users.setdefault(key, set()).add(chat_id)
            files = self._originals.get(key, {})
            if picture.original is not None and chat_id not in files:
                self._originals.setdefault(key, files)[chat_id] = picture
                self._picture_bytes += len(picture.original)
        if claim is not None:
            self._claims[tenant, claim.request_id] = claim
        self._chats.move_to_end((tenant, chat_id))

    def _make_room(
        self, tenant: str, pictures: tuple[Picture, ...], *, more_chats: int, keep: str
    ) -> None:
        """Forget what was used longest ago until this fits, and nothing where it can not fit."""
        new = {(tenant, picture.info.id): picture.num_bytes for picture in pictures}
        original_bytes = sum(len(picture.original or b"") for picture in pictures)
        if sum(new.values()) + original_bytes > self._max_picture_bytes:
            # Not in an empty store either: the chats need not be looked through.
            raise StoreFull(FULL_RETRY_SECONDS)
        num_bytes = self._picture_bytes + original_bytes
        num_bytes += sum(size for key, size in new.items() if key not in self._pictures)
        idle = (
            key for key, chat in self._chats.items() if key[1] != keep and not _is_running(chat)
        )
        going: dict[tuple[str, str], None] = {}
        while (
            len(self._chats) - len(going) + more_chats > self._max_chats
            or num_bytes > self._max_picture_bytes
        ):
            oldest = next(idle, None)
            if oldest is None:
                raise StoreFull(FULL_RETRY_SECONDS)
            going[oldest] = None
            num_bytes -= self._count_freed(oldest, going.keys(), new.keys())
        for key in going:
            self._forget(*key)

    def _count_freed(
        self,
        chat_key: tuple[str, str],
        going: Set[tuple[str, str]],
        coming: Set[tuple[str, str]],
    ) -> int:
        """Bytes that go with a chat, the last of `going`; pictures that are `coming` come back."""
        tenant, chat_id = chat_key
        num_bytes = 0
        for key in _picture_keys(self._chats[chat_key]):
            brought = self._originals.get(key, {}).get(chat_id)
            if brought is not None:
                num_bytes += len(brought.original or b"")
            is_last = all((tenant, user) in going for user in self._picture_users.get(key, ()))
            if is_last and key in self._pictures and key not in coming:
                num_bytes += self._pictures[key].num_bytes
        return num_bytes

    def _forget(self, tenant: str, chat_id: str) -> None:
        chat = self._chats.pop((tenant, chat_id))
        for key in _picture_keys(chat):
            brought = self._originals.get(key, {}).pop(chat_id, None)
            if brought is not None:
                self._picture_bytes -= len(brought.original or b"")
            users = self._picture_users.get(key, set())
            users.discard(chat_id)
            if not users and key in self._pictures:
                self._picture_bytes -= self._pictures.pop(key).num_bytes
                self._picture_users.pop(key, None)
                self._originals.pop(key, None)
        turn_ids = {turn.id for turn in chat.turns}
        stale = [key for key, claim in self._claims.items() if claim.turn_id in turn_ids]
        for key in stale:
            del self._claims[key]


def _order(chat: Chat) -> tuple[object, str]:
    return chat.updated_at, chat.id


def _is_running(chat: Chat) -> bool:
    return any(turn.state is TurnState.RUNNING for turn in chat.turns)


def _picture_keys(chat: Chat) -> set[tuple[str, str]]:
    """Of the pictures that its turns name."""
    return {(chat.tenant, image.id) for turn in chat.turns for image in turn.images}


def _matches(chat: Chat, tenant: str, query: ChatQuery) -> bool:
    after = query.after
    return (
        chat.tenant == tenant
        and query.labels.items() <= chat.labels.items()
        and (query.updated_since is None or chat.updated_at >= query.updated_since)
        and (query.updated_before is None or chat.updated_at < query.updated_before)
        and (after is None or (chat.updated_at, chat.id) < (after.updated_at, after.chat_id))
    )
