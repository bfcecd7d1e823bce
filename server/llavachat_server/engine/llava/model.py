"""The whole model, unquantised, on a processor."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.llava.decoder import LlamaDecoder, make_linear
from llavachat_server.engine.llava.tower import ClipTower, Projector
from llavachat_server.engine.llava.weights import Weights, open_weights


class ImageFeatures(NamedTuple):
    """What `Llava.get_image_features` returns; `pooler_output` is (batch, tokens, hidden)."""

    pooler_output: Tensor


class LlavaHalves(nn.Module):
    """The half that sees and the half that speaks."""

    def __init__(self, weights: Weights, config: LlavaConfig) -> None:
        super().__init__()
        vision, layer = config.vision_config, config.vision_feature_layer
        # States before the first layer count as well, as in transformers' list of them.
        num_layers = layer % (vision.num_hidden_layers + 1)
        self.vision_tower = ClipTower(weights, "vision_tower", vision, num_layers)
        self.multi_modal_projector = Projector(weights, "multi_modal_projector", config)
        self.language_model = LlamaDecoder(weights, "language_model", config.text_config)


class Llava(nn.Module):
    """LLaVA-1.5, as far as the engine asks for it: what stands around the decoder's layers.

    Args:
        weights: of a checkpoint.
        config: of the same; `LlavaConfig.is_plain`.

    Raises:
        WeightsMissing: a weight is not there, or has another shape.
    """

    def __init__(self, weights: Weights, config: LlavaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlavaHalves(weights, config)
        words = self.model.language_model.embed_tokens
        text = config.text_config
        # As transformers does: a head of its own counts, whatever the configuration says.
        if config.tie_word_embeddings and not weights.has("lm_head.weight"):
            self.lm_head = nn.Linear(1, 1, bias=False)
            self.lm_head.in_features, self.lm_head.out_features = text.hidden_size, text.vocab_size
            assert isinstance(words.weight, nn.Parameter)
            self.lm_head.weight = words.weight
        else:
            sizes = (text.hidden_size, text.vocab_size)
            self.lm_head = make_linear(weights, "lm_head", *sizes, bias=False)

    def get_decoder(self) -> LlamaDecoder:
        """Layers and final norm."""
        return self.model.language_model

    def get_input_embeddings(self) -> nn.Module:
        """What turns ids into rows."""
        return self.model.language_model.embed_tokens

    def set_input_embeddings(self, embedding: nn.Module) -> None:
        """Put another module there."""
        self.model.language_model.embed_tokens = embedding

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.lm_head

    def get_image_features(self, pixel_values: Tensor) -> ImageFeatures:
        """(batch, 3, side, side) pixels to what the decoder reads of them."""
        states = self.model.vision_tower(pixel_values)
        if self.config.vision_feature_select_strategy == "default":
            states = states[:, 1:]
        return ImageFeatures(self.model.multi_modal_projector(states))


def read_llava(folder: Path, config: LlavaConfig, dtype: torch.dtype) -> Llava:
    """Read a checkpoint on the processor; matrices of this type stay in the mapped files.

    Args:
        folder: of the checkpoint.
        config: of the same; `LlavaConfig.is_plain`.
        dtype: to compute in.

    Raises:
        WeightsMissing: a weight is not there, or has another shape.
        OSError, ValueError, safetensors.SafetensorError: a file can not be read.
    """
    return Llava(open_weights(folder, dtype), config).eval()
