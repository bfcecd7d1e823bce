"""Which way a GPU's steps take where one is barred; its kernel and its graphs in plain operations.

Without a GPU torch's kernel for pages fails, and so does recording: both for real.
"""

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_reference import SHAPES_FOLDER
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors import backend as tensors
from llavachat_server.engine.tensors import graphs
from llavachat_server.engine.tensors.backend import TensorBackend
from llavachat_server.engine.tensors.cache import make_cache
from paged_reference import attend_by_table, repeat

PROMPT = [1, 70, 80, 90, 100]
LIKELY = Draw(temperature=0.2, top_p=0.7, seed=3)


@pytest.fixture(scope="module")
def opened() -> TensorBackend:
    """The embedded model by torch's operations."""
    settings = EngineSettings(model=str(SHAPES_FOLDER), num_threads=1)
    backend = open_backend(settings, lambda *_: None)
    assert isinstance(backend, TensorBackend)
    return backend


@pytest.fixture
def backend(opened: TensorBackend, monkeypatch: pytest.MonkeyPatch) -> TensorBackend:
    """The same, placed as on a GPU from Ampere on."""
    placement = replace(
        opened.loaded.placement,
        device="cuda",
        attention="paged",
        page_tokens=256,
        records_decoding=True,
    )
    monkeypatch.setattr(opened, "loaded", replace(opened.loaded, placement=placement))
    return opened


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention's contract."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attend_by_table)


def answer(backend: TensorBackend) -> list[int | None]:
    """What a core says to a prompt, drawn and greedy."""
    core = backend.make_core()
    tokens = []
    for number, draw in enumerate((Draw(), LIKELY)):
        core.add(Job(number, PROMPT, 6, draw=draw))
        while core.has_work:
            tokens += [output.token_id for output in core.step()]
    return tokens


@pytest.fixture(scope="module")
def expected(opened: TensorBackend) -> list[int | None]:
    """By the way of a processor."""
    assert "pieces" == opened.loaded.placement.attention
    return answer(opened)


def test_a_kernel_that_fails_gives_way_to_pieces(
    expected: list[int | None],
    backend: TensorBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each step would fail after the start; the pages are gone when the pieces are made."""
    caches: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def make_and_note(*arguments: Any, **options: Any) -> Any:
        alive.append(any(cache() is not None for cache in caches))
        attention, pool = make_cache(*arguments, **options)
        caches.append(weakref.ref(attention))
        return attention, pool

    monkeypatch.setattr(tensors, "make_cache", make_and_note)
    # pytest keeps what is logged, and with the stack the cache that a handler would let go of.
    monkeypatch.setattr(tensors._log, "exception", lambda text, *_: tensors._log.error(text))

    assert expected == answer(backend)
    assert [False, False] == alive
    assert ["the kernel for pages fails on this GPU"] == caplog.messages
    told = backend.describe_steps()
    assert ("pieces", 16, False) == (
        told["attention"],
        told["page_tokens"],
        told["records_steps"],
    )
    assert told["troubles"][0].startswith("no attention in pages: NotImplementedError")
    # A loop that is begun anew does not try it again.
    backend.make_core()
    assert 1 == len(caplog.messages)


@pytest.mark.usefixtures("kernel")
def test_what_can_not_be_recorded_is_computed_step_by_step(
    expected: list[int | None], backend: TensorBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Where CUDA graphs fail, as they do here for want of CUDA, with a line and its stack."""
    assert expected == answer(backend)
    assert ["decoding is not recorded as CUDA graphs: steps"] == caplog.messages
    told = backend.describe_steps()
    assert ("paged", 256, False, False) == (
        told["attention"],
        told["page_tokens"],
        told["records_steps"],
        told["records_draws"],
    )
    assert told["troubles"][0].startswith("steps are not recorded: ")


@pytest.mark.usefixtures("kernel")
def test_steps_are_recorded_where_draws_are_not(
    expected: list[int | None], backend: TensorBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is told which."""

    def fail(_: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(graphs, "record", repeat)
    monkeypatch.setattr(graphs.DrawGraphs, "record", fail)

    assert expected == answer(backend)
    told = backend.describe_steps()
    assert (True, False) == (told["records_steps"], told["records_draws"])
    assert ("draws are not recorded: RuntimeError: operation not permitted",) == told["troubles"]
    assert (
        "attention in pages of 256 tokens, float32, a cache of 8,192 tokens, "
        "steps are recorded, draws are not"
    ) == str(backend.way)


@pytest.mark.usefixtures("kernel")
def test_nothing_stands_in_the_way(
    expected: list[int | None],
    backend: TensorBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Then there is no trouble to tell; the log has which way it is, as at each start."""
    monkeypatch.setattr(graphs, "record", repeat)
    caplog.set_level(logging.INFO, "llavachat_server")

    assert expected == answer(backend)
    assert [
        "computing on the GPU: attention in pages of 256 tokens, float32, a cache of 8,192 tokens, "
        "steps and draws are recorded"
    ] == caplog.messages
    told = backend.describe_steps()
    assert (True, True, ()) == (told["records_steps"], told["records_draws"], told["troubles"])


def run_out(*_: object, **__: object) -> Any:
    """What CUDA does where its memory is taken."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def watch_trials(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> Sequence[int]:
    """The numbers of rows that are tried, some of which do not fit."""
    trial, tried = tensors.compute_trial, list[int]()

    def compute(decoder: Any, attention: Any, num_rows: int = 2) -> None:
        tried.append(num_rows)
        if fails(num_rows):
            run_out()
        trial(decoder, attention, num_rows)

    monkeypatch.setattr(tensors, "compute_trial", compute)
    return tried


@pytest.mark.usefixtures("kernel")
def test_graphs_that_do_not_fit_are_done_without(
    expected: list[int | None], backend: TensorBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the largest step has room; it is computed once to know."""
    monkeypatch.setattr(graphs, "record", run_out)
    tried = watch_trials(monkeypatch, lambda _: False)

    assert expected == answer(backend)
    assert [2, backend.loaded.placement.max_batch_tokens] == tried
    told = backend.describe_steps()
    assert told["troubles"][0].startswith("steps are not recorded: OutOfMemoryError: CUDA out of")


@pytest.mark.usefixtures("kernel")
def test_a_cache_that_leaves_no_room_for_steps_is_too_large(
    backend: TensorBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start says what to lower."""
    monkeypatch.setattr(graphs, "record", run_out)
    watch_trials(monkeypatch, lambda num_rows: num_rows > 2)

    with pytest.raises(LoadingError, match="the key-value cache does not fit into memory"):
        backend.make_loop(lambda _: None, lambda: None)


def test_a_model_that_can_not_be_computed_at_all_is_no_start(
    backend: TensorBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither way: the cause is in the sentence, rather than in each answer that fails."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(backend.decoder, "head", fail)
    with pytest.raises(LoadingError, match=r"can not be computed on this GPU: .*no kernel image"):
        backend.make_core()
