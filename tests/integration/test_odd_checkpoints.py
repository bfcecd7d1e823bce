"""Checkpoints that are LLaVA's and yet not like most: computed as transformers does, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_reference import (
    SHAPES_FOLDER,
    Reference,
    ask,
    build_request,
    draw_picture,
    make_engine,
    write_lively_checkpoint,
)
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.values import Quantization
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 1280,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 1217,
    "tie_word_embeddings": False,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": 12,
}
LONG = "Where is the large red circle, and what is beside it? " * 6


def write_checkpoint(
    folder: Path, text: dict[str, Any], vision: dict[str, Any], **changes: Any
) -> Path:
    """Random weights of an architecture, with the embedded model's tokenizer."""
    torch.manual_seed(7)
    text_config = AutoConfig.for_model(**{"model_type": "llama", **TEXT, **text})
    kind = {"model_type": "clip_vision_model", **VISION, **vision}
    config = LlavaConfig(
        text_config=text_config,
        vision_config=AutoConfig.for_model(**kind),
        image_token_id=1216,
        **changes,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.2 / weight[0].numel() ** 0.5)
        model.lm_head.weight[2] = 0
    shutil.copytree(SHAPES_FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in ("config.json", "generation_config.json"):
        (folder / name).unlink(missing_ok=True)
    model.save_pretrained(folder)
    return folder


async def answer_both(
    folder: Path, question: str, num_images: int, **settings: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What transformers says, and what the engine does."""
    engine = make_engine(folder, **settings)
    await engine.start()
    try:
        images = [draw_picture(seed) for seed in range(num_images)]
        request = build_request(engine, "a", question, images, max_tokens=12)
        _, end = await ask(engine, request)
        reference = Reference(folder, engine)
        return reference.generate(request.token_ids, images, 12), end.token_ids
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("text", "vision", "changes"),
    [
        ({"model_type": "mistral", "sliding_window": 400}, {}, {}),
        ({"model_type": "gemma"}, {}, {}),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, {}, {}),
        ({}, {"model_type": "siglip_vision_model"}, {"vision_feature_select_strategy": "full"}),
        ({}, {"model_type": "siglip_vision_model"}, {"vision_feature_select_strategy": "default"}),
    ],
    ids=["mistral", "gemma", "linear rope", "siglip, full", "siglip, default"],
)
@pytest.mark.parametrize("num_images", [0, 1])
async def test_other_parts_give_the_answers_of_transformers(
    tmp_path: Path,
    text: dict[str, Any],
    vision: dict[str, Any],
    changes: dict[str, Any],
    num_images: int,
) -> None:
    """Another decoder, another tower, and how many tokens a picture has with it."""
    folder = write_checkpoint(tmp_path / "odd", text, vision, **changes)
    expected, actual = await answer_both(folder, LONG, num_images)

    assert expected == actual


async def test_a_chat_ends_where_the_attention_window_does(tmp_path: Path) -> None:
    """Beyond it the decoder would see what it was never made to see."""
    folder = write_checkpoint(tmp_path / "odd", {"model_type": "mistral", "sliding_window": 64}, {})
    engine = make_engine(folder)
    await engine.start()
    context_tokens = engine.info.context_tokens
    await engine.stop()

    assert 64 == context_tokens


def change_config(change: dict[str, Any]) -> Callable[[Path], None]:
    """Write other values into a checkpoint's configuration."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        for name, value in change.items():
            is_part = isinstance(value, dict)
            content[name] = {**content[name], **value} if is_part else value
        path.write_text(json.dumps(content))

    return spoil


def leave_out(part: str) -> Callable[[Path], None]:
    """Take the weights out of a checkpoint whose names hold a text."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        kept = {name: weight for name, weight in weights.items() if part not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    return spoil


REFUSED = [
    (
        change_config({"text_config": {"model_type": "granite"}}),
        r'text_config.model_type must be "llama" or "mistral" or "gemma", not \'granite\'',
    ),
    (
        change_config({"text_config": {"rope_parameters": {"rope_type": "longrope"}}}),
        r"RoPE must be .*, not \'longrope\'",
    ),
    (
        change_config({"vision_config": {"model_type": "dinov2"}}),
        r'vision_config.model_type must be "clip_vision_model" or "siglip_vision_model"',
    ),
    (
        change_config({"image_token_index": 1280}),
        r"image_token_id must be below text_config.vocab_size, 1280, not 1280",
    ),
    (leave_out("layers.1.mlp.down_proj"), r"lack .*layers\.1\.mlp\.down_proj\.weight"),
    (leave_out("language_model.model.layers.2"), r"lack .*layers\.2\.\S* and 8 others"),
    (leave_out("vision_tower.encoder.layers.3"), r"lack .*layers\.3\.\S* and 15 others"),
    (leave_out("lm_head"), r"lack lm_head\.weight"),
]
FORMS = [Quantization.NONE, Quantization.INT8]


@pytest.mark.parametrize("form", FORMS, ids=["plain", "int8"])
@pytest.mark.parametrize(("spoil", "message"), REFUSED)
@pytest.mark.usefixtures("kernels")
async def test_what_can_not_be_answered_rightly_is_refused(
    tmp_path: Path,
    kernels_folder: Path,
    spoil: Callable[[Path], None],
    message: str,
    form: Quantization,
) -> None:
    """Never by weights that nobody has trained, nor by another model's computation."""
    folder = write_lively_checkpoint(tmp_path / "odd")
    spoil(folder)
    engine = make_engine(
        folder, quantization=form, compile_steps=True, compiled_folder=str(kernels_folder)
    )
    with pytest.raises(LoadingError, match=message):
        await engine.start()
    await engine.stop()


@pytest.mark.parametrize("compile_steps", [True, False], ids=["kernels", "torch"])
async def test_a_head_of_its_own_counts_whatever_the_configuration_says(
    tmp_path: Path, kernels: Kernels, kernels_folder: Path, *, compile_steps: bool
) -> None:
    """As transformers has it: tied is what is one in the file."""
    folder = write_lively_checkpoint(tmp_path / "odd")
    change_config({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True}})(
        folder
    )
    expected, actual = await answer_both(
        folder, "What?", 1, compile_steps=compile_steps, compiled_folder=str(kernels_folder)
    )

    assert expected == actual


@pytest.mark.parametrize("compile_steps", [True, False], ids=["kernels", "torch"])
async def test_a_token_that_never_got_a_row_is_no_obstacle(
    tmp_path: Path, kernels: Kernels, kernels_folder: Path, *, compile_steps: bool
) -> None:
    """A tokenizer with a padding token of its own, beside a model that was not resized for it."""
    folder = write_checkpoint(tmp_path / "odd", {"vocab_size": 1217, "pad_token_id": None}, {})
    expected, actual = await answer_both(
        folder, "What?", 1, compile_steps=compile_steps, compiled_folder=str(kernels_folder)
    )

    assert expected == actual
