"""Small models of transformers' as the kernels compute them, by way of a checkpoint's files."""

import json
from pathlib import Path
from typing import Any

import torch
from llavachat_server.engine.batching.core import Runner
from llavachat_server.engine.llava.config import LlavaConfig, parse_config
from llavachat_server.engine.llava.files import map_weights
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.engine.native.cache import Cache
from llavachat_server.engine.native.embedding import RowTable
from llavachat_server.engine.native.steps import NativeDecoder, NativeRunner
from llavachat_server.engine.native.tower import NativeTower
from llavachat_server.engine.native.weights import pack_decoder, pack_tower, take_words
from llavachat_server.engine.virtual_ids import VirtualIds
from safetensors.torch import save_file

BLOCK_TOKENS = 16
"""The kernels read keys in panels of 16 tokens."""


def make_decoder(
    model: Any, kernels: Kernels, folder: Path, *, num_threads: int = 1
) -> NativeDecoder:
    """A Llama model's decoder.

    Args:
        model: `LlamaForCausalLM`.
        kernels: that compute.
        folder: takes its weights' file.
        num_threads: that compute.
    """
    # As the other half of a Llava model.
    weights = {
        f"language_model.{name}": weight
        for name, weight in model.state_dict().items()
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings)
    }
    save_file(weights, folder / "model.safetensors")
    config = parse_config({"model_type": "llava", "text_config": model.config.to_dict()})
    arrays = map_weights(folder)
    words = take_words(arrays, config.text_config)
    rows = RowTable(words, VirtualIds(len(words)), 1, 1, 1)
    panels = pack_decoder(arrays, config)
    return NativeDecoder(kernels.step, panels, config, rows, num_threads)


def make_runner(decoder: NativeDecoder, num_blocks: int) -> Runner:
    """A decoder over an empty cache."""
    return NativeRunner(decoder, Cache(decoder.shape, num_blocks, BLOCK_TOKENS))


def read_config(model: Any) -> LlavaConfig:
    """What the files of a Llava model say of it."""
    content = json.loads(json.dumps(model.config.to_dict(), default=str))
    return parse_config(content)


def make_tower(model: Any, kernels: Kernels, folder: Path, *, num_threads: int = 1) -> NativeTower:
    """A Llava model's tower and projector.

    Args:
        model: `LlavaForConditionalGeneration`.
        kernels: that compute.
        folder: takes its weights' file.
        num_threads: that compute.
    """
    save_file(
        {name: weight.contiguous() for name, weight in model.state_dict().items()},
        folder / "model.safetensors",
    )
    config = read_config(model)
    weights = pack_tower(map_weights(folder), config)
    return NativeTower(kernels.tower, weights, config, num_threads)


def to_tensor(array: Any) -> torch.Tensor:
    """An array's numbers, to be compared with torch's."""
    return torch.from_numpy(array)
