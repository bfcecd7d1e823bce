"""Bytes of pictures that turns hold: never too many, never one tenant's, and all given back."""

import asyncio
from collections import Counter
from contextlib import ExitStack, suppress

import pytest
from chat_room import Room
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.chats import turns
from llavachat_server.chats.held import SHARE_OF_FREE, HeldPictures
from llavachat_server.chats.question import ImageSource, NewChat, Question
from llavachat_server.images.intake import IntakeBusy
from pictures import draw_shape, encode
from scripted_engine import Hold


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=30))
def test_nobody_holds_all(wishes: list[tuple[str, int]]) -> None:
    """A tenant has its share of what is left at most, and what was refused is not held."""
    pictures = HeldPictures(100)
    held: Counter[str] = Counter()
    with ExitStack() as running:
        for tenant, num_bytes in wishes:
            hold = running.enter_context(pictures.begin(tenant))
            with suppress(IntakeBusy):
                hold.take(num_bytes)
                held[tenant] += num_bytes
                assert held[tenant] <= SHARE_OF_FREE * (100 - held.total())
    with pictures.begin("d") as hold:
        hold.take(80)
        with pytest.raises(IntakeBusy):
            hold.take(1)


def test_a_server_without_tenants_holds_all_that_may_be() -> None:
    """There is nobody to leave room for."""
    pictures = HeldPictures(100)
    with pictures.begin("") as hold:
        hold.take(100)
        with pytest.raises(IntakeBusy):
            hold.take(1)


async def test_a_turn_holds_its_pictures_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends; one for which there is no room is refused, and may come later."""
    file = encode(draw_shape("star", "red", (100, 100)))
    num_bytes = 3 * 100 * 100 + 2 * len(file)
    monkeypatch.setattr(turns, "MAX_HELD_BYTES", int(num_bytes * 1.5))
    answer = Hold("A star")
    room = Room(answer, "A star", ValueError("no model"), "A star")
    question = Question(NewChat(), "What is this?", (ImageSource(data=file),))

    first = asyncio.create_task(room.ask(question))
    await answer.said.wait()
    with pytest.raises(IntakeBusy):
        await room.ask(question)
    # Without a picture of its own there is nothing to hold.
    await room.ask(Question(NewChat(), "Hello?"))
    answer.release.set()
    assert await first
    with pytest.raises(ValueError, match="no model"):
        await room.ask(question)
    assert await room.ask(question)
