"""What company does to the bits of an answer, and what exact mode does about it.

    python -m bench.exactness [--chats 16] [--tokens 32]

In one process, on the embedded model's decoder and random prompts of 20 to 120 tokens: each is
answered alone and then beside the others, with prefixes from before in the cache. Counted are the
drawn tokens, and the steps whose logits are the same to the last bit.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llavachat_server
import torch
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.scheduler import Scheduler
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from torch import Tensor
from transformers import LlavaForConditionalGeneration

SHAPES = Path(llavachat_server.__file__).parent / "models" / "shapes"
BLOCK_TOKENS, NUM_BLOCKS, CHUNK_TOKENS = 16, 1024, 256
NUM_WORDS = 1216

Drawn = list[tuple[int, Tensor]]
"""Of one answer: each token and the logits that it was drawn from."""


class NotingRunner(Runner):
    """Keeps the last step's logits."""

    logits: Tensor

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> Tensor:
        """As ever."""
        self.logits = super().forward(inputs, meanwhile)
        return self.logits


class Machine:
    """A core that lives on between runs, as a server's does."""

    def __init__(self, decoder: Decoder, chats: int, *, exact: bool) -> None:
        attention, pool = make_cache(
            "pieces",
            decoder.shape,
            NUM_BLOCKS,
            BLOCK_TOKENS,
            decoder.dtype,
            decoder.device,
            exact=exact,
        )
        self._runner = NotingRunner(decoder, attention)
        scheduler = (
            ExactScheduler(pool, CHUNK_TOKENS, chats)
            if exact
            else Scheduler(pool, GapBudget(0.1, CHUNK_TOKENS), chats)
        )
        sampler = TensorSampler(chats, 1280, (), decoder.device)
        self._core = Core(self._runner, scheduler, sampler)

    def run(self, jobs: Sequence[Job]) -> tuple[dict[int, Drawn], float]:
        """What comes of the jobs side by side, and the seconds that it took."""
        drawn: dict[int, Drawn] = {job.number: [] for job in jobs}
        start = time.perf_counter()
        for job in jobs:
            self._core.add(job)
        while self._core.has_work:
            outputs = self._core.step()
            for row, output in enumerate(outputs):
                assert output.token_id is not None
                drawn[output.number].append((output.token_id, self._runner.logits[row].clone()))
        return drawn, time.perf_counter() - start


def load_decoder(dtype: torch.dtype, *, tune: bool) -> Decoder:
    """The embedded model's decoder."""
    model: Any = LlavaForConditionalGeneration.from_pretrained(SHAPES, dtype=dtype)
    decoder = Decoder(model.eval().requires_grad_(False), 1024)
    if tune:
        decoder.tune()
    return decoder


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.exactness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(1)
    jobs = [
        Job(
            number,
            [rng.randrange(NUM_WORDS) for _ in range(rng.randint(20, 120))],
            options.tokens,
            draw=Draw(temperature=1.0, seed=number),
        )
        for number in range(options.chats)
    ]
    print("| numbers | mode | answers the same | steps the same to the last bit | tokens/s |")
    print("|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for exact in (False, True):
            machine = Machine(load_decoder(dtype, tune=not exact), options.chats, exact=exact)
            alone: dict[int, Drawn] = {}
            for job in jobs:
                alone |= machine.run([job])[0]
            together, seconds = machine.run(jobs)
            same = sum(
                [token for token, _ in alone[job.number]]
                == [token for token, _ in together[job.number]]
                for job in jobs
            )
            pairs = [
                (one, other)
                for job in jobs
                for one, other in zip(alone[job.number], together[job.number], strict=True)
            ]
            bits = sum(torch.equal(one[1], other[1]) for one, other in pairs)
            print(
                f"| {str(dtype).removeprefix('torch.')} | {'exact' if exact else 'usual'} "
                f"| {same} of {len(jobs)} | {bits:,} of {len(pairs):,} "
                f"| {len(pairs) / seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
