"""The batching core on small random decoders: its answers are generate()'s, whatever happens."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_jobs import run
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.core import Core, CoreBroken
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.scheduler import Scheduler
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.engine.native.sampling import ArraySampler
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.likely import DrawLikely, draw_eagerly
from llavachat_server.engine.tensors.paged import PagedAttention
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from native_models import BLOCK_TOKENS, make_decoder, make_runner
from paged_reference import RepeatedDraws, RepeatedSteps, attend_by_table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97
BLOCK = 4


def make_model(num_kv_heads: int = 4, *, has_biases: bool = False) -> Any:
    """A decoder of two layers whose random weights are wide enough for varied answers."""
    torch.manual_seed(num_kv_heads)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=num_kv_heads,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        initializer_range=0.3,
        attention_bias=has_biases,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


class Bench:
    """A model, its decoder, and cores for the asking."""

    def __init__(
        self, num_kv_heads: int, make: str, kernels: Kernels, folder: Path, *, has_biases: bool
    ) -> None:
        self.model = make_model(num_kv_heads, has_biases=has_biases)
        self.make = make
        self.native = make_decoder(self.model, kernels, folder) if make == "compiled" else None
        self.decoder = Decoder(self.model, 512, pack_weights=make == "packed")
        self.block = BLOCK if self.native is None else BLOCK_TOKENS
        self.decoder.tune()
        self._known: dict[tuple[tuple[int, ...], int], list[int]] = {}

    def make_core(
        self,
        num_blocks: int = 256,
        *,
        max_running: int = 16,
        max_chunk_tokens: int = 512,
        silent_ids: Sequence[int] = (),
    ) -> Core:
        """A core with an empty cache."""
        budget = GapBudget(1.0, max_chunk_tokens)
        if self.native is not None:
            pool = BlockPool(num_blocks, self.block, min_copied_tokens=1)
            scheduler = Scheduler(pool, budget, max_running)
            arrays = ArraySampler(max_running, VOCABULARY, silent_ids)
            return Core(make_runner(self.native, num_blocks), scheduler, arrays)
        kind = "paged" if self.make in ("paged", "recorded") else "pieces"
        attention, _ = make_cache(
            kind, self.decoder.shape, num_blocks, self.block, torch.float32, self.decoder.device
        )
        steps: RepeatedSteps | None = None
        draws: DrawLikely = draw_eagerly
        if isinstance(attention, PagedAttention):
            attention._attend = attend_by_table  # type: ignore[assignment]
            if self.make == "recorded":
                steps = RepeatedSteps(self.decoder, attention, max_running, 512)
                steps.record()
                repeated = RepeatedDraws(max_running, VOCABULARY, self.decoder.device)
                repeated.record()
                draws = repeated
        pool = BlockPool(num_blocks, self.block, min_copied_tokens=1)
        scheduler = Scheduler(pool, budget, max_running)
        sampler = TensorSampler(max_running, VOCABULARY, silent_ids, self.decoder.device, draws)
        return Core(Runner(self.decoder, attention, steps), scheduler, sampler)

    def expect(self, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        """What generate() says."""
        key = (tuple(prompt), max_new_tokens)
        if key not in self._known:
            ids = torch.tensor([list(prompt)])
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            self._known[key] = output[0, len(prompt) :].tolist()
        return self._known[key]


@pytest.fixture(
    scope="module",
    params=[
        (4, "compiled", False),
        (2, "compiled", False),
        (4, "packed", False),
        (2, "packed", True),
        (2, "modules", True),
        (2, "paged", True),
        (4, "recorded", False),
    ],
    ids=[
        "compiled",
        "compiled, grouped heads",
        "packed",
        "packed, grouped heads and biases",
        "modules, grouped heads and biases",
        "paged, grouped heads and biases",
        "paged and recorded",
    ],
)
def bench(
    request: pytest.FixtureRequest, kernels: Kernels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Each make of the layers, and of the cache."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    num_kv_heads, make, has_biases = request.param
    folder = tmp_path_factory.mktemp("decoder")
    yield Bench(num_kv_heads, make, kernels, folder, has_biases=has_biases)
    torch.set_num_threads(num_threads)


def draw_prompts(seed: int, *lengths: int) -> list[list[int]]:
    """Prompts of random ids."""
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def test_alone_and_among_neighbours(bench: Bench) -> None:
    """Nine prompts of all lengths, one by one and all at once."""
    prompts = draw_prompts(1, 1, 2, 3, 4, 5, 17, 40, 63, 64)
    expected = [bench.expect(prompt, 20) for prompt in prompts]
    alone = [run(bench.make_core(), [Job(0, prompt, 20)])[0] for prompt in prompts]
    together = run(bench.make_core(), [Job(i, p, 20) for i, p in enumerate(prompts)])

    assert expected == alone
    assert expected == together


def test_follow_up_on_a_cached_prefix(bench: Bench) -> None:
    """Three turns on one core: each finds the one before, and says what generate() says."""
    core = bench.make_core()
    prompt: list[int] = []
    for number, question in enumerate(draw_prompts(2, 30, 7, 9)):
        prompt += question
        (answer,) = run(core, [Job(number, prompt, 12)])
        assert bench.expect(prompt, 12) == answer
        prompt += answer
    core.add(Job(9, [*prompt, 5], 1))
    (output,) = core.step()
    # The last token of an answer is drawn, and never computed.
    assert len(prompt) - 1 == output.cached_tokens


def test_two_questions_share_a_prefix_to_the_token(bench: Bench) -> None:
    """Beside each other and one after the other, whichever block the prefix ends in."""
    core = bench.make_core()
    prefix, *questions = draw_prompts(13, 23, 5, 6, 40)
    (first,) = run(core, [Job(0, [*prefix, *questions[0]], 12)])
    assert bench.expect([*prefix, *questions[0]], 12) == first
    found = []
    for number, question in enumerate(questions[1:]):
        core.add(Job(number, [*prefix, *question], 12))
    answers: dict[int, list[int | None]] = {0: [], 1: []}
    while core.has_work:
        for output in core.step():
            found.append(output.cached_tokens)
            answers[output.number].append(output.token_id)

    assert {len(prefix)} == set(found)
    for number, question in enumerate(questions[1:]):
        assert bench.expect([*prefix, *question], 12) == answers[number]


@pytest.mark.parametrize("max_chunk_tokens", [1, 3, 16])
def test_a_prompt_in_chunks_equals_a_whole_one(bench: Bench, max_chunk_tokens: int) -> None:
    """However small the pieces are that enter, beside a neighbour or not."""
    core = bench.make_core(max_chunk_tokens=max_chunk_tokens)
    prompts = draw_prompts(3, 50, 33)
    answers = run(core, [Job(i, prompt, 10) for i, prompt in enumerate(prompts)])

    assert [bench.expect(prompt, 10) for prompt in prompts] == answers


def test_kernels_ignore_how_a_prompt_was_cut(kernels: Kernels, tmp_path: Path) -> None:
    """To the last bit: whole, by one, and in pieces that end inside panels, on torn blocks."""
    decoder = make_decoder(make_model(2), kernels, tmp_path)
    (prompt,) = draw_prompts(12, 90)
    blocks = [7, 2, 3, 4, 9, 0]
    scores = []
    for size in (90, 1, 7, 16, 31):
        runner = make_runner(decoder, 10)
        for start in range(0, len(prompt), size):
            piece = prompt[start : start + size]
            is_last = start + size >= len(prompt)
            last = runner.forward([Input(piece, start, blocks, is_last)])
        scores.append(last)

    assert all(np.array_equal(scores[0], other) for other in scores[1:])


def test_a_cache_that_is_too_small_delays_and_changes_nothing(bench: Bench) -> None:
    """Six answers where two fit: some step back, all are right, and all blocks come home."""
    core = bench.make_core(num_blocks=16)
    prompts = draw_prompts(4, 20, 9, 13, 30, 5, 17)
    for _ in range(2):
        answers = run(core, [Job(i, prompt, 24) for i, prompt in enumerate(prompts)])
        assert [bench.expect(prompt, 24) for prompt in prompts] == answers
    assert 16 == core._scheduler.pool.num_available


@settings(max_examples=15, deadline=None)
@given(
    chats=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(1, 12), min_size=1, max_size=3)),
        min_size=1,
        max_size=6,
    ),
    num_blocks=st.integers(14, 24),
    max_running=st.integers(1, 4),
)
def test_any_chats_in_any_small_cache(
    bench: Bench,
    chats: list[tuple[int, list[int]]],
    num_blocks: int,
    max_running: int,
) -> None:
    """Chats that share beginnings, turn after turn, in a cache that must evict all the time."""
    core = bench.make_core(num_blocks, max_running=max_running, max_chunk_tokens=16)
    prompts = {number: draw_prompts(first, 9)[0] for number, (first, _) in enumerate(chats)}
    for turn in range(3):
        jobs = []
        for number, (_, lengths) in enumerate(chats):
            if turn < len(lengths):
                prompts[number] = (
                    prompts[number] + draw_prompts(100 * number + turn, lengths[turn])[0]
                )
                jobs.append(Job(number, prompts[number], 3))
        for job, answer in zip(jobs, run(core, jobs), strict=True):
            assert bench.expect(job.token_ids, 3) == answer
            prompts[job.number] = prompts[job.number] + answer
    assert num_blocks == core._scheduler.pool.num_available


def test_a_seed_gives_one_answer_whoever_shares_the_batch(bench: Bench) -> None:
    """Sampled answers depend on the seed and on nothing around them."""
    prompt, *others = draw_prompts(5, 21, 8, 30, 3)
    draw = Draw(temperature=1.0, top_p=0.9, top_k=40, seed=2**64 - 3)
    (alone,) = run(bench.make_core(), [Job(0, prompt, 16, draw=draw)])
    crowd = [
        Job(i + 1, other, 16, draw=Draw(temperature=0.7, seed=i)) for i, other in enumerate(others)
    ]
    together = run(bench.make_core(), [*crowd, Job(0, prompt, 16, draw=draw)])[-1]
    (tight,) = run(bench.make_core(10, max_chunk_tokens=5), [Job(0, prompt, 16, draw=draw)])
    (other_seed,) = run(bench.make_core(), [Job(0, prompt, 16, draw=Draw(temperature=1.0, seed=1))])

    assert alone == together == tight
    assert alone != other_seed


def test_greedy_rows_stay_greedy_beside_sampled_ones(bench: Bench) -> None:
    """Temperature 0 is argmax exactly, in a mixed batch too."""
    prompts = draw_prompts(6, 12, 12)
    jobs = [Job(0, prompts[0], 16), Job(1, prompts[1], 16, draw=Draw(temperature=1.5, seed=4))]

    assert bench.expect(prompts[0], 16) == run(bench.make_core(), jobs)[0]


def test_eos_ends_an_answer_and_is_reported(bench: Bench) -> None:
    """The closing token comes, and nothing after it."""
    (prompt,) = draw_prompts(7, 15)
    expected = bench.expect(prompt, 20)
    eos = expected[4]
    job = Job(0, prompt, 20, eos_token_ids=frozenset({eos}))

    assert expected[: expected.index(eos) + 1] == run(bench.make_core(), [job])[0]


@pytest.mark.parametrize("draw", [Draw(), Draw(temperature=0.1)], ids=["largest", "drawn"])
def test_silent_ids_are_never_drawn(bench: Bench, draw: Draw) -> None:
    """Even when they are the likeliest."""
    (prompt,) = draw_prompts(8, 15)
    silent = set(bench.expect(prompt, 8))
    core = bench.make_core(silent_ids=sorted(silent))

    assert silent.isdisjoint(run(core, [Job(0, prompt, 8, draw=draw)])[0])


def test_cancelling_frees_the_blocks_at_once(bench: Bench) -> None:
    """Running or waiting; the neighbour does not notice."""
    core = bench.make_core(max_running=2)
    prompts = draw_prompts(9, 20, 20, 20)
    free = core._scheduler.pool.num_available
    for number, prompt in enumerate(prompts):
        core.add(Job(number, prompt, 20))
    first = [output.token_id for output in core.step() if output.number == 1]
    for number in (0, 2):
        output = core.cancel(number)
        assert output is not None
        assert output.is_over
    held = core._scheduler.pool.count_blocks(len(prompts[1]))
    assert free - held == core._scheduler.pool.num_available
    assert core.cancel(0) is None
    rest = []
    while core.has_work:
        rest += [output.token_id for output in core.step()]

    assert bench.expect(prompts[1], 20) == first + rest


class FailingRunner:
    """Raises when it is told to; otherwise the real runner."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.must_fail = False

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> Tensor:
        """A step."""
        if self.must_fail:
            raise RuntimeError("out of memory")
        scores: Tensor = self._runner.forward(inputs, meanwhile)
        return scores

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Before a step."""
        if self.must_fail:
            raise RuntimeError("out of memory")
        self._runner.copy(source, target, num_tokens)


def test_a_copy_that_fails_is_found_by_nobody(bench: Bench) -> None:
    """Its job fails, and the next one computes anew what the copy was of."""
    core = bench.make_core(max_running=2)
    runner = FailingRunner(core._runner)
    core._runner = runner
    prefix, *questions = draw_prompts(14, 23, 5, 6)
    prompts = [[*prefix, *question] for question in questions]
    free = core._scheduler.pool.num_available
    run(core, [Job(0, prompts[0], 6)])
    core.add(Job(1, prompts[1], 6))
    runner.must_fail = True
    assert [(1, True)] == [(o.number, o.has_failed) for o in core.step()]
    runner.must_fail = False
    assert free == core._scheduler.pool.num_available
    assert [bench.expect(prompts[1], 6)] == run(core, [Job(1, prompts[1], 6)])


def test_a_failing_step_fails_its_jobs_alone(bench: Bench) -> None:
    """Who waited goes on; a second failure in a row is the core's own."""
    core = bench.make_core(max_running=1)
    runner = FailingRunner(core._runner)
    core._runner = runner
    prompts = draw_prompts(10, 12, 14, 6)
    for number, prompt in enumerate(prompts):
        core.add(Job(number, prompt, 6))
    core.step()
    runner.must_fail = True
    assert [(0, True, True)] == [(o.number, o.is_over, o.has_failed) for o in core.step()]
    runner.must_fail = False
    answer = [output.token_id for _ in range(6) for output in core.step()]
    assert bench.expect(prompts[1], 6) == answer

    runner.must_fail = True
    core.step()
    core.add(Job(7, prompts[0], 6))
    with pytest.raises(CoreBroken):
        core.step()


def test_the_rows_of_penalties_come_back(bench: Bench) -> None:
    """Of answers that end, that are cancelled, and that are not taken; the penalty is at work."""
    core = bench.make_core(max_running=1)
    penalised = Draw(repetition_penalty=1.9)
    (plain,) = run(core, [Job(0, [5, 6, 7], 12)])
    job = Job(1, [5, 6, 7], 12, draw=penalised, seen_ids=(5, 6, 7, plain[0]))
    answers = [run(core, [job])[0] for _ in range(3)]
    core.add(job)
    core.cancel(job.number)
    with pytest.raises(ValueError, match="tokens"):
        core.add(replace(job, max_new_tokens=10**6))

    assert plain != answers[0]
    assert answers[0] == answers[1] == answers[2] == run(core, [job])[0]


def test_what_can_not_be_computed_is_refused(bench: Bench) -> None:
    """Nothing, too much, and a number twice."""
    core = bench.make_core(num_blocks=4)
    room = 4 * bench.block
    core.add(Job(0, [1], 1))
    for job in (Job(0, [1], 1), Job(1, [], 1), Job(2, [1], 0), Job(3, [1] * 9, room - 7)):
        with pytest.raises(ValueError, match=r"job|tokens"):
            core.add(job)
    core.add(Job(4, [1] * 9, room - 8))
    while core.has_work:
        core.step()


def test_forgotten_prefixes_are_computed_again(bench: Bench) -> None:
    """After a flush nothing is found, and answers are the same."""
    core = bench.make_core()
    (prompt,) = draw_prompts(11, 24)
    run(core, [Job(0, prompt, 4)])
    core.forget_prefixes()
    core.add(Job(1, prompt, 1))
    (output,) = core.step()

    assert 0 == output.cached_tokens
    assert bench.expect(prompt, 4)[0] == output.token_id
