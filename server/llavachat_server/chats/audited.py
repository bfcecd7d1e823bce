"""A store that leaves an audit record of what happens to chats.

Contract: as the store within; and a turn's end and a chat's erasure are in the audit record
before the caller is told; the line of an erasure that finds no room there follows once there is
some, be it in the next process where the store keeps erasures until they are settled. What the
lines tell is `audit_lines`'. Nothing in a record is ever erased.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llavachat_server.chats.audit import AuditLog
from llavachat_server.chats.audit_lines import (
    describe_erasure,
    describe_import,
    describe_turn,
)
from llavachat_server.chats.errors import (
    ChatError,
    NotFound,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
)
from llavachat_server.chats.record import Chat, RequestClaim, Turn
from llavachat_server.chats.store import (
    FULL_RETRY_SECONDS,
    ChatPage,
    ChatQuery,
    ChatStore,
    IdleChat,
)
from llavachat_server.chats.tombstones import ChatName
from llavachat_server.images.intake import ImageInfo, Picture


class AuditedStore:
    """Keeps chats in `store`, and an account of them in `log`.

    Args:
        store: keeps.
        log: the audit record.
        with_content: write questions, answers, system prompts and ids of requests as well, not
            hashes alone.
        settle: gets erased chats whose lines are on the disk.
    """

    def __init__(
        self,
        store: ChatStore,
        log: AuditLog,
        *,
        with_content: bool = False,
        settle: Callable[[Collection[ChatName]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._log = log
        self._with_content = with_content
        self._settle = settle
        # Erased chats whose lines found no room, or were not waited for.
        self._unsettled: set[ChatName] = set()
        # Of turns that run, by their ids.
        self._asked: dict[str, _Asked] = {}
        # Ends whose record found no room.
        self._held: list[tuple[str, str, Turn]] = []
        # Chats that may have been retired.
        self._doubtful: set[ChatName] = set()
        self._keeping = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None

    def record_erasures(self, erased: Mapping[ChatName, datetime]) -> None:
        """Leave the tombstones that a process before this one did not live to leave. Blocks.

        Those that find no room are written once there is some.
        """
        lines = [self._log.append(describe_erasure(*name, time)) for name, time in erased.items()]
        try:
            for line in lines:
                line.result()
        except OSError:
            self._unsettled.update(erased)
        else:
            self._settle(erased)

    def settle_late(self) -> None:
        """Settle what the record has by now; nobody writes any more. Blocks."""
        # What still finds no room is the next process's to leave.
        with suppress(OSError):
            self._log.catch_up().result()
            self._settle(self._unsettled)

    async def begin_chat(
        self,
        chat: Chat,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """See `ChatStore.begin_chat`."""
        await self._catch_up()
        with self._remembering(turn, _Asked.of(claim, chat)):
            await self._store.begin_chat(chat, turn, pictures, claim)

    async def add_chat(self, chat: Chat, pictures: tuple[Picture, ...]) -> None:
        """See `ChatStore.add_chat`; the record is written first.

        So no imported chat is ever kept without its line; that of a chat that could not be kept, or
        whose caller is gone, is followed by its tombstone, also where the line found no room at
        once: it comes all the same.
        """
        try:
            await self._append(describe_import(chat, with_content=self._with_content))
            await self._store.add_chat(chat, pictures)
        except asyncio.CancelledError:
            # Not awaited: whoever is cancelled twice would leave the line alone.
            self._log.append(describe_erasure(chat.tenant, chat.id))
            self._unsettled.add((chat.tenant, chat.id))
            raise
        except Exception:
            await self._bury(chat.tenant, chat.id)
            raise

    async def begin_turn(
        self,
        tenant: str,
        chat_id: str,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """See `ChatStore.begin_turn`."""
        await self._catch_up()
        # Looked up where it is to be told alone: it costs a read.
        chat = await self._store.get_opening(tenant, chat_id) if self._with_content else None
        with self._remembering(turn, _Asked.of(claim, chat)):
            await self._store.begin_turn(tenant, chat_id, turn, pictures, claim)

    async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
        """See `ChatStore.finish_turn`; the record is written first, be the chat there or not.

        Otherwise a server that dies in between would leave an ended turn without its record, and
        tell it to who asks again. So the end is not kept as long as its record finds no room.
        """
        asked = self._asked.pop(turn.id, _Asked())
        record = describe_turn(
            tenant,
            chat_id,
            turn,
            asked.request_id,
            asked.system_prompt,
            with_content=self._with_content,
        )
        try:
            await self._append(record)
        except StoreFull:
            self._held.append((tenant, chat_id, turn))
            self._retry_later()
            raise
        await self._store.finish_turn(tenant, chat_id, turn)

    def explain_debt(self) -> StoreFull | StoreUnavailable | StoreDamaged:
        """See `ChatStore.explain_debt`; or its record finds no room."""
        if self._held or self._log.is_behind:
            return StoreFull(FULL_RETRY_SECONDS)
        return self._store.explain_debt()

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_chat`."""
        return await self._store.get_chat(tenant, chat_id)

    async def get_opening(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_opening`."""
        return await self._store.get_opening(tenant, chat_id)

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
        """See `ChatStore.get_branch`."""
        return await self._store.get_branch(tenant, chat_id, turn_id)

    async def get_branch_ids(self, tenant: str, chat_id: str, turn_id: str) -> tuple[str, ...]:
        """See `ChatStore.get_branch_ids`."""
        return await self._store.get_branch_ids(tenant, chat_id, turn_id)

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """See `ChatStore.get_turn`."""
        return await self._store.get_turn(tenant, chat_id, turn_id)

    async def list_chats(self, tenant: str, query: ChatQuery) -> ChatPage:
        """See `ChatStore.list_chats`."""
        return await self._store.list_chats(tenant, query)

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """See `ChatStore.delete_chat`; a tombstone stays in the record.

        Whether or not it finds room at once: the chat is gone, and a refusal would say that it is
        not.
        """
        try:
            await self._store.delete_chat(tenant, chat_id)
        except StoreUnavailable as error:
            if error.may_be_done:
                await self._bury(tenant, chat_id)
            raise
        await self._bury(tenant, chat_id)

    async def retire_chat(self, idle: IdleChat) -> bool:
        """See `ChatStore.retire_chat`; a tombstone stays, as that of `delete_chat` does.

        Where the store does not know whether it erased the chat, it is looked for until that is
        known: a chat that is still there may have been used meanwhile, and stays.
        """
        try:
            is_erased = await self._store.retire_chat(idle)
        except StoreUnavailable as error:
            if error.may_be_done:
                self._doubtful.add((idle.tenant, idle.id))
                self._retry_later()
            raise
        if is_erased:
            await self._bury(idle.tenant, idle.id)
        return is_erased

    async def get_image(self, tenant: str, image_id: str) -> ImageInfo:
        """See `ChatStore.get_image`."""
        return await self._store.get_image(tenant, image_id)

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """See `ChatStore.get_picture`."""
        return await self._store.get_picture(tenant, image_id)

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_png`."""
        return await self._store.get_png(tenant, image_id)

    async def get_original(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_original`."""
        return await self._store.get_original(tenant, image_id)

    async def find_claim(self, tenant: str, request_id: str) -> RequestClaim | None:
        """See `ChatStore.find_claim`; a repeat is not told either before its record is written."""
        await self._catch_up()
        return await self._store.find_claim(tenant, request_id)

    @contextmanager
    def _remembering(self, turn: Turn, asked: "_Asked") -> Iterator[None]:
        """Keep how a turn was asked for the record of its end, if the turn is kept or may be."""
        try:
            yield
        except StoreUnavailable as error:
            if not error.may_be_done:
                raise
            self._asked[turn.id] = asked
            raise
        self._asked[turn.id] = asked

    async def _catch_up(self) -> None:
        """Refuse what would add to a record that has no room; keep the ends that waited for it."""
        if self._log.is_behind or self._unsettled:
            late = frozenset(self._unsettled)
            await self._wait_for(self._log.catch_up())
            self._settle(late)
            self._unsettled -= late
        async with self._keeping:
            while self._held:
                with suppress(ChatError):  # what finds no room now is the store's to keep later
                    try:
                        await self._store.finish_turn(*self._held[0])
                    except Exception:
                        del self._held[0]
                        raise
                    # Not before: whoever is cancelled in this leaves it to the next one.
                    del self._held[0]

    async def _bury(self, tenant: str, chat_id: str) -> None:
        """Leave a tombstone; where it finds no room, it is written once there is some."""
        self._doubtful.discard((tenant, chat_id))
        try:
            await self._append(describe_erasure(tenant, chat_id))
        except StoreFull:
            self._unsettled.add((tenant, chat_id))
            self._retry_later()
        else:
            self._settle({(tenant, chat_id)})

    def _retry_later(self) -> None:
        if self._retry is None or self._retry.done():
            self._retry = asyncio.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        while self._held or self._log.is_behind or self._unsettled or self._doubtful:
            await asyncio.sleep(FULL_RETRY_SECONDS)
            with suppress(StoreFull):
                await self._catch_up()
            with suppress(ChatError):
                await self._look_for_doubtful()

    async def _look_for_doubtful(self) -> None:
        for tenant, chat_id in tuple(self._doubtful):
            try:
                await self._store.get_opening(tenant, chat_id)
            except NotFound:
                # Unless its owner has erased it meanwhile, whose tombstone is there.
                if (tenant, chat_id) in self._doubtful:
                    await self._bury(tenant, chat_id)
            self._doubtful.discard((tenant, chat_id))

    async def _append(self, record: Mapping[str, Any]) -> None:
        await self._wait_for(self._log.append(record))

    async def _wait_for(self, written: "Future[None]") -> None:
        try:
            await asyncio.wrap_future(written)
        except OSError as error:
            raise StoreFull(FULL_RETRY_SECONDS) from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a turn's end does not tell of its question; "" and None for none."""

    request_id: str = ""
    system_prompt: str | None = None

    @classmethod
    def of(cls, claim: RequestClaim | None, chat: Chat | None) -> "_Asked":
        return cls(
            "" if claim is None else claim.request_id, None if chat is None else chat.system_prompt
        )
