"""A decoder's weights in the order in which the kernels read them.

A panel is 16 outputs of a matrix, ``(in, 16)``: one product reads it from end to end. All
panels of all layers stand in one array, in the order of a step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from llavachat_server.engine.batching.attention import Shape
from llavachat_server.engine.native.vectors import LANES


def can_pack(decoder: Any, head: Any, shape: Shape) -> bool:
    """Whether the kernels compute this model: Llama in float32 on a CPU, without biases.

    Every width must be whole vectors of 16, the vocabulary excepted.
    """
    linears = [m for m in decoder.layers.modules() if hasattr(m, "in_features")] + [head]
    config = decoder.config
    return bool(
        config.hidden_act in ("silu", "swish")
        and all(size % LANES == 0 for size in (config.hidden_size, config.intermediate_size))
        and shape.head_dim % LANES == 0
        and all(type(m) is nn.Linear and m.bias is None for m in linears)
        and all(m.weight.dtype == torch.float32 and not m.weight.is_cuda for m in linears)
    )


def pack_weights(decoder: Any, head: Any, shape: Shape, *, release: bool) -> Tensor:
    """All panels, float32, one dimension.

    Args:
        decoder: with its layers and final norm.
        head: the output head.
        shape: of the model.
        release: give each layer's own weights back as soon as they are packed.
    """
    linears = [m for m in decoder.layers.modules() if hasattr(m, "in_features")]
    padded = -head.weight.shape[0] % LANES
    size = (
        sum(m.weight.numel() for m in linears)
        + (head.weight.shape[0] + padded) * (head.weight.shape[1])
    )
    packed, end = torch.empty(size), 0

    def put(panels: Tensor) -> None:
        nonlocal end
        packed[end : end + panels.numel()].view(panels.shape).copy_(panels)
        end += panels.numel()

    for layer in decoder.layers:
        own, mlp = layer.self_attn, layer.mlp
        before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        for module in (own.q_proj, own.k_proj):
            put(cut_panels(_pair_up(module.weight, shape.head_dim) * before))
        put(cut_panels(own.v_proj.weight * before))
        put(cut_panels(own.o_proj.weight))
        gate, up = cut_panels(mlp.gate_proj.weight * after), cut_panels(mlp.up_proj.weight * after)
        put(torch.stack([gate, up], 1))
        put(cut_panels(mlp.down_proj.weight))
        if release:
            for module in [*own.children(), *mlp.children()]:
                if hasattr(module, "in_features"):
                    module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
    put(cut_panels(nn.functional.pad(head.weight * decoder.norm.weight, (0, 0, 0, padded))))
    return packed


def build_angles(decoder: Any, num_positions: int) -> tuple[Tensor, Tensor]:
    """RoPE's cosines and sines, (positions, head_dim) each, for pairs of neighbours.

    The sines of each pair's first are negated.
    """
    positions = torch.arange(num_positions).unsqueeze(0)
    cosines, sines = decoder.rotary_emb(decoder.norm.weight, positions)
    half = cosines.shape[-1] // 2
    cosines = cosines[0, :, :half].repeat_interleave(2, 1)
    sines = torch.stack([-sines[0, :, :half], sines[0, :, :half]], -1).flatten(1)
    return cosines.contiguous(), sines.contiguous()


def cut_panels(weight: Tensor) -> Tensor:
    """(out, in) to (panels, in, 16)."""
    return weight.view(-1, LANES, weight.shape[1]).transpose(1, 2)


def _pair_up(weight: Tensor, head_dim: int) -> Tensor:
    # Per head: first half and second half -> pairs of neighbours, which no score notices.
    halves = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)
