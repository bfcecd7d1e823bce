"""The generation loop: transformers' continuous batching behind a narrow, guarded door.

In: numbered jobs that have passed the engine's gate, and cancellations. Out: reports, in
batches, handed to one callable from the loop's own thread. What the stock loop does wrong for
a server is put right here through its seams: cancellations are acknowledged, cached prefixes
are evicted one by one, an idle loop sleeps, and its end is always told.

It knows no asyncio, no text and no pictures; an id is an id.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
    CacheAllocator,
)
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
    OutputRouter,
)
from transformers.generation.continuous_batching.requests import (
    GenerationOutput,
    RequestState,
    RequestStatus,
)
from transformers.generation.continuous_batching.scheduler import (
    SCHEDULER_MAPPING,
    FIFOScheduler,
)

from llavachat_server.engine.batch_sampling import DRAW_KEY, BatchSampler, Draw

_log = logging.getLogger(__name__)

SCHEDULER_NAME = "llavachat"
IDLE_CHECK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to generate.

    Args:
        number: grows by one with each job.
        token_ids: the prompt, virtual ids in place.
        max_new_tokens: 1 or more.
        draw: the sampling rules.
    """

    number: int
    token_ids: Sequence[int]
    max_new_tokens: int
    draw: Draw


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
        outputs = [state.to_generation_output() for state in states]
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


class WakeUp(threading.Event):
    """An event that ignores the time-out of a loop without work."""

    def __init__(self, has_work: Callable[[], bool]) -> None:
        super().__init__()
        self._has_work = has_work

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for news; with work at hand, at most for `timeout` seconds."""
        return super().wait(timeout if self._has_work() else None)


class GenerationLoop(ContinuousBatchingManager):
    """The loop's thread and its door.

    Args:
        model: answers (1, tokens) ids with logits; its input embedding knows virtual ids.
        generation_config: eos ids.
        batching_config: `build_batching_config`'s.
        sampler: draws the tokens.
        deliver: takes reports, on the loop's thread; it must not raise.
        on_end: called on the loop's thread as the last thing, with or without `stop`.
        num_threads: CPU threads of the model, None for torch's own choice.
    """

    def __init__(
        self,
        model: Any,
        generation_config: GenerationConfig,
        batching_config: ContinuousBatchingConfig,
        sampler: BatchSampler,
        deliver: Deliver,
        on_end: Callable[[], None],
        num_threads: int | None = None,
    ) -> None:
        super().__init__(model, generation_config, batching_config)
        self.logit_processor = sampler
        self._router = ReportRouter(deliver)
        self.output_router = self._router
        self._wake_up_loop = WakeUp(self._has_work)
        self._on_end = on_end
        self._num_threads = num_threads

    def prepare(self) -> None:
        """Allocate the cache and record CUDA graphs; slow, and on the calling thread.

        Raises:
            MemoryError: the cache does not fit.
        """
        if self.batch_processor is None:
            self.batch_processor = self._create_batch_processor()
        self.warmup()

    def start(self) -> None:
        """Begin, on a thread that does not keep the process alive."""
        self.background_thread_status.clear()
        self._generation_thread = threading.Thread(
            target=self._run_generation_loop, name="generation", daemon=True
        )
        self._generation_thread.start()

    def submit(self, job: Job) -> bool:
        """Hand a job in. False: the loop is not running and the job is not taken."""
        if self.background_thread_status.can_accept_new_requests() is not None:
            return False
        state = RequestState(
            request_id=str(job.number),
            initial_tokens=list(job.token_ids),
            max_new_tokens=job.max_new_tokens,
            eos_token_id=self.generation_config.eos_token_id,
            streaming=True,
            logit_processor_kwargs={DRAW_KEY: job.draw},
        )
        self.input_queue.put(state)
        self._wake_up_loop.set()
        return True

    def cancel(self, number: int) -> None:
        """Drop a job; its last report follows unless it is over already."""
        self._scheduler.request_cancellation(number)
        self._wake_up_loop.set()

    def flush_prefixes(self) -> None:
        """Forget cached prefixes before any later job is scheduled."""
        self._scheduler.request_flush()
        self._wake_up_loop.set()

    def join(self, stop_trigger_time: float, timeout: float | None = None) -> None:
        """Wait for the thread, which may be asleep."""
        self._wake_up_loop.set()
        super().join(stop_trigger_time, timeout)

    @property
    def request_capacity_tokens(self) -> int:
        """The longest context, prompt and answer, that the cache can hold."""
        processor = self.batch_processor
        assert processor is not None
        blocks = min(a.num_blocks * a.tokens_per_page for a in self._allocators(processor))
        return int(blocks)

    @property
    def _scheduler(self) -> Scheduler:
        processor = self.batch_processor
        assert processor is not None
        scheduler = processor.scheduler
        assert isinstance(scheduler, Scheduler)
        return scheduler

    def _has_work(self) -> bool:
        processor = self.batch_processor
        return processor is not None and processor.has_pending_requests()

    @staticmethod
    def _allocators(processor: ContinuousBatchProcessor) -> list[CacheAllocator]:
        return list(processor.cache.cache_allocators.values())

    def _create_batch_processor(self) -> ContinuousBatchProcessor:
        processor = super()._create_batch_processor()
        scheduler = processor.scheduler
        assert isinstance(scheduler, Scheduler)
        scheduler.connect(self._router)
        return processor

    def _run_generation_loop(self) -> None:
        try:
            if self._num_threads is not None:
                torch.set_num_threads(self._num_threads)
            super()._run_generation_loop()
        except BaseException:
            _log.exception("the generation loop ended")
        finally:
            self._on_end()


def build_batching_config(
    *,
    page_tokens: int,
    cache_tokens: int | None,
    memory_fraction: float,
    max_batch_tokens: int,
    max_running: int,
    context_tokens: int,
    cuda_graphs: tuple[bool, bool],
) -> ContinuousBatchingConfig:
    """Say to transformers how large and how the loop is.

    Args:
        page_tokens: width of a cache page.
        cache_tokens: room of the cache; None for `memory_fraction` of the free memory.
        memory_fraction: over 0 to 1; also the bound against which `cache_tokens` is checked.
        max_batch_tokens: of one forward pass.
        max_running: requests of one forward pass.
        context_tokens: the longest context, for the block tables of recorded graphs.
        cuda_graphs: see `placement.Placement`.
    """
    return ContinuousBatchingConfig(
        page_size=page_tokens,
        num_blocks=None if cache_tokens is None else -(-cache_tokens // page_tokens),
        max_batch_tokens=max_batch_tokens,
        max_memory_percent=memory_fraction,
        max_requests_per_batch=max_running,
        max_blocks_per_request=-(-context_tokens // page_tokens) if any(cuda_graphs) else None,
        allow_block_sharing=True,
        use_cuda_graph=cuda_graphs,
        scheduler_type=SCHEDULER_NAME,
        safety_margin=0.0,
        auto_switch_to_flash=False,
    )
