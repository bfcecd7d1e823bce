"""The loop's body: plan, run, draw, report.

One thread owns a core. Jobs are added and cancelled between steps; `step` does one batch of
work and says what came of it. A step that raises fails the jobs that were in it, and the core
goes on with the others; if the next one raises too, the fault is not theirs, and the core says
that it is broken. It knows no thread, no asyncio and no text.
"""

import logging
import time
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Ids
from dataclasses import replace
from typing import Any, Protocol

from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.scheduler import Chunk, Scheduler
from llavachat_server.engine.batching.sequence import Job, Output, Sequence
from llavachat_server.engine.sampling import Sampler

_log = logging.getLogger(__name__)


class CoreBroken(Exception):
    """Two steps in a row have raised; the core and its cache are of no more use."""


class Runner(Protocol):
    """A model's decoder over one cache."""

    def forward(self, inputs: Ids[Input], meanwhile: Callable[[], None] = ...) -> Any:
        """Compute a step and store its keys and values.

        Args:
            inputs: those with a single token first.
            meanwhile: called when everything is prepared and the computing begins, which other
                threads that it wakes do not hold up.

        Returns:
            (inputs that want logits, vocabulary), float32, in their order, for the sampler.
        """
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the keys and values of a block's first tokens into another block."""
        ...


class Core:
    """Generates many answers side by side.

    Args:
        runner: the model.
        scheduler: with the pool of the runner's cache.
        sampler: draws from what the runner computes.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, sampler: Sampler) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._sampler = sampler
        self._sequences: dict[int, Sequence] = {}
        self._has_just_failed = False
        self.num_steps = 0
        """Computed to their end."""

    @property
    def has_work(self) -> bool:
        """There are jobs to compute."""
        return bool(self._sequences)

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the cache holds; the longest job, less its last token."""
        pool = self._scheduler.pool
        return pool.num_blocks * pool.block_tokens

    @property
    def held_tokens(self) -> int:
        """Places of the cache that jobs hold, whole blocks; from any thread."""
        pool = self._scheduler.pool
        return (pool.num_blocks - pool.num_available) * pool.block_tokens

    @property
    def kept_tokens(self) -> int:
        """Places that hold a prefix, and nobody's at the moment; from any thread."""
        pool = self._scheduler.pool
        return pool.num_kept * pool.block_tokens

    def add(self, job: Job) -> None:
        """Take a job in.

        Raises:
            ValueError: its number is taken, it is empty, or it could outgrow the whole cache.
        """
        if job.number in self._sequences:
            raise ValueError(f"job {job.number} is in the core already")
        if not job.token_ids or job.max_new_tokens < 1:
            raise ValueError("a job needs a prompt and room for an answer")
        sequence = Sequence(job, list(job.token_ids))
        if sequence.max_length - 1 > self.capacity_tokens:
            raise ValueError(
                f"prompt and answer may have {self.capacity_tokens + 1} tokens, "
                f"not {sequence.max_length}"
            )
        sequence.draw = job.draw
        if job.draw.repetition_penalty != 1:
            sequence.draw = replace(job.draw, seen_row=self._sampler.take_row(job.seen_ids))
        self._sequences[job.number] = sequence
        self._scheduler.add(sequence)

    def cancel(self, number: int) -> Output | None:
        """Drop a job and free its blocks at once; None when it is not, or no longer, here."""
        sequence = self._sequences.get(number)
        if sequence is None:
            return None
        self._drop(sequence)
        return _report(sequence, None, is_over=True)

    def forget_prefixes(self) -> None:
        """Make every cached prefix unfindable."""
        self._scheduler.pool.forget()

    def forget_owner(self, owner: Hashable) -> None:
        """Make unfindable what is cached for one owner alone."""
        self._scheduler.pool.forget_owner(owner)

    def close(self) -> None:
        """Let go of what another core may need the memory of; `step` no more.

        Of the cache, and of what draws were recorded with.
        """
        del self._runner, self._sampler

    def step(self, meanwhile: Callable[[], None] = lambda: None) -> list[Output]:
        """Compute one batch; a report for each job that got a token or ended.

        Args:
            meanwhile: see `Runner.forward`; not called where there is nothing to compute.

        Raises:
            CoreBroken: a step failed right after another one.
        """
        chunks = self._scheduler.plan()
        if not chunks:
            return []
        start = time.perf_counter()
        for chunk in chunks:
            if chunk.sequence.scheduled_at_seconds is None:
                chunk.sequence.scheduled_at_seconds = start
        try:
            drawn = self._compute(chunks, meanwhile)
        except Exception as error:
            if self._has_just_failed:
                raise CoreBroken from error
            self._has_just_failed = True
            _log.exception("a step failed with %d jobs in it", len(chunks))
            return [self._fail(chunk.sequence) for chunk in chunks]
        self._has_just_failed = False
        self.num_steps += 1
        outputs = self._settle(chunks, drawn)
        num_decodes = sum(chunk.num_tokens == 1 for chunk in chunks)
        num_prompt_tokens = sum(c.num_tokens for c in chunks) - num_decodes
        seconds = time.perf_counter() - start
        self._scheduler.budget.observe(num_decodes, num_prompt_tokens, seconds)
        return outputs

    def _compute(self, chunks: Ids[Chunk], meanwhile: Callable[[], None]) -> list[int]:
        try:
            for copy in self._scheduler.copies:
                self._runner.copy(copy.source, copy.target, copy.num_tokens)
        finally:
            self._scheduler.end_copies()
        inputs = []
        for chunk in chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.num_tokens
            wants_logits = end == len(sequence.token_ids)
            ids = sequence.token_ids[chunk.start : end]
            inputs.append(Input(ids, chunk.start, sequence.blocks, wants_logits))
        logits = self._runner.forward(inputs, meanwhile)
        finished = [c.sequence for c, item in zip(chunks, inputs, strict=True) if item.wants_logits]
        if not finished:
            return []
        return self._sampler.draw(
            [sequence.draw for sequence in finished],
            [sequence.token_ids[-1] for sequence in finished],
            [len(sequence.token_ids) for sequence in finished],
            logits,
        )

    def _settle(self, chunks: Ids[Chunk], drawn: Ids[int]) -> list[Output]:
        outputs: list[Output] = []
        tokens = iter(drawn)
        for chunk in chunks:
            sequence = chunk.sequence
            self._scheduler.advance(chunk)
            if sequence.num_uncomputed:
                continue
            token_id = next(tokens)
            sequence.token_ids.append(token_id)
            is_over = (
                token_id in sequence.job.eos_token_ids
                or sequence.num_new_tokens >= sequence.job.max_new_tokens
            )
            if is_over:
                self._drop(sequence)
            outputs.append(_report(sequence, token_id, is_over=is_over))
        return outputs

    def _fail(self, sequence: Sequence) -> Output:
        self._drop(sequence, is_sound=False)
        return _report(sequence, None, is_over=True, has_failed=True)

    def _drop(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        del self._sequences[sequence.job.number]
        self._sampler.give_row(sequence.draw.seen_row)
        self._scheduler.remove(sequence, is_sound=is_sound)


def _report(
    sequence: Sequence, token_id: int | None, *, is_over: bool, has_failed: bool = False
) -> Output:
    return Output(
        number=sequence.job.number,
        token_id=token_id,
        is_over=is_over,
        has_failed=has_failed,
        cached_tokens=sequence.cached_tokens,
        scheduled_at_seconds=sequence.scheduled_at_seconds or time.perf_counter(),
    )
