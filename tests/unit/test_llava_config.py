"""What config.json says, read without transformers and compared with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine.llava.config import ConfigError, parse_config
from llavachat_server.profiles import SHAPES_FOLDER
from torch import device, nn
from transformers import AutoModel, LlavaConfig

HUB = {
    "model_type": "llava",
    "image_token_index": 32000,
    "text_config": {
        "model_type": "llama",
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "patch_size": 14,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "intermediate_size": 4096,
    },
}
"""As ``llava-hf/llava-1.5-7b-hf`` writes it: what is as always is left out."""
EMBEDDED = json.loads((SHAPES_FOLDER / "config.json").read_text())
BARE = {"model_type": "llava"}
GEMMA = {**BARE, "text_config": {"model_type": "gemma"}}
"""A decoder whose values for what is left out are not Llama's."""


@pytest.mark.parametrize(
    "content", [HUB, EMBEDDED, BARE, GEMMA], ids=["hub", "embedded", "bare", "gemma"]
)
def test_fields_are_those_of_transformers(content: dict[str, Any], tmp_path: Path) -> None:
    """What a file leaves out, too."""
    (tmp_path / "config.json").write_text(json.dumps(content))
    expected = LlavaConfig.from_pretrained(tmp_path)
    config = parse_config(content)
    for part in ("text_config", "vision_config"):
        theirs, ours = getattr(expected, part), getattr(config, part)
        for name in ours.__slots__:
            is_rope = name == "rope_theta"
            there = theirs.rope_parameters[name] if is_rope else getattr(theirs, name)
            assert (name, there) == (name, getattr(ours, name))
    assert expected.image_token_id == config.image_token_id
    assert expected.vision_feature_layer == config.vision_feature_layer
    assert config.is_plain == (content is not GEMMA)


@pytest.mark.parametrize("content", [HUB, EMBEDDED, GEMMA], ids=["hub", "embedded", "gemma"])
def test_weights_of_the_layers_are_counted(content: dict[str, Any], tmp_path: Path) -> None:
    """As many as in the matrices that transformers makes."""
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = LlavaConfig.from_pretrained(tmp_path)
    with device("meta"):
        model = AutoModel.from_config(config.get_text_config())
    matrices = [part.weight for part in model.layers.modules() if isinstance(part, nn.Linear)]
    expected = sum(matrix.numel() for matrix in matrices)

    assert expected == parse_config(content).text_config.num_layer_weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [({}, 4096), ({"sliding_window": None}, 131072), ({"max_position_embeddings": 2048}, 2048)],
)
def test_a_window_bounds_the_context(text: dict[str, Any], expected: int) -> None:
    """Mistral's is 4,096 tokens where a file does not say otherwise."""
    config = parse_config({**BARE, "text_config": {"model_type": "mistral", **text}})
    assert expected == config.text_config.max_position_embeddings


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"load_in_4bit": True}},
        {"vision_feature_layer": [-2, -5]},
        {"projector_hidden_act": "relu"},
        {"text_config": {"model_type": "mistral"}},
        {"text_config": {"attention_bias": True}},
        {"text_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}},
        {"text_config": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}},
        {"vision_config": {"model_type": "siglip_vision_model"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_our_modules_do_not_compute_is_left_to_transformers(change: dict[str, Any]) -> None:
    """Computed by them it would be another model."""
    assert not parse_config({**BARE, **change}).is_plain


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "qwen2_vl"}, "it is a qwen2_vl model; LLaVA-1.5 is needed"),
        ({**BARE, "text_config": []}, "text_config must be an object"),
        (
            {**BARE, "text_config": {"hidden_size": "512"}},
            "hidden_size must be a whole number from 0 on, not '512'",
        ),
        (
            {**BARE, "text_config": {"rms_norm_eps": 0}},
            "rms_norm_eps must be a number above 0, not 0",
        ),
        (
            {**BARE, "vision_feature_select_strategy": "all"},
            'vision_feature_select_strategy must be "default" or "full"',
        ),
    ],
)
def test_what_does_not_fit_is_named(content: dict[str, Any], message: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigError) as raised:
        parse_config(content)
    assert message == str(raised.value)
