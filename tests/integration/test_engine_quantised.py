"""What was quantised once is read from disk at the next start, and only while it is still right."""

import json
import os
import shutil
from pathlib import Path

import pytest
from engine_reference import (
    Quantization,
    ask,
    build_request,
    draw_picture,
    write_lively_checkpoint,
)
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.settings import EngineSettings

FORMS = pytest.mark.parametrize("form", [Quantization.INT8, Quantization.NF4])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint."""
    return write_lively_checkpoint(tmp_path / "source")


async def answer(source: Path, shelf: Path, form: Quantization) -> tuple[tuple[int, ...], str, str]:
    """Start an engine and ask: the answer's ids, the weights' hash, and the stages."""
    stages: list[str] = []
    engine = BatchingEngine(
        EngineSettings(
            model=str(source),
            quantization=form,
            quantized_folder=str(shelf),
            kv_cache_tokens=1024,
            max_running=2,
            num_threads=1,
        ),
        progress=lambda stage, seconds: stages.append(stage) if seconds is None else None,
    )
    await engine.start()
    request = build_request(engine, "a", "What is this?", [draw_picture(1)])
    _, end = await ask(engine, request)
    info = engine.info.model.weights_sha256
    await engine.stop()
    return end.token_ids, info, " ".join(stages)


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
    source: Path, tmp_path: Path, form: Quantization
) -> None:
    """The same answer and the same name for the weights, without a look at the source's bytes."""
    shelf = tmp_path / "shelf"
    first, first_hash, first_stages = await answer(source, shelf, form)
    weights = source / "model.safetensors"
    for place in range(weights.stat().st_size // 2, weights.stat().st_size, 9973):
        spoil(weights, place)
    second, second_hash, second_stages = await answer(source, shelf, form)

    assert "quantised copy" in first_stages
    assert "quantised copy" not in second_stages
    assert (first, first_hash) == (second, second_hash)


async def test_a_damaged_copy_is_made_anew(source: Path, tmp_path: Path) -> None:
    """One byte that was not written there: the source is read, and a right copy follows."""
    shelf = tmp_path / "shelf"
    first, _, _ = await answer(source, shelf, Quantization.INT8)
    kept = shelf / "int8" / "model.safetensors"
    hashes = json.loads((shelf / "int8" / "copy.json").read_text())["files"]
    spoil(kept, kept.stat().st_size - 100)
    second, _, stages = await answer(source, shelf, Quantization.INT8)

    assert first == second
    assert "quantised copy" in stages
    assert hashes == json.loads((shelf / "int8" / "copy.json").read_text())["files"]


async def test_a_changed_source_is_quantised_anew(source: Path, tmp_path: Path) -> None:
    """Other weights in the same place never meet an older copy."""
    shelf = tmp_path / "shelf"
    _, first_hash, _ = await answer(source, shelf, Quantization.INT8)
    weights = source / "model.safetensors"
    spoil(weights, weights.stat().st_size - 100)
    os.utime(weights)
    _, second_hash, stages = await answer(source, shelf, Quantization.INT8)

    assert first_hash != second_hash
    assert "quantised copy" in stages


async def test_a_copy_leaves_room_for_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a copy would take nearly all that is free, none is begun."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000_000))
    ids, _, _ = await answer(source, tmp_path / "shelf", Quantization.INT8)

    assert 24 == len(ids)
    assert [] == list_names(tmp_path / "shelf")


async def test_no_room_for_a_copy_costs_the_copy_alone(source: Path, tmp_path: Path) -> None:
    """A shelf that can not be written to leaves an engine that answers."""
    (tmp_path / "shelf").write_text("a file, where a folder should be")
    ids, _, _ = await answer(source, tmp_path / "shelf", Quantization.NF4)

    assert 24 == len(ids)
    assert ["shelf", "source"] == list_names(tmp_path)
