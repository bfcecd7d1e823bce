"""The way of tutorials: the model behind a lock, and the whole chat computed again each turn.

python -m bench.served.servers.tutorial CHECKPOINT PORT
"""

import sys
from collections.abc import Iterator
from threading import Lock, Thread

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration, TextIteratorStreamer

from bench.served.servers.small import Piece, Question, serve


def main(folder: str, port: int) -> None:
    """Load and serve."""
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    lock = Lock()

    def answer(question: Question) -> Iterator[Piece]:
        prompt = processor.apply_chat_template(
            question.build_messages(), add_generation_prompt=True
        )
        inputs = processor(text=prompt, images=question.picture, return_tensors="pt")
        yield Piece(prompt_tokens=inputs["input_ids"].shape[1])
        streamer = TextIteratorStreamer(
            processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        arguments = {
            **inputs,
            "streamer": streamer,
            "max_new_tokens": question.max_tokens,
            "do_sample": False,
        }
        with lock:
            thread = Thread(target=model.generate, kwargs=arguments)
            thread.start()
            for text in streamer:
                yield Piece(text)
            thread.join()

    serve(port, answer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
