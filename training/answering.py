"""Loads a checkpoint as the server would, quantised or not, and answers many chats at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llavachat_server.engine.prompt import PromptBuilder
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import build_quantization
from llavachat_server.engine.tensors.products import Products
from llavachat_server.values import Quantization
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from training.batches import normalise_pixels, shrink_picture
from training.dialogues import load_prompt_builder, widen_images
from training.network import EOS_TOKEN_ID, PAD_TOKEN_ID

QUANTISATIONS = ("none", "int8", "nf4")
_BATCH_SIZE = 64
_MAX_ANSWER_TOKENS = 64


@dataclass(slots=True)
class OpenChat:
    """A chat that waits for an answer.

    Attributes:
        turns: (question, answer) of the past, answers as the model gave them.
        question: the next one.
        pictures: all pictures so far, in order.
        num_images: how many of them come with each question, the next one included.
        system_prompt: None for the usual one.
    """

    question: str
    pictures: list[Image.Image]
    turns: list[tuple[str, str]] = field(default_factory=list)
    num_images: list[int] = field(default_factory=lambda: [1])
    system_prompt: str | None = None


class Answerer:
    """A loaded checkpoint. Greedy, so that an evaluation can be repeated."""

    def __init__(self, folder: Path, quantisation: str = "none") -> None:
        """Load a checkpoint.

        Args:
            folder: the checkpoint's.
            quantisation: one of `QUANTISATIONS`; 'none' computes in float32.
        """
        self._builder = load_prompt_builder(folder)
        self._model = _load_model(folder, quantisation)

    def answer(self, chats: Sequence[OpenChat]) -> list[str]:
        """Answer every chat's open question, in order."""
        prompts = [build_prompt(self._builder, chat) for chat in chats]
        # Chats of like length share a batch: less padding.
        order = sorted(range(len(chats)), key=lambda index: len(prompts[index]))
        texts = [""] * len(chats)
        for start in range(0, len(order), _BATCH_SIZE):
            chosen = order[start : start + _BATCH_SIZE]
            pictures = [picture for index in chosen for picture in chats[index].pictures]
            replies = self._generate([prompts[index] for index in chosen], pictures)
            for index, reply in zip(chosen, replies, strict=True):
                texts[index] = reply
        return texts

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], pictures: list[Image.Image]) -> list[str]:
        longest = max(map(len, prompts))
        token_ids = torch.full((len(prompts), longest), PAD_TOKEN_ID)
        for row, prompt in enumerate(prompts):
            token_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        inputs = {"input_ids": token_ids, "attention_mask": (token_ids != PAD_TOKEN_ID).long()}
        if pictures:
            pixels = normalise_pixels(np.stack([shrink_picture(picture) for picture in pictures]))
            inputs["pixel_values"] = pixels
        output = self._model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=_MAX_ANSWER_TOKENS,
            eos_token_id=EOS_TOKEN_ID,
            pad_token_id=PAD_TOKEN_ID,
        )
        replies = []
        for row in output[:, longest:].tolist():
            kept = [token for token in row if token not in (EOS_TOKEN_ID, PAD_TOKEN_ID)]
            replies.append(self._builder.render(kept).strip())
        return replies


def build_prompt(builder: PromptBuilder, chat: OpenChat) -> list[int]:
    """Token ids of everything up to and with the last 'ASSISTANT:'."""
    ids: list[tuple[int, ...]] = []
    questions = [*(question for question, _ in chat.turns), chat.question]
    for index, question in enumerate(questions):
        num_images = chat.num_images[index] if index < len(chat.num_images) else 0
        if index == 0:
            ids.append(
                builder.build_first_turn(
                    question, num_images=num_images, system_prompt=chat.system_prompt
                )
            )
        else:
            ids.append(builder.build_next_turn(question, num_images=num_images))
    past = [
        (question_ids, builder.build_answer(answer))
        for question_ids, (_, answer) in zip(ids, chat.turns, strict=False)
    ]
    return widen_images(builder.join_turns(past, ids[-1]))


def _load_model(folder: Path, quantisation: str) -> Any:
    # Any: transformers' own annotations do not fit its models.
    load: Any = LlavaForConditionalGeneration.from_pretrained
    settings = EngineSettings(model=str(folder))
    config = build_quantization(Quantization(quantisation), settings.int8_threshold)
    placing = {} if config is None else {"quantization_config": config, "device_map": "cpu"}
    model = load(folder, dtype=torch.float32, **placing).eval()
    for module in model.modules():
        if type(module).__name__ == "Linear8bitLt":
            module.forward = _multiply_as_the_engine_does(module)
    return model


def _multiply_as_the_engine_does(module: Any) -> Callable[[Tensor], Tensor]:
    products = Products((module,))

    def multiply(hidden: Tensor) -> Tensor:
        rows = products.together(hidden.flatten(0, -2))
        product: Tensor = rows.unflatten(0, hidden.shape[:-1])
        return product

    return multiply
