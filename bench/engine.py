"""Measures the batching core in process, by torch and by the kernels, beside transformers' two ways
to generate.

    python -m bench.engine --threads 1 --rounds 3 --clock cpu

One LLaVA-shaped checkpoint with random weights (its decoder reads 107.9 MB a token), float32,
greedy, eos ignored; every contender has a copy of its own, and the contenders take turns in
every round. `--clock cpu` counts the process's CPU time, which is the one to compare by on a
machine that others use too; `wall` counts seconds. With one thread and nobody else they agree.
Where the extra `compiled` is not installed, the kernels' row is left out.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.scheduler import Scheduler
from llavachat_server.engine.batching.sequence import Job
from llavachat_server.engine.llava.config import parse_config
from llavachat_server.engine.llava.files import map_weights
from llavachat_server.engine.native.apart import NoKernels, get_kernels
from llavachat_server.engine.native.cache import Cache
from llavachat_server.engine.native.embedding import RowTable
from llavachat_server.engine.native.packed import pack
from llavachat_server.engine.native.sampling import ArraySampler
from llavachat_server.engine.native.steps import NativeDecoder, NativeRunner
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from llavachat_server.engine.virtual_ids import VirtualIds
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

VOCABULARY = 4032
CACHE_TOKENS = 16_384
NEW_TOKENS = 64
HISTORY_TOKENS = 800
QUESTION_TOKENS = 20

Prompt = list[int]


def make_model() -> LlavaForConditionalGeneration:
    """The benchmark's model; the same weights every time."""
    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=512,
        intermediate_size=1344,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        image_size=112,
        patch_size=14,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=VOCABULARY - 1)
    config._attn_implementation = "sdpa"
    return LlavaForConditionalGeneration(config).eval().requires_grad_(False)


class Generate:
    """The model's own `generate`, one prompt after another."""

    name = "generate(), in turn"
    most_chats = 2
    """Its rate does not depend on how many stand in line, so no more are measured."""

    def __init__(self) -> None:
        self._model = make_model()

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """The new ids of every prompt."""
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            answers.append(output[0, len(prompt) :].tolist())
        return answers

    def stop(self) -> None:
        """Nothing runs between answers."""


class StockBatching:
    """transformers' continuous batching as it comes."""

    name = "transformers' continuous batching"
    most_chats = 16

    def __init__(self) -> None:
        model = make_model()
        self._numbers = iter(range(10**9))
        self._manager = model.init_continuous_batching(
            generation_config=GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=NEW_TOKENS
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=16,
                num_blocks=CACHE_TOKENS // 16,
                max_batch_tokens=512,
                max_requests_per_batch=16,
                safety_margin=0.0,
            ),
        )
        self._manager.start()

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """The new ids of every prompt."""
        names = [str(next(self._numbers)) for _ in prompts]
        for name, prompt in zip(names, prompts, strict=True):
            self._manager.add_request(prompt, request_id=name, max_new_tokens=max_new_tokens)
        answers: dict[str, list[int]] = {}
        while len(answers) < len(names):
            output = self._manager.get_result(timeout=600)
            if output is None or output.error:
                raise RuntimeError("transformers' loop gave no answer")
            if output.is_finished():
                answers[output.request_id] = list(output.generated_tokens)
        return [answers[name] for name in names]

    def stop(self) -> None:
        """End its thread."""
        self._manager.stop(block=True)


class OwnCore:
    """The batching core, on torch's operations."""

    name = "own core"
    most_chats = 16

    def __init__(self) -> None:
        self._core = self._make_core()

    def _make_core(self) -> Core:
        model = make_model()
        decoder = Decoder(model, 4096, release_weights=True)
        decoder.tune()
        cpu = decoder.device
        attention, pool = make_cache(
            "pieces", decoder.shape, CACHE_TOKENS // 16, 16, torch.float32, cpu
        )
        scheduler = Scheduler(pool, GapBudget(0.1, 512), 16)
        sampler = TensorSampler(16, VOCABULARY, (), cpu)
        return Core(Runner(decoder, attention), scheduler, sampler)

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """The new ids of every prompt."""
        answers: list[list[int]] = [[] for _ in prompts]
        for number, prompt in enumerate(prompts):
            self._core.add(Job(number, prompt, max_new_tokens))
        while self._core.has_work:
            for output in self._core.step():
                if output.token_id is not None:
                    answers[output.number].append(output.token_id)
        return answers

    def stop(self) -> None:
        """Nothing runs between answers."""


class Compiled(OwnCore):
    """The batching core, on kernels for the CPU at hand.

    Raises:
        NoKernels: they can not be compiled, or can not be run here.
    """

    name = "own core, compiled"

    def _make_core(self) -> Core:
        kernels = get_kernels(None)
        model = make_model()
        with tempfile.TemporaryDirectory() as folder:
            weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
            save_file(weights, Path(folder) / "model.safetensors")
            config = parse_config(json.loads(json.dumps(model.config.to_dict(), default=str)))
            packed = pack(map_weights(Path(folder)), config)
        rows = RowTable(packed.words, VirtualIds(len(packed.words)), 1, 1, 1)
        decoder = NativeDecoder(kernels.step, packed.panels, config, rows, torch.get_num_threads())
        num_blocks = CACHE_TOKENS // 16
        scheduler = Scheduler(BlockPool(num_blocks, 16), GapBudget(0.1, 512), 16)
        runner = NativeRunner(decoder, Cache(decoder.shape, num_blocks, 16))
        return Core(runner, scheduler, ArraySampler(16, VOCABULARY, ()))


def make_contenders() -> list[Any]:
    """All that can run here."""
    contenders: list[Any] = [Generate(), OwnCore()]
    try:
        contenders.append(Compiled())
    except NoKernels as error:
        print(f"no kernels: {error}", file=sys.stderr)
    # The stock loop's thread draws random numbers, so its model is made last.
    return [*contenders, StockBatching()]


def draw_prompt(rng: random.Random, num_tokens: int) -> Prompt:
    """A prompt that no other one shares a beginning with."""
    return [rng.randrange(3, VOCABULARY - 1) for _ in range(num_tokens)]


def measure(clock: Callable[[], float], work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the work returned."""
    start = clock()
    result = work()
    return clock() - start, result


def measure_rate(contender: Any, prompts: Sequence[Prompt], clock: Callable[[], float]) -> float:
    """New tokens a second over all prompts, their prefill included."""
    prompts = prompts[: contender.most_chats]
    seconds, _ = measure(clock, lambda: contender.answer(prompts, NEW_TOKENS))
    return len(prompts) * NEW_TOKENS / seconds


def run_round(contender: Any, seed: int, clock: Callable[[], float]) -> dict[str, float]:
    """Every figure once, on prompts that depend on the seed only."""
    rng = random.Random(seed)
    figures = {}
    for num_chats in (1, 8, 16):
        prompts = [draw_prompt(rng, 100) for _ in range(num_chats)]
        figures[f"tok/s, {num_chats}"] = measure_rate(contender, prompts, clock)
    prompts = [draw_prompt(rng, HISTORY_TOKENS) for _ in range(8)]
    figures["tok/s, 8 on 800"] = measure_rate(contender, prompts, clock)
    prompt = draw_prompt(rng, HISTORY_TOKENS)
    seconds, _ = measure(clock, lambda: contender.answer([prompt], 1))
    figures["first token, 800 cold, ms"] = 1000 * seconds
    (answer,) = contender.answer([prompt], NEW_TOKENS)
    follow_up = prompt + answer + draw_prompt(rng, QUESTION_TOKENS)
    seconds, _ = measure(clock, lambda: contender.answer([follow_up], 1))
    figures["first token, follow-up, ms"] = 1000 * seconds
    return figures


def check_equality(contenders: Sequence[Any]) -> None:
    """All contenders must say the same; speed by another answer is no speed."""
    rng = random.Random(1)
    prompts = [draw_prompt(rng, length) for length in (100, 37, 5, 300)]
    answers = [contender.answer(prompts, 16) for contender in contenders]
    if any(other != answers[0] for other in answers):
        raise SystemExit("the contenders' answers differ")


def measure_bandwidth(clock: Callable[[], float]) -> float:
    """GB/s of reading: the best of several sums over 256 MB."""
    numbers = torch.ones(64_000_000)
    return max(0.256 / measure(clock, numbers.sum)[0] for _ in range(9))


def main() -> None:
    """Run all rounds and print the table as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time

    contenders = make_contenders()
    try:
        run_all(contenders, arguments, clock)
    finally:
        for contender in contenders:
            contender.stop()


def run_all(
    contenders: Sequence[Any], arguments: argparse.Namespace, clock: Callable[[], float]
) -> None:
    """All rounds, then the table."""
    check_equality(contenders)
    rounds: dict[str, list[dict[str, float]]] = {c.name: [] for c in contenders}
    bandwidths = []
    for seed in range(arguments.rounds):
        bandwidths.append(measure_bandwidth(clock))
        for contender in contenders:
            figures = run_round(contender, seed, clock)
            print(contender.name, {k: round(v) for k, v in figures.items()}, file=sys.stderr)
            rounds[contender.name].append(figures)

    columns = list(rounds[contenders[0].name][0])
    print(f"| {' | '.join(['', *columns])} |")
    print(f"|{'---|' * (len(columns) + 1)}")
    medians = {
        name: [statistics.median(f[column] for f in figures) for column in columns]
        for name, figures in rounds.items()
    }
    for name, row in medians.items():
        print(f"| {' | '.join([name, *(f'{figure:.0f}' for figure in row)])} |")
    for one, other in ((OwnCore, StockBatching), (Compiled, OwnCore)):
        if one.name in medians:
            pairs = zip(medians[one.name], medians[other.name], strict=True)
            cells = [f"{a / b:.2f}" for a, b in pairs]
            print(f"| {' | '.join([f'{one.name} : {other.name}', *cells])} |")
    bandwidth = statistics.median(bandwidths)
    print(
        f"\nMedians of {arguments.rounds} rounds, {arguments.threads} thread(s), "
        f"{arguments.clock} clock. Reading: {bandwidth:.1f} GB/s, so at most "
        f"{bandwidth * 1000 / 107.9:.0f} tok/s alone."
    )


if __name__ == "__main__":
    main()
