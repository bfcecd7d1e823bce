"""What an engine loads, in which form, and what is said where it can not."""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from engine_reference import (
    SHAPES_FOLDER,
    Quantization,
    Reference,
    ask,
    build_request,
    draw_picture,
    make_engine,
    write_lively_checkpoint,
)
from llavachat_server.assembly import make_batching_engine
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors import backend as tensors
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import load
from llavachat_server.values import (
    EngineUnavailable,
)
from pictures import draw_shape

FETCH = """
import sys, time
from llavachat_server.engine.checkpoint import LoadingError, find_checkpoint
from llavachat_server.ops import logs

time.sleep = lambda seconds: None  # the hub's library waits between its tries
logs.set_up("json", "info")
try:
    find_checkpoint("owner/name", "0" * 40)
except LoadingError as error:
    print(error)
"""
LOAD = """
import sys
from pathlib import Path
from llavachat_server.engine.placement import Machine, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import read_weights
from llavachat_server.ops import logs
from llavachat_server.values import Quantization

logs.set_up("json", "info")
folder = Path(sys.argv[1])
settings = EngineSettings(model=str(folder), quantization=Quantization.INT8)
model = read_weights(folder, settings, place_model(settings, Machine()))
print(type(model.get_decoder().layers[0].mlp.up_proj).__name__)
"""
STAGES = ["checkpoint", "libraries", "weights", "fingerprint", "cache"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of lively weights."""
    return write_lively_checkpoint(tmp_path_factory.mktemp("model") / "lively")


@pytest.mark.parametrize("compile_steps", [True, False])
@pytest.mark.usefixtures("kernels")
async def test_a_fingerprint_that_was_begun_is_waited_for(
    kernels_folder: Path, *, compile_steps: bool
) -> None:
    """And the weights are not hashed once more."""
    begun = Fingerprint(SHAPES_FOLDER)
    begun.result = lambda: "of another reading"  # type: ignore[method-assign]
    settings = EngineSettings(
        model=str(SHAPES_FOLDER),
        compile_steps=compile_steps,
        compiled_folder=str(kernels_folder),
        num_threads=1,
    )
    engine = BatchingEngine(settings, fingerprint=begun)
    await engine.start()
    sha256 = engine.info.model.weights_sha256
    await engine.stop()

    assert "of another reading" == sha256


async def test_start_tells_its_stages_and_what_was_loaded(folder: Path) -> None:
    """Each stage begins and ends, in order; the fingerprint is the file's."""
    told: list[tuple[str, float | None]] = []
    engine = BatchingEngine(
        EngineSettings(model=str(folder), profile="test", kv_cache_tokens=1024, max_running=2),
        progress=lambda stage, seconds: told.append((stage, seconds)),
    )
    with pytest.raises(EngineUnavailable):
        _ = engine.info
    await engine.start()
    info = engine.info
    await engine.stop()

    begun = [stage for stage, seconds in told if seconds is None]
    ended = [stage for stage, seconds in told if seconds is not None]
    assert STAGES == begun == ended
    weights = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == info.model.weights_sha256
    assert ("test", "lively", "") == (info.model.profile, info.model.name, info.model.revision)
    assert (64, 1280, 1216) == (info.num_image_tokens, info.vocab_size, info.image_token_id)
    # One cache of 1,024 tokens can not hold the 4,096 that the positions reach.
    assert 1024 == info.context_tokens
    assert {"torch", "transformers", "tokenizers"} <= set(info.library_versions)


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [(Quantization.INT8, "Linear8bitLt"), (Quantization.NF4, "Linear4bit")],
)
async def test_quantised_by_the_same_path(quantization: Quantization, kind: str) -> None:
    """The language model is quantised and nothing else; answers are generate()'s.

    Of the trained model: with random weights one last bit that is rounded to the other side, as
    it may be wherever a prompt is cut otherwise, grows to another answer within two tokens.
    """
    engine = make_engine(SHAPES_FOLDER, quantization=quantization)
    await engine.start()
    model = engine._backend.model
    layers = {name: type(module).__name__ for name, module in model.named_modules()}
    quantised = {name for name, layer in layers.items() if layer == kind}
    shown = (("circle", "red"), ("star", "blue"), ("square", "green"))
    requests = [
        build_request(engine, colour, "What is in the picture?", [draw_shape(shape, colour)])
        for shape, colour in shown
    ]
    answers = await asyncio.gather(*(ask(engine, request) for request in requests))
    reference = Reference(SHAPES_FOLDER, engine)
    expected = [reference.generate(r.token_ids, r.images, 24) for r in requests]

    assert 4 * 7 == len(quantised)
    assert all(".language_model.layers." in name for name in quantised)
    assert "Linear" == layers["lm_head"]
    assert quantization is engine.info.model.quantization
    assert expected == [end.token_ids for _, end in answers]
    assert [f"There is a big {colour} {shape} in the middle." for shape, colour in shown] == [
        text for text, _ in answers
    ]
    await engine.stop()


async def test_a_hub_id_takes_the_same_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's cache on disk, at the pinned revision, without a connection."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    repository = cache / "models--someone--lively"
    shutil.copytree(folder, repository / "snapshots" / revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    engine = make_engine(Path("someone/lively"), revision=revision)
    await engine.start()
    text, _ = await ask(engine, build_request(engine, "h", "What?", [draw_picture(1)]))

    assert ("someone/lively", revision) == (engine.info.model.name, engine.info.model.revision)
    assert text
    await engine.stop()


@pytest.mark.parametrize(
    ("offline", "why", "is_tried"),
    [("0", "can not be reached", True), ("1", "must not be asked, by HF_HUB_OFFLINE", False)],
)
def test_a_hub_out_of_reach_is_told(tmp_path: Path, offline: str, why: str, is_tried: bool) -> None:
    """With what to do without one; what the hub's library says is told once, as events of ours."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        variables = {
            "HF_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "HF_HUB_CACHE": str(tmp_path),
            "HF_HUB_OFFLINE": offline,
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", FETCH],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    expected = (
        f"owner/name at {'0' * 40} is not on this machine, and the hub {why}; "
        "--model may name a folder that holds it\n"
    )
    assert expected == done.stdout, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert is_tried == any(event["logger"].startswith("huggingface_hub") for event in events)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no such thing"}, "neither a folder nor a hub id"),
        ({"model": "owner/name"}, "pinned revision"),
        ({"model": "owner/name", "revision": "main"}, "40 hexadecimal digits"),
        ({"device": "cuda"}, "finds no GPU"),
        (
            {"kv_cache_tokens": 2**40},
            "does not fit into memory; lower cache_tokens or max_running_turns",
        ),
    ],
)
async def test_wrong_settings_are_explained(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    """One sentence: what is wrong, and what would be right."""
    engine = BatchingEngine(EngineSettings(**{"model": str(folder), **settings}))  # type: ignore[arg-type]
    with pytest.raises(LoadingError, match=message):
        await engine.start()
    await engine.stop()


async def test_a_gpu_that_is_full_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch has an error of its own for it, which is no MemoryError."""

    def make_none(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tensors, "make_cache", make_none)
    engine = make_engine(folder)
    with pytest.raises(LoadingError, match="the key-value cache does not fit into memory"):
        await engine.start()
    await engine.stop()


@pytest.mark.parametrize(("asked", "room"), [("512", 512), (None, 4096)])
async def test_the_operator_says_how_large_the_cache_is(asked: str | None, room: int) -> None:
    """A chat may be as long as the cache is, and no longer than the model's context."""
    settings = load([] if asked is None else ["--cache-tokens", asked])
    engine = make_batching_engine(settings, resolve_profile(settings), lambda stage, seconds: None)
    await engine.start()
    context_tokens = engine.info.context_tokens
    await engine.stop()

    assert room == context_tokens


@pytest.mark.parametrize(
    ("asked", "threshold", "device"),
    [(None, None, "cpu"), ("0", 0.0, "cpu, 8-bit activations"), ("6", 6.0, "cpu, outliers over 6")],
)
async def test_the_operator_says_what_an_outlier_is(
    asked: str | None, threshold: float | None, device: str
) -> None:
    """The layers are told, and so is whoever reads an answer's record."""
    arguments = [] if asked is None else ["--int8-threshold", asked]
    settings = load(["--quantization", "int8", *arguments])
    engine = make_batching_engine(settings, resolve_profile(settings), lambda stage, seconds: None)
    await engine.start()
    layer = engine._backend.decoder.layers[0]
    await engine.stop()

    assert device == engine.info.device
    assert threshold == layer._qkv._threshold
    assert 3 == len(layer._qkv._matrices)


async def test_broken_checkpoints_are_explained(folder: Path, tmp_path: Path) -> None:
    """No checkpoint, no weights, weights as pickles, another model, damage."""

    async def explain(broken: Path) -> str:
        engine = BatchingEngine(EngineSettings(model=str(broken)))
        with pytest.raises(LoadingError) as failure:
            await engine.start()
        await engine.stop()
        return str(failure.value)

    (tmp_path / "empty").mkdir()
    assert "no config.json" in await explain(tmp_path / "empty")
    for name in ("bare", "other", "pickled", "damaged"):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "bare" / "model.safetensors").unlink()
    assert "safetensors" in await explain(tmp_path / "bare")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert "llama model; LLaVA-1.5 is needed" in await explain(tmp_path / "other")
    weights = tmp_path / "pickled" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert "safetensors" in await explain(tmp_path / "pickled")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "can not be loaded" in await explain(tmp_path / "damaged")


def test_importing_the_engine_does_not_import_torch() -> None:
    """A server can say that it is starting before it waits for libraries."""
    code = (
        "import sys, llavachat_server.engine.engine; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_nothing_compiled_is_fetched(folder: Path, tmp_path: Path) -> None:
    """By the package for that, which libraries use where it is installed; nor is it asked for."""
    (tmp_path / "kernels.py").write_text('print("kernels was imported")\n')
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "Linear8bitLt\n", []) == (
        done.returncode,
        done.stdout,
        [line for line in done.stderr.splitlines() if "kernels" in line],
    )


def test_the_embedded_checkpoint_is_one() -> None:
    """The folder in the package loads by the same reader."""
    from llavachat_server.engine.checkpoint import read_facts

    facts = read_facts(SHAPES_FOLDER)
    assert (64, 4096, (2,)) == (
        facts.num_image_tokens,
        facts.context_tokens,
        facts.eos_token_ids,
    )
