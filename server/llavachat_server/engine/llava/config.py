"""What ``config.json`` says of a LLaVA-1.5 model. Pure: a parsed file goes in.

Fields that a file leaves out have the values that transformers gives them.
Source: ``LlavaConfig``, ``LlamaConfig`` and ``CLIPVisionConfig`` of transformers 5.23.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PLAIN_TEXT_ACTIVATIONS = ("silu", "swish")
PLAIN_VISION_ACTIVATIONS = ("quick_gelu", "gelu")
CLIP_VISION = "clip_vision_model"
"""transformers' name of the tower that LLaVA-1.5 has."""
TEXT_MODELS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "gemma": {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "bos_token_id": 2,
        "eos_token_id": 1,
    },
}
"""Decoders that the engine computes, and transformers' values for what a file leaves out where they
are not Llama's. Tests hold each to transformers; others scale or normalise what these do not."""
VISION_MODELS = (CLIP_VISION, "siglip_vision_model")
ROPES = ("default", "linear", "dynamic", "yarn", "llama3")
"""Ways to stretch RoPE whose angles do not depend on how long the prompt is."""


class ConfigError(ValueError):
    """A field is not what it must be; the message names it and says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The decoder's: Llama. Sizes are counts of elements; `rope_theta` is RoPE's base."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    bos_token_id: int
    eos_token_id: int | tuple[int, ...]

    @property
    def num_layer_weights(self) -> int:
        """Weights that each token is multiplied by in all layers; norms and head are not among
        them."""
        width = self.num_attention_heads * self.head_dim
        kv_width = self.num_key_value_heads * self.head_dim
        attention = 2 * self.hidden_size * (width + kv_width)
        mlp = 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * (attention + mlp)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """The tower's. Pictures are squares of `image_size` pixels, patches of `patch_size`.

    `model_type`: `CLIP_VISION` for the one that `llava.tower` and the kernels compute.
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaConfig:
    """The whole model's.

    `vision_feature_layer`: which states of the tower are read, from the end when negative.
    `is_plain`: `llava.model` computes this model; others are left to transformers.
    """

    text_config: TextConfig
    vision_config: VisionConfig
    image_token_id: int
    vision_feature_layer: int
    vision_feature_select_strategy: str
    projector_hidden_act: str
    multimodal_projector_bias: bool
    tie_word_embeddings: bool
    is_plain: bool

    def get_text_config(self) -> TextConfig:
        """The decoder's; transformers' name for it."""
        return self.text_config


def parse_config(content: Mapping[str, Any]) -> LlavaConfig:
    """Read a configuration.

    Args:
        content: of ``config.json``.

    Raises:
        ConfigError: it is another model's, or a field is not what it must be.
    """
    kind = content.get("model_type")
    if kind != "llava":
        raise ConfigError(f"it is a {kind} model; LLaVA-1.5 is needed")
    text = _take_part(content, "text_config", {})
    vision = _take_part(content, "vision_config", _LLAVA_VISION)
    strategy = content.get("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        raise ConfigError('vision_feature_select_strategy must be "default" or "full"')
    layers = content.get("vision_feature_layer", -2)
    index = "image_token_id" if "image_token_id" in content else "image_token_index"
    text_config, vision_config = _parse_text(text), _parse_vision(vision)
    return LlavaConfig(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=_take_int(content, index, 32000),
        vision_feature_layer=layers if _is_int(layers) else -2,
        vision_feature_select_strategy=strategy,
        projector_hidden_act=str(content.get("projector_hidden_act", "gelu")),
        multimodal_projector_bias=bool(content.get("multimodal_projector_bias", True)),
        tie_word_embeddings=bool(
            content.get("tie_word_embeddings") or text.get("tie_word_embeddings")
        ),
        is_plain=bool(
            _is_int(layers)
            and abs(layers) <= vision_config.num_hidden_layers
            and "quantization_config" not in content
            and content.get("projector_hidden_act", "gelu") == "gelu"
            and _is_plain_text(text, text_config)
            and vision_config.model_type == CLIP_VISION
            and vision_config.hidden_act in PLAIN_VISION_ACTIVATIONS
        ),
    )


_LLAVA_VISION = {
    "intermediate_size": 4096,
    "hidden_size": 1024,
    "patch_size": 14,
    "image_size": 336,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}


def _parse_text(part: Mapping[str, Any]) -> TextConfig:
    kind = part.get("model_type", "llama")
    if kind not in TEXT_MODELS:
        raise ConfigError(f"text_config.model_type must be {_list(TEXT_MODELS)}, not {kind!r}")
    if unknown := sorted(_find_rope_kinds(part) - set(ROPES)):
        raise ConfigError(f"RoPE must be {_list(ROPES)}, not {unknown[0]!r}")
    part = {**TEXT_MODELS[kind], **part}
    hidden = _take_int(part, "hidden_size", 4096)
    heads = _take_int(part, "num_attention_heads", 32)
    eos = part.get("eos_token_id", 2)
    is_list = isinstance(eos, list) and bool(eos) and all(_is_int(token_id) for token_id in eos)
    return TextConfig(
        vocab_size=_take_int(part, "vocab_size", 32000),
        hidden_size=hidden,
        intermediate_size=_take_int(part, "intermediate_size", 11008),
        num_hidden_layers=_take_int(part, "num_hidden_layers", 32),
        num_attention_heads=heads,
        num_key_value_heads=_take_int(part, "num_key_value_heads", heads),
        head_dim=_take_int(part, "head_dim", hidden // max(heads, 1)),
        hidden_act=str(part.get("hidden_act", "silu")),
        rms_norm_eps=_take_float(part, "rms_norm_eps", 1e-6),
        rope_theta=_take_float(_find_rope(part), "rope_theta", 10_000.0),
        max_position_embeddings=_count_positions(part),
        bos_token_id=_take_int(part, "bos_token_id", 1),
        eos_token_id=tuple(eos) if is_list else _take_int(part, "eos_token_id", 2),
    )


def _count_positions(part: Mapping[str, Any]) -> int:
    num_positions = _take_int(part, "max_position_embeddings", 2048)
    if part.get("sliding_window") is None:
        return num_positions
    # Attention reaches back so far in transformers; the engine's would see more.
    return min(num_positions, _take_int(part, "sliding_window", num_positions))


def _parse_vision(part: Mapping[str, Any]) -> VisionConfig:
    kind = str(part.get("model_type", CLIP_VISION))
    if kind not in VISION_MODELS:
        raise ConfigError(f"vision_config.model_type must be {_list(VISION_MODELS)}, not {kind!r}")
    return VisionConfig(
        model_type=kind,
        hidden_size=_take_int(part, "hidden_size", 768),
        intermediate_size=_take_int(part, "intermediate_size", 3072),
        num_hidden_layers=_take_int(part, "num_hidden_layers", 12),
        num_attention_heads=_take_int(part, "num_attention_heads", 12),
        num_channels=_take_int(part, "num_channels", 3),
        image_size=_take_int(part, "image_size", 224),
        patch_size=_take_int(part, "patch_size", 32),
        hidden_act=str(part.get("hidden_act", "quick_gelu")),
        layer_norm_eps=_take_float(part, "layer_norm_eps", 1e-5),
    )


def _find_rope(part: Mapping[str, Any]) -> Mapping[str, Any]:
    # transformers 5 writes a part of its own for it, earlier releases wrote it flat.
    rope = part.get("rope_parameters")
    return rope if isinstance(rope, Mapping) and "rope_theta" in rope else part


def _find_rope_kinds(part: Mapping[str, Any]) -> set[str]:
    ropes = [part.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
    return {str(rope.get("rope_type", rope.get("type", "default"))) for rope in ropes}


def _is_plain_text(part: Mapping[str, Any], config: TextConfig) -> bool:
    return bool(
        part.get("model_type", "llama") == "llama"
        and config.hidden_act in PLAIN_TEXT_ACTIVATIONS
        and _find_rope_kinds(part) == {"default"}
        and not part.get("attention_bias")
        and not part.get("mlp_bias")
    )


def _list(names: Iterable[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


def _take_part(content: Mapping[str, Any], name: str, default: Mapping[str, Any]) -> Any:
    part = content.get(name)
    if part is None:
        return default
    if not isinstance(part, Mapping):
        raise ConfigError(f"{name} must be an object")
    return part


def _take_int(part: Mapping[str, Any], name: str, default: int) -> int:
    value = part.get(name)
    value = default if value is None else value
    if not _is_int(value) or value < 0:
        raise ConfigError(f"{name} must be a whole number from 0 on, not {value!r}")
    number: int = value
    return number


def _take_float(part: Mapping[str, Any], name: str, default: float) -> float:
    value = part.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
