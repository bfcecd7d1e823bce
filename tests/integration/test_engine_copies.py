"""What became of the weights is read from disk at the next start, and only while it is right."""

import errno
import json
import logging
import os
import resource
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch
from engine_reference import (
    Quantization,
    ask,
    build_request,
    draw_picture,
    write_lively_checkpoint,
)
from llavachat_server.engine import packed_copy
from llavachat_server.engine.checkpoint import LoadingError, read_facts
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native import backend
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.engine.placement import Machine, Placement, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.shelf import Shelf
from llavachat_server.engine.tensors.loading import read_model
from transformers import LlavaForConditionalGeneration

KINDS = {Quantization.INT8: "int8", Quantization.NF4: "nf4", Quantization.NONE: "packed"}
FORMS = pytest.mark.parametrize("form", KINDS, ids=KINDS.values())
LARGEST = {
    Quantization.INT8: "model.safetensors",
    Quantization.NF4: "model.safetensors",
    Quantization.NONE: "panels",
}
"""A file of each kind of copy."""

Answer = Callable[[Path, Path, Quantization], Awaitable[tuple[tuple[int, ...], str, str]]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint."""
    return write_lively_checkpoint(tmp_path / "source")


@pytest.fixture
def answer(kernels: Kernels, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Start an engine and ask: the answer's ids, the weights' hash, and the stages."""
    monkeypatch.setattr(backend, "MIN_COPY_BYTES", 0)

    async def answer(
        source: Path, shelf: Path, form: Quantization
    ) -> tuple[tuple[int, ...], str, str]:
        stages: list[str] = []
        engine = BatchingEngine(
            EngineSettings(
                model=str(source),
                quantization=form,
                quantized_folder=str(shelf),
                compile_steps=True,
                compiled_folder=str(kernels_folder),
                kv_cache_tokens=1024,
                max_running=2,
                num_threads=1,
            ),
            progress=lambda stage, seconds: stages.append(stage) if seconds is None else None,
        )
        await engine.start()
        request = build_request(engine, "a", "What is this?", [draw_picture(1)])
        _, end = await ask(engine, request)
        weights_sha256 = engine.info.model.weights_sha256
        await engine.stop()
        return end.token_ids, weights_sha256, " ".join(stages)

    return answer


def spoil(path: Path, place: int) -> None:
    """Change one byte and leave size and time as they are."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x41]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def list_names(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(path.name for path in folder.iterdir())


@FORMS
async def test_the_second_start_reads_the_copy(
    source: Path, tmp_path: Path, answer: Answer, form: Quantization
) -> None:
    """The same answer and the same name for the weights, without a look at the source's bytes."""
    shelf = tmp_path / "shelf"
    first, first_hash, first_stages = await answer(source, shelf, form)
    weights = source / "model.safetensors"
    for place in range(weights.stat().st_size // 2, weights.stat().st_size, 9973):
        spoil(weights, place)
    second, second_hash, second_stages = await answer(source, shelf, form)

    assert "copy" in first_stages
    assert "copy" not in second_stages
    assert (first, first_hash) == (second, second_hash)


@FORMS
async def test_a_damaged_copy_is_made_anew(
    source: Path, tmp_path: Path, answer: Answer, form: Quantization
) -> None:
    """One byte that was not written there: the source is read, and a right copy follows."""
    shelf = tmp_path / "shelf"
    first, first_hash, _ = await answer(source, shelf, form)
    kept = shelf / KINDS[form]
    hashes = json.loads((kept / "copy.json").read_text())["files"]
    spoil(kept / LARGEST[form], (kept / LARGEST[form]).stat().st_size - 100)
    second, second_hash, stages = await answer(source, shelf, form)

    assert (first, first_hash) == (second, second_hash)
    assert "copy" in stages
    assert hashes == json.loads((kept / "copy.json").read_text())["files"]


@FORMS
async def test_a_copy_that_was_cut_short_is_made_anew(
    source: Path, tmp_path: Path, answer: Answer, form: Quantization
) -> None:
    """A machine that went down while it wrote: the source is read, and the engine answers."""
    shelf = tmp_path / "shelf"
    first, _, _ = await answer(source, shelf, form)
    kept = shelf / KINDS[form] / LARGEST[form]
    for size in (kept.stat().st_size - 2, 0):
        os.truncate(kept, size)
        second, _, stages = await answer(source, shelf, form)

        assert first == second
        assert "copy" in stages


SHORTAGES = {
    "memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB."),
        "do not fit into what memory is free",
    ),
    "handles": (
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        "can not be loaded: OSError, Too many open files",
    ),
}


@pytest.mark.parametrize("form", [Quantization.INT8, Quantization.NF4])
@pytest.mark.parametrize("shortage", SHORTAGES)
async def test_a_copy_outlives_a_start_without_memory(
    source: Path,
    tmp_path: Path,
    answer: Answer,
    form: Quantization,
    shortage: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another process may hold the GPU for a moment: the next start reads what was kept. The same
    of handles; and it is told which."""
    error, said = SHORTAGES[shortage]
    caplog.set_level(logging.WARNING, "llavachat.engine")
    shelf = tmp_path / "shelf"
    first, _, _ = await answer(source, shelf, form)
    read: list[Path] = []

    def fail(folder: Path, **_: object) -> None:
        read.append(folder)
        raise error

    with monkeypatch.context() as short:
        short.setattr(LlavaForConditionalGeneration, "from_pretrained", fail)
        with pytest.raises(LoadingError, match=said):
            await answer(source, shelf, form)
    second, _, stages = await answer(source, shelf, form)

    # Not the source as well, which takes more.
    assert [shelf / KINDS[form]] == read
    assert first == second
    assert "copy" not in stages
    assert [] == [record.message for record in caplog.records if "copy" in record.message]


async def test_a_packed_copy_outlives_a_start_without_handles(
    source: Path, tmp_path: Path, answer: Answer
) -> None:
    """It can not be mapped, and is not to blame."""
    shelf = tmp_path / "shelf"
    await answer(source, shelf, Quantization.NONE)
    facts = read_facts(source)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(LoadingError, match="Too many open files"):
            backend._map_copy(shelf / "packed", facts)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@FORMS
async def test_a_changed_source_is_read_anew(
    source: Path, tmp_path: Path, answer: Answer, form: Quantization
) -> None:
    """Other weights in the same place never meet an older copy."""
    shelf = tmp_path / "shelf"
    _, first_hash, _ = await answer(source, shelf, form)
    weights = source / "model.safetensors"
    spoil(weights, weights.stat().st_size - 100)
    os.utime(weights)
    _, second_hash, stages = await answer(source, shelf, form)

    assert first_hash != second_hash
    assert "copy" in stages


def test_nf4_that_is_multiplied_otherwise_has_its_own_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy says what its layers are multiplied in; one in bfloat16 is known as it always was."""
    shelf = tmp_path / "shelf"
    settings = EngineSettings(
        model=str(source), quantization=Quantization.NF4, quantized_folder=str(shelf)
    )
    placement = place_model(settings, Machine())
    config = read_facts(source).config

    def read() -> tuple[bool, torch.dtype]:
        stages: list[str] = []
        model, _ = read_model(
            settings, source, config, placement, lambda stage, _: stages.append(stage), None
        )
        return "copy" in stages, model.get_decoder().layers[0].mlp.gate_proj.compute_dtype

    found = [read()]
    about = json.loads((shelf / "nf4" / "copy.json").read_text())["about"]
    monkeypatch.setattr(Placement, "nf4_dtype", "float16")
    found += [read(), read()]

    assert [(True, torch.bfloat16), (True, torch.float16), (False, torch.float16)] == found
    assert {"format", "source", "int8_threshold", "dtype", "libraries"} == set(about)


async def test_a_copy_leaves_room_for_others(
    source: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a copy would take nearly all that is free, none is begun."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000_000))
    ids, _, _ = await answer(source, tmp_path / "shelf", Quantization.INT8)

    assert 24 == len(ids)
    assert [] == list_names(tmp_path / "shelf")


@FORMS
async def test_no_room_for_a_copy_costs_the_copy_alone(
    source: Path, tmp_path: Path, answer: Answer, form: Quantization
) -> None:
    """A shelf that can not be written to leaves an engine that answers."""
    (tmp_path / "shelf").write_text("a file, where a folder should be")
    ids, _, _ = await answer(source, tmp_path / "shelf", form)

    assert 24 == len(ids)
    assert ["shelf", "source"] == list_names(tmp_path)


async def test_code_that_packs_otherwise_makes_its_own_copy(
    source: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of another release is in another order, and is not read."""
    shelf = tmp_path / "shelf"
    first, _, _ = await answer(source, shelf, Quantization.NONE)
    with monkeypatch.context() as other:
        other.setattr(packed_copy, "_SOURCES", ("native/weights.py",))
        second, _, stages = await answer(source, shelf, Quantization.NONE)

        assert first == second
        assert "copy" in stages


async def test_a_small_model_is_packed_at_each_start(
    source: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes milliseconds, and leaves nothing on the disk."""
    monkeypatch.setattr(backend, "MIN_COPY_BYTES", packed_copy.MIN_COPY_BYTES)
    ids, _, stages = await answer(source, tmp_path / "shelf", Quantization.NONE)

    assert 24 == len(ids)
    assert "copy" not in stages
    assert ["source"] == list_names(tmp_path)


async def test_the_fingerprint_is_begun_on_the_copy(
    source: Path, tmp_path: Path, answer: Answer
) -> None:
    """Whoever starts a server need not know whether there is one."""
    shelf = tmp_path / "shelf"
    without = packed_copy.begin_fingerprint(source, Shelf(shelf))
    await answer(source, shelf, Quantization.NONE)
    there = packed_copy.begin_fingerprint(source, Shelf(shelf))

    assert (False, True) == (without.has_whole_copy(), there.has_whole_copy())
    assert without.result() == there.result()
