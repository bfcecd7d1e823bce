"""Imports whose callers are gone: nothing of them stays, and the audit record says so."""

import asyncio
import itertools
import threading
import types
from asyncio import wrap_future
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from audit_records import read
from held_writer import hold_writer
from llavachat_server.chats.audit import AuditLog
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import TooManyAtOnce
from llavachat_server.chats.importer import Importer, PictureFile
from llavachat_server.chats.record import Chat
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.images.intake import ImageLimits, Intake
from scripted_engine import NUM_IMAGE_TOKENS, shapes_prompts
from store_records import end, make_chat, make_turn


async def tell_waits(work: Coroutine[Any, Any, Any], tell: Callable[[Any], None]) -> Any:
    """Do a work, and tell of whatever it waits for."""
    return await _pass_waits(work, tell)


@types.coroutine
def _pass_waits(
    work: Coroutine[Any, Any, Any], tell: Callable[[Any], None]
) -> Generator[Any, Any, Any]:
    send, value = work.send, None
    while True:
        try:
            awaited = send(value)
        except StopIteration as done:
            return done.value
        tell(awaited)
        try:
            send, value = work.send, (yield awaited)
        except BaseException as error:
            send, value = work.throw, error


async def no_files() -> AsyncIterator[PictureFile]:
    """A chat without pictures."""
    for data in ():
        yield data


class Imports:
    """Imports into a store on SQLite with an audit record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audit"
        self.store, self.log = SqlStore(f"sqlite:///{folder}/chats.db"), AuditLog(self.folder)
        self._importer = Importer(
            AuditedStore(self.store, self.log),
            Intake(ImageLimits()),
            shapes_prompts(),
            NUM_IMAGE_TOKENS,
            max_bytes=1000,
        )

    def take(self, read: Callable[[], Chat] | None = None) -> Coroutine[Any, Any, Chat]:
        """Take a chat in."""
        chat = make_chat(turns=(end(make_turn()),))
        return self._importer.take(chat.tenant, read or (lambda: chat), no_files())

    async def leave(self, place: int, num_between: int, *, is_late: bool) -> bool:
        """Take a chat in whose caller is cancelled where it waits, and cancelled again.

        Args:
            place: how many waits are left alone before.
            num_between: turns of the event loop between the two.
            is_late: cancelled only once what it waits for is done.

        Returns:
            Whether it waited so often.
        """
        loop, num_waits, is_left = asyncio.get_running_loop(), 0, asyncio.Event()

        def cancel_again(num_left: int) -> None:
            if num_left:
                loop.call_soon(cancel_again, num_left - 1)
                return
            taking.cancel()
            is_left.set()

        def cancel(_: object = None) -> None:
            taking.cancel()
            loop.call_soon(cancel_again, num_between)

        def tell(awaited: Any) -> None:
            nonlocal num_waits
            num_waits += 1
            if num_waits - 1 != place:
                return
            if is_late and awaited is not None:
                awaited.add_done_callback(cancel)
            else:
                loop.call_soon(cancel)

        taking: asyncio.Task[Chat] = asyncio.create_task(tell_waits(self.take(), tell))
        # A writing that waits in the line is another than one that was done.
        async with nullcontext() if is_late else hold_writer(self.store):
            leaving = asyncio.create_task(is_left.wait())
            await asyncio.wait({leaving, taking}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        await asyncio.wait({taking})
        assert taking.cancelled() == is_left.is_set()
        return is_left.is_set()

    async def settle(self) -> None:
        """Wait for what was given to the writers."""
        await asyncio.wrap_future(self.store._writer.submit(lambda _: None))
        await asyncio.wrap_future(self.log.catch_up())

    def close(self) -> None:
        """Let go of all."""
        self._importer.close()
        self.store.close()
        self.log.close()


def wrap_and_wait(future: "Future[Any]") -> "asyncio.Future[Any]":
    """`asyncio.wrap_future` as it was before Python 3.14: also what is done is waited for."""
    loop = asyncio.get_running_loop()
    wrapped = wrap_future(future, loop=loop)
    if not wrapped.done():
        return wrapped
    waiting = loop.create_future()

    def tell() -> None:
        if waiting.done():
            return
        if (error := wrapped.exception()) is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(wrapped.result())

    loop.call_soon(tell)
    return waiting


@pytest.fixture
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imports]:
    """A store of its own; however quick its threads are, there are as many waits."""
    for module in (asyncio, asyncio.futures):
        monkeypatch.setattr(
            module, "wrap_future", lambda future, *, loop=None: wrap_and_wait(future)
        )
    imports = Imports(tmp_path)
    yield imports
    imports.close()


@pytest.mark.parametrize("num_between", range(4))
@pytest.mark.parametrize("is_late", [False, True])
async def test_an_import_whose_caller_is_gone_leaves_nothing(
    imports: Imports, num_between: int, *, is_late: bool
) -> None:
    """Wherever it is left, and however soon it is cancelled again: no chat, and a tombstone."""
    num_waits = 0

    def count(_: object) -> None:
        nonlocal num_waits
        num_waits += 1

    kept = await tell_waits(imports.take(), count)
    for place in range(num_waits):
        assert await imports.leave(place, num_between, is_late=is_late), place
    await imports.settle()
    page = await imports.store.list_chats("ada", ChatQuery())
    assert [kept.id] == [chat.id for chat in page.chats]
    lines = [(line["event"], line["chat_id"]) for line in read(imports.folder)]
    begun = [chat_id for event, chat_id in lines if event == "imported"]
    assert len(begun) > 1
    assert [("imported", kept.id)] + [
        line for chat_id in begun[1:] for line in (("imported", chat_id), ("erased", chat_id))
    ] == lines


async def test_a_chat_is_not_read_before_its_import_has_a_place(imports: Imports) -> None:
    """What reading takes, nobody can have taken many times at once."""
    is_read, goes_on, num_read = asyncio.Event(), threading.Event(), itertools.count()
    loop = asyncio.get_running_loop()

    def read() -> Chat:
        next(num_read)
        loop.call_soon_threadsafe(is_read.set)
        goes_on.wait()
        return make_chat(turns=(end(make_turn()),))

    first = asyncio.create_task(imports.take(read))
    try:
        await is_read.wait()
        for _ in range(3):
            with pytest.raises(TooManyAtOnce, match="one import of a tenant is taken in at a time"):
                await imports.take(read)
    finally:
        goes_on.set()
    assert await first
    assert 1 == next(num_read)
