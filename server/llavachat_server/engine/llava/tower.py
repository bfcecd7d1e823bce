"""CLIP's vision tower and LLaVA's projector as modules around their weights.

Operation by operation what transformers does, so that features are equal to the last bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llavachat_server.engine.llava.config import LlavaConfig, VisionConfig
from llavachat_server.engine.llava.decoder import make_linear
from llavachat_server.engine.llava.weights import Weights


class Embeddings(nn.Module):
    """Pixels to the states before the first layer: a class token, and a patch each."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig) -> None:
        super().__init__()
        hidden, patch = config.hidden_size, config.patch_size
        self.num_positions = (config.image_size // patch) ** 2 + 1
        self.class_embedding = weights.take(f"{name}.class_embedding", hidden)
        kernel = (hidden, config.num_channels, patch, patch)
        self.patches = weights.take(f"{name}.patch_embedding.weight", *kernel)
        positions = (self.num_positions, hidden)
        self.positions = weights.take(f"{name}.position_embedding.weight", *positions)
        self._patch_size = patch

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, side, side) to (batch, 1 + patches, hidden)."""
        patches = F.conv2d(pixels, self.patches, stride=self._patch_size)
        first = self.class_embedding.expand(pixels.shape[0], 1, -1)
        rows = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        return rows + self.positions.unsqueeze(0)


def make_norm(weights: Weights, name: str, config: VisionConfig) -> nn.LayerNorm:
    """A layer norm around weights that are there."""
    norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, elementwise_affine=False)
    norm.weight = weights.take(f"{name}.weight", config.hidden_size)
    norm.bias = weights.take(f"{name}.bias", config.hidden_size)
    return norm


class Attention(nn.Module):
    """Of every row to every row."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = config.hidden_size, config.num_attention_heads
        self.head_dim = self.embed_dim // self.num_heads
        size = self.embed_dim
        self.q_proj = make_linear(weights, f"{name}.q_proj", size, size, bias=True)
        self.k_proj = make_linear(weights, f"{name}.k_proj", size, size, bias=True)
        self.v_proj = make_linear(weights, f"{name}.v_proj", size, size, bias=True)
        self.out_proj = make_linear(weights, f"{name}.out_proj", size, size, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, rows, hidden) to the same."""
        heads = (*hidden.shape[:-1], -1, self.head_dim)
        query, key, value = (
            module(hidden).view(heads).transpose(1, 2)
            for module in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.head_dim**-0.5)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(hidden.shape))
        return output


class MLP(nn.Module):
    """Two matrices, and GELU or its quick approximation between them."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        self.fc1 = make_linear(weights, f"{name}.fc1", hidden, inner, bias=True)
        self.fc2 = make_linear(weights, f"{name}.fc2", inner, hidden, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, rows, hidden) to the same."""
        rows = self.fc1(hidden)
        is_quick = self.config.hidden_act == "quick_gelu"
        rows = rows * torch.sigmoid(1.702 * rows) if is_quick else F.gelu(rows)
        output: Tensor = self.fc2(rows)
        return output


class EncoderLayer(nn.Module):
    """One layer."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = make_norm(weights, f"{name}.layer_norm1", config)
        self.self_attn = Attention(weights, f"{name}.self_attn", config)
        self.layer_norm2 = make_norm(weights, f"{name}.layer_norm2", config)
        self.mlp = MLP(weights, f"{name}.mlp", config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, rows, hidden) to the same."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        output: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return output


class Encoder(nn.Module):
    """The layers up to the one that LLaVA reads; the others are not even loaded."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(weights, f"{name}.layers.{number}", config) for number in range(num_layers)
        )


class ClipTower(nn.Module):
    """CLIP's vision tower, up to the layer that LLaVA reads."""

    def __init__(self, weights: Weights, name: str, config: VisionConfig, num_layers: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(weights, f"{name}.embeddings", config)
        # CLIP's own spelling.
        self.pre_layrnorm = make_norm(weights, f"{name}.pre_layrnorm", config)
        self.encoder = Encoder(weights, f"{name}.encoder", config, num_layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, side, side) to (batch, 1 + patches, hidden)."""
        states: Tensor = self.pre_layrnorm(self.embeddings(pixels))
        for layer in self.encoder.layers:
            states = layer(states)
        return states


class Projector(nn.Module):
    """From the tower's rows to the decoder's."""

    def __init__(self, weights: Weights, name: str, config: LlavaConfig) -> None:
        super().__init__()
        seen, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        bias = config.multimodal_projector_bias
        self.linear_1 = make_linear(weights, f"{name}.linear_1", seen, hidden, bias=bias)
        self.linear_2 = make_linear(weights, f"{name}.linear_2", hidden, hidden, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        """(..., vision hidden) to (..., hidden)."""
        output: Tensor = self.linear_2(F.gelu(self.linear_1(states)))
        return output
