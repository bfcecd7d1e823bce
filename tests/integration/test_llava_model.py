"""LLaVA's own modules beside transformers', on the same checkpoint."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_reference import draw_picture, write_lively_checkpoint
from llavachat_server.engine.checkpoint import read_facts
from llavachat_server.engine.llava.files import WeightsMissing, map_weights, rename
from llavachat_server.engine.llava.model import Llava, read_llava
from llavachat_server.engine.llava.weights import open_weights
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.backend import TensorBackend
from llavachat_server.images.preprocess import pad_to_square
from llavachat_server.profiles import SHAPES_FOLDER
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

LOAD = """
import sys
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
settings = EngineSettings(
    model=sys.argv[1], num_threads=1, compile_steps=bool(sys.argv[2]), compiled_folder=sys.argv[2]
)
backend = open_backend(settings, lambda stage, seconds: None)
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[3:])))
print("torch._dynamo" in sys.modules)
mapped = [line for line in open("/proc/self/maps") if ".safetensors" in line]
print(len(mapped))
"""
UNNEEDED = ("transformers", "sympy", "accelerate", "bitsandbytes", "scipy", "huggingface_hub")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of lively weights."""
    return write_lively_checkpoint(tmp_path_factory.mktemp("own") / "lively")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_start_imports_and_maps_what_it_needs_and_nothing_else(
    kernels_folder: Path, *, is_compiled: bool
) -> None:
    """No transformers and no compiler of torch's; no pages of a file beside the packed weights.

    With the kernels, no torch and nothing that compiles either.
    """
    unneeded = (*UNNEEDED, "torch", "numba") if is_compiled else UNNEEDED
    folder = str(kernels_folder) if is_compiled else ""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(SHAPES_FOLDER), folder, *unneeded],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ["[]", "False", "0"] == done.stdout.split("\n")[:3], done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_those_of_transformers(folder: Path, dtype: torch.dtype) -> None:
    """To the last bit; norms and rotations of the decoder too."""
    facts = read_facts(folder)
    own = read_llava(folder, facts.config, dtype)
    theirs = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        for seed in range(3):
            picture = pad_to_square(draw_picture(seed))
            pixels = torch.from_numpy(facts.pixel_form.convert(picture))[None].to(dtype)
            expected = theirs.get_image_features(pixel_values=pixels).pooler_output[0]
            torch.testing.assert_close(
                expected, own.get_image_features(pixels).pooler_output[0], rtol=0, atol=0
            )
        expected_decoder, decoder = theirs.get_decoder(), own.get_decoder()
        rows = torch.randn(7, facts.config.text_config.hidden_size).to(dtype)
        assert torch.equal(expected_decoder.norm(rows), decoder.norm(rows))
        positions = torch.arange(4096)[None]
        expected_tables = expected_decoder.rotary_emb(rows, positions)
        for expected, table in zip(
            expected_tables, decoder.rotary_emb(rows, positions), strict=True
        ):
            assert torch.equal(expected, table)


def test_every_layout_of_names_is_read(folder: Path, tmp_path: Path) -> None:
    """The hub's, transformers 5's, and files in shards with an index."""
    weights = load_file(folder / "model.safetensors")
    hub = tmp_path / "hub"
    shutil.copytree(folder, hub)
    (hub / "model.safetensors").unlink()
    names = {
        name: f"vision_tower.vision_model.{rename(name).removeprefix('vision_tower.')}"
        if "vision_tower" in name
        else name
        for name in weights
    }
    halves = [list(names)[::2], list(names)[1::2]]
    for number, half in enumerate(halves):
        save_file({names[name]: weights[name] for name in half}, hub / f"part-{number}.safetensors")
    index = {names[name]: f"part-{n}.safetensors" for n, half in enumerate(halves) for name in half}
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    new = tmp_path / "new"
    shutil.copytree(folder, new)
    own_names = {name: f"model.{rename(name)}" for name in weights}
    renamed = {
        own_names[name].replace("model.lm_head", "lm_head"): weights[name] for name in weights
    }
    save_file(renamed, new / "model.safetensors")
    config = read_facts(folder).config
    first, *others = (
        read_llava(path, config, torch.float32).state_dict() for path in (folder, hub, new)
    )
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[name], other[name]) for name in first)
    for path in (folder, hub, new):
        arrays = map_weights(path)
        for name, weight in weights.items():
            array = arrays.take(rename(name), *weight.shape)
            assert torch.equal(weight.float(), torch.from_numpy(array.copy()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_type_of_weights_is_mapped(tmp_path: Path, dtype: torch.dtype) -> None:
    """To float32, without rounding; what has another shape or type is not there."""
    weight = torch.randn(3, 5).to(dtype)
    save_file({"a": weight, "b": torch.ones(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    arrays = map_weights(tmp_path)

    assert torch.equal(weight.float(), torch.from_numpy(arrays.take("a", 3, 5).copy()))
    for name, shape in (("a", (5, 3)), ("b", (2,)), ("c", (1,))):
        with pytest.raises(WeightsMissing):
            arrays.take(name, *shape)


def test_a_tied_head_is_the_embedding_and_stays_whole(folder: Path, tmp_path: Path) -> None:
    """Packing gives back what is packed, and no table that is still read."""
    tied = tmp_path / "tied"
    shutil.copytree(folder, tied)
    content = json.loads((folder / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**content, "tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    del weights["language_model.lm_head.weight"]
    save_file(weights, tied / "model.safetensors")
    backend = open_backend(EngineSettings(model=str(tied), num_threads=1), lambda *_: None)
    assert isinstance(backend, TensorBackend)
    model = backend.model
    assert isinstance(model, Llava)
    assert model.lm_head.weight.numel() == backend.embedding.weight.numel() > 0


@pytest.mark.parametrize("change", ["missing", "wide"])
def test_weights_that_do_not_fit_are_not_taken(folder: Path, tmp_path: Path, change: str) -> None:
    """Neither a hole nor another shape is filled with anything."""
    weights = load_file(folder / "model.safetensors")
    name = "language_model.model.norm.weight"
    norm = weights.pop(name)
    if change == "wide":
        weights[name] = torch.cat([norm, norm])
    save_file(weights, tmp_path / "model.safetensors")
    config = read_facts(folder).config
    with pytest.raises(WeightsMissing, match=r"language_model\.norm\.weight"):
        Llava(open_weights(tmp_path, torch.float32), config)
