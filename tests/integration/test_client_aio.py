"""`AsyncClient` over a socket: the same calls, and what tasks add to them."""

import asyncio
import io
import threading
from fractions import Fraction

import numpy as np
import pytest
from llavachat import (
    AsyncClient,
    CallCancelled,
    Client,
    FinishReason,
    ImageError,
    InvalidRequest,
    LimitReached,
    NotFound,
)
from PIL import Image
from scripted_service import (
    answer_until_cancelled,
    deltas,
    finished,
    started,
)

RED = Image.new("RGB", (8, 8), "red")
HUGE = pytest.param(10**400, id="huge")


async def test_the_twin_does_the_same(scripted, service):
    """AsyncClient: stream, ask, history, list, count, health, delete."""
    async with AsyncClient(scripted.address, timeout_seconds=20) as client:
        async with client.start(RED, "What is this?") as reply:
            assert ["A ", "red ", "circle."] == [text async for text in reply]
        assert 11 == reply.usage.completion_tokens
        assert "A red circle." == await reply.chat.ask("And?", seed=3).read()
        assert 3 == service.requests[-1].params.seed
        assert 2 == len(await reply.chat.history())
        assert "**You:** And?" in await reply.chat.transcript()
        assert "<s>USER: And? ASSISTANT:" == await reply.chat.raw_prompt()
        record, turn = service.requests[-2:]
        assert (False, True) == (record.include_raw_prompts, turn.include_raw_prompt)
        assert 10 == (await reply.chat.count_tokens("What?")).total_tokens
        assert 74 == (await client.count_tokens(RED, "What?")).total_tokens
        assert "cpu" == (await client.server_info()).device
        await client.start(None, "Another").read()
        assert ["chat-1", "chat-2"] == [chat.id async for chat in client.chats(page_size=1)]
        assert await client.is_healthy()
        await client.wait_until_ready()
        await reply.chat.delete()
        with pytest.raises(NotFound):
            await client.delete_chat("chat-1")


@pytest.mark.parametrize(
    "seconds", [1e10, 1e300, HUGE, np.float32(20), np.float64(20), Fraction(41, 2)]
)
async def test_the_twin_s_deadline_may_be_far(scripted, seconds):
    """As far as anybody likes, and any kind of number."""
    async with AsyncClient(scripted.address, timeout_seconds=seconds) as client:
        await client.wait_until_ready(timeout_seconds=seconds)
        assert await client.is_healthy(timeout_seconds=seconds)
        assert "A red circle." == await client.start(None, "What?").read()


async def list_chats(client):
    """All of a client's chats."""
    return [chat async for chat in client.chats()]


@pytest.mark.parametrize("is_used", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.server_info(),
        lambda client: client.start(None, "What?").read(),
        lambda client: client.chat("chat-1").ask("And?").read(),
        lambda client: client.image("0" * 64),
        list_chats,
        lambda client: client.is_healthy(),
    ],
)
async def test_a_closed_twin_says_so(scripted, is_used, call):
    """As the other does."""
    client = AsyncClient(scripted.address)
    if is_used:
        assert await client.is_healthy()
    await client.close()
    with pytest.raises(CallCancelled, match=r"^The client is closed; make another\.$"):
        await call(client)


async def test_the_twin_tells_of_metadata_that_can_not_be_sent(scripted, service):
    """When the reply is read; other values that can not be sent, too."""
    async with AsyncClient(scripted.address) as client:
        with pytest.raises(InvalidRequest, match=r"^metadata's x must be printable ASCII"):
            await client.start(None, "What?", metadata={"x": "\n"}).read()
        with pytest.raises(InvalidRequest, match=r"^overflow must be an OverflowPolicy, not 'err"):
            await client.start(None, "What?", overflow="error").read()
    assert [] == service.requests


async def test_a_question_over_the_clients_own_limit_is_told(scripted):
    """By both twins, in the words for one that is over the server's."""
    sentence = r"^A message of 2,0\d\d bytes is over the limit of 1,024; send less at a time\.$"
    with Client(scripted.address, max_message_bytes=1024) as client:
        reply = client.start(None, "?" * 2000)
        with pytest.raises(LimitReached, match=sentence):
            reply.read()
    async with AsyncClient(scripted.address, max_message_bytes=1024) as client:
        with pytest.raises(LimitReached, match=sentence):
            await client.start(None, "?" * 2000).read()
    assert [] == scripted.service.requests


async def test_the_twin_loads_pictures_when_it_is_read(scripted, service):
    """Nothing happens before, and a wrong picture is told then."""
    async with AsyncClient(scripted.address) as client:
        reply = client.start("nowhere.png", "What?")
        with pytest.raises(ImageError, match="does not exist"):
            await reply.read()
    assert [] == service.requests


async def test_two_tasks_that_begin_to_read_ask_once(scripted, service):
    """One answer, whoever comes first."""
    async with AsyncClient(scripted.address, timeout_seconds=20) as client:
        reply = client.start(RED, "What?")
        _, text = await asyncio.gather(reply.__aenter__(), reply.read())
    assert ("A red circle.", 1) == (text, len(service.requests))


async def test_an_answer_that_is_closed_while_its_picture_is_read_ends(scripted, service):
    """Its call is cancelled, for nobody is there for whom the server would work."""
    service.answer = answer_until_cancelled(service)
    opened, release = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, *_):
            opened.set()
            release.wait(10)
            return super().read()

    data = io.BytesIO()
    RED.save(data, "PNG")
    async with AsyncClient(scripted.address) as client:
        reply = client.start(Slow(data.getvalue()), "What?")
        reading = asyncio.create_task(reply.read())
        assert await asyncio.to_thread(opened.wait, 60)
        reply.close()
        release.set()
        assert "" == await reading
        assert not reply.is_started


async def test_cancelling_the_task_cancels_the_call(scripted, service):
    """A task that is given up does not keep the server busy."""
    service.answer = answer_until_cancelled(service)
    async with AsyncClient(scripted.address) as client:
        begun = asyncio.Event()

        async def read():
            async for _ in client.start(None, "Go on."):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(service.cancelled.wait, 60)


async def test_a_task_that_is_cancelled_ends_though_its_answer_was_closed_first(scripted, service):
    """Both in one step of the loop, as where a group of tasks fails: the task does not go on."""
    service.answer = answer_until_cancelled(service)
    async with AsyncClient(scripted.address) as client:
        begun, reply = asyncio.Event(), client.start(None, "Go on.")

        async def read():
            async for _ in reply:
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        reply.close()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


@pytest.mark.parametrize(
    "call",
    [lambda client: client.start(None, "What?").read(), lambda client: client.server_info()],
)
async def test_closing_the_twin_under_a_call_cancels_no_task(scripted, service, call):
    """Nobody cancelled the one that waits: it is told what happened."""
    begun, release = threading.Event(), threading.Event()

    def hold(*_):
        begun.set()
        release.wait(10)

    service._keep = hold
    client = AsyncClient(scripted.address)
    task = asyncio.create_task(call(client))
    assert await asyncio.to_thread(begun.wait, 60)
    await client.close()
    with pytest.raises(CallCancelled, match=r"^The client is closed; make another\.$"):
        await task
    release.set()


async def test_closing_the_twin_from_another_task_ends_the_iteration(scripted, service):
    """The loop ends without an error, and what came is kept."""
    service.answer = answer_until_cancelled(service)
    async with AsyncClient(scripted.address) as client:
        reply = client.start(None, "Go on.")
        asyncio.get_running_loop().call_later(0.1, reply.close)
        assert {"more "} == {text async for text in reply}
        assert FinishReason.CANCELLED is reply.finish_reason


async def test_many_answers_side_by_side(scripted, service):
    """One AsyncClient streams several answers at once, each with its own text."""

    def answer(request, context):
        yield started(request.prompt)
        yield from deltas(*(f"{request.prompt}{number} " for number in range(20)))
        yield finished()

    service.answer = answer
    async with AsyncClient(scripted.address) as client:
        answers = await asyncio.gather(*(client.start(None, name).read() for name in "abcdefgh"))
    expected = ["".join(f"{name}{number} " for number in range(20)) for name in "abcdefgh"]
    assert expected == answers
