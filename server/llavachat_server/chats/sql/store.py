"""The store on a database. Contract: `store.ChatStore`.

Nothing here blocks the event loop: one thread writes, two read, and pixels are packed and
unpacked on theirs. It belongs to one event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from llavachat_server.chats.errors import StoreFull, StoreUnavailable
from llavachat_server.chats.pixels import read_png, write_png
from llavachat_server.chats.record import Chat, RequestClaim, Turn
from llavachat_server.chats.sql import reading, rows, writing
from llavachat_server.chats.sql.database import Database, NotOwned, is_away, is_full
from llavachat_server.chats.sql.originals import Original, read_original
from llavachat_server.chats.sql.reading import CutTurn
from llavachat_server.chats.sql.writer import NOT_NOW, Writer
from llavachat_server.chats.sql.writing import FULL_RETRY_SECONDS, PictureFiles, PictureMissing
from llavachat_server.chats.store import ChatPage, ChatQuery, IdleChat
from llavachat_server.images.intake import ImageInfo, Picture

T = TypeVar("T")

log = logging.getLogger("llavachat.store")

NUM_READERS = 2
GONE_RETRY_SECONDS = 2.0

READ_SECONDS = 20.0
"""The longest that a caller waits for what is read: a connection that is given up, and another."""

CLOSE_SECONDS = 10.0
"""For the last writes of a server that ends; systemd would not wait much longer."""


class SqlStore:
    """Keeps chats in a database.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.
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
        url: str,
        *,
        max_bytes: int | None = None,
        max_turns_per_chat: int = 10_000,
        tell_cut: Callable[[Sequence[CutTurn]], None] = lambda _: None,
    ) -> None:
        self._max_turns_per_chat = max_turns_per_chat
        self._database = Database(url, max_bytes=max_bytes)
        self._writer = Writer(self._database.writing, _translate)
        self._readers = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="store-reader")
        self.cut_turns = self._cancel_running(datetime.now(UTC), tell_cut)
        """Turns that ran when the process before this one died."""

    @property
    def lost(self) -> "Future[str]":
        """Done, with a sentence for the log, once the database is another server's.

        From then on nothing is written.
        """
        return self._database.lost

    def close(self) -> None:
        """Write what was given so far, and let go of the database. Blocks, but not for ever."""
        has_written = self._writer.close(CLOSE_SECONDS)
        if not has_written:
            log.error("the store is left as it is")
        self._readers.shutdown(wait=has_written, cancel_futures=not has_written)
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
            raise StoreFull(FULL_RETRY_SECONDS)
        loop = asyncio.get_running_loop()
        # Beforehand, because nobody else can write while the chat is written.
        turn_rows, build_rows = await loop.run_in_executor(self._readers, rows.whole_rows, chat)
        try:
            await self._write_with_pictures(
                chat.tenant,
                pictures,
                lambda connection, files: writing.add_whole_chat(
                    connection, chat, turn_rows, build_rows, files
                ),
            )
        except StoreUnavailable as error:
            # Its sender is told that nothing was kept, and does not know its id.
            self._erase_later(error, chat.tenant, chat.id)
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
            StoreFull: nothing more can be kept now; the end is kept as soon as it can be.
        """
        await self._write(
            lambda connection: writing.end_turn(connection, tenant, chat_id, turn), is_owed=True
        )

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """See `ChatStore.get_chat`."""
        return await self._read(lambda connection: reading.read_chat(connection, tenant, chat_id))

    async def list_chats(self, tenant: str, query: ChatQuery) -> ChatPage:
        """See `ChatStore.list_chats`."""
        page, mark = await self._read(
            lambda connection: reading.read_page(connection, tenant, query)
        )
        return ChatPage(page, mark)

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """See `ChatStore.delete_chat`."""
        try:
            await self._write(
                lambda connection: writing.erase_chat(connection, tenant, chat_id), makes_room=True
            )
        except StoreUnavailable as error:
            self._erase_later(error, tenant, chat_id)
            raise

    async def retire_chat(self, idle: IdleChat) -> bool:
        """See `ChatStore.retire_chat`."""
        return await self._write(
            lambda connection: writing.retire_chat(connection, idle), makes_room=True
        )

    async def get_picture(self, tenant: str, image_id: str) -> Picture:
        """See `ChatStore.get_picture`."""

        def read(connection: Connection) -> Picture:
            info, png = reading.read_png(connection, tenant, image_id)
            return Picture(info, read_png(png))

        return await self._read(read)

    async def get_png(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_png`."""
        return await self._read(lambda connection: reading.read_png(connection, tenant, image_id))

    async def get_original(self, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
        """See `ChatStore.get_original`."""
        return await self._read(lambda connection: read_original(connection, tenant, image_id))

    async def find_claim(self, tenant: str, request_id: str) -> RequestClaim | None:
        """See `ChatStore.find_claim`."""
        return await self._read(
            lambda connection: reading.read_claim(connection, tenant, request_id)
        )

    async def find_idle(self, before: datetime, limit: int) -> Sequence[IdleChat]:
        """See `retention.KeptChats.find_idle`."""
        return await self._read(lambda connection: reading.read_idle(connection, before, limit))

    async def count_bytes(self) -> int:
        """See `retention.KeptChats.count_bytes`."""
        return await self._read(reading.read_num_bytes)

    async def count_own_bytes(self, tenant: str, chat_id: str) -> int:
        """See `retention.KeptChats.count_own_bytes`."""
        return await self._read(
            lambda connection: reading.read_own_bytes(connection, tenant, chat_id)
        )

    def _erase_later(self, error: StoreUnavailable, tenant: str, chat_id: str) -> None:
        """See to it that a chat is not there, where nobody knows whether it is."""
        if error.may_be_done:
            self._writer.submit(
                lambda connection: writing.erase_chat(connection, tenant, chat_id), is_owed=True
            )

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
            known = await self._read(
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
        loop = asyncio.get_running_loop()
        return {
            picture.info.id: (
                picture.info,
                await loop.run_in_executor(self._readers, write_png, picture.pixels),
            )
            for picture in pictures
        }

    async def _hash_originals(self, pictures: Iterable[Picture]) -> dict[str, Original]:
        loop = asyncio.get_running_loop()
        return {
            picture.info.id: await loop.run_in_executor(
                self._readers, Original.of, picture.original
            )
            for picture in pictures
            if picture.original is not None
        }

    async def _write(
        self,
        work: Callable[[Connection], T],
        *,
        is_owed: bool = False,
        makes_room: bool = False,
    ) -> T:
        done = self._writer.submit(work, is_owed=is_owed, makes_room=makes_room)
        return await asyncio.wrap_future(done)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            try:
                with self._database.reading.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                raise _translate(error) from error

        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._readers, read)
        except TimeoutError:
            raise StoreUnavailable(GONE_RETRY_SECONDS) from None


def _translate(error: Exception) -> Exception:
    if isinstance(error, NotOwned):
        # Told by `lost`, for the server to end.
        return StoreUnavailable(GONE_RETRY_SECONDS)
    if not isinstance(error, DBAPIError):
        return error
    if is_full(error):
        return StoreFull(FULL_RETRY_SECONDS)
    if is_away(error):
        log.error("the store does not answer", exc_info=error)
        return StoreUnavailable(GONE_RETRY_SECONDS)
    return error
