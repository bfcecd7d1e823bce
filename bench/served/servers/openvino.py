"""OpenVINO GenAI behind the small server, which it does not bring itself.

    python -m bench.served.servers.openvino FOLDER PORT plain|batching CHATS

``plain`` is ``VLMPipeline``: one chat at a time behind a lock, as the library has it; it goes on in
the chat it is in, and reads another one from the beginning. ``batching`` is
``ContinuousBatchingPipeline`` with its prefix cache. Tokens go out as they come, not when the
library's text streamer has made up its mind.
"""

import itertools
import queue
import sys
from collections.abc import Callable, Iterator
from threading import Condition, Lock, Thread
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from bench.served.servers.small import Answer, Piece, Question, serve

FLOAT32: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}
CACHE_GB = 1
IMAGE_TAG = "<image>\n"


def main(folder: str, port: int, mode: str, num_chats: int) -> None:
    """Load and serve."""
    if mode == "plain":
        serve(port, make_plain(folder))
    else:
        serve(port, make_batching(folder, num_chats))


def make_config(question: Question) -> genai.GenerationConfig:
    """Greedy, and as long as asked."""
    config = genai.GenerationConfig()
    config.max_new_tokens = question.max_tokens
    config.do_sample = False
    config.ignore_eos = True
    config.apply_chat_template = False
    return config


def make_tensor(question: Question) -> openvino.Tensor:
    """The picture as (1, height, width, 3) bytes."""
    return openvino.Tensor(np.asarray(question.picture)[None])


class Speller:
    """Turns tokens into text, one by one: the text of all, less the text of all before."""

    def __init__(self, tokenizer: genai.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._num_chars = 0

    def add(self, ids: list[int]) -> str:
        """What these add to the text."""
        self._ids += ids
        text: str = self._tokenizer.decode(self._ids)
        piece, self._num_chars = text[self._num_chars :], len(text)
        return piece


class QueueStreamer(genai.StreamerBase):
    """Puts each token's text into a queue."""

    def __init__(self, pieces: "queue.Queue[str | None]", speller: Speller) -> None:
        super().__init__()
        self._pieces = pieces
        self._speller = speller

    def write(self, token: Any) -> genai.StreamingStatus:
        """Called for each token, or several."""
        ids = [token] if isinstance(token, int) else list(token)
        self._pieces.put(self._speller.add(ids))
        return genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""


def make_plain(folder: str) -> Answer:
    """One chat at a time; the pipeline remembers the one it is in."""
    pipeline = genai.VLMPipeline(folder, "CPU", **FLOAT32)
    tokenizer = pipeline.get_tokenizer()
    lock = Lock()
    kept: list[tuple[str, str]] = []
    kept_picture = b""

    def generate(question: Question, pieces: "queue.Queue[str | None]") -> None:
        nonlocal kept, kept_picture
        picture = question.picture.tobytes()
        speller = Speller(tokenizer)
        config = make_config(question)
        streamer = QueueStreamer(pieces, speller)
        is_next = bool(question.turns) and question.turns == kept and picture == kept_picture
        if is_next or not question.turns:
            if not is_next:
                pipeline.finish_chat()
                pipeline.start_chat()
            config.apply_chat_template = True
            images = [] if is_next else [make_tensor(question)]
            result = pipeline.generate(
                question.question, images=images, generation_config=config, streamer=streamer
            )
            kept = [*question.turns, (question.question, result.texts[0])]
            kept_picture = picture
            return
        pipeline.finish_chat()
        kept = []
        pipeline.generate(
            write_prompt(tokenizer, question),
            images=[make_tensor(question)],
            generation_config=config,
            streamer=streamer,
        )

    def answer(question: Question) -> Iterator[Piece]:
        pieces: queue.Queue[str | None] = queue.Queue()

        def work() -> None:
            try:
                generate(question, pieces)
            finally:
                pieces.put(None)

        yield Piece(prompt_tokens=count_tokens(tokenizer, question))
        with lock:
            thread = Thread(target=work)
            thread.start()
            while (text := pieces.get()) is not None:
                yield Piece(text)
            thread.join()

    return answer


def make_batching(folder: str, num_chats: int) -> Answer:
    """All chats in one batch; one thread takes the steps while there is work."""
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_seqs = num_chats
    scheduler.enable_prefix_caching = True
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", FLOAT32)
    tokenizer = pipeline.get_tokenizer()
    numbers = itertools.count()
    changed = Condition()
    readers: dict[int, tuple[Any, Callable[[list[int]], None]]] = {}

    def take_steps() -> None:
        while True:
            with changed:
                changed.wait_for(lambda: bool(readers))
            pipeline.step()
            with changed:
                current = list(readers.items())
            for number, (handle, deliver) in current:
                ids = (
                    [i for o in handle.read().values() for i in o.generated_ids]
                    if (handle.can_read())
                    else []
                )
                is_over = handle.get_status() != genai.GenerationStatus.RUNNING
                if ids:
                    deliver(ids)
                if is_over and not handle.can_read():
                    with changed:
                        del readers[number]
                    deliver([])

    def answer(question: Question) -> Iterator[Piece]:
        tokens: queue.Queue[list[int]] = queue.Queue()
        speller = Speller(tokenizer)
        yield Piece(prompt_tokens=count_tokens(tokenizer, question))
        number = next(numbers)
        prompt = write_prompt(tokenizer, question)
        handle = pipeline.add_request(
            number, prompt, [make_tensor(question)], make_config(question)
        )
        with changed:
            readers[number] = (handle, tokens.put)
            changed.notify()
        while ids := tokens.get():
            yield Piece(speller.add(ids))

    Thread(target=take_steps, daemon=True).start()
    return answer


def write_prompt(tokenizer: genai.Tokenizer, question: Question) -> str:
    """The whole chat by the checkpoint's template."""
    messages = []
    for number, message in enumerate(question.build_messages()):
        text = message["content"][-1]["text"]
        content = f"{IMAGE_TAG}{text}" if number == 0 else text
        messages.append({"role": message["role"], "content": content})
    prompt: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return prompt


def count_tokens(tokenizer: genai.Tokenizer, question: Question) -> int:
    """Of the prompt; a picture's tag is one of them here, and 64 in the model."""
    prompt = write_prompt(tokenizer, question)
    ids = tokenizer.encode(prompt, add_special_tokens=False).input_ids
    return int(ids.shape[1]) + 63


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
