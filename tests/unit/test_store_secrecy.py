"""Another tenant's things cost the database what unknown ones do: nobody can tell by the time.

A clock would make this a matter of luck; the statements that are run, and how many rows come of
them, are what the time depends on.
"""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.sql.store import SqlStore
from sqlalchemy import Engine, event
from store_records import make_chat, make_picture, make_turn

UNKNOWN_CHAT = "0" * 32
UNKNOWN_IMAGE = "0" * 64

Ask = Callable[[str, str], Awaitable[Any]]


@pytest.fixture
def statements() -> Iterator[list[tuple[str, int]]]:
    """Every statement that is run from now on, with the number of rows that it changed."""
    seen: list[tuple[str, int]] = []

    def note(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        seen.append((statement, cursor.rowcount))

    event.listen(Engine, "after_cursor_execute", note)
    yield seen
    event.remove(Engine, "after_cursor_execute", note)


async def test_another_tenants_thing_takes_the_path_of_an_unknown_one(
    tmp_path: Path, statements: list[tuple[str, int]]
) -> None:
    """The same statements, in the same order, to the same refusal."""
    store = SqlStore(f"sqlite:///{tmp_path}/chats.db")
    picture, chat = make_picture(1), make_chat()
    await store.begin_chat(chat, make_turn(images=(picture.info,)), (picture,), None)

    cases: list[tuple[Ask, str, str]] = [
        (store.get_chat, chat.id, UNKNOWN_CHAT),
        (store.delete_chat, chat.id, UNKNOWN_CHAT),
        (store.get_picture, picture.info.id, UNKNOWN_IMAGE),
        (store.get_png, picture.info.id, UNKNOWN_IMAGE),
        (
            lambda tenant, chat_id: store.begin_turn(tenant, chat_id, make_turn(), (), None),
            chat.id,
            UNKNOWN_CHAT,
        ),
    ]
    for ask, hers, nobodys in cases:
        paths = []
        for wanted in (hers, nobodys):
            statements.clear()
            with pytest.raises(NotFound):
                await ask("bob", wanted)
            paths.append(list(statements))
        assert paths[0]
        assert paths[1] == paths[0]
    assert chat.id == (await store.get_chat("ada", chat.id)).id
    store.close()
