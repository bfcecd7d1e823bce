"""Work on long chats, which nobody else waits for."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from chat_room import TENANT, Room
from llavachat_server.chats.aside import Aside
from llavachat_server.chats.question import NewChat, Place, Question
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


async def test_long_questions_are_tokenised_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a thousand characters is not; the instruction of a chat counts as well."""
    room = Room("A", "B", "C", "D")
    threads: list[int] = []
    encode_text = PromptBuilder.encode_text

    def encode(prompts: PromptBuilder, text: str) -> tuple[int, ...]:
        if len(text) > 1000:  # what the engine says is short
            threads.append(threading.get_ident())
        return encode_text(prompts, text)

    monkeypatch.setattr(PromptBuilder, "encode_text", encode)
    here = threading.get_ident()
    is_here = []
    for prompt, system in (("x" * 1000, None), ("x" * 1001, None), ("x", "y" * 1000)):
        chat = NewChat(system_prompt=system)
        for do in (room.ask, partial(room.turns.count, TENANT)):
            threads.clear()
            await do(Question(chat, prompt))
            assert threads
            is_here.append({thread == here for thread in threads})
    assert [{True}] * 2 + [{False}] * 4 == is_here


async def test_one_works_at_a_time_and_tenants_in_turn() -> None:
    """A work whose caller has left keeps its place until it is done."""
    aside, done = Aside(), []
    loop, begun, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait()
        done.append("hold")

    async def do(tenant: str, name: str) -> None:
        await aside.do(tenant, lambda: done.append(name), is_long=True)

    left = asyncio.create_task(aside.do("ada", hold, is_long=True))
    await begun.wait()
    others = [do("ada", "ada 1"), do("ada", "ada 2"), do("bob", "bob")]
    waiting = [asyncio.create_task(each) for each in others]
    left.cancel()
    await asyncio.wait({left})
    assert [] == done
    goes_on.set()
    await asyncio.gather(*waiting)
    assert ["hold", "bob", "ada 1", "ada 2"] == done
