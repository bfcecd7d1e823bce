"""The store on a database. Contract: `store.ChatStore`.

Nothing here blocks the event loop: one thread writes, a few read (`lanes`), and others pack and
unpack pixels and make rows. It belongs to one event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from llavachat_server.chats.errors import ChatFull, StoreDamaged, StoreFull, StoreUnavailable
from llavachat_server.chats.pixels import DamagedPixels, read_png, write_png
from llavachat_server.chats.record import Chat, RequestClaim, Turn
from llavachat_server.chats.sql import reading, rows, writing
from llavachat_server.chats.sql.checkpoints import Checkpoints
from llavachat_server.chats.sql.database import Database
from llavachat_server.chats.sql.erasures import Erasures
from llavachat_server.chats.sql.lanes import Lanes
from llavachat_server.chats.sql.meaning import translate
from llavachat_server.chats.sql.originals import Original, count_original_bytes, read_original
from llavachat_server.chats.sql.outage import Outage
from llavachat_server.chats.sql.reading import SHORT_BYTES, SHORT_CHATS, SHORT_TURNS, CutTurn
from llavachat_server.chats.sql.writer import NOT_NOW, Writer
from llavachat_server.chats.sql.writing import PictureFiles, PictureMissing
from llavachat_server.chats.store import ChatPage, ChatQuery, IdleChat
from llavachat_server.images.intake import ImageInfo, Picture

A = TypeVar("A")
T = TypeVar("T")

log = logging.getLogger("llavachat.store")

NUM_PACKERS = 2
"""Threads that compute; nobody who reads waits for them."""

CLOSE_SECONDS = 10.0
"""For the last writes of a server that ends; systemd would not wait much longer."""


class SqlStore:
    """Keeps chats in a database.

    Args:
        url: see `Database`.
        max_bytes: the most that an SQLite file may take; None: what the disk holds.
        max_turns_per_chat: a chat takes no more turns than this.
        tell_cut: gets the turns that ran when the process before this one died, before they are
            ended, in another thread; it may raise StoreFull to have them ended later, and is then
            called again.

    Raises:
        StoreError: it can not be opened. Opening blocks; do it before serving.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        max_bytes: int | None = None,
        max_turns_per_chat: int = 10_000,
        tell_cut: Callable[[Sequence[CutTurn]], None] = lambda _: None,
    ) -> None:
        self._max_turns_per_chat = max_turns_per_chat
        self._database = Database(url, max_bytes=max_bytes)
        outage = Outage()
        self._writer = Writer(
            self._database.writing,
            partial(translate, partial(outage.note_failure, "writing")),
            partial(outage.note_answer, "writing"),
        )
        self._lanes = Lanes(
            self._database.reading,
            partial(translate, partial(outage.note_failure, "reading")),
            partial(outage.note_answer, "reading"),
        )
        self.erasures = Erasures(self._database, self._writer)
        """What was erased and may not be in the audit record."""
        self._packers = ThreadPoolExecutor(NUM_PACKERS, thread_name_prefix="store-packer")
        self._checkpoints: Checkpoints | None = None
        if self._database.is_sqlite:
            path = Path(self._database.url.database or "")
            self._checkpoints = Checkpoints(path, self._writer.submit_aside)
            if self._database.had_log:
                # Its server may have been killed just after an erasure.
                self._checkpoints.note_erasure()
        try:
            self.cut_turns = self._cancel_running(datetime.now(UTC), tell_cut)
            """Turns that ran when the process before this one died."""
        except (DBAPIError, StoreDamaged) as error:
            self.close()
            raise self._database.refuse(error) from error

    @property
    def lost(self) -> "Future[str]":
        """Done, with a sentence for the log, once the database is another server's.

        From then on nothing is written.
        """
        return self._database.lost

    def close(self) -> None:
        """Write what was given so far, and let go of the database. Blocks, but not for ever."""
        if self._checkpoints is not None:
            self._checkpoints.stop()
        self.erasures.remove_settled(is_last=True)
        has_written = self._writer.close(CLOSE_SECONDS)
        if not has_written:
            log.error("the store is left as it is")
        elif self._checkpoints is not None:
            self._checkpoints.join(CLOSE_SECONDS)
        self._lanes.close(waits=has_written)
        self._packers.shutdown(wait=has_written, cancel_futures=not has_written)
        self._database.close()

    def _cancel_running(
        self, now: datetime, tell_cut: Callable[[Sequence[CutTurn]], None]
    ) -> tuple[CutTurn, ...]:
        with self._database.reading.begin() as connection:
            cut = reading.read_running(connection)

        def cancel(connection: Connection) -> None:
            # Told first: who dies in between finds them running again, and tells once more.
            tell_cut(cut)
            writing.cancel_running(connection, now)

        if cut:
            # A full disk does not keep the server from answering what needs no room. Nothing else
            # is written before this.
            with suppress(*NOT_NOW):
                self._writer.submit(cancel, is_owed=True).result()
        return cut

    async def begin_chat(
        self,
        chat: Chat,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """See `ChatStore.begin_chat`."""
        await self._write_with_pictures(
            chat.tenant,
            pictures,
            lambda connection, files: writing.add_chat(connection, chat, turn, files, claim),
        )

    async def add_chat(self, chat: Chat, pictures: tuple[Picture, ...]) -> None:
        """See `ChatStore.add_chat`."""
        if len(chat.turns) > self._max_turns_per_chat:
            raise ChatFull(self._max_turns_per_chat)
        # Beforehand, because nobody else can write while the chat is written.
        turn_rows, build_rows = await self._compute(rows.whole_rows, chat)
        try:
            await self._write_with_pictures(
                chat.tenant,
                pictures,
                lambda connection, files: writing.add_whole_chat(
                    connection, chat, turn_rows, build_rows, files
                ),
            )
        except asyncio.CancelledError:
            # Behind the writing, which may have begun. Nothing is awaited here, so that a second
            # cancellation changes nothing, and a store that is closed now still does it.
            self._erase_later(chat.tenant, chat.id)
            raise
        except StoreUnavailable as error:
            # Its sender is told that nothing was kept, and does not know its id.
            if error.may_be_done:
                self._erase_later(chat.tenant, chat.id)
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
        await self._write_with_pictures(
            tenant,
            pictures,
            lambda connection, files: writing.add_turn(
                connection, tenant, chat_id, turn, files, claim, self._max_turns_per_chat
            ),
        )

    async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
        """See `ChatStore.finish_turn`.

        Raises:
            StoreFull, StoreUnavailable, StoreDamaged: not now; the end is kept once it can be.
        """
        await self._write(
            lambda connection: writing.end_turn(connection, tenant, chat_id, turn), is_owed=True
        )

    def explain_debt(self) -> StoreFull | StoreUnavailable | StoreDamaged:
        """See `ChatStore.explain_debt`."""
        return self._writer.owed_refusal

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_chat`."""
        return await self._read_by_turns(tenant, chat_id, reading.read_chat)

    async def get_opening(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_opening`."""
        return await self._lanes.read(
            lambda connection: reading.read_opening(connection, tenant, chat_id)
        )

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
        """See `ChatStore.get_branch`."""
        return await self._read_by_turns(
            tenant,
            chat_id,
            lambda connection, tenant, chat_id: reading.read_branch(
                connection, tenant, chat_id, turn_id
            ),
        )

    async def get_branch_ids(self, tenant: str, chat_id: str, turn_id: str) -> tuple[str, ...]:
        """See `ChatStore.get_branch_ids`."""
        return await self._read_by_turns(
            tenant,
            chat_id,
            lambda connection, tenant, chat_id: reading.read_branch_ids(
                connection, tenant, chat_id, turn_id
            ),
        )

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """See `ChatStore.get_turn`."""
        return await self._lanes.read(
            lambda connection: reading.read_turn(connection, tenant, chat_id, turn_id)
        )

    async def list_chats(self, tenant: str, query: ChatQuery) -> ChatPage:
        """See `ChatStore.list_chats`."""
        return await self._lanes.read_by_size(
            tenant,
            lambda _: query.limit <= SHORT_CHATS,
            lambda connection: reading.read_page(connection, tenant, query),
        )

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """See `ChatStore.delete_chat`."""
        try:
            await self._write(
                self._erasing(lambda connection: writing.erase_chat(connection, tenant, chat_id)),
                makes_room=True,
            )
        except StoreFull as error:
            raise replace(error, is_erasing=True) from error
        except StoreUnavailable as error:
            if error.may_be_done:
                self._erase_later(tenant, chat_id)
            raise

    async def retire_chat(self, idle: IdleChat) -> bool:
        """See `ChatStore.retire_chat`."""
        return await self._write(
            self._erasing(lambda connection: writing.retire_chat(connection, idle)),
            makes_room=True,
        )

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """See `ChatStore.get_picture`."""

        info, png = await self.get_png(tenant, image_id)
        try:
            return Picture(info, await self._compute(read_png, png))
        except DamagedPixels as error:
            fields = {"image_id": image_id, "why": str(error)}
            log.error("the store is damaged", extra={"fields": fields})
            raise StoreDamaged(f"the picture {image_id}") from error

    async def get_image(self, tenant: str, image_id: str) -> ImageInfo:
        """See `ChatStore.get_image`."""
        return await self._lanes.read(
            lambda connection: reading.read_image(connection, tenant, image_id)
        )

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_png`."""
        return await self._lanes.read_by_size(
            tenant,
            lambda connection: reading.count_png_bytes(connection, tenant, image_id) <= SHORT_BYTES,
            lambda connection: reading.read_png(connection, tenant, image_id),
        )

    async def get_original(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_original`."""
        return await self._lanes.read_by_size(
            tenant,
            lambda connection: count_original_bytes(connection, tenant, image_id) <= SHORT_BYTES,
            lambda connection: read_original(connection, tenant, image_id),
        )

    async def find_claim(self, tenant: str, request_id: str) -> RequestClaim | None:
        """See `ChatStore.find_claim`."""
        return await self._lanes.read(
            lambda connection: reading.read_claim(connection, tenant, request_id)
        )

    async def find_idle(self, before: datetime, limit: int) -> Sequence[IdleChat]:
        """See `retention.KeptChats.find_idle`."""
        return await self._lanes.read(
            lambda connection: reading.read_idle(connection, before, limit)
        )

    async def count_bytes(self) -> int:
        """See `retention.KeptChats.count_bytes`."""
        return await self._lanes.read(reading.read_num_bytes)

    async def count_own_bytes(self, tenant: str, chat_id: str) -> int:
        """See `retention.KeptChats.count_own_bytes`."""
        return await self._lanes.read(
            lambda connection: reading.read_own_bytes(connection, tenant, chat_id)
        )

    def _erase_later(self, tenant: str, chat_id: str) -> None:
        """See to it that a chat is not there, where nobody knows whether it is."""
        self._writer.submit(
            self._erasing(lambda connection: writing.erase_chat(connection, tenant, chat_id)),
            is_owed=True,
        )

    def _erasing(self, work: Callable[[Connection], T]) -> Callable[[Connection], T]:
        """A work after which what was erased goes out of the write-ahead log as well."""
        self.erasures.remove_settled()

        def erase(connection: Connection) -> T:
            done = work(connection)
            # Not committed yet; the log is cut behind that, on the same thread.
            if self._checkpoints is not None:
                self._checkpoints.note_erasure()
            return done

        return erase

    async def _write_with_pictures(
        self,
        tenant: str,
        pictures: tuple[Picture, ...],
        work: Callable[[Connection, PictureFiles], None],
    ) -> None:
        """Write, with those of the pictures packed that are not kept yet."""
        by_id = {picture.info.id: picture for picture in pictures}
        known: set[str] = set()
        if by_id:
            known = await self._lanes.read(
                lambda connection: reading.read_known_ids(connection, tenant, set(by_id))
            )
        new = [by_id[image_id] for image_id in by_id if image_id not in known]
        originals = await self._hash_originals(by_id.values())
        files = PictureFiles(await self._pack(new), originals)
        try:
            await self._write(lambda connection: work(connection, files))
        except PictureMissing:
            # Erased with another chat, just now.
            files = PictureFiles(await self._pack(by_id.values()), originals)
            await self._write(lambda connection: work(connection, files))

    async def _pack(self, pictures: Iterable[Picture]) -> dict[str, tuple[ImageInfo, bytes]]:
        return {
            picture.info.id: (picture.info, await self._compute(write_png, picture.pixels))
            for picture in pictures
        }

    async def _hash_originals(self, pictures: Iterable[Picture]) -> dict[str, Original]:
        return {
            picture.info.id: await self._compute(Original.of, picture.original)
            for picture in pictures
            if picture.original is not None
        }

    async def _compute(self, work: Callable[[A], T], value: A) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._packers, work, value)

    async def _write(
        self,
        work: Callable[[Connection], T],
        *,
        is_owed: bool = False,
        makes_room: bool = False,
    ) -> T:
        done = self._writer.submit(work, is_owed=is_owed, makes_room=makes_room)
        return await asyncio.wrap_future(done)

    async def _read_by_turns(
        self, tenant: str, chat_id: str, work: Callable[[Connection, str, str], T]
    ) -> T:
        """Read a chat, or much of it: the more turns it has, the longer that takes."""
        return await self._lanes.read_by_size(
            tenant,
            lambda connection: reading.count_turns(connection, tenant, chat_id) <= SHORT_TURNS,
            lambda connection: work(connection, tenant, chat_id),
        )
