"""Writes a checkpoint of LLaVA's shape with random weights, a file of some layers at a time.

    python -m bench.gpu.checkpoint FOLDER SIZE cuda|cpu

In float16 and in the hub's layout, so that the server's own code loads it as it loads the real one.
As in `bench.served.checkpoint`, whose tokenizer it has, the head can say whole words alone.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from bench.gpu.sizes import SIZES, Size
from bench.served.checkpoint import CHAT_TEMPLATE, build_tokenizer, describe, find_words, rename
from bench.served.workload import WORDS_NAME

FILE_BYTES = 4 * 1024**3
"""Of weights in one file, and in memory at a time."""
SPREAD = 0.02
"""A matrix's standard deviation. Source: ``initializer_range`` of transformers' ``LlamaConfig``."""


def make_checkpoint(size: Size, folder: Path, device: str) -> None:
    """Write the whole folder.

    Args:
        size: the model's shape.
        folder: made; its files are overwritten.
        device: that draws the weights. Each device draws others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    words = find_words(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / WORDS_NAME).write_text(json.dumps(words) + "\n")
    contents = describe()
    _resize(contents, size)
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    word_ids = [tokenizer.token_to_id(f"▁{word}") for word in words]
    places: dict[str, str] = {}
    for number, weights in enumerate(_fill_files(folder, word_ids, device)):
        name = f"model-{number:05d}.safetensors"
        save_file(weights, folder / name, {"format": "pt"})
        places |= dict.fromkeys(weights, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _resize(contents: dict[str, Any], size: Size) -> None:
    side = {"height": size.side_pixels, "width": size.side_pixels}
    contents["preprocessor_config.json"] |= {
        "crop_size": side,
        "size": {"shortest_edge": size.side_pixels},
    }
    config = contents["config.json"]
    config |= {"torch_dtype": "float16", "image_seq_length": size.num_image_tokens}
    config["text_config"] |= {
        "torch_dtype": "float16",
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.hidden // size.heads,
        "vocab_size": size.vocabulary,
    }
    config["vision_config"] |= {
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_inner,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "image_size": size.side_pixels,
    }


def _fill_files(folder: Path, word_ids: list[int], device: str) -> Iterator[dict[str, Tensor]]:
    config = LlavaConfig.from_pretrained(folder)
    with torch.device("meta"):
        shapes = LlavaForConditionalGeneration(config).state_dict()
    generator = torch.Generator(device).manual_seed(0)
    weights: dict[str, Tensor] = {}
    num_bytes = 0
    for name, shape in shapes.items():
        weight = _draw(name, shape.shape, generator)
        if name == "lm_head.weight":
            can_be_said = torch.zeros(len(weight), 1, dtype=weight.dtype, device=device)
            can_be_said[word_ids] = 1
            weight *= can_be_said
        weights[rename(name)] = weight.cpu()
        num_bytes += weight.nbytes
        if num_bytes > FILE_BYTES:
            yield weights
            weights, num_bytes = {}, 0
    yield weights


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    options: dict[str, Any] = {"dtype": torch.float16, "device": generator.device}
    if name.endswith("bias"):
        return torch.zeros(shape, **options)
    if "norm" in name:
        return torch.ones(shape, **options)
    return torch.randn(shape, generator=generator, **options) * SPREAD


if __name__ == "__main__":
    make_checkpoint(SIZES[sys.argv[2]], Path(sys.argv[1]), sys.argv[3])
