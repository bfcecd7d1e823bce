"""The order of work in the generation loop, and what it reports.

Where transformers' scheduler is the danger in a server, this one departs from it: a
cancellation is sure to land and is acknowledged, and cached prefixes are given up one by one,
the least recently used first, instead of all at once.

Runs on the loop's own thread. It knows no asyncio, no text and no pictures.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
    CacheAllocator,
)
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import (
    GenerationOutput,
    RequestState,
    RequestStatus,
)
from transformers.generation.continuous_batching.scheduler import (
    SCHEDULER_MAPPING,
    FIFOScheduler,
)

SCHEDULER_NAME = "llavachat"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a job in one step of the loop.

    Args:
        number: the job's.
        token_ids: all tokens so far, a closing eos among them.
        is_over: the loop has let go of the job, and of its cache.
        error: why it failed; None when it did not.
        scheduled_at_seconds: when it entered the batch, by ``time.perf_counter``.
        reported_at_seconds: now.
        cached_tokens: tokens of its prompt that were found in the cache.
    """

    number: int
    token_ids: list[int]
    is_over: bool
    error: str | None
    scheduled_at_seconds: float
    reported_at_seconds: float
    cached_tokens: int


Deliver = Callable[[list[Report]], None]


class ReportRouter(OutputRouter):
    """Hands the loop's outputs over, one call a step."""

    def __init__(self, deliver: Deliver) -> None:
        super().__init__()
        self._deliver = deliver
        self._cached_tokens: dict[int, int] = {}

    def note_cached_tokens(self, request_id: str, num_tokens: int) -> None:
        """Keep what the scheduler found for the job's reports."""
        self._cached_tokens.setdefault(int(request_id), num_tokens)

    def deliver(self, output: GenerationOutput) -> None:
        """Hand over one output, such as that of a failed request."""
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Hand over the outputs of a step."""
        self._deliver([self._report(output, is_over=output.is_finished()) for output in outputs])

    def acknowledge(self, states: list[RequestState]) -> None:
        """Report cancelled requests as over."""
        outputs: list[Any] = [state.to_generation_output() for state in states]  # type: ignore[no-untyped-call]
        self._deliver([self._report(output, is_over=True) for output in outputs])

    def _report(self, output: GenerationOutput, *, is_over: bool) -> Report:
        number = int(output.request_id)
        cached_tokens = self._cached_tokens.get(number, 0)
        if is_over:
            self._cached_tokens.pop(number, None)
        return Report(
            number=number,
            token_ids=output.generated_tokens,
            is_over=is_over,
            error=output.error,
            scheduled_at_seconds=output.lifespan[0],
            reported_at_seconds=time.perf_counter(),
            cached_tokens=cached_tokens,
        )


class Scheduler(FIFOScheduler):
    """First in, first out, with cancellations that are sure to land and a patient cache."""

    def connect(self, router: ReportRouter) -> None:
        """Say where acknowledgements go; called before the loop begins."""
        self._router = router
        self._cancellations: deque[str] = deque()
        self._must_flush = threading.Event()
        self._latest_arrival = -1

    def request_cancellation(self, number: int) -> None:
        """Cancel a job at the next step. From any thread."""
        self._cancellations.append(str(number))

    def request_flush(self) -> None:
        """Forget every cached prefix before the next job is scheduled. From any thread."""
        self._must_flush.set()

    def add_waiting_request(self, state: RequestState) -> None:
        """Take a job in."""
        self._latest_arrival = max(self._latest_arrival, int(state.request_id))
        super().add_waiting_request(state)

    def clear_cancelled_requests(self) -> list[RequestState]:
        """Drop cancelled jobs and acknowledge them. Runs before each step, after arrivals."""
        for _ in range(len(self._cancellations)):
            request_id = self._cancellations.popleft()
            if int(request_id) > self._latest_arrival:
                # It overtook its own job.
                self._cancellations.append(request_id)
            else:
                self.set_request_cancellation(request_id)
        cancelled: list[RequestState] = super().clear_cancelled_requests()
        for state in cancelled:
            # A step may be under way on a GPU; its outcome is nobody's any more.
            state.status = RequestStatus.FINISHED
        if cancelled:
            self._router.acknowledge(cancelled)
        if self._must_flush.is_set():
            self._must_flush.clear()
            self.cache.evict_cached_blocks()
        return cancelled

    def finish_request(self, request_id: str) -> None:
        """Free a job's cache so that the end of its prefix is evicted before the beginning."""
        tables = [
            (allocator.ledger, allocator.block_table.get(request_id, [])[:])
            for allocator in self.cache.cache_allocators.values()
        ]
        super().finish_request(request_id)
        for ledger, blocks in tables:
            for block in reversed(blocks):
                if block in ledger.cached_blocks:
                    del ledger.cached_blocks[block]
                    ledger.cached_blocks[block] = None

    def _infer_request_tokens(
        self, state: RequestState, request_ids_to_remove_from_waiting: set[str]
    ) -> list[int]:
        before = state.position_offset
        tokens: list[int] = super()._infer_request_tokens(state, request_ids_to_remove_from_waiting)
        if state.position_offset > before:
            self._router.note_cached_tokens(state.request_id, state.position_offset - before)
        return tokens

    def _try_to_meet_safety_margin(self) -> bool:
        # Room for the largest possible next step, taken from the prefixes that were used
        # longest ago; the stock scheduler drops all of them at once.
        self.cache.pool.try_to_free_sectors()
        num_requests = len(self.active_requests) + len(self.waiting_requests)
        for allocator in self.cache.cache_allocators.values():
            page = allocator.tokens_per_page
            wanted = -(-self.cache.max_batch_tokens // page) + num_requests
            evict_oldest_blocks(allocator, wanted - self._count_free_blocks(allocator))
        self.cache.pool.try_to_free_sectors()
        return True

    def _count_free_blocks(self, allocator: CacheAllocator) -> int:
        pool = self.cache.pool
        in_sectors = pool.num_free_sectors * allocator.blocks_per_sector
        return int(pool.count_free_blocks(allocator.index) + in_sectors)


def evict_oldest_blocks(allocator: CacheAllocator, num_blocks: int) -> None:
    """Give up to `num_blocks` cached blocks back to the pool, the least recently used first."""
    ledger = allocator.ledger
    victims = list(ledger.cached_blocks)[: max(0, num_blocks)]
    for block in victims:
        del ledger.cached_blocks[block]
        del ledger.hash_to_block[ledger.block_to_hash.pop(block)]
    if victims:
        allocator.pool.free_blocks(allocator.index, victims)


SCHEDULER_MAPPING[SCHEDULER_NAME] = Scheduler
