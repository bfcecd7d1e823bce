"""Steps whose arithmetic is the same in any company, for answers that must come out again.

Sums of floating point numbers depend on their order, and the order on how many rows a matrix
product has. So each step computes one sequence alone; its prompt is always cut at the same places;
its answer always goes through token by token, also when it is computed again after it had to step
back; and nothing is taken over from a cache that another cut had filled. What comes out depends on
the prompt, the draws, the weights, the libraries, the machine and its threads, and on nothing else.
"""

from collections.abc import Iterator

from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.scheduler import Chunk, Scheduler
from llavachat_server.engine.batching.sequence import Sequence


class ExactScheduler(Scheduler):
    """Running sequences take turns, one a step.

    Args:
        pool: the cache's blocks; no prefix is ever found in it.
        chunk_tokens: prompt tokens of a step at most; another number gives other last bits.
        max_running: sequences that take turns, 1 or more.
    """

    shares_prefixes = False

    def __init__(self, pool: BlockPool, chunk_tokens: int, max_running: int) -> None:
        # Nothing is sized by time: that would cut the same prompt differently.
        super().__init__(pool, GapBudget(0.0, chunk_tokens), max_running)
        self._chunk_tokens = chunk_tokens
        self._latest: Sequence | None = None

    def plan(self) -> list[Chunk]:
        """The next step: one sequence's chunk. Empty when there is nothing to do."""
        while self._admit_next():
            pass
        for sequence in list(self._list_turns()):
            # Growing may send those at the end of the line back, at last the sequence itself.
            if sequence not in self.running:
                continue
            if sequence.num_uncomputed == 1 and not self._grow(sequence):
                continue
            self._latest = sequence
            return [self._cut(sequence)]
        return []

    def _list_turns(self) -> Iterator[Sequence]:
        """The running sequences, from the one after the latest served."""
        known = self._latest in self.running
        first = self.running.index(self._latest) + 1 if known and self._latest else 0
        yield from self.running[first:]
        yield from self.running[:first]

    def _cut(self, sequence: Sequence) -> Chunk:
        start = sequence.num_computed
        left = len(sequence.job.token_ids) - start
        return Chunk(sequence, start, min(left, self._chunk_tokens) if left > 0 else 1)
