"""A rehearsal of what a GPU does, on a processor: see `pretended.cuda` for what that shows."""

import asyncio
import errno
import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from core_jobs import run
from engine_reference import SHAPES_FOLDER, ask, build_request, draw_picture
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.backend import TensorBackend
from llavachat_server.values import EngineFailed, Quantization
from pretended.cuda import pretend_cuda
from pretended.device import Gpu
from torch.utils._device import _device_constructors

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None or sys.platform != "linux",
    reason="torch's build for CUDA has kernels of its own, which need a GPU",
)

LIKELY = Draw(temperature=0.2, top_p=0.7, seed=3)
DRAWS = (Draw(), LIKELY, Draw(repetition_penalty=1.3), Draw(temperature=0.3, seed=2**63 + 5))
FORMS: dict[str, dict[str, Any]] = {
    "float16": {"dtype": "float16"},
    "int8": {"quantization": Quantization.INT8},
    "outliers": {"quantization": Quantization.INT8, "int8_threshold": 6.0},
    "nf4": {"quantization": Quantization.NF4},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Operations this small are slower on several."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """An A10G."""
    with pretend_cuda((8, 6)) as device:
        yield device
        gc.collect()


def make_settings(device: str, **values: Any) -> EngineSettings:
    """The embedded model in a small cache."""
    return EngineSettings(
        model=str(SHAPES_FOLDER),
        device=device,
        max_running=4,
        max_queued=4,
        num_bank_images=4,
        kv_cache_tokens=2048,
        num_threads=1,
        **values,
    )


def load(device: str, **values: Any) -> TensorBackend:
    """A model, by torch's operations."""
    backend = open_backend(make_settings(device, **values), lambda *_: None)
    assert isinstance(backend, TensorBackend)
    return backend


def answer(backend: TensorBackend) -> list[list[int]]:
    """What it says to prompts about two pictures: of many lengths, drawn by all ways, in company,
    to a prefix that is copied, and after an answer that was given up.
    """
    core = backend.make_core()
    prompts, num_tokens = backend.loaded.facts.prompts, backend.loaded.facts.num_image_tokens
    for slot in range(2):
        backend.fill_slot(slot, draw_picture(slot))

    def build(question: str, slot: int | None) -> list[int]:
        ids: list[int] = []
        for token_id in prompts.build_first_turn(question, num_images=int(slot is not None)):
            first = backend.ids.first_image_id + (slot or 0) * num_tokens
            is_image = token_id == prompts.special.image
            ids += range(first, first + num_tokens) if is_image else [token_id]
        return ids

    questions = ["What is there?", "How many shapes are there?", "Describe it." * 9, "Hello!"]
    jobs = [
        Job(number, build(question, (0, 1, None)[number % 3]), 5 + number, draw=draw)
        for number, (question, draw) in enumerate(zip(questions, DRAWS, strict=True))
    ]
    answers = run(core, jobs)
    core.add(Job(7, build("Is there a red circle?", 1), 20))
    core.step()
    core.cancel(7)
    follow_up = build("Describe it." * 5 + "What colour?", None)
    return answers + run(core, [Job(8, follow_up, 4), Job(9, follow_up[:-9] * 5, 4)])


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_a_processors(form: str, gpu: Gpu, tmp_path: Any) -> None:
    """From load to draw; and again from the copy that the first start has left."""
    is_quantised = "quantization" in FORMS[form]
    kept = {"quantized_folder": str(tmp_path)} if is_quantised else {}
    backend = load("cuda", **FORMS[form], **kept)
    mine = answer(backend)

    way = backend.way
    assert way is not None
    assert () == way.troubles
    assert (form != "outliers",) * 2 == (way.records_steps, way.records_draws)
    if is_quantised:
        copied = load("cuda", **FORMS[form], **kept)
        job = Job(0, [1, 300, 400, 500], 3)
        assert run(backend.make_core(), [job]) == run(copied.make_core(), [job])
    assert answer(load("cpu", **{**FORMS[form], "dtype": way.dtype})) == mine


def test_an_older_gpu_takes_pieces() -> None:
    """A T4: the same answers, without FlashAttention and graphs."""
    with pretend_cuda((7, 5)):
        backend = load("cuda", dtype="float16")
        mine = answer(backend)
    assert backend.way is not None
    assert ("pieces", False) == (backend.way.attention, backend.way.records_steps)
    assert answer(load("cpu", dtype="float16")) == mine


def test_a_recorded_step_waits_for_its_tokens_alone(gpu: Gpu) -> None:
    """Greedy or drawn: the event says that the last step's numbers have left, which they have."""
    core = load("cuda", dtype="float16").make_core()
    for number, draw in enumerate((Draw(), LIKELY)):
        core.add(Job(number, [1, 300, 400], 5, draw=draw))
        core.step()
    gpu.waits.clear()
    core.step()

    kinds = Counter(kind for kind, _ in gpu.waits)
    assert {"event": 2, "a copy to the host": 1} == kinds


def test_a_core_that_is_closed_leaves_nothing(gpu: Gpu) -> None:
    """Whoever may still hold it: the next one's cache and graphs need the memory."""
    backend = load("cuda", dtype="float16")
    before = gpu.live_bytes()
    core = backend.make_core()
    during = gpu.live_bytes()
    core.close()
    gc.collect()

    assert before < during
    assert before == gpu.live_bytes()


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_kernels_that_find_no_room_are_a_matter_of_memory(said: str, gpu: Gpu) -> None:
    """Which a smaller cache mends; and not of the kernel for pages, which is not given up."""

    def fail(name: str) -> BaseException | None:
        return RuntimeError(said) if name.startswith("aten::mm") else None

    backend = load("cuda", dtype="float16")
    gpu.fail = fail
    with pytest.raises(MemoryError):
        backend.make_core()
    assert "paged" == backend.loaded.placement.attention


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_compiler_that_can_not_be_begun_is_no_matter_of_the_cache(number: int, gpu: Gpu) -> None:
    """A smaller one would not mend it; what needs no compiler serves."""

    def fail(name: str) -> BaseException | None:
        return OSError(number, os.strerror(number)) if "flash_attention" in name else None

    backend = load("cuda", dtype="float16")
    gpu.fail = fail
    backend.make_core()
    assert "pieces" == backend.loaded.placement.attention


async def test_the_whole_engine_comes_through_failures(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    """Pictures beside answers; a step without memory; then two, and a loop that is begun anew."""
    caplog.set_level(logging.CRITICAL)
    engine = BatchingEngine(make_settings("cuda", dtype="float16"))
    await engine.start()

    async def ask_all(name: str, question: str) -> list[Any]:
        requests = [
            build_request(
                engine, f"{name}{i}", question * (i + 1), [draw_picture(i)] * (i % 2), max_tokens=6
            )
            for i in range(6)
        ]
        ends = await asyncio.gather(*(ask(engine, r) for r in requests), return_exceptions=True)
        return [end[1].token_ids if isinstance(end, tuple) else type(end) for end in ends]

    def fail(num_times: int) -> None:
        left = iter(range(num_times))

        def run_out(name: str) -> BaseException | None:
            if "flash_attention" in name and next(left, None) is not None:
                return torch.OutOfMemoryError("CUDA out of memory.")
            return None

        gpu.fail = run_out

    try:
        expected = await ask_all("a", "What is there?")
        fail(1)
        assert EngineFailed in await ask_all("b", "How many are there?")
        assert (0, expected) == (engine.load.num_restarts, await ask_all("c", "What is there?"))
        fail(2)
        assert EngineFailed in await ask_all("d", "What colour?")
        await engine._keeper.wait()
        assert (1, expected) == (engine.load.num_restarts, await ask_all("e", "What is there?"))
        assert "steps and draws are recorded" in engine.describe_steps()["words"]
    finally:
        await engine.stop()

    assert all(isinstance(ids, tuple) for ids in expected)
    assert [] == gpu.intrusions


def test_a_graph_that_can_not_be_recorded_is_done_without(gpu: Gpu) -> None:
    """For want of memory while it is captured."""
    backend = load("cuda", dtype="float16")
    jobs = [Job(number, [1, 300, 400], 4, draw=draw) for number, draw in enumerate(DRAWS)]
    expected = run(backend.make_core(), jobs)
    gpu.fail = lambda _: torch.OutOfMemoryError("CUDA out of memory.") if gpu.captures else None
    core = backend.make_core()
    gpu.fail = lambda _: None

    assert expected == run(core, jobs)
    assert backend.way is not None
    assert (False, False) == (backend.way.records_steps, backend.way.records_draws)


def test_what_the_rehearsal_refuses(gpu: Gpu) -> None:
    """Else it would show nothing: two devices, a graph that looks at the host, freed memory."""
    place = torch.zeros(4, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        place + torch.ones(4)
    for look in (torch.Tensor.tolist, torch.nonzero, lambda t: t.copy_(torch.ones(4))):
        with (
            pytest.raises(RuntimeError, match="capturing"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            look(place)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = place * 2
    assert result.isnan().all()
    del place
    with pytest.raises(AssertionError, match="freed"):
        graph.replay()


def test_a_copy_from_the_host_comes_late(gpu: Gpu) -> None:
    """What is written too early is what arrives; behind an event it is not too early."""
    host, place = torch.zeros(1, pin_memory=True), torch.zeros(1, device="cuda")
    place.copy_(host, non_blocking=True)
    sent = torch.cuda.Event()
    sent.record()
    host.fill_(1)
    assert [1.0] == place.tolist()
    place.copy_(host, non_blocking=True)
    sent.record()
    sent.synchronize()
    host.fill_(2)
    assert [1.0] == place.tolist()
    assert torch.empty(1, device="cuda").isnan().item()


def test_torch_is_left_as_it_was() -> None:
    """A model that a later test loads begins without memory, by `with torch.device("meta")`."""
    _device_constructors.cache_clear()
    with pretend_cuda(), torch.device("cpu"):
        torch.empty(1)
    with torch.device("meta"):
        assert ["meta"] * 2 == [made.device.type for made in (torch.empty(1), torch.zeros(1))]
