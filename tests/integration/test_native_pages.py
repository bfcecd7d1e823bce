"""Weights that were mapped for a quick start come into memory of their own once it serves."""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_reference import ask, build_request, draw_picture, write_lively_checkpoint
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native import backend, pages
from llavachat_server.engine.native.backend import NativeBackend
from llavachat_server.engine.native.packed import _map_file
from llavachat_server.engine.settings import EngineSettings

MEMORY = "MemTotal:  4000 kB\nMemAvailable:   2000 kB\n"


@pytest.fixture
def make_engine(
    kernels_folder: Path, kernels: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], BatchingEngine]:
    """Engines of one checkpoint, all but the first of which map a copy of the packed weights."""
    monkeypatch.setattr(backend, "MIN_COPY_BYTES", 0)
    source = write_lively_checkpoint(tmp_path / "source")

    def make() -> BatchingEngine:
        return BatchingEngine(
            EngineSettings(
                model=str(source),
                quantized_folder=str(tmp_path / "shelf"),
                compile_steps=True,
                compiled_folder=str(kernels_folder),
                kv_cache_tokens=1024,
                num_threads=1,
            )
        )

    return make


async def answer(engine: BatchingEngine, seed: int) -> tuple[int, ...]:
    """The ids of an answer about a picture."""
    request = build_request(engine, f"r{seed}", "What is this?", [draw_picture(seed)])
    _, end = await ask(engine, request)
    return end.token_ids


async def test_mapped_weights_are_copied_and_let_go(
    make_engine: Callable[[], BatchingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While answers come; these are the same before, in between and after."""
    first = make_engine()
    await first.start()
    expected = [await answer(first, seed) for seed in (1, 2)]
    await first.stop()
    monkeypatch.setattr(pages, "BEGIN_SECONDS", 0.0)
    monkeypatch.setattr(pages, "SLICE_BYTES", 4096)
    has_asked, is_copied = threading.Event(), threading.Event()
    mapped: list[Any] = []
    copy = pages.copy

    def copy_late(source: Any, *others: Any) -> Any:
        mapped.append(weakref.ref(source))
        has_asked.wait(20)
        return copy(source, *others)

    def settle(self: NativeBackend, stopping: threading.Event) -> None:
        settle_really(self, stopping)
        is_copied.set()

    settle_really = NativeBackend.settle
    monkeypatch.setattr(pages, "copy", copy_late)
    monkeypatch.setattr(NativeBackend, "settle", settle)
    second = make_engine()
    await second.start()
    model = second._backend.model
    before = [await answer(second, seed) for seed in (1, 2)]
    was_mapped = [pages.is_mapped(holder.panels) for holder in (model.decoder, model.tower)]
    has_asked.set()
    # Of other pictures, so that something is computed.
    while not is_copied.is_set():
        await answer(second, int(time.monotonic_ns()) % 2**31)
    after = [await answer(second, seed) for seed in (1, 2)]
    is_mapped = [_is_a_file(holder.panels) for holder in (model.decoder, model.tower)]
    await second.stop()

    assert expected == before
    assert expected == after
    assert ([True, True], [False, False]) == (was_mapped, is_mapped)
    assert [None, None] == [reference() for reference in mapped]


def _is_a_file(array: Any) -> bool:
    start = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, end = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= start < end:
            return len(line.split()) > 5
    raise AssertionError("the array is not mapped at all")


async def test_a_stop_does_not_wait_for_it(
    make_engine: Callable[[], BatchingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it go on after one."""
    first = make_engine()
    await first.start()
    await first.stop()
    ended = threading.Event()

    def settle(self: NativeBackend, stopping: threading.Event) -> None:
        settle_really(self, stopping)
        ended.set()

    settle_really = NativeBackend.settle
    monkeypatch.setattr(NativeBackend, "settle", settle)
    monkeypatch.setattr(pages, "BEGIN_SECONDS", 60.0)
    second = make_engine()
    await second.start()
    panels = second._backend.model.decoder.panels
    await second.stop()

    assert ended.wait(10)
    assert panels is second._backend.model.decoder.panels


@pytest.mark.parametrize("is_told_before", [True, False], ids=["no room", "no memory after all"])
async def test_weights_that_stay_mapped_are_told(
    make_engine: Callable[[], BatchingEngine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_told_before: bool,
) -> None:
    """And answers come from the file as before."""
    first = make_engine()
    await first.start()
    expected = await answer(first, 1)
    await first.stop()
    ended = threading.Event()

    def settle(self: NativeBackend, stopping: threading.Event) -> None:
        settle_really(self, stopping)
        ended.set()

    def fail(*_: object) -> None:
        raise MemoryError("no memory")

    settle_really = NativeBackend.settle
    monkeypatch.setattr(NativeBackend, "settle", settle)
    monkeypatch.setattr(pages, "BEGIN_SECONDS", 0.0)
    monkeypatch.setattr(pages, "copy", fail)
    if is_told_before:
        monkeypatch.setattr(pages, "find_obstacle", lambda _: "no memory")
    caplog.set_level(logging.INFO)
    second = make_engine()
    await second.start()
    assert await asyncio.to_thread(ended.wait, 10)
    found = await answer(second, 1)
    await second.stop()

    assert expected == found
    assert "weights stay in their file's pages: no memory" in caplog.messages


def test_a_copy_is_whole(tmp_path: Path) -> None:
    """Also where it is no whole number of slices; told to stop, there is none."""
    path = tmp_path / "numbers"
    np.arange(2_500_000, dtype=np.float32).tofile(path)
    source = _map_file(path)
    copied = pages.copy(source, lambda: True, threading.Event())
    stopping = threading.Event()
    stopping.set()

    assert copied is not None
    assert np.array_equal(source, copied)
    assert pages.copy(source, lambda: True, stopping) is None


@pytest.mark.parametrize(("most_wait_seconds", "num_looks"), [(60.0, 9), (0.0, 3)])
def test_a_slice_waits_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_wait_seconds: float, num_looks: int
) -> None:
    """Until they compute nothing, but not for ever."""
    path = tmp_path / "numbers"
    np.arange(3000, dtype=np.float32).tofile(path)
    monkeypatch.setattr(pages, "SLICE_BYTES", 4000)
    monkeypatch.setattr(pages, "MOST_WAIT_SECONDS", most_wait_seconds)
    looks: list[int] = []

    def is_idle() -> bool:
        looks.append(len(looks) + 1)
        return looks[-1] % 3 == 0

    copied = pages.copy(_map_file(path), is_idle, threading.Event())

    assert copied is not None
    assert num_looks == len(looks)
    assert 2999.0 == copied[-1]


@pytest.mark.parametrize(
    ("huge_pages", "num_kb", "obstacle"),
    [
        ("always [madvise] never", 1000, ""),
        ("[always] madvise never", 1000, ""),
        ("always madvise [never]", 1000, "the system gives no large pages"),
        ("always [madvise] never", 1001, "there is not memory enough"),
        (None, 1000, "the system does not say what it has"),
    ],
)
def test_what_stands_against_it(
    tmp_path: Path, huge_pages: str | None, num_kb: int, obstacle: str
) -> None:
    """Half of the memory that is available is the most."""
    pages_file, memory_file = tmp_path / "enabled", tmp_path / "meminfo"
    if huge_pages is not None:
        pages_file.write_text(huge_pages)
    memory_file.write_text(MEMORY)

    assert obstacle == pages.find_obstacle(num_kb * 1024, pages_file, memory_file)
