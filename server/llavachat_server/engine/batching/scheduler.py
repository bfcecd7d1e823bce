"""Who computes what in the next step.

Running answers come first, one token each, so that none of them waits for a newcomer. What
remains of the step goes to prompts, tenants in turn and within one tenant first come, first
served, in chunks: as long as answers are running, a chunk is no larger than the time between two
of their tokens allows. When the cache is full the latest comer steps back and is computed again
later; nobody is dropped.

It knows sequences and blocks, and no tensor.
"""

from collections import Counter, deque
from dataclasses import dataclass, replace

from llavachat_server.engine.batching.blocks import BlockPool, Prefix
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`num_tokens` of a sequence, from `start`, go through the model."""

    sequence: Sequence
    start: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Copy:
    """The first `num_tokens` of a block are copied into another one before a step."""

    source: int
    target: int
    num_tokens: int


class Scheduler:
    """Two lines, waiting and running, and the plan for each step.

    Args:
        pool: the cache's blocks.
        budget: sizes the chunks.
        max_running: sequences in the batch at once, 1 or more.

    Attributes:
        copies: to be done before the step that was planned last; `end_copies` follows.
    """

    shares_prefixes = True

    def __init__(self, pool: BlockPool, budget: GapBudget, max_running: int) -> None:
        self.pool = pool
        self.budget = budget
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.copies: list[Copy] = []
        # When each tenant's prompts were last given a part of a step, and when it was last let in.
        # Kept while a tenant is away: or else who asks one question after another would be before
        # all others, each time.
        self._last_chunk: dict[str, int] = {}
        self._last_entry: dict[str, int] = {}
        self._num_turns = 0

    def add(self, sequence: Sequence) -> None:
        """Put a newcomer at the end of the line."""
        self.waiting.append(sequence)

    def plan(self) -> list[Chunk]:
        """The next step, chunks of a single token first. Empty when there is nothing to do."""
        decodes = self._plan_decodes()
        left_tokens = self.budget.count_tokens(len(decodes))
        prompts = self._plan_prompts(left_tokens)
        return sorted(decodes + prompts, key=lambda chunk: chunk.num_tokens > 1)

    def end_copies(self) -> None:
        """The copies are done, or the step has failed."""
        self.pool.release([copy.source for copy in self.copies])
        self.copies = []

    def advance(self, chunk: Chunk) -> None:
        """A chunk is in the cache: let others find it."""
        sequence = chunk.sequence
        sequence.num_computed = chunk.start + chunk.num_tokens
        if not self.shares_prefixes:
            return
        self._register_blocks(sequence)
        if chunk.start < len(sequence.job.token_ids) <= sequence.num_computed:
            self._register_beginning(sequence)

    def remove(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        """Let a sequence go, from whichever line; its blocks are free at once.

        Args:
            sequence: which.
            is_sound: what it has computed is in its blocks.
        """
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence, is_sound=is_sound)

    def _register_blocks(self, sequence: Sequence) -> None:
        size = self.pool.block_tokens
        while (len(sequence.digests) + 1) * size <= sequence.num_computed:
            index = len(sequence.digests)
            token_ids = sequence.token_ids[index * size : (index + 1) * size]
            sequence.digests.append(
                self.pool.register(
                    sequence.blocks[index],
                    self._name_parent(sequence),
                    token_ids,
                    sequence.job.owner,
                )
            )

    def _register_beginning(self, sequence: Sequence) -> None:
        # Of the block that is not full yet.
        index = len(sequence.digests)
        token_ids = sequence.token_ids[index * self.pool.block_tokens : sequence.num_computed]
        if token_ids:
            self.pool.register_beginning(
                sequence.blocks[index], self._name_parent(sequence), token_ids, sequence.job.owner
            )

    def _name_parent(self, sequence: Sequence) -> bytes:
        if sequence.digests:
            return sequence.digests[-1]
        return self.pool.name_root(sequence.job.salt)

    def _plan_prompts(self, left_tokens: int) -> list[Chunk]:
        chunks: list[Chunk] = []

        def give(sequence: Sequence) -> None:
            nonlocal left_tokens
            chunks.append(self._cut_chunk(sequence, left_tokens))
            left_tokens -= chunks[-1].num_tokens
            self._last_chunk[sequence.job.tenant] = self._count_turn()

        # All of a step goes to one tenant, if it can use it, and the next one to another: cut into
        # a piece for each, prompts would take more steps together.
        has_room = True
        for tenant in self._list_tenants():
            begun = [each for each in self.running if each.job.tenant == tenant]
            for sequence in begun:
                if left_tokens and sequence.num_uncomputed > 1:
                    give(sequence)
            while left_tokens and has_room and self._is_next(tenant):
                has_room = self._admit_next()
                if has_room:
                    give(self.running[-1])
        # Whose turn had been may be next once others were let in.
        while left_tokens and has_room and self._admit_next():
            give(self.running[-1])
        return chunks

    def _list_tenants(self) -> list[str]:
        """Those with a prompt to compute, the one that was served longest ago first."""
        begun = (each.job.tenant for each in self.running if each.num_uncomputed > 1)
        waiting = (each.job.tenant for each in self.waiting)
        tenants = dict.fromkeys((*begun, *waiting))
        return sorted(tenants, key=lambda tenant: self._last_chunk.get(tenant, 0))

    def _count_turn(self) -> int:
        self._num_turns += 1
        return self._num_turns

    def _find_next(self) -> Sequence | None:
        """Who is to be let in next: the first of the tenant with the fewest sequences running,
        among equals of the one that was let in longest ago."""
        if not self.waiting or len(self.running) >= self.max_running:
            return None
        num_running = Counter(each.job.tenant for each in self.running)

        def rank(sequence: Sequence) -> tuple[int, int]:
            tenant = sequence.job.tenant
            return num_running[tenant], self._last_entry.get(tenant, 0)

        return min(self.waiting, key=rank)

    def _is_next(self, tenant: str) -> bool:
        first = self._find_next()
        return first is not None and first.job.tenant == tenant

    def _admit_next(self) -> bool:
        """Let in who is next, if there is room; nobody else, who might take it over and over."""
        first = self._find_next()
        if first is None or not self._admit(first):
            return False
        self._last_entry[first.job.tenant] = self._count_turn()
        return True

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
        pool = self.pool
        prefix = self._find_prefix(sequence)
        needed = pool.count_blocks(len(sequence.token_ids)) - len(prefix.blocks)
        if prefix.source is not None and not self.running and needed > pool.num_available:
            # Nobody's end would make more room: what the block to copy from holds is computed anew.
            pool.release([prefix.source])
            known = len(prefix.blocks) * pool.block_tokens
            prefix = replace(prefix, source=None, num_tokens=known)
        # A block for each running answer, or they would soon push the newcomer out again.
        is_tight = self.running and needed + len(self.running) > pool.num_available
        sequence.blocks = list(prefix.blocks)
        if is_tight or not self._extend(sequence, len(sequence.token_ids)):
            sequence.blocks = []
            pool.release(prefix.blocks)
            if prefix.source is not None:
                pool.release([prefix.source])
            return False
        sequence.digests = list(prefix.names)
        sequence.num_computed = prefix.num_tokens
        if prefix.source is not None:
            target = sequence.blocks[len(prefix.blocks)]
            num_copied = prefix.num_tokens - len(prefix.blocks) * pool.block_tokens
            self.copies.append(Copy(prefix.source, target, num_copied))
        if sequence.scheduled_at_seconds is None:
            sequence.cached_tokens = sequence.num_computed
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _find_prefix(self, sequence: Sequence) -> Prefix:
        if not self.shares_prefixes:
            return Prefix()
        job = sequence.job
        # It is asked at every step as long as there is no room.
        return self.pool.acquire_prefix(
            sequence.token_ids, job.salt, job.owner, sequence.known_names
        )

    def _step_back(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        if is_sound and self.shares_prefixes and sequence.blocks:
            self._register_beginning(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.digests, sequence.num_computed = [], [], 0

    @staticmethod
    def _cut_chunk(sequence: Sequence, max_tokens: int) -> Chunk:
        return Chunk(sequence, sequence.num_computed, min(sequence.num_uncomputed, max_tokens))
