"""Any order of jobs, cancellations, failures and forgetting, over a cache read to the token.

The model is made up: its cache remembers what each place holds and all that came before it, so that
a place which belongs to another prefix, or to nobody yet, is found at once.
"""

import logging
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.core import Core, CoreBroken
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.scheduler import Scheduler
from llavachat_server.engine.batching.sequence import Draw, Job

NUM_TOKENS = 3
"""Of the vocabulary: few, so that prompts share their beginnings."""
NUM_ROWS = 1000
"""That can be lent: each job has one until it ends."""
MOST_IDLE_STEPS = 3
"""Without a chunk, while somebody waits."""


def go_on(state: int, token_id: int) -> int:
    """What a prefix and one more token come to."""
    return hash((state, token_id))


def speak(token_ids: Sequence[int], num_tokens: int) -> list[int]:
    """The made-up model's answer."""
    state, answer = 0, []
    for token_id in token_ids:
        state = go_on(state, token_id)
    for _ in range(num_tokens):
        answer.append(state % NUM_TOKENS)
        state = go_on(state, answer[-1])
    return answer


class Model:
    """Computes steps; see `batching.core.Runner`."""

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._cache: list[tuple[int, int, int] | None] = [None] * (num_blocks * block_tokens)
        self.fails_next = False

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> list[int]:
        """The state behind each input that wants logits."""
        meanwhile()
        if self.fails_next:
            self.fails_next = False
            raise RuntimeError("the step fails")
        slots = [self._find_slots(item) for item in inputs]
        written = [
            slot for item, own in zip(inputs, slots, strict=True) for slot in own[item.start :]
        ]
        assert len(written) == len(set(written))
        return [
            state
            for item, own in zip(inputs, slots, strict=True)
            for state in [self._compute(item, own)]
            if item.wants_logits
        ]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See `batching.core.Runner.copy`."""
        size = self._block_tokens
        self._cache[target * size : target * size + num_tokens] = self._cache[
            source * size : source * size + num_tokens
        ]

    def _find_slots(self, item: Input) -> list[int]:
        size = self._block_tokens
        places = range(item.start + len(item.token_ids))
        return [item.blocks[place // size] * size + place % size for place in places]

    def _compute(self, item: Input, slots: Sequence[int]) -> int:
        state = 0
        for place, slot in enumerate(slots):
            if place < item.start:
                held = self._cache[slot]
                assert held is not None
                assert (place, state) == held[:2]
                state = held[2]
            else:
                before, state = state, go_on(state, item.token_ids[place - item.start])
                self._cache[slot] = (place, before, state)
        return state


class Speaker:
    """Draws what the states say, and lends rows; see `batching.core.Sampler`."""

    def __init__(self, num_rows: int) -> None:
        self.free = set(range(1, num_rows + 1))

    def take_row(self, _: Sequence[int]) -> int:
        """One that nobody has."""
        return self.free.pop()

    def give_row(self, row: int) -> None:
        """Take it back; row 0 is nobody's."""
        if row:
            assert row not in self.free
            self.free.add(row)

    def draw(self, _: Any, _last: Any, _positions: Any, states: Sequence[int]) -> list[int]:
        """A token for each state."""
        return [state % NUM_TOKENS for state in states]


class CoreMachine(RuleBasedStateMachine):
    """A core with a cache that is nearly always too small."""

    core: Core

    @initialize(
        num_blocks=st.integers(2, 12),
        block_tokens=st.sampled_from([2, 3, 4]),
        max_running=st.integers(1, 4),
        max_batch_tokens=st.integers(1, 20),
        gap_seconds=st.sampled_from([0.0, 1.0]),
        is_exact=st.booleans(),
    )
    def begin(
        self,
        *,
        num_blocks: int,
        block_tokens: int,
        max_running: int,
        max_batch_tokens: int,
        gap_seconds: float,
        is_exact: bool,
    ) -> None:
        """Make it."""
        self.pool = pool = BlockPool(num_blocks, block_tokens)
        self.model, self.speaker = Model(num_blocks, block_tokens), Speaker(NUM_ROWS)
        scheduler = (
            ExactScheduler(pool, max_batch_tokens, max_running)
            if is_exact
            else Scheduler(pool, GapBudget(gap_seconds, max_batch_tokens), max_running)
        )
        self.core = Core(self.model, scheduler, self.speaker)
        self.capacity_tokens = num_blocks * block_tokens
        self.jobs: dict[int, Job] = {}
        self.answers: dict[int, list[int]] = {}
        self.num_jobs, self.is_broken = 0, False

    @rule(data=st.data(), owner=st.sampled_from([None, "a", "b"]), is_penalised=st.booleans())
    def add(self, data: st.DataObject, owner: str | None, *, is_penalised: bool) -> None:
        """Somebody asks, up to what the whole cache holds."""
        if self.is_broken:
            return
        num_tokens = data.draw(st.integers(1, self.capacity_tokens))
        num_shared = data.draw(st.integers(0, num_tokens))
        chance = random.Random(data.draw(st.integers(0, 9)))
        rest = [chance.randrange(NUM_TOKENS) for _ in range(num_tokens - num_shared)]
        token_ids = [0] * num_shared + rest
        most = self.capacity_tokens - len(token_ids) + 1
        job = Job(
            self.num_jobs,
            token_ids,
            data.draw(st.integers(1, most)),
            owner=owner,
            draw=Draw(repetition_penalty=1.1 if is_penalised else 1.0),
        )
        self.core.add(job)
        self.jobs[job.number], self.answers[job.number] = job, []
        self.num_jobs += 1

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Somebody goes."""
        number = data.draw(st.sampled_from(sorted(self.jobs)))
        self.core.cancel(number)
        del self.jobs[number]

    @rule(owner=st.sampled_from(["a", "b"]))
    def forget_owner(self, owner: str) -> None:
        """A chat is erased."""
        self.core.forget_owner(owner)

    @rule()
    def forget_all(self) -> None:
        """The bank's ids begin anew."""
        self.core.forget_prefixes()

    @precondition(lambda self: self.jobs)
    @rule()
    def fail(self) -> None:
        """A step fails, and its jobs with it."""
        self.model.fails_next = True
        self.step()

    @rule(num_steps=st.integers(1, 10))
    def go(self, num_steps: int) -> None:
        """Some steps."""
        for _ in range(num_steps):
            self.step()

    def step(self) -> None:
        """One step, and what it tells."""
        if self.is_broken:
            return
        try:
            outputs = self.core.step()
        except CoreBroken:
            self.is_broken = True
            self.jobs.clear()
            return
        for output in outputs:
            if output.has_failed:
                del self.jobs[output.number]
                continue
            if output.token_id is not None:
                self.answers[output.number].append(output.token_id)
            if output.is_over:
                job = self.jobs.pop(output.number)
                expected = speak(job.token_ids, job.max_new_tokens)
                assert expected == self.answers[output.number]

    @invariant()
    def counts_agree(self) -> None:
        """No block is held by fewer than nobody."""
        if hasattr(self, "core"):
            assert 0 <= self.pool.num_available <= self.pool.num_blocks

    def teardown(self) -> None:
        """All that are left come to their end, and nothing is lost."""
        if not hasattr(self, "core") or self.is_broken:
            return
        num_idle = 0
        while self.core.has_work and not self.is_broken:
            num_steps = self.core.num_steps
            self.step()
            num_idle = 0 if self.core.num_steps > num_steps else num_idle + 1
            assert num_idle < MOST_IDLE_STEPS
        if not self.is_broken:
            assert {} == self.jobs
            assert NUM_ROWS == len(self.speaker.free)
            assert self.pool.num_blocks == self.pool.num_available


def test_whatever_happens_answers_are_right_and_end(caplog: pytest.LogCaptureFixture) -> None:
    """Each is the model's own, whoever shares its cache; nobody waits for ever, nothing is lost."""
    # Steps that fail are told with their stacks.
    caplog.set_level(logging.CRITICAL, "llavachat_server.engine.batching.core")
    run_state_machine_as_test(
        CoreMachine, settings=settings(max_examples=150, stateful_step_count=25, deadline=None)
    )


def test_the_budget_is_told_what_each_step_took(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By its answers and its tokens of prompts; a step that failed tells nothing of either."""
    caplog.set_level(logging.CRITICAL, "llavachat_server.engine.batching.core")
    told: list[tuple[int, int, float]] = []
    clock = [0.0]

    class TimedModel(Model):
        def forward(
            self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
        ) -> list[int]:
            clock[0] += 0.5
            return super().forward(inputs, meanwhile)

    budget, model = GapBudget(1.0, 16), TimedModel(16, 4)
    core = Core(model, Scheduler(BlockPool(16, 4), budget, 4), Speaker(4))
    monkeypatch.setattr(budget, "observe", lambda *step: told.append(step))
    watch = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("llavachat_server.engine.batching.core.time", watch)
    core.add(Job(0, [0, 1, 2, 0, 1], 4))
    core.step()
    core.add(Job(1, [2, 2, 1], 2))
    for _ in range(2):
        core.step()
    model.fails_next = True
    core.step()
    assert [(0, 5, 0.5), (1, 3, 0.5), (2, 0, 0.5)] == told
