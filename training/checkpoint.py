"""Writes the checkpoint's folder: weights in bfloat16, tokenizer, processor and chat template.

The folder is written beside its place and its files are renamed into it, so that a reader finds
either the old file or the new one, never half of one.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from training.network import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    IMAGE_SIDE_PIXELS,
    MAX_POSITIONS,
    PAD_TOKEN_ID,
    PATCH_SIDE_PIXELS,
)
from training.tokenizer import IMAGE_TOKEN, PAD_TOKEN

DEFAULT_FOLDER = (
    Path(__file__).resolve().parent.parent / "server" / "llavachat_server" / "models" / "shapes"
)
MAX_FOLDER_BYTES = 8_000_000

CHAT_TEMPLATE = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}
{%- if system is not string -%}{%- set system = system[0]['text'] -%}{%- endif -%}
{%- else -%}
{%- set system = "A chat between a curious human and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the human's questions." -%}
{%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- if system -%}{{- system + ' ' -}}{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{{- 'USER: ' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- ' ' -}}
{%- else -%}
{{- 'ASSISTANT: ' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
"""Vicuna v1 with ``</s>`` after each answer.

Source: ``conv_vicuna_v1`` in the LLaVA-1.5 release, ``llava/conversation.py``.
"""


def build_processor(tokenizer: Tokenizer) -> LlavaProcessor:
    """The processor that ``AutoProcessor`` will find: CLIP's, at the model's size."""
    # Any: transformers leaves its constructors untyped.
    build_tokenizer: Any = PreTrainedTokenizerFast
    build: Any = LlavaProcessor
    fast = build_tokenizer(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=PAD_TOKEN,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )
    fast.chat_template = CHAT_TEMPLATE
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIDE_PIXELS},
        crop_size={"height": IMAGE_SIDE_PIXELS, "width": IMAGE_SIDE_PIXELS},
    )
    processor: LlavaProcessor = build(
        image_processor=images,
        tokenizer=fast,
        patch_size=PATCH_SIDE_PIXELS,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return processor


def save_checkpoint(
    model: LlavaForConditionalGeneration, tokenizer: Tokenizer, folder: Path
) -> None:
    """Write the folder that transformers loads without trusting any code.

    Args:
        model: the trained model, float32; saved in bfloat16 and left untouched.
        tokenizer: see `training.tokenizer`.
        folder: made if missing; files of the same names are replaced, file by file.

    Raises:
        ValueError: the folder would exceed `MAX_FOLDER_BYTES`.
    """
    staging = folder.parent / f".{folder.name}.writing"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    copy: Any = LlavaForConditionalGeneration(model.config)
    settings: Any = GenerationConfig
    copy.load_state_dict(model.state_dict())
    copy.generation_config = settings(
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=PAD_TOKEN_ID,
        do_sample=False,
        max_new_tokens=64,
    )
    copy.to(torch.bfloat16).save_pretrained(staging)
    build_processor(tokenizer).save_pretrained(staging)
    size_bytes = sum(path.stat().st_size for path in staging.iterdir())
    if size_bytes > MAX_FOLDER_BYTES:
        raise ValueError(f"{size_bytes} bytes, more than the {MAX_FOLDER_BYTES} allowed")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(staging.iterdir()):
        path.chmod(0o644)  # the weights are written for their owner alone
        path.replace(folder / path.name)
    staging.rmdir()


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """A saved checkpoint's weights, in float32, by the names that the model's modules have."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    weights: dict[str, torch.Tensor] = model.state_dict()
    return weights
