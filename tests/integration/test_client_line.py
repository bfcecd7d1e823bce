"""Reads that the server refuses for others of the same user: the client asks again, for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from app_in_process import RunningApp, run_app
from llavachat import AsyncClient, Client, LimitReached
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.errors import TooManyAtOnce
from pictures import red_circle
from scripted_engine import ScriptedEngine

NUM_REFUSALS = 2
METHODS = ("get_chat", "list_chats", "get_png")


async def read(client: AsyncClient, method: str, chat_id: str, image_id: str) -> Any:
    """What the client makes of a method of the store."""
    match method:
        case "get_chat":
            return await client.chat(chat_id).record()
        case "list_chats":
            return [chat async for chat in client.chats()]
        case _:
            return await client.image(image_id)


def read_in_thread(client: Client, method: str, chat_id: str, image_id: str) -> Any:
    """The same by its twin."""
    match method:
        case "get_chat":
            return client.chat(chat_id).record()
        case "list_chats":
            return list(client.chats())
        case _:
            return client.image(image_id)


def refuse(app: RunningApp, patch: pytest.MonkeyPatch, method: str, subject: str) -> list[str]:
    """Have the store's method refuse some calls at first; all calls that come."""
    calls: list[str] = []
    answer: Callable[..., Awaitable[Any]] = getattr(app.app._service.desk.store, method)

    async def answer_later(*arguments: Any) -> Any:
        calls.append(method)
        if len(calls) <= NUM_REFUSALS:
            raise TooManyAtOnce(subject, "others are on their way", 0.01)
        return await answer(*arguments)

    patch.setattr(app.app._service.desk.store, method, answer_later)
    return calls


@pytest.mark.parametrize("method", METHODS)
async def test_a_read_that_is_refused_for_others_is_made_again(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """By both clients, until it is answered."""
    async with run_app(ScriptedEngine()) as app, AsyncClient(app.address) as client:
        chat_id = await app.start(images=[pb.Image(data=red_circle())])
        image_id = (await client.chat(chat_id).record()).turns[0].images[0].id
        with monkeypatch.context() as patch:
            calls = refuse(app, patch, method, "replies")
            assert await read(client, method, chat_id, image_id)
            assert NUM_REFUSALS + 1 == len(calls)
        with Client(app.address) as twin:
            calls = refuse(app, monkeypatch, method, "reads")
            assert await asyncio.to_thread(read_in_thread, twin, method, chat_id, image_id)
            assert NUM_REFUSALS + 1 == len(calls)


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("store", {}),
        ("replies", {"restart_seconds": 0.0}),
        ("replies", {"timeout_seconds": 5.0}),
    ],
)
async def test_a_read_is_not_made_again_where_that_would_not_help(
    monkeypatch: pytest.MonkeyPatch, subject: str, options: dict[str, float]
) -> None:
    """For another limit, where that is wished, and where the deadline comes first."""
    calls: list[str] = []

    async def fail(tenant: str, _: object) -> None:
        calls.append(tenant)
        raise TooManyAtOnce(subject, "others are on their way", 10.0)

    async with run_app(ScriptedEngine()) as app, AsyncClient(app.address, **options) as client:
        monkeypatch.setattr(app.app._service.desk.store, "list_chats", fail)
        with pytest.raises(LimitReached) as caught:
            [chat async for chat in client.chats()]
    assert (subject,) == caught.value.details.quota_subjects
    assert 1 == len(calls)
