"""Calls from other threads to an event loop: in order, alone with their errors, and in no haste."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from llavachat_server.engine.doorbell import Doorbell


@pytest.fixture
def patient_threads() -> Iterator[None]:
    """No thread is asked for Python's lock: it is given up or kept."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    yield
    sys.setswitchinterval(before)


async def post_from_a_thread(*calls: Any) -> None:
    """Post calls and wait until a last one has come."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    doorbell = Doorbell(loop)

    def post() -> None:
        for call, *arguments in calls:
            doorbell.post(call, *arguments)
        doorbell.post(done.set)

    thread = threading.Thread(target=post)
    thread.start()
    await asyncio.wait_for(done.wait(), 10)
    thread.join()
    doorbell.close()


async def test_calls_come_in_their_order_on_the_loop_s_thread() -> None:
    """However many were posted before the loop looked."""
    heard: list[tuple[int, threading.Thread]] = []
    await post_from_a_thread(
        *((lambda number: heard.append((number, threading.current_thread())), n) for n in range(99))
    )

    assert [(n, threading.main_thread()) for n in range(99)] == heard


async def test_a_call_that_fails_is_told_and_the_next_one_comes() -> None:
    """As with calls of the loop's own."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def fail() -> None:
        raise MemoryError("of a test")

    heard: list[str] = []
    await post_from_a_thread((fail,), (heard.append, "next"))

    assert ["next"] == heard
    assert ["of a test"] == [str(context["exception"]) for context in told]


async def test_once_closed_nothing_is_called() -> None:
    """Neither what came before that and was not answered, nor what comes later."""
    heard: list[str] = []
    doorbell = Doorbell(asyncio.get_running_loop())
    doorbell.post(heard.append, "before")
    doorbell.close()
    doorbell.post(heard.append, "after")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [] == heard


@pytest.mark.usefixtures("patient_threads")
async def test_who_posts_keeps_python_s_lock() -> None:
    """Threads that wait for it get it every other time when a pipe is written as usual."""
    doorbell = Doorbell(asyncio.get_running_loop())
    num_turns, is_over = 0, False

    def want_the_lock() -> None:
        nonlocal num_turns
        while not is_over:
            num_turns += 1
            os.sched_yield()

    threads = [threading.Thread(target=want_the_lock) for _ in range(6)]
    for thread in threads:
        thread.start()
    taken = 0
    for _ in range(1000):
        before = num_turns
        while num_turns == before:
            os.sched_yield()
        before = num_turns
        doorbell.post(str)
        taken += num_turns != before
    is_over = True
    for thread in threads:
        thread.join()
    doorbell.close()

    # Collecting garbage, say, may give it up once.
    assert taken < 10
