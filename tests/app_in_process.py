"""The whole server but its model, in this process, on a real socket of this machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc.aio
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.app import App
from llavachat_server.images.worker import Worker
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import load
from scripted_engine import ScriptedEngine

T = TypeVar("T")

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class RunningApp:
    """A server in this process, and a client of it."""

    app: App
    task: "asyncio.Task[None]"
    address: str
    channel: grpc.aio.Channel
    chat: "chat_pb2_grpc.ChatServiceAsyncStub"

    async def start(self, prompt: str = "What is this?", **fields: object) -> str:
        """Open a chat, read its answer; its id."""
        request = pb.StartChatRequest(prompt=prompt, **fields)  # type: ignore[arg-type]
        events = [reply.event async for reply in self.chat.StartChat(request)]
        return events[0].started.chat_id


@asynccontextmanager
async def run_app(
    engine: ScriptedEngine, *flags: str, wait: bool = True
) -> AsyncIterator[RunningApp]:
    """Run a server on a scripted engine.

    It has one decoder of pictures and not three, whose starts would take a core from other tests.

    Args:
        engine: what answers.
        flags: the server's flags.
        wait: until it serves; else until it listens.
    """
    settings = load(["--listen", "127.0.0.1:0", "--store", "memory", *flags])
    app = App(settings, resolve_profile(settings), lambda *_: engine, workers=[Worker()])
    task = asyncio.create_task(app.run())
    ready: asyncio.Future[str] = app.serving if wait else app.listening
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    address = ready.result()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            yield RunningApp(app, task, address, channel, stub)  # type: ignore[arg-type]
    finally:
        # Also after a failure: a server that its event loop leaves behind takes the tests with it.
        app.stop()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def until(read: Callable[[], Awaitable[T]], is_so: Callable[[T], bool]) -> T:
    """Read again and again until it is so; for what has no event to wait for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            value = await read()
            if is_so(value):
                return value
            await asyncio.sleep(0.01)
