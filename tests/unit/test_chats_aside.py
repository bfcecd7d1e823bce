"""Work on long chats, which nobody else waits for."""

import threading
from typing import Any

import pytest
from chat_room import TENANT, Room
from llavachat_server.chats.question import Place, Question
from llavachat_server.engine.prompt import PromptBuilder


async def test_turns_are_tokenised_anew_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others would wait for is done in a thread; what has its ids is counted at once."""
    room = Room()
    chat_id = await room.start()
    threads: list[int] = []
    count_turn = PromptBuilder.count_turn

    def count(*parts: Any) -> int:
        threads.append(threading.get_ident())
        return count_turn(*parts)

    monkeypatch.setattr(PromptBuilder, "count_turn", count)
    here = threading.get_ident()
    await room.go_on(chat_id)
    await room.turns.count(TENANT, Question(Place(chat_id), "And?"))
    assert {here} == set(threads)
    threads.clear()
    monkeypatch.setattr(PromptBuilder, "tokenizer_sha256", "b" * 64)
    await room.go_on(chat_id)
    await room.turns.count(TENANT, Question(Place(chat_id), "And?"))
    assert threads
    assert here not in threads
