"""The embedded model's architecture, and a forward pass that trains fast on a CPU.

The modules are transformers' own, so the checkpoint is a true ``LlavaForConditionalGeneration``.
Only training goes through the functions below: they read the same parameters, but multiply in
`COMPUTE_DTYPE` with plain matrix products, whose backward pass is several times cheaper on a CPU
than that of the fused attention. ``tests/unit/test_training_checkpoint.py`` holds the two together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

IMAGE_SIDE_PIXELS = 96
PATCH_SIDE_PIXELS = 12
GRID_SIDE_PATCHES = IMAGE_SIDE_PIXELS // PATCH_SIDE_PIXELS
NUM_IMAGE_TOKENS = GRID_SIDE_PATCHES**2

BASE_VOCABULARY_TOKENS = 1216
"""Llama's special tokens, 256 bytes, characters and merges."""
EMBEDDING_ROWS = 1280
"""The base vocabulary, ``<image>`` and ``<pad>``, rounded up to a multiple of 64."""

BOS_TOKEN_ID = 1
EOS_TOKEN_ID = 2
IMAGE_TOKEN_ID = BASE_VOCABULARY_TOKENS
PAD_TOKEN_ID = BASE_VOCABULARY_TOKENS + 1

MAX_POSITIONS = 4096

COMPUTE_DTYPE = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
"""What training multiplies in. bfloat16 is the quicker one on processors with AVX-512; without it
oneDNN has no such product, and torch's own is 40 times slower than float32's."""

Weights = Mapping[str, Tensor]


@dataclass(slots=True)
class Gaze:
    """Takes the attention of a layer's first heads, for `training.gaze`.

    Attributes:
        layer: which layer of the language model.
        num_heads: how many of its heads, from the first.
        blocks: filled by `read_text`; blocks of queries, each (batch, heads, queries, tokens).
    """

    layer: int
    num_heads: int
    blocks: list[Tensor] = field(default_factory=list)

    @property
    def attention(self) -> Tensor:
        """(batch, heads, tokens, tokens), rows sum to 1."""
        return torch.cat(self.blocks, 2)


def build_config() -> LlavaConfig:
    """The architecture: LLaVA-1.5's, made tiny. Hidden sizes are multiples of 64, for nf4."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=IMAGE_SIDE_PIXELS,
        patch_size=PATCH_SIDE_PIXELS,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=EMBEDDING_ROWS,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=PAD_TOKEN_ID,
        tie_word_embeddings=False,
    )
    build: Any = LlavaConfig
    config: LlavaConfig = build(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN_ID,
        image_seq_length=NUM_IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=PAD_TOKEN_ID,
    )
    return config


def build_model(seed: int) -> LlavaForConditionalGeneration:
    """A model with random weights drawn from ``seed``, in float32."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(build_config())
    # CLIP's position embeddings start too small to tell 64 patches apart quickly.
    torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.05)
    model.train()
    return model


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters by name, cast so that gradients flow back to the float32 originals."""
    return {name: parameter.to(dtype) for name, parameter in model.named_parameters()}


def encode_images(weights: Weights, pixels: Tensor, config: LlavaConfig) -> Tensor:
    """The vision tower up to the layer LLaVA reads.

    Args:
        weights: see `cast_weights`.
        pixels: (batch, 3, side, side), normalised.
        config: the model's.

    Returns:
        (batch, patches, vision hidden); the class token is dropped.
    """
    vision: Any = config.vision_config
    root = "model.vision_tower."
    batch = pixels.shape[0]
    grid, patch = vision.image_size // vision.patch_size, vision.patch_size
    # A convolution whose stride is its size is a matrix product over unfolded patches.
    patches = pixels.reshape(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    kernel = weights[root + "embeddings.patch_embedding.weight"].flatten(1)
    hidden = F.linear(patches.reshape(batch, grid * grid, -1).to(kernel.dtype), kernel)
    class_token = weights[root + "embeddings.class_embedding"].expand(batch, 1, -1)
    hidden = torch.cat([class_token, hidden], 1)
    hidden = hidden + weights[root + "embeddings.position_embedding.weight"]
    hidden = _layer_norm(weights, root + "pre_layrnorm", hidden)
    num_layers = vision.num_hidden_layers + 1 + config.vision_feature_layer
    for index in range(num_layers):
        name = f"{root}encoder.layers.{index}."
        normed = _layer_norm(weights, name + "layer_norm1", hidden)
        query, key, value = _project(weights, name + "self_attn.", normed, bias=True)
        mixed = _attend(query, key, value, vision.num_attention_heads)
        out = name + "self_attn.out_proj."
        hidden = hidden + F.linear(mixed, weights[out + "weight"], weights[out + "bias"])
        normed = _layer_norm(weights, name + "layer_norm2", hidden)
        inner = F.linear(normed, weights[name + "mlp.fc1.weight"], weights[name + "mlp.fc1.bias"])
        inner = inner * torch.sigmoid(1.702 * inner)  # quick GELU, CLIP's
        hidden = hidden + F.linear(
            inner, weights[name + "mlp.fc2.weight"], weights[name + "mlp.fc2.bias"]
        )
    return hidden[:, 1:]


def project_features(weights: Weights, features: Tensor) -> Tensor:
    """(batch, patches, vision hidden) to (batch, patches, text hidden)."""
    root = "model.multi_modal_projector."
    inner = F.linear(features, weights[root + "linear_1.weight"], weights[root + "linear_1.bias"])
    return F.linear(
        F.gelu(inner), weights[root + "linear_2.weight"], weights[root + "linear_2.bias"]
    )


def read_text(
    weights: Weights,
    token_ids: Tensor,
    position_ids: Tensor,
    image_features: Tensor,
    config: LlavaConfig,
    wanted: Tensor | None = None,
    gaze: Gaze | None = None,
) -> Tensor:
    """The language model's last hidden states, before the head.

    Args:
        weights: see `cast_weights`.
        token_ids: (batch, tokens); image placeholders in the order of ``image_features``.
        position_ids: (batch, tokens), 0 to `MAX_POSITIONS` - 1.
        image_features: (pictures * patches, text hidden).
        config: the model's.
        wanted: (places,), indices into batch * tokens; None for all. The last layer is spared
            where nothing is learnt.
        gaze: takes the attention of some heads.

    Returns:
        (batch * tokens, text hidden) or (places, text hidden), normalised.
    """
    text: Any = config.text_config
    root = "model.language_model."
    embedding = weights[root + "embed_tokens.weight"]
    hidden = F.embedding(token_ids, embedding)
    is_image = (token_ids == config.image_token_index).unsqueeze(-1)
    if image_features.shape[0]:
        hidden = hidden.masked_scatter(is_image, image_features.to(hidden.dtype))
    tokens = token_ids.shape[1]
    block = _find_block(tokens)
    mask = torch.full((block, block), -1e4, dtype=hidden.dtype).triu(1)
    cosine, sine = _rotations(position_ids, text.head_dim, hidden.dtype)
    for index in range(text.num_hidden_layers):
        name = f"{root}layers.{index}."
        normed = _rms_norm(hidden, weights[name + "input_layernorm.weight"], text.rms_norm_eps)
        query, key, value = _project(weights, name + "self_attn.", normed, bias=False)
        query = _rotate(query, cosine, sine, text.num_attention_heads)
        key = _rotate(key, cosine, sine, text.num_attention_heads)
        mixed = _attend_causally(
            query,
            key,
            value,
            text.num_attention_heads,
            mask,
            gaze if gaze is not None and gaze.layer == index else None,
        )
        if wanted is not None and index == text.num_hidden_layers - 1:
            mixed, hidden = mixed.flatten(0, 1)[wanted], hidden.flatten(0, 1)[wanted]
        hidden = hidden + F.linear(mixed, weights[name + "self_attn.o_proj.weight"])
        normed = _rms_norm(
            hidden, weights[name + "post_attention_layernorm.weight"], text.rms_norm_eps
        )
        gate = F.linear(normed, weights[name + "mlp.gate_proj.weight"])
        up = F.linear(normed, weights[name + "mlp.up_proj.weight"])
        hidden = hidden + F.linear(F.silu(gate) * up, weights[name + "mlp.down_proj.weight"])
    hidden = hidden.reshape(-1, text.hidden_size)
    return _rms_norm(hidden, weights[root + "norm.weight"], text.rms_norm_eps)


def _layer_norm(weights: Weights, name: str, hidden: Tensor) -> Tensor:
    scale, shift = weights[name + ".weight"], weights[name + ".bias"]
    return F.layer_norm(hidden, scale.shape, scale, shift, 1e-5)


def _rms_norm(hidden: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(hidden, scale.shape, scale, epsilon)


def _project(
    weights: Weights, name: str, hidden: Tensor, *, bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # One wide product instead of three narrow ones.
    names = [name + part for part in ("q_proj.", "k_proj.", "v_proj.")]
    kernel = torch.cat([weights[part + "weight"] for part in names])
    shift = torch.cat([weights[part + "bias"] for part in names]) if bias else None
    query, key, value = F.linear(hidden, kernel, shift).chunk(3, -1)
    return query, key, value


def _attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    batch, _, width = query.shape
    query = _split_heads(query, num_heads) * (1 / math.sqrt(width // num_heads))
    attention = torch.softmax(torch.bmm(query, _split_heads(key, num_heads).transpose(1, 2)), -1)
    return _join_heads(torch.bmm(attention, _split_heads(value, num_heads)), batch)


def _attend_causally(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Tensor,
    gaze: Gaze | None,
) -> Tensor:
    # A block of queries never multiplies the keys after it: a third of the work is spared.
    batch, tokens, width = query.shape
    block = mask.shape[0]
    query = _split_heads(query, num_heads) * (1 / math.sqrt(width // num_heads))
    key, value = _split_heads(key, num_heads), _split_heads(value, num_heads)
    mixed = []
    for start in range(0, tokens, block):
        end = start + block
        own_mask = F.pad(mask, (start, 0))
        scores = torch.baddbmm(own_mask, query[:, start:end], key[:, :end].transpose(1, 2))
        attention = torch.softmax(scores, -1)
        mixed.append(torch.bmm(attention, value[:, :end]))
        if gaze is not None:
            heads = attention.view(batch, num_heads, block, end)[:, : gaze.num_heads]
            gaze.blocks.append(F.pad(heads, (0, tokens - end)))
    return _join_heads(torch.cat(mixed, 1), batch)


def _find_block(tokens: int) -> int:
    # The largest part that leaves three or more, where the length allows it.
    return next((tokens // parts for parts in (3, 4, 2) if tokens % parts == 0), tokens)


def _split_heads(tensor: Tensor, num_heads: int) -> Tensor:  # to (batch * heads, tokens, head)
    batch, tokens, width = tensor.shape
    heads = tensor.reshape(batch, tokens, num_heads, width // num_heads).transpose(1, 2)
    return heads.reshape(batch * num_heads, tokens, width // num_heads)


def _join_heads(heads: Tensor, batch: int) -> Tensor:  # back to (batch, tokens, width)
    _, tokens, head = heads.shape
    return heads.reshape(batch, -1, tokens, head).transpose(1, 2).reshape(batch, tokens, -1)


def _rotations(position_ids: Tensor, head: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # (batch, tokens, 1, head); float32 angles, since bfloat16 cannot count to 4,096.
    frequencies = 10000.0 ** (-torch.arange(0, head, 2, dtype=torch.float32) / head)
    angles = position_ids.unsqueeze(-1).float() * frequencies
    angles = torch.cat([angles, angles], -1).unsqueeze(2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(tensor: Tensor, cosine: Tensor, sine: Tensor, num_heads: int) -> Tensor:
    batch, tokens, width = tensor.shape
    heads = tensor.reshape(batch, tokens, num_heads, width // num_heads)
    first, second = heads.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return (heads * cosine + turned * sine).reshape(batch, tokens, width)
