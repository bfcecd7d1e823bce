"""Many answers side by side: the engine as the rest of the server sees it.

Everything here runs on one event loop and waits for nothing but events; what takes time runs
on a worker thread (loading, preprocessing, encoding) or on the generation loop's own. If that
loop dies, its requests fail at once, and it is begun anew, one time only.

Torch, where it computes, is imported on the worker thread, so that importing this module does not.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llavachat_server.engine.admission import AdmissionQueue, Ticket
from llavachat_server.engine.backend import Backend
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.doorbell import Doorbell
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.gate import Gate
from llavachat_server.engine.keeper import EngineState, LoopKeeper
from llavachat_server.engine.loop import Deliver, GenerationLoop, Report
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.pictures import PictureDesk
from llavachat_server.engine.run import Run, name_owner
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.interfaces import TurnTokenizer
from llavachat_server.values import (
    EngineError,
    EngineEvent,
    EngineFailed,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineUnavailable,
    FinishReason,
    InvalidField,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

RETRY_SECONDS = 2.0
"""When to come back to an engine that starts or restarts; loading a cache takes about this."""
STOP_SECONDS = 5.0
"""How long `stop` waits for a step that is under way."""


class BatchingEngine:
    """The engine on the batching core; see `interfaces.Engine`.

    Args:
        settings: which model, and how much of the machine.
        progress: told on the event loop about loading: a stage's name with None when it
            begins, with its seconds when it is done. The stages are those of
            `opening.open_backend`, and "cache".
        fingerprint: of the model's folder, where it was begun already.
    """

    def __init__(
        self,
        settings: EngineSettings,
        progress: Callable[[str, float | None], None] | None = None,
        fingerprint: Fingerprint | None = None,
    ) -> None:
        self._settings = settings
        self._fingerprint = fingerprint
        self._progress = progress
        self.fatal: asyncio.Future[str] | None = None
        """From `start` on: done, with a sentence for the log, when the process should exit."""
        self._worker = ThreadPoolExecutor(1, "engine")
        self._numbers = itertools.count()
        self._runs: dict[str, Run] = {}
        self._jobs: dict[int, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = threading.Event()
        self._admission = AdmissionQueue(settings.max_running, settings.max_queued)
        self._keeper = LoopKeeper(
            self._make_loop,
            self._post,
            self._spawn,
            on_reports=self._take_reports,
            on_loss=self._fail_jobs,
            on_death=self._give_up,
        )
        self._mean_turn_seconds = 1.0
        self._info: EngineInfo | None = None
        self._doorbell: Doorbell | None = None
        # Set by `start`.
        self._event_loop: asyncio.AbstractEventLoop
        self._backend: Backend
        self._gate: Gate
        self._pictures: PictureDesk

    @property
    def state(self) -> EngineState:
        """Where it is in its life."""
        return self._keeper.state

    @property
    def info(self) -> EngineInfo:
        """What callers must know.

        Raises:
            EngineUnavailable: the model is not loaded yet.
        """
        if self._info is None:
            raise EngineUnavailable(RETRY_SECONDS)
        return self._info

    @property
    def prompts(self) -> TurnTokenizer:
        """The template and the tokenizer.

        Raises:
            EngineUnavailable: the model is not loaded yet.
        """
        if self._info is None:
            raise EngineUnavailable(RETRY_SECONDS)
        return self._backend.loaded.facts.prompts

    @property
    def load(self) -> EngineLoad:
        """How busy it is; all zeros until the model is loaded."""
        if self._info is None:
            return EngineLoad()
        core, pictures = self._keeper.loop.core, self._pictures
        return EngineLoad(
            num_running=self._admission.num_running,
            num_queued=self._admission.num_queued,
            cache_tokens=core.capacity_tokens,
            held_tokens=core.held_tokens,
            kept_tokens=core.kept_tokens,
            image_hits=pictures.num_hits,
            image_misses=pictures.num_misses,
            num_restarts=self._keeper.num_restarts,
            silent_step_at_seconds=max(
                self._keeper.silent_step_at_seconds, pictures.encoded_at_seconds
            ),
        )

    def describe_steps(self) -> dict[str, Any]:
        """See `Backend.describe_steps`; once it has started."""
        return self._backend.describe_steps()

    async def start(self) -> None:
        """Load the model and begin to serve.

        Raises:
            LoadingError: says what is wrong with the checkpoint or the settings.
            EngineUnavailable: it was stopped meanwhile.
        """
        self._event_loop = asyncio.get_running_loop()
        self.fatal = self._event_loop.create_future()
        self._doorbell = Doorbell(self._event_loop)
        self._keeper.state = EngineState.STARTING
        try:
            await self._load()
        except BaseException:
            self._doorbell.close()
            raise

    async def _load(self) -> None:
        self._backend = await self._work(self._build_backend)
        self._check_not_stopped()
        self._pictures = PictureDesk(
            self._backend,
            self._settings.num_bank_images,
            self._work,
            flush_prefixes=lambda: self._keeper.loop.flush_prefixes(),
        )
        await self._keeper.begin()
        self._check_not_stopped()
        self._info = self._backend.describe(self._keeper.loop.core.capacity_tokens)
        self._gate = self._backend.build_gate(self._info)
        self._keeper.open()
        settle = self._backend.settle
        threading.Thread(target=settle, args=(self._stopping,), name="settle", daemon=True).start()

    def _check_not_stopped(self) -> None:
        if self.state is EngineState.STOPPED:
            raise EngineUnavailable(RETRY_SECONDS)

    async def stop(self) -> None:
        """End; running requests finish as SHUTDOWN."""
        was_loaded = self._info is not None
        self._stopping.set()
        self._keeper.stop()
        for run in list(self._runs.values()):
            self._conclude(run, FinishReason.SHUTDOWN)
        if was_loaded:
            # Not on the worker, which may be at work on a picture.
            await asyncio.to_thread(self._keeper.loop.stop, STOP_SECONDS)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        self._worker.shutdown(wait=False, cancel_futures=True)
        if self._doorbell is not None:
            self._doorbell.close()

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """Stream one answer; see `interfaces.Engine.generate`."""
        run = self._take_in(request)
        try:
            async for event in run.read_events():
                yield event
        finally:
            self._conclude(run, FinishReason.CANCELLED)

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End a request with `reason`; nothing happens when it is over or unknown."""
        run = self._runs.get(request_id)
        if run is not None:
            self._conclude(run, reason)

    def forget(self, tenant: str, owner: str) -> None:
        """Forget an owner's cached prefixes and pictures; see `interfaces.Engine.forget`."""
        name = name_owner(tenant, owner)
        if name is None:
            return
        for run in [run for run in self._runs.values() if run.owner == name]:
            self._conclude(run, FinishReason.CANCELLED)
        self._pictures.forget_owner(name)
        self._keeper.loop.forget_owner(name)

    # A request's way in.

    def _take_in(self, request: EngineRequest) -> Run:
        if not self._keeper.is_accepting:
            raise EngineUnavailable(RETRY_SECONDS)
        if request.request_id in self._runs:
            raise InvalidField("request_id", "must not be that of a running request")
        self._gate.check(request)
        self._admission.check_room(self._estimate_wait(), request.tenant)
        run = Run(
            request,
            self._backend.table,
            image_tokens=len(request.images) * self.info.num_image_tokens,
            context_tokens=self.info.context_tokens,
            eos_token_ids=self._backend.loaded.facts.eos_token_ids,
        )
        self._runs[request.request_id] = run
        run.timer = self._event_loop.call_later(
            request.time_limit_seconds, self._conclude, run, FinishReason.TIME_LIMIT
        )
        run.ticket = Ticket(
            on_admitted=lambda: self._admit(run), on_moved=run.move, tenant=request.tenant
        )
        self._admission.enter(run.ticket)
        return run

    def _estimate_wait(self) -> float:
        turns_ahead = (self._admission.num_queued + 1) / self._settings.max_running
        return min(60.0, max(1.0, self._mean_turn_seconds * turns_ahead))

    def _admit(self, run: Run) -> None:
        run.note_admission()
        self._spawn(self._drive(run))

    async def _drive(self, run: Run) -> None:
        """Bring an admitted run into the generation loop."""
        try:
            token_ids = await self._pictures.build_prompt(run)
            while run.number is None and not run.is_over:
                await self._keeper.wait()
                self._try_to_submit(run, token_ids)
        except (EngineError, InvalidField) as error:
            run.fail(error)
        except Exception:
            _log.exception("a request failed before it reached the generation loop")
            run.fail(EngineFailed())
        if run.number is None:
            self._release(run)

    def _try_to_submit(self, run: Run, token_ids: list[int]) -> None:
        if self.state is not EngineState.READY:
            raise EngineFailed
        if run.is_over:
            return
        sampling = run.request.sampling
        job = Job(
            number=next(self._numbers),
            token_ids=token_ids,
            max_new_tokens=run.max_new_tokens,
            eos_token_ids=frozenset(self._backend.loaded.facts.eos_token_ids),
            owner=run.owner,
            tenant=run.request.tenant,
            draw=Draw(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                repetition_penalty=sampling.repetition_penalty,
                seed=sampling.seed,
            ),
            seen_ids=run.request.token_ids,
        )
        run.note_submission()
        if self._keeper.loop.submit(job):
            run.number = job.number
            self._jobs[job.number] = run
        else:
            # The loop is ending and is about to say so; its successor will take the job.
            self._keeper.note_end()

    # A request's way out.

    def _conclude(self, run: Run, reason: FinishReason) -> None:
        """Settle a run's end and begin to take back what it holds."""
        if run.is_over:
            return
        run.finish(reason)
        self._let_go(run)

    def _let_go(self, run: Run) -> None:
        self._forget(run)
        if run.number is not None:
            if run.number in self._jobs and self.state is EngineState.READY:
                self._keeper.loop.cancel(run.number)
        elif run.ticket is not None and not run.ticket.is_admitted:
            self._admission.leave(run.ticket)
            self._untie(run)
        else:
            # It is being prepared, and `_drive` will notice.
            self._pictures.wake()

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.request.request_id) is run:
            del self._runs[run.request.request_id]

    def _release(self, run: Run) -> None:
        """Take back the run's pictures and its place; the loop has let go of it."""
        self._forget(run)
        if run.number is not None:
            self._jobs.pop(run.number, None)
        self._pictures.release(run)
        assert run.ticket is not None
        self._admission.leave(run.ticket)
        self._untie(run)

    @staticmethod
    def _untie(run: Run) -> None:
        """Have a run end with whoever holds it: its ticket tells it, and so holds it, and the
        pixels of its pictures would stay until the garbage collector comes."""
        assert run.ticket is not None
        run.ticket.on_admitted, run.ticket.on_moved = lambda: None, lambda _: None

    def _take_reports(self, reports: list[Report]) -> None:
        for report in reports:
            run = self._jobs.get(report.output.number)
            if run is not None:
                self._take_report(run, report)

    def _take_report(self, run: Run, report: Report) -> None:
        was_over, output = run.is_over, report.output
        if output.has_failed:
            run.fail(EngineFailed())
        else:
            run.take_tokens(
                () if output.token_id is None else (output.token_id,),
                at_seconds=report.reported_at_seconds,
                scheduled_at_seconds=output.scheduled_at_seconds,
                cached_tokens=output.cached_tokens,
            )
        if output.is_over:
            if not run.is_over:
                run.finish_at_length()
            seconds = time.perf_counter() - run.arrived_at_seconds
            self._mean_turn_seconds += 0.1 * (seconds - self._mean_turn_seconds)
            self._release(run)
        elif run.is_over and not was_over:
            self._let_go(run)

    # The generation loop's life.

    def _build_backend(self) -> Backend:
        return open_backend(self._settings, self._tell, self._fingerprint)

    async def _make_loop(self, deliver: Deliver, on_end: Callable[[], None]) -> GenerationLoop:
        def make() -> GenerationLoop:
            start = time.perf_counter()
            self._tell("cache", None)
            loop = self._backend.make_loop(deliver, on_end)
            self._tell("cache", time.perf_counter() - start)
            return loop

        # On the worker, behind the picture that it is at work on: what free memory is left for a
        # cache, and what a GPU records, must not be looked at while another thread computes there.
        return await self._work(make)

    def _fail_jobs(self) -> None:
        for run in list(self._jobs.values()):
            run.fail(EngineFailed())
            self._release(run)

    def _give_up(self, reason: str) -> None:
        for run in list(self._runs.values()):
            run.fail(EngineFailed())
            self._let_go(run)
        assert self.fatal is not None
        if not self.fatal.done():
            self.fatal.set_result(reason)

    # Threads.

    async def _work(self, call: Callable[[], _T]) -> _T:
        return await self._event_loop.run_in_executor(self._worker, call)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run something on the event loop, for which no other thread waits."""
        assert self._doorbell is not None
        self._doorbell.post(call, *arguments)

    def _tell(self, stage: str, seconds: float | None) -> None:
        if self._progress is not None:
            self._post(self._progress, stage, seconds)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
