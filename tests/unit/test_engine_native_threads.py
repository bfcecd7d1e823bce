"""Threads that help: each takes its own part, and all end with whoever had them."""

import threading
from queue import SimpleQueue

import pytest
from llavachat_server.engine.native.threads import Helpers


def list_threads(name: str) -> list[threading.Thread]:
    """Those that are there."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_each_thread_takes_one_part() -> None:
    """Side by side: none has come back before all have begun."""
    helpers, done = Helpers("helpers-side-by-side", 3), SimpleQueue[int]()
    barrier = threading.Barrier(3, timeout=10)

    def work(number: int) -> None:
        barrier.wait()
        done.put(number)

    helpers.call(work, [(1,), (2,), (3,)])

    assert [1, 2, 3] == sorted(done.get(timeout=10) for _ in range(3))


def test_who_comes_late_takes_its_part_later() -> None:
    """In the order of the calls, and the caller waits for nothing."""
    helpers, done = Helpers("helpers-late", 1), SimpleQueue[str]()
    may_go_on = threading.Event()

    def work(name: str) -> None:
        may_go_on.wait(10)
        done.put(name)

    helpers.call(work, [("first",)])
    helpers.call(work, [("second",)])
    assert done.empty()
    may_go_on.set()

    assert ["first", "second"] == [done.get(timeout=10) for _ in range(2)]


def test_who_fails_takes_its_next_part_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """And says that it failed; otherwise work would pile up that nobody takes."""
    helpers, done = Helpers("helpers-failing", 1), SimpleQueue[str]()

    def fail() -> None:
        raise MemoryError

    helpers.call(fail, [()])
    helpers.call(done.put, [("next",)])

    assert "next" == done.get(timeout=10)
    assert ["a helping thread has failed at its part"] == caplog.messages


def test_threads_end_with_their_owner() -> None:
    """Or each model that a process has loaded would leave some."""
    helpers = Helpers("helpers-ending", 2)
    threads = list_threads("helpers-ending")
    assert 2 == len(threads)

    del helpers
    for thread in threads:
        thread.join(10)

    assert [] == list_threads("helpers-ending")
