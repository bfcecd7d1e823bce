"""The model's own forward pass in a bare loop with its cache: no server, no engine, no text.

    python -m bench.served.local.bare_loop CHECKPOINT OUTPUT CHATS

Tokens a second at each of the numbers of chats, on histories as long as the workload's short
chats. What transformers' own modules can do where nothing stands around them.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import DynamicCache, LlavaForConditionalGeneration

from bench.served.workload import ANSWER_TOKENS, NUM_IMAGE_TOKENS, QUESTION_TOKENS, TEMPLATE_TOKENS

NUM_STEPS = 48


def main(folder: str, output: Path, chats: list[int]) -> None:
    """Measure and write."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    figures = {f"total_{number}": measure(model, number) for number in chats}
    output.write_text(json.dumps({"figures": figures}))


@torch.inference_mode()
def measure(model: LlavaForConditionalGeneration, num_chats: int) -> float:
    """Greedy steps after one prefill; tokens a second of all chats together."""
    length = NUM_IMAGE_TOKENS + TEMPLATE_TOKENS + QUESTION_TOKENS
    cache = DynamicCache(config=model.config.text_config)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(300, 4000, (num_chats, length), generator=generator)
    ids = model(input_ids=ids, past_key_values=cache).logits[:, -1:].argmax(-1)
    began = time.perf_counter()
    for _ in range(min(NUM_STEPS, ANSWER_TOKENS)):
        ids = model(input_ids=ids, past_key_values=cache).logits[:, -1:].argmax(-1)
    return num_chats * NUM_STEPS / (time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(number) for number in sys.argv[3].split(",")])
