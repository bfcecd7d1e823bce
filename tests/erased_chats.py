"""Chats that were erased since a copy of them was made: shared by the tests of what restores it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit_records import read
from llavachat_server.__main__ import main
from llavachat_server.chats.audit import verify
from llavachat_server.chats.sql.backup import back_up
from llavachat_server.chats.store import ChatQuery, ChatStore
from llavachat_server.settings import load
from llavachat_server.stores import open_store
from store_records import make_chat, make_picture, make_turn


class ErasedChats:
    """A folder with three chats, a copy of it, and two of them erased since.

    Args:
        folder: for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder / "state", folder / "of-before"
        # Used long before they are erased, whatever this machine's clock says.
        self.chats = [make_chat(tenant, minutes=-(10**7)) for tenant in ("ada", "bob", "ada")]

    async def make(self) -> None:
        """Keep, copy, erase."""
        with self.opened() as store:
            for chat in self.chats:
                picture = make_picture(len(chat.tenant))
                turn = make_turn("Is it a canary?", images=(picture.info,))
                await store.begin_chat(chat, turn, (picture,), None)
            assert 3 == back_up(self.folder / "chats.db", self.copy)
            for chat in self.chats[:2]:
                await store.delete_chat(chat.tenant, chat.id)

    @contextmanager
    def opened(self, *more: str) -> Iterator[ChatStore]:
        """What a server would use."""
        flags = ("--store", "sqlite", "--state-folder", str(self.folder))
        opened = open_store(load([*flags, *more]))
        try:
            yield opened.store
        finally:
            opened.close()

    async def list_ids(self, *more: str) -> set[str]:
        """Of all chats that are there."""
        with self.opened(*more) as store:
            pages = [await store.list_chats(tenant, ChatQuery(9)) for tenant in ("ada", "bob")]
        return {chat.id for page in pages for chat in page.chats}

    def restore(self, *words: str, copy: Path | None = None) -> int:
        """The command."""
        flags = ("--state-folder", str(self.folder))
        return main(["store", "restore", str(copy or self.copy), *flags, *words])

    def read_last_words(self) -> dict[str, str]:
        """What the record says last of chats that were ever erased."""
        assert verify(self.folder / "audit").fault is None
        lines = read(self.folder / "audit")
        said = [line for line in lines if line["event"] in ("erased", "restored")]
        return {str(line["chat_id"]): str(line["event"]) for line in said}
