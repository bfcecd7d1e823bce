"""Makes the checkpoint that every contender loads: LLaVA's architecture, random weights.

    python -m bench.served.checkpoint FOLDER

A decoder of 27 million parameters (107.9 MB in float32 are read for a token), a vision tower of 25,
and a real tokenizer of Llama's kind, built here. Two things make contenders comparable that random
weights would otherwise spoil. The head's rows of everything but whole words are zero: a greedy
answer is words all the way, never ends by itself, and every server shows each token as soon as it
has it. And each word is one token wherever it stands, so that an answer that a text interface
sends back is the same ids again and a prefix cache can find them.

Written in the layout of ``llava-hf/llava-1.5-7b-hf``, which every contender's own code reads;
transformers 5's own names for the weights are not among what all of them know.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from bench.served.workload import IMAGE_SIDE_PIXELS, SYSTEM_PROMPT, WORDS_NAME

VOCABULARY = 4032
MAX_POSITIONS = 4096
HIDDEN, LAYERS, HEADS, INNER = 512, 8, 8, 1344
PATCH_PIXELS = 14
LLAMA_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"
IMAGE_ID, PAD_ID = VOCABULARY - 2, VOCABULARY - 1
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
"""Source: ``OPENAI_CLIP_MEAN`` and ``OPENAI_CLIP_STD`` in transformers' ``image_utils.py``."""

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- if messages[0]['role'] != 'system' -%}{{- SYSTEM -}}{%- endif -%}
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'system' -%}{{- content + ' ' -}}
{%- elif message['role'] == 'user' -%}
{{- 'USER: ' -}}
{%- if content is string -%}{{- content -}}{%- else -%}
{%- for part in content if part['type'] in ('image', 'image_url') -%}
{{- '<image>\\n' -}}
{%- endfor -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- ' ' -}}
{%- else -%}
{{- 'ASSISTANT: ' -}}
{%- if content is string -%}{{- content -}}{%- else -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
""".replace("SYSTEM", json.dumps(SYSTEM_PROMPT + " "))
"""Vicuna v1 with ``</s>`` after each answer.

Source: ``conv_vicuna_v1`` in the LLaVA-1.5 release, ``llava/conversation.py``.
"""


def make_checkpoint(folder: Path) -> None:
    """Write the whole folder; the same bytes every time.

    Args:
        folder: made; its files are overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    words = find_words(tokenizer)
    model = build_model([tokenizer.token_to_id(f"▁{word}") for word in words])
    weights = {rename(name): value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    for name, content in describe().items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    (folder / WORDS_NAME).write_text(json.dumps(words) + "\n")


def build_tokenizer() -> Tokenizer:
    """Byte-pair merges with byte fallback over invented words; ids laid out as Llama's."""
    rng = random.Random(0)
    syllables = [c + v for c in "bcdfghjklmnpqrstvwxyz" for v in "aeiou"]
    invented = ["".join(rng.choices(syllables, k=rng.choice((2, 2, 3)))) for _ in range(6000)]
    corpus = [SYSTEM_PROMPT, "USER:", "ASSISTANT:"] * 2000 + invented * 3
    space = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(BPE(unk_token="<unk>"))
    learner.normalizer = space
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation("isolated")]
    )
    learner.train_from_iterator(
        corpus,
        BpeTrainer(
            vocab_size=VOCABULARY - 2 - 256,
            special_tokens=list(LLAMA_SPECIAL_TOKENS),
            show_progress=False,
        ),
    )
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].get)[len(LLAMA_SPECIAL_TOKENS) :]
    names = [*LLAMA_SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    assert len(names) == IMAGE_ID, f"{len(names)} pieces"
    tokenizer = Tokenizer(
        BPE(
            vocab={name: number for number, name in enumerate(names)},
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = space
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    for name in (*LLAMA_SPECIAL_TOKENS, IMAGE_TOKEN, PAD_TOKEN):
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    return tokenizer


def find_words(tokenizer: Tokenizer) -> list[str]:
    """Words of three letters and more that are one token, alone and after another."""
    words = []
    for token in sorted(tokenizer.get_vocab(with_added_tokens=False)):
        word = token.removeprefix("▁")
        is_word = token.startswith("▁") and len(word) >= 3 and word.isascii() and word.islower()
        if is_word and word.isalpha():
            ids = tokenizer.encode(f"{word} {word}", add_special_tokens=False).ids
            if ids == [tokenizer.token_to_id(token)] * 2:
                words.append(word)
    return words


def build_model(word_ids: list[int]) -> LlavaForConditionalGeneration:
    """The model; its head can say words alone."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=8,
            image_size=IMAGE_SIDE_PIXELS,
            patch_size=PATCH_PIXELS,
        ),
        text_config=LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            vocab_size=VOCABULARY,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=False,
        ),
        image_token_index=IMAGE_ID,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    can_be_said = torch.zeros(VOCABULARY, 1)
    can_be_said[word_ids] = 1
    model.lm_head.weight.mul_(can_be_said)
    return model


def rename(name: str) -> str:
    """A weight's name in the hub's layout."""
    name = name.removeprefix("model.")
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def describe() -> dict[str, Any]:
    """The small files in JSON, in the form of ``llava-hf/llava-1.5-7b-hf``."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD_ID}
    side = {"height": IMAGE_SIDE_PIXELS, "width": IMAGE_SIDE_PIXELS}
    image_processor = {
        "crop_size": side,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": CLIP_STD,
        "processor_class": "LlavaProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": IMAGE_SIDE_PIXELS},
    }
    processor = {
        "image_token": IMAGE_TOKEN,
        "num_additional_image_tokens": 1,
        "patch_size": PATCH_PIXELS,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "default",
    }
    tokenizer = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": PAD_TOKEN,
        "image_token": IMAGE_TOKEN,
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_POSITIONS,
        "padding_side": "left",
        "processor_class": "LlavaProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "torch_dtype": "float32",
        "ignore_index": -100,
        "image_seq_length": (IMAGE_SIDE_PIXELS // PATCH_PIXELS) ** 2,
        "image_token_index": IMAGE_ID,
        "pad_token_id": PAD_ID,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float32",
            "hidden_act": "silu",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HIDDEN // HEADS,
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "vocab_size": VOCABULARY,
            **ids,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_act": "quick_gelu",
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "image_size": IMAGE_SIDE_PIXELS,
            "patch_size": PATCH_PIXELS,
            "projection_dim": 512,
        },
    }
    return {
        "config.json": config,
        "generation_config.json": {**ids, "do_sample": False},
        "preprocessor_config.json": image_processor,
        "processor_config.json": processor,
        "tokenizer_config.json": tokenizer,
    }


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1]))
