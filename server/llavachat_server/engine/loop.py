"""The generation loop: transformers' continuous batching behind a narrow, guarded door.

In: numbered jobs that have passed the engine's gate, and cancellations. Out: reports, in
batches, handed to one callable on the loop's own thread. An idle loop sleeps, and its end is
always told.

It knows no asyncio, no text and no pictures; an id is an id.
"""

import logging
import threading
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
)
from transformers.generation.continuous_batching.requests import RequestState

from llavachat_server.engine.batch_sampling import DRAW_KEY, BatchSampler, Draw
from llavachat_server.engine.scheduling import (
    SCHEDULER_NAME,
    Deliver,
    ReportRouter,
    Scheduler,
)

_log = logging.getLogger(__name__)


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
        thread = threading.Thread(target=self._run_generation_loop, name="generation", daemon=True)
        self._generation_thread = thread  # type: ignore[assignment]
        thread.start()

    def submit(self, job: Job) -> bool:
        """Hand a job in. False: the loop is not running and the job is not taken."""
        if not self.is_accepting:
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
    def is_accepting(self) -> bool:
        """False from the moment on at which the loop begins to end."""
        return self.background_thread_status.can_accept_new_requests() is None

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
