"""A checkpoint's weights in the order in which the kernels read them.

A panel is 16 outputs of a matrix, ``(in, 16)``: one product reads it from end to end. All
panels of all layers stand in one array, in the order of a step.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.llava.config import LlavaConfig, TextConfig, VisionConfig
from llavachat_server.engine.llava.files import ArrayWeights
from llavachat_server.engine.native.plan import LANES

Floats = NDArray[np.float32]

_WORDS = "language_model.embed_tokens.weight"


class TowerWeights(NamedTuple):
    """What the tower and the projector read.

    Args:
        panels: of all matrices, one dimension, in the order of use.
        vectors: positions, norms and biases, likewise.
        first_row: the class token as the first layer has it, (hidden,): no picture changes it.
    """

    panels: Floats
    vectors: Floats
    first_row: Floats


def find_misfit(config: LlavaConfig) -> str | None:
    """Why the kernels do not compute a model; None when they do.

    Every width must be whole vectors of 16, the vocabulary and the patches excepted.
    """
    text, vision = config.text_config, config.vision_config
    widths = (
        text.hidden_size,
        text.intermediate_size,
        text.head_dim,
        vision.hidden_size,
        vision.intermediate_size,
        vision.hidden_size // max(1, vision.num_attention_heads),
    )
    if not config.is_plain:
        return "only transformers computes this model"
    if any(width % LANES for width in widths):
        return f"this model has widths that are not multiples of {LANES}"
    return None


def pack_decoder(weights: ArrayWeights, config: LlavaConfig) -> Floats:
    """All panels of the decoder and the head, one dimension; norms' weights are folded in.

    Args:
        weights: of a checkpoint.
        config: of the same; see `find_misfit`.

    Raises:
        WeightsMissing: a weight is not there, or has another shape.
    """
    text = config.text_config
    hidden, inner, dim = text.hidden_size, text.intermediate_size, text.head_dim
    queries, keys = text.num_attention_heads * dim, text.num_key_value_heads * dim
    padded = text.vocab_size + -text.vocab_size % LANES
    layer_size = hidden * (2 * queries + 2 * keys + 3 * inner)
    packed = np.zeros(text.num_hidden_layers * layer_size + padded * hidden, np.float32)
    end = 0

    def reserve(outputs: int, inputs: int) -> Floats:
        nonlocal end
        start, end = end, end + outputs * inputs
        return packed[start:end].reshape(-1, inputs, LANES)

    for number in range(text.num_hidden_layers):
        name = f"language_model.layers.{number}"
        before = weights.take(f"{name}.input_layernorm.weight", hidden)
        after = weights.take(f"{name}.post_attention_layernorm.weight", hidden)
        for part, outputs in (("q", queries), ("k", keys)):
            matrix = weights.take(f"{name}.self_attn.{part}_proj.weight", outputs, hidden)
            _cut(_pair_up(matrix, dim), reserve(outputs, hidden), before)
        matrix = weights.take(f"{name}.self_attn.v_proj.weight", keys, hidden)
        _cut(matrix, reserve(keys, hidden), before)
        matrix = weights.take(f"{name}.self_attn.o_proj.weight", hidden, queries)
        _cut(matrix, reserve(hidden, queries))
        # A panel of one and a panel of the other, in turns.
        both = reserve(2 * inner, hidden).reshape(-1, 2, hidden, LANES)
        for place, part in enumerate(("gate", "up")):
            matrix = weights.take(f"{name}.mlp.{part}_proj.weight", inner, hidden)
            _cut(matrix, both[:, place], after)
        matrix = weights.take(f"{name}.mlp.down_proj.weight", hidden, inner)
        _cut(matrix, reserve(hidden, inner))
    norm = weights.take("language_model.norm.weight", hidden)
    _cut(_take_head(weights, config), reserve(padded, hidden), norm)
    return packed


def take_words(weights: ArrayWeights, config: TextConfig) -> Floats:
    """The input embedding, (vocabulary, hidden), in memory of its own.

    Raises:
        WeightsMissing: it is not there, or has another shape.
    """
    return np.array(weights.take(_WORDS, config.vocab_size, config.hidden_size))


def build_angles(config: TextConfig, num_positions: int) -> tuple[Floats, Floats]:
    """RoPE's cosines and sines, (positions, head_dim) each, for pairs of neighbours.

    The sines of each pair's first are negated.
    """
    places = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1.0) / np.float32(config.rope_theta) ** places
    angles = np.arange(num_positions, dtype=np.float32)[:, None] * frequencies
    sines = np.sin(angles)
    return np.cos(angles).repeat(2, 1), np.stack([-sines, sines], -1).reshape(num_positions, -1)


def count_tower_layers(config: LlavaConfig) -> int:
    """Layers of the tower up to the one that is read; its states are its output."""
    vision = config.vision_config
    # States before the first layer count as well, as in transformers' list of them.
    return int(config.vision_feature_layer % (vision.num_hidden_layers + 1))


def pack_tower(weights: ArrayWeights, config: LlavaConfig) -> TowerWeights:
    """The tower, up to the layer that is read, and the projector.

    Args:
        weights: of a checkpoint.
        config: of the same; see `find_misfit`.

    Raises:
        WeightsMissing: a weight is not there, or has another shape.
    """
    vision = config.vision_config
    hidden, inner = vision.hidden_size, vision.intermediate_size
    vectors = [_take_positions(weights, vision)[1:], *_take_norm(weights, "pre_layrnorm", hidden)]
    linears = [_take_patches(weights, vision).reshape(hidden, -1)]

    def add(name: str, outputs: int, inputs: int, *, has_bias: bool = True) -> None:
        linears.append(weights.take(f"{name}.weight", outputs, inputs))
        bias = weights.take(f"{name}.bias", outputs) if has_bias else np.zeros(outputs, np.float32)
        vectors.append(bias)

    for number in range(count_tower_layers(config)):
        name = f"encoder.layers.{number}"
        vectors += _take_norm(weights, f"{name}.layer_norm1", hidden)
        for part in ("q", "k", "v", "out"):
            add(f"vision_tower.{name}.self_attn.{part}_proj", hidden, hidden)
        vectors += _take_norm(weights, f"{name}.layer_norm2", hidden)
        add(f"vision_tower.{name}.mlp.fc1", inner, hidden)
        add(f"vision_tower.{name}.mlp.fc2", hidden, inner)
    projected, has_bias = config.text_config.hidden_size, config.multimodal_projector_bias
    add("multi_modal_projector.linear_1", projected, hidden, has_bias=has_bias)
    add("multi_modal_projector.linear_2", projected, projected, has_bias=has_bias)
    together = np.concatenate([vector.reshape(-1) for vector in vectors])
    return TowerWeights(_pack(linears), together, _build_first_row(weights, vision))


def _build_first_row(weights: ArrayWeights, config: VisionConfig) -> Floats:
    hidden = config.hidden_size
    row = weights.take("vision_tower.embeddings.class_embedding", hidden)
    row = row + _take_positions(weights, config)[0]
    weight, bias = _take_norm(weights, "pre_layrnorm", hidden)
    row = row - row.mean()
    scale = (np.square(row).mean() + np.float32(config.layer_norm_eps)) ** np.float32(-0.5)
    return np.asarray(row * scale * weight + bias, np.float32)


def _take_head(weights: ArrayWeights, config: LlavaConfig) -> Floats:
    text = config.text_config
    # As transformers does: a head of its own counts, whatever the configuration says.
    is_tied = config.tie_word_embeddings and not weights.has("lm_head.weight")
    name = _WORDS if is_tied else "lm_head.weight"
    return weights.take(name, text.vocab_size, text.hidden_size)


def _take_norm(weights: ArrayWeights, name: str, hidden: int) -> Iterator[Floats]:
    for part in ("weight", "bias"):
        yield weights.take(f"vision_tower.{name}.{part}", hidden)


def _take_patches(weights: ArrayWeights, config: VisionConfig) -> Floats:
    kernel = (config.hidden_size, config.num_channels, config.patch_size, config.patch_size)
    return weights.take("vision_tower.embeddings.patch_embedding.weight", *kernel)


def _take_positions(weights: ArrayWeights, config: VisionConfig) -> Floats:
    num_positions = (config.image_size // config.patch_size) ** 2 + 1
    name = "vision_tower.embeddings.position_embedding.weight"
    return weights.take(name, num_positions, config.hidden_size)


def _pack(linears: Iterable[Floats]) -> Floats:
    linears = list(linears)
    packed, end = np.empty(sum(matrix.size for matrix in linears), np.float32), 0
    for matrix in linears:
        start, end = end, end + matrix.size
        _cut(matrix, packed[start:end].reshape(-1, matrix.shape[1], LANES))
    return packed


def _cut(matrix: Floats, panels: Floats, factors: Floats | None = None) -> None:
    """(out, in), its columns times (in,) factors, into (panels, in, 16)."""
    whole, rest = divmod(len(matrix), LANES)
    inputs = matrix.shape[1]
    scale = np.float32(1.0) if factors is None else factors[:, None]
    source = matrix[: whole * LANES].reshape(whole, LANES, inputs).transpose(0, 2, 1)
    np.multiply(source, scale, out=panels[:whole])
    if rest:
        np.multiply(matrix[whole * LANES :].T, scale, out=panels[whole, :, :rest])


def _pair_up(matrix: Floats, head_dim: int) -> Floats:
    # Per head: first half and second half -> pairs of neighbours, which no score notices.
    halves = matrix.reshape(-1, 2, head_dim // 2, matrix.shape[1])
    return halves.transpose(0, 2, 1, 3).reshape(matrix.shape)
