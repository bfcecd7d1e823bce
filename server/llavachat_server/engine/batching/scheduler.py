"""Who computes what in the next step.

Running answers come first, one token each, so that none of them waits for a newcomer. What
remains of the step goes to prompts, first come, first served, in chunks: as long as answers
are running, a chunk is no larger than the time between two of their tokens allows. When the
cache is full the latest comer steps back and is computed again later; nobody is dropped.

It knows sequences and blocks, and no tensor.
"""

from collections import deque
from dataclasses import dataclass

from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`num_tokens` of a sequence, from `start`, go through the model."""

    sequence: Sequence
    start: int
    num_tokens: int


class Scheduler:
    """Two lines, waiting and running, and the plan for each step.

    Args:
        pool: the cache's blocks.
        budget: sizes the chunks.
        max_running: sequences in the batch at once, 1 or more.
    """

    def __init__(self, pool: BlockPool, budget: GapBudget, max_running: int) -> None:
        self.pool = pool
        self.budget = budget
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Put a newcomer at the end of the line."""
        self.waiting.append(sequence)

    def plan(self) -> list[Chunk]:
        """The next step, chunks of a single token first. Empty when there is nothing to do."""
        decodes = self._plan_decodes()
        left_tokens = self.budget.count_tokens(len(decodes))
        prompts: list[Chunk] = []
        for sequence in self.running:
            if left_tokens and sequence.num_uncomputed > 1:
                chunk = self._cut_chunk(sequence, left_tokens)
                left_tokens -= chunk.num_tokens
                prompts.append(chunk)
        while left_tokens and self.waiting and self._admit(self.waiting[0]):
            chunk = self._cut_chunk(self.running[-1], left_tokens)
            left_tokens -= chunk.num_tokens
            prompts.append(chunk)
        return sorted(decodes + prompts, key=lambda chunk: chunk.num_tokens > 1)

    def advance(self, chunk: Chunk) -> None:
        """A chunk is in the cache: name the blocks that it filled."""
        sequence = chunk.sequence
        sequence.num_computed = chunk.start + chunk.num_tokens
        self._name_blocks(sequence)

    def _name_blocks(self, sequence: Sequence) -> None:
        size = self.pool.block_tokens
        while (len(sequence.digests) + 1) * size <= sequence.num_computed:
            index = len(sequence.digests)
            parent = sequence.digests[-1] if index else self.pool.name_root(sequence.job.salt)
            name = self.pool.name_block(
                parent, sequence.token_ids[index * size : (index + 1) * size]
            )
            self.pool.register(sequence.blocks[index], name, sequence.job.owner)
            sequence.digests.append(name)

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go, from whichever line; its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def _plan_decodes(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in list(self.running):
            # Stepping back happens from the end of the line, so what is planned stays.
            if sequence.num_uncomputed != 1 or sequence not in self.running:
                continue
            if self._grow(sequence):
                chunks.append(Chunk(sequence, sequence.num_computed, 1))
        return chunks

    def _grow(self, sequence: Sequence) -> bool:
        # Room for the next token, if need be at the cost of later comers, at last of itself.
        if len(sequence.token_ids) <= len(sequence.blocks) * self.pool.block_tokens:
            return True
        while not self._extend(sequence, len(sequence.token_ids)):
            latest = self.running[-1]
            self._step_back(latest)
            if latest is sequence:
                return False
        return True

    def _extend(self, sequence: Sequence, num_tokens: int) -> bool:
        held = len(sequence.blocks)
        needed = self.pool.count_blocks(num_tokens) - held
        room = self.pool.count_blocks(sequence.max_length - 1) - held
        after = sequence.blocks[-1] if held else None
        blocks = self.pool.allocate(needed, after, room)
        if blocks is None:
            return False
        sequence.blocks += blocks
        return True

    def _admit(self, sequence: Sequence) -> bool:
        if len(self.running) >= self.max_running:
            return False
        pool = self.pool
        blocks, digests = self._find_prefix(sequence)
        needed = pool.count_blocks(len(sequence.token_ids)) - len(blocks)
        # A block for each running answer, or they would soon push the newcomer out again.
        if self.running and needed + len(self.running) > pool.num_available:
            pool.release(blocks)
            return False
        sequence.blocks, sequence.digests = blocks, digests
        if not self._extend(sequence, len(sequence.token_ids)):
            self._release(sequence)
            return False
        sequence.num_computed = len(digests) * pool.block_tokens
        if sequence.scheduled_at_seconds is None:
            sequence.cached_tokens = sequence.num_computed
        self.waiting.popleft()
        self.running.append(sequence)
        return True

    def _find_prefix(self, sequence: Sequence) -> tuple[list[int], list[bytes]]:
        job = sequence.job
        return self.pool.acquire_prefix(sequence.token_ids, job.salt, job.owner)

    def _step_back(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.digests, sequence.num_computed = [], [], 0

    @staticmethod
    def _cut_chunk(sequence: Sequence, max_tokens: int) -> Chunk:
        return Chunk(sequence, sequence.num_computed, min(sequence.num_uncomputed, max_tokens))
