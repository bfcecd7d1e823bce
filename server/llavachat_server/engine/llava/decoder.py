"""Llama's decoder as modules around its weights; `engine.batching` computes with them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llavachat_server.engine.llava.config import TextConfig
from llavachat_server.engine.llava.weights import Weights


def make_linear(weights: Weights, name: str, inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    """A linear layer around weights that are there, without drawing others first."""
    linear = nn.Linear(1, 1, bias=bias)
    linear.in_features, linear.out_features = inputs, outputs
    linear.weight = weights.take(f"{name}.weight", outputs, inputs)
    if bias:
        linear.bias = weights.take(f"{name}.bias", outputs)
    return linear


class RMSNorm(nn.Module):
    """Llama's norm, computed in float32."""

    def __init__(self, weights: Weights, name: str, config: TextConfig) -> None:
        super().__init__()
        self.weight = weights.take(f"{name}.weight", config.hidden_size)
        self.variance_epsilon = config.rms_norm_eps

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., hidden) to the same."""
        rows = hidden.float()
        scale = torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (rows * scale).to(hidden.dtype)


class RotaryEmbedding(nn.Module):
    """RoPE's cosines and sines."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        places = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        self._frequencies = 1.0 / (config.rope_theta**places)

    def forward(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, tokens) positions to (batch, tokens, head_dim) cosines and sines.

        Args:
            like: has the type of the result.
            positions: from 0 on.
        """
        angles = positions[..., None].float() * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class SelfAttention(nn.Module):
    """The four matrices; the cache's kernels attend."""

    def __init__(self, weights: Weights, name: str, config: TextConfig) -> None:
        super().__init__()
        hidden, dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.q_proj = make_linear(weights, f"{name}.q_proj", hidden, queries, bias=False)
        self.k_proj = make_linear(weights, f"{name}.k_proj", hidden, keys, bias=False)
        self.v_proj = make_linear(weights, f"{name}.v_proj", hidden, keys, bias=False)
        self.o_proj = make_linear(weights, f"{name}.o_proj", queries, hidden, bias=False)


class GatedMLP(nn.Module):
    """The three matrices."""

    def __init__(self, weights: Weights, name: str, config: TextConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = make_linear(weights, f"{name}.gate_proj", hidden, inner, bias=False)
        self.up_proj = make_linear(weights, f"{name}.up_proj", hidden, inner, bias=False)
        self.down_proj = make_linear(weights, f"{name}.down_proj", inner, hidden, bias=False)
        self.act_fn = F.silu


class DecoderLayer(nn.Module):
    """One layer."""

    def __init__(self, weights: Weights, name: str, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(weights, f"{name}.input_layernorm", config)
        self.self_attn = SelfAttention(weights, f"{name}.self_attn", config)
        after = f"{name}.post_attention_layernorm"
        self.post_attention_layernorm = RMSNorm(weights, after, config)
        self.mlp = GatedMLP(weights, f"{name}.mlp", config)


class LlamaDecoder(nn.Module):
    """Input embedding, layers and final norm.

    Raises:
        WeightsMissing: the checkpoint lacks one.
    """

    def __init__(self, weights: Weights, name: str, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        words = weights.take(f"{name}.embed_tokens.weight", config.vocab_size, config.hidden_size)
        self.embed_tokens: nn.Module = nn.Embedding(
            words.shape[0], words.shape[1], _weight=words, _freeze=True
        )
        self.layers = nn.ModuleList(
            DecoderLayer(weights, f"{name}.layers.{number}", config)
            for number in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(weights, f"{name}.norm", config)
        self.rotary_emb = RotaryEmbedding(config)
