"""Llama's decoder layer and head over flat rows, in two makes.

`ModuleLayer` multiplies by the model's own linear modules, so that bitsandbytes' just work.
`PackedLayer`, for unquantised float32 on a CPU, has the norms' weights folded into oneDNN's
matrices and everything pointwise fused into the products. It knows rows and a cache, and no
requests.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llavachat_server.engine.batching.sizing import Shape
from llavachat_server.engine.tensors.attention import Attention
from llavachat_server.engine.tensors.linears import PackedLinear
from llavachat_server.engine.tensors.products import Products

_LLAMA_NORMS = frozenset({"RMSNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm"})
"""Classes whose norm is ``weight * x / sqrt(mean(x^2) + eps)``: our own, and transformers'."""


class Layer(Protocol):
    """A decoder layer."""

    hidden_size: int

    def __init__(
        self, layer: Any, shape: Shape, *, release: bool, int8_threshold: float | None
    ) -> None: ...

    def __call__(
        self,
        hidden: Tensor,
        rotations: Sequence[Tensor],
        number: int,
        attention: Attention,
        num_rows: int,
    ) -> Tensor:
        """(rows, hidden) to the same; rows from `num_rows` on are padding."""
        ...

    def multiply(self, hidden: Tensor) -> None:
        """Only the matrix products of a call; to be measured."""
        ...


class Head(Protocol):
    """The final norm and the output head: (rows, hidden) to (rows, vocabulary)."""

    def __init__(self, norm: Any, head: Any) -> None: ...

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits."""
        ...


def can_pack(decoder: Any, head: Any) -> bool:
    """Whether `PackedLayer` can take this model: plain float32 linears on a CPU, and SiLU."""
    linears = [m for m in decoder.layers.modules() if hasattr(m, "in_features")] + [head]
    has_onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return bool(
        has_onednn
        and decoder.config.hidden_act in ("silu", "swish")
        and all(type(m) is nn.Linear for m in linears)
        and all(m.weight.dtype == torch.float32 and not m.weight.is_cuda for m in linears)
    )


def build_rotations(decoder: Any, num_positions: int, *, packed: bool) -> list[Tensor]:
    """RoPE for every position, from the model's own parameters.

    Returns:
        For packed layers (positions, 1, head_dim / 2) complex rotations; otherwise cosines and
        sines, (positions, 1, head_dim) each, the sines' first half negated.
    """
    weight = decoder.norm.weight
    positions = torch.arange(num_positions, device=weight.device).unsqueeze(0)
    # The norm's weight tells the type and device of the hidden states.
    cos, sin = decoder.rotary_emb(weight, positions)
    cos, sin = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
    half = cos.shape[-1] // 2
    if packed:
        return [torch.complex(cos[..., :half].contiguous(), sin[..., :half].contiguous())]
    return [cos, torch.cat([-sin[..., :half], sin[..., half:]], -1)]


class ModuleLayer:
    """A decoder layer by the model's own linear modules; see `products`.

    On a GPU a step of a few rows is as long as its launches take, so there are few: one for a norm,
    one turn of query and keys, and int8's rows are quantised once for all matrices that they meet.
    """

    def __init__(
        self, layer: Any, shape: Shape, *, release: bool, int8_threshold: float | None
    ) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self.hidden_size = int(layer.input_layernorm.weight.shape[0])
        self._num_heads, self._head_dim = shape.num_heads, shape.head_dim
        self._num_turned = shape.num_heads + shape.num_kv_heads
        self._norm_1 = _make_norm(layer.input_layernorm)
        self._norm_2 = _make_norm(layer.post_attention_layernorm)
        self._qkv, self._output, self._gate_up, self._down = (
            Products(modules, int8_threshold)
            for modules in (
                (own.q_proj, own.k_proj, own.v_proj),
                (own.o_proj,),
                (mlp.gate_proj, mlp.up_proj),
                (mlp.down_proj,),
            )
        )
        self._activate = mlp.act_fn

    def __call__(
        self,
        hidden: Tensor,
        rotations: Sequence[Tensor],
        number: int,
        attention: Attention,
        num_rows: int,
    ) -> Tensor:
        """See `Layer`; `hidden` has no padding."""
        qkv = self._qkv.together(self._norm_1(hidden))
        qkv = qkv.view(num_rows, -1, self._head_dim)
        _turn(qkv[:, : self._num_turned], rotations)
        mixed = attention.attend(number, qkv[:, : self._num_heads], qkv[:, self._num_heads :])
        hidden = hidden + self._output.together(mixed)
        gate, up = self._gate_up.apart(self._norm_2(hidden))
        return hidden + self._down.together(self._activate(gate) * up)

    def multiply(self, hidden: Tensor) -> None:
        """See `Layer`."""
        raise NotImplementedError("only packed layers gain from padding")


class PackedLayer:
    """A decoder layer in seven products and few steps between them.

    RoPE turns pairs of neighbouring values here, as one complex product; the rows of the query
    and key matrices are put in that order once, which no score notices.
    """

    def __init__(
        self, layer: Any, shape: Shape, *, release: bool, int8_threshold: float | None
    ) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self.hidden_size = int(layer.input_layernorm.weight.shape[0])
        self._num_heads, self._head_dim = shape.num_heads, shape.head_dim
        self._num_turned = shape.num_heads + shape.num_kv_heads
        self._norm_1 = _FoldedNorm(layer.input_layernorm)
        self._norm_2 = _FoldedNorm(layer.post_attention_layernorm)
        turned = [_interleave(m, shape.head_dim) for m in (own.q_proj, own.k_proj)]
        weight = torch.cat([w for w, _ in turned] + [own.v_proj.weight])
        bias = None
        if own.q_proj.bias is not None:
            biases = [b for _, b in turned if b is not None]
            bias = torch.cat([*biases, own.v_proj.bias])
        self._qkv = PackedLinear(self._norm_1.fold(weight), bias)
        self._output = PackedLinear(own.o_proj.weight, own.o_proj.bias)
        self._gate = PackedLinear(self._norm_2.fold(mlp.gate_proj.weight), mlp.gate_proj.bias)
        self._up = PackedLinear(self._norm_2.fold(mlp.up_proj.weight), mlp.up_proj.bias)
        self._down = PackedLinear(mlp.down_proj.weight, mlp.down_proj.bias)
        if release:
            for module in (own.q_proj, own.k_proj, own.v_proj, own.o_proj):
                _release(module)
            for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
                _release(module)

    def __call__(
        self,
        hidden: Tensor,
        rotations: Sequence[Tensor],
        number: int,
        attention: Attention,
        num_rows: int,
    ) -> Tensor:
        """See `Layer`."""
        qkv = self._qkv(self._norm_1(hidden)).view(hidden.shape[0], -1, self._head_dim)
        if num_rows < hidden.shape[0]:
            qkv = qkv[:num_rows]
        pairs = qkv[:, : self._num_turned].view(num_rows, self._num_turned, -1, 2)
        torch.view_as_complex(pairs).mul_(rotations[0])
        mixed = attention.attend(number, qkv[:, : self._num_heads], qkv[:, self._num_heads :])
        if num_rows < hidden.shape[0]:
            mixed = F.pad(mixed, (0, 0, 0, hidden.shape[0] - num_rows))
        hidden = self._output.plus(mixed, hidden)
        normed = self._norm_2(hidden)
        return self._down.plus(self._up.times(normed, self._gate.silu(normed)), hidden)

    def multiply(self, hidden: Tensor) -> None:
        """See `Layer`."""
        width = self._num_heads * self._head_dim
        hidden = self._output.plus(self._qkv(hidden)[:, :width].contiguous(), hidden)
        self._down.plus(self._up.times(hidden, self._gate.silu(hidden)), hidden)


class ModuleHead:
    """The head by the model's own modules."""

    def __init__(self, norm: Any, head: Any) -> None:
        self._norm, self._head = _make_norm(norm), head

    def __call__(self, hidden: Tensor) -> Tensor:
        """See `Head`."""
        logits: Tensor = self._head(self._norm(hidden))
        return logits


class PackedHead:
    """The head as one packed product."""

    def __init__(self, norm: Any, head: Any) -> None:
        self._norm = _FoldedNorm(norm)
        self._linear = PackedLinear(self._norm.fold(head.weight), head.bias)

    def __call__(self, hidden: Tensor) -> Tensor:
        """See `Head`."""
        return self._linear(self._norm(hidden))


class _FoldedNorm:
    """RMSNorm without its constants, which go into the matrix that follows.

    ``x / sqrt(mean(x^2) + eps)`` is ``sqrt(n) * x / hypot(|x|, sqrt(n * eps))``.
    """

    def __init__(self, norm: Any) -> None:
        size = norm.weight.shape[0]
        self._scale = norm.weight * size**0.5
        self._floor = torch.full((1,), (size * norm.variance_epsilon) ** 0.5)

    def fold(self, weight: Tensor) -> Tensor:
        folded: Tensor = weight * self._scale
        return folded

    def __call__(self, hidden: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / torch.hypot(length, self._floor)


def _make_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    # One operation where there were eight, which rounds to 16 bits once and not twice. Others than
    # these compute something else, such as Gemma's, which adds 1 to its weight.
    if type(norm).__name__ not in _LLAMA_NORMS:
        return cast(Callable[[Tensor], Tensor], norm)
    shape = norm.weight.shape
    return lambda hidden: F.rms_norm(hidden, shape, norm.weight, norm.variance_epsilon)


def _turn(rows: Tensor, rotations: Sequence[Tensor]) -> None:
    # (rows, heads, head_dim), in place; the sines carry the sign of the swapped halves.
    cos, sin = rotations
    torch.addcmul(rows * cos, rows.roll(rows.shape[-1] // 2, -1), sin, out=rows)


def _interleave(module: Any, head_dim: int) -> tuple[Tensor, Tensor | None]:
    # Per head: first half and second half -> pairs.
    def reorder(tensor: Tensor) -> Tensor:
        halves = tensor.view(-1, 2, head_dim // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)

    return reorder(module.weight), None if module.bias is None else reorder(module.bias)


def _release(module: Any) -> None:
    module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
