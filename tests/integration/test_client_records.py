"""Chats that a real server keeps, fetched by both clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app_in_process import run_app
from llavachat import AsyncClient, Client, TurnState
from llavachat.archive import read_archive
from pictures import draw_shape, encode, red_circle
from scripted_engine import Hold, ScriptedEngine

STAR = encode(draw_shape("star", "blue"))


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[AsyncClient, str]]:
    """A chat whose first answer is whole, and whose second, about another picture, is under way."""
    hold = Hold("So far")
    async with (
        run_app(ScriptedEngine("warm", "A red circle.", hold)) as app,
        AsyncClient(app.address) as client,
    ):
        reply = client.start(red_circle(), "What is this?")
        await reply.read()
        reading = asyncio.create_task(reply.chat.ask("And this?", STAR).read())
        await hold.said.wait()
        yield client, reply.chat_id
        hold.release.set()
        await reading


async def test_a_chat_that_answers_comes_in_again() -> None:
    """Its export leaves out the turn that runs and that turn's picture; a page shows both."""
    async with answering() as (client, chat_id):
        chat = client.chat(chat_id)
        assert TurnState.RUNNING is (await chat.history())[1].state
        text = await chat.export()
        with Client(client.address) as twin:
            assert text == await asyncio.to_thread(twin.chat(chat_id).export)
        archive = read_archive(text)
        assert [image.id for image in archive.chat.turns[0].images] == list(archive.pictures)
        (turn,) = await (await client.import_chat(text)).history()
        assert "A red circle." == turn.answer
        assert 2 == (await chat.export("html")).count("data:image/png")
