"""Steps in exact mode: one sequence each, cut in the same places, equal to the last bit."""

from collections.abc import Callable, Sequence

import pytest
import torch
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.batching.sequence import Sequence as Running
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97
BLOCK = 4
CHUNK = 8


class NotingRunner(Runner):
    """Keeps the bytes of all logits, by the first token of whose they are."""

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> Tensor:
        """As ever."""
        (item,) = inputs
        logits = super().forward(inputs, meanwhile)
        if item.wants_logits:
            self.logits.setdefault(item.blocks[0], []).append(logits.numpy().tobytes())
        return logits

    logits: dict[int, list[bytes]]


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """Two layers of random weights, packed and not."""
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False).to(request.param)
    return Decoder(model, 256)


def run(decoder: Decoder, jobs: Sequence[Job], num_blocks: int = 128) -> dict[int, object]:
    """What each job's logits and tokens are, on a core of its own."""
    attention, pool = make_cache(
        "pieces", decoder.shape, num_blocks, BLOCK, decoder.dtype, decoder.device, exact=True
    )
    runner = NotingRunner(decoder, attention)
    noted: dict[int, list[tuple[int, bytes]]] = {job.number: [] for job in jobs}
    sampler = TensorSampler(8, VOCABULARY, (), decoder.device)
    core = Core(runner, ExactScheduler(pool, CHUNK, 8), sampler)
    for job in jobs:
        core.add(job)
    while core.has_work:
        runner.logits = {}
        for output in core.step():
            assert output.token_id is not None
            ((logits,),) = runner.logits.values()
            noted[output.number].append((output.token_id, logits))
    assert num_blocks == pool.num_available
    return dict(noted)


def make_jobs(*lengths: int) -> list[Job]:
    """Jobs of random prompts, every other one drawn with a seed."""
    torch.manual_seed(7)
    return [
        Job(
            number,
            torch.randint(VOCABULARY, (length,)).tolist(),
            12,
            draw=Draw(temperature=1.0, seed=number) if number % 2 else Draw(),
        )
        for number, length in enumerate(lengths)
    ]


def test_every_bit_is_the_same_in_any_company(decoder: Decoder) -> None:
    """Alone, among others, and where the cache is so small that answers step back."""
    jobs = make_jobs(1, 9, 17, 30, 33, 8)
    alone = {job.number: run(decoder, [job])[job.number] for job in jobs}
    assert alone == run(decoder, jobs)
    assert alone == run(decoder, jobs[::-1])
    assert alone == run(decoder, jobs, num_blocks=14)


def test_nothing_is_left_for_the_next(decoder: Decoder) -> None:
    """The same prompt again finds no prefix, and costs what it cost."""
    (job,) = make_jobs(30)
    attention, pool = make_cache(
        "pieces", decoder.shape, 32, BLOCK, decoder.dtype, decoder.device, exact=True
    )
    sampler = TensorSampler(8, VOCABULARY, (), decoder.device)
    core = Core(Runner(decoder, attention), ExactScheduler(pool, CHUNK, 8), sampler)
    for _ in range(2):
        core.add(job)
        outputs = []
        while core.has_work:
            outputs += core.step()
        assert {0} == {output.cached_tokens for output in outputs}
    assert 0 == pool.num_kept


def step(scheduler: ExactScheduler) -> list[tuple[int, int, int]]:
    """One step with a made-up model: (job, start, tokens) of each chunk."""
    chunks = scheduler.plan()
    for chunk in chunks:
        scheduler.advance(chunk)
        if chunk.sequence.num_uncomputed == 0:
            chunk.sequence.token_ids.append(7)
    return [(c.sequence.job.number, c.start, c.num_tokens) for c in chunks]


def test_sequences_take_turns() -> None:
    """One a step; prompts in chunks of one size, answers token by token."""
    scheduler = ExactScheduler(BlockPool(32, BLOCK), CHUNK, 4)
    for job in make_jobs(19, 3):
        scheduler.add(Running(job, list(job.token_ids)))
    expected = [(0, 0, 8), (1, 0, 3), (0, 8, 8), (1, 3, 1), (0, 16, 3), (1, 4, 1), (0, 19, 1)]
    assert [[chunk] for chunk in expected] == [step(scheduler) for _ in expected]


def test_an_answer_that_stepped_back_goes_through_token_by_token() -> None:
    """As it went the first time: a chunk of it would be other sums."""
    scheduler = ExactScheduler(BlockPool(8, BLOCK), CHUNK, 4)
    first, second = (Running(job, list(job.token_ids)) for job in make_jobs(12, 9))
    scheduler.add(first)
    scheduler.add(second)
    while second.num_new_tokens < 2:
        step(scheduler)
    scheduler._step_back(second)
    steps = [step(scheduler)[0] for _ in range(8)]
    assert [(0, 8), (8, 1), (9, 1), (10, 1)] == [(at, n) for job, at, n in steps if job == 1]
