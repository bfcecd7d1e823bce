"""The server's pulse: is the engine really answering, and is anybody asking?

Contract: wraps the engine, hands everything through, and notes what passes. Steps that give nobody
a token, as those of long prompts, are in the engine's load. While neither tells of a step, the
pulse asks for one token itself, so that a beat always means: the event loop runs, and the engine
has made a step. The manager's watchdog gets a ping for each beat; a hung loop or engine gets none.
It must not know gRPC, chats or torch.

The same notes tell the machine whether it is idle: `Activity`, written for whoever may stop it.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import cast

from llavachat_server.interfaces import Engine
from llavachat_server.ops.systemd import Notifier
from llavachat_server.relay import EngineRelay
from llavachat_server.values import (
    Delta,
    EngineError,
    EngineEvent,
    EngineRequest,
    Finished,
    FinishReason,
    InvalidField,
    Sampling,
)

BEATS_PER_WATCHDOG = 4
"""Pings in the manager's waiting time: three may be late."""

BEAT_SECONDS = 2.0
"""Between beats where no watchdog sets the pace."""

_STEPS = (FinishReason.EOS, FinishReason.STOP_SEQUENCE, FinishReason.MAX_TOKENS)
"""Ends that only a step of the engine brings about."""

_ANSWERS = (*_STEPS, FinishReason.MAX_CONTEXT, FinishReason.TIME_LIMIT)
"""Ends of an answer that the engine gave: nobody called it off, and nothing broke."""


class WatchedEngine(EngineRelay):
    """An engine whose steps and turns are noted; see `interfaces.Engine`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.num_running = 0
        self.num_answered = 0
        """Answers that have come to their end; who was refused, or left, was given none."""
        self.passed_at_seconds = time.monotonic()
        """Monotonic time at which something last passed that takes a step."""
        self.used_at_seconds = time.monotonic()
        """Monotonic time at which somebody last asked, or was still being answered."""

    @property
    def stepped_at_seconds(self) -> float:
        """Monotonic time at which the engine was last heard of a step, or of its birth."""
        return max(self.passed_at_seconds, self.load.silent_step_at_seconds)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `interfaces.Engine.generate`."""
        self.num_running += 1
        self.note_use()
        try:
            async with aclosing(self._watch(request)) as stream:
                async for event in stream:
                    if isinstance(event, Finished) and event.finish_reason in _ANSWERS:
                        self.num_answered += 1
                    yield event
        finally:
            self.num_running -= 1
            self.note_use()

    def note_use(self) -> None:
        """Somebody asked for something."""
        self.used_at_seconds = time.monotonic()

    async def probe(self, number: int, time_limit_seconds: float) -> None:
        """Have the engine make one step; returns whether or not it did."""
        request = EngineRequest(
            request_id=f"pulse-{number}",
            token_ids=self.prompts.build_first_turn("?", num_images=0),
            images=(),
            sampling=Sampling(max_tokens=1),
            time_limit_seconds=time_limit_seconds,
        )
        # Full: then others are being answered, and their steps are the pulse.
        with suppress(EngineError, InvalidField):
            async with aclosing(self._watch(request)) as stream:
                async for _ in stream:
                    pass

    async def _watch(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        # Closing this stream closes the engine's, which is how a request is cancelled.
        events = cast("AsyncGenerator[EngineEvent, None]", self._engine.generate(request))
        async with aclosing(events) as stream:
            async for event in stream:
                if isinstance(event, Delta) or (
                    isinstance(event, Finished) and event.finish_reason in _STEPS
                ):
                    self.passed_at_seconds = time.monotonic()
                yield event


class Pulse:
    """Beats while the engine lives.

    Args:
        engine: what to watch.
        notifier: who waits for pings and statuses.
        serving: what the server does, without a full stop, such as "Serving shapes on :50051".
        activity_file: rewritten with each beat, see `write_activity`; None to write none.
    """

    def __init__(
        self,
        engine: WatchedEngine,
        notifier: Notifier,
        serving: str,
        activity_file: Path | None = None,
    ) -> None:
        self._engine = engine
        self._notifier = notifier
        self._serving = serving
        self._activity_file = activity_file
        self._is_stopping = False
        watchdog = notifier.watchdog_seconds
        self._beat_seconds = min(BEAT_SECONDS, (watchdog or 60.0) / BEATS_PER_WATCHDOG)
        self._probe_seconds = 2 * self._beat_seconds
        self._num_probes = 0

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            began = time.monotonic()
            is_alive = await self._has_stepped(began)
            if is_alive:
                self._notifier.ping()
            self._tell(is_alive)
            await asyncio.sleep(max(0.0, began + self._beat_seconds - time.monotonic()))

    def tell_stopping(self, grace_seconds: float) -> None:
        """The server drains: from now on the status counts down its running turns."""
        self._is_stopping = True
        self._notifier.say_stopping(self._describe_stop())
        self._notifier.ask_time(grace_seconds + STOP_SECONDS)

    async def _has_stepped(self, now: float) -> bool:
        if self._notifier.watchdog_seconds is None:
            # Nobody waits for a ping, so nobody pays for a step.
            return True
        if now - self._engine.stepped_at_seconds < self._beat_seconds:
            return True
        await self._ask_for_step(now)
        return self._engine.stepped_at_seconds >= now

    async def _ask_for_step(self, since: float) -> None:
        # Any step will do: on a slow machine the one that is asked for comes after others' long
        # ones, or shares the processor with a picture.
        self._num_probes += 1
        probe = asyncio.create_task(self._engine.probe(self._num_probes, self._probe_seconds))
        try:
            while not probe.done() and self._engine.stepped_at_seconds < since:
                await asyncio.wait([probe], timeout=self._beat_seconds / 8)
        finally:
            probe.cancel()
            await asyncio.wait([probe])
        if not probe.cancelled():
            probe.result()

    def _tell(self, is_alive: bool) -> None:
        engine = self._engine
        if not is_alive:
            seconds = time.monotonic() - engine.stepped_at_seconds
            self._notifier.say_status(f"The engine has not made a step for {seconds:.0f} s")
        elif self._is_stopping:
            self._notifier.say_status(self._describe_stop())
        else:
            doing = (
                f"{count_turns(engine.num_running)} running"
                if engine.num_running
                else "waiting for a question"
            )
            self._notifier.say_status(f"{self._serving}: {doing}, {engine.num_answered} answered")
        if self._activity_file is not None:
            write_activity(self._activity_file, engine, is_stopping=self._is_stopping)

    def _describe_stop(self) -> str:
        return f"Stopping: waiting for {count_turns(self._engine.num_running)} to end"


STOP_SECONDS = 15.0
"""Beside the grace period: closing connections, the engine's last step, the interpreter's end."""


def count_turns(number: int) -> str:
    """ "1 turn", "2 turns"."""
    return f"{number} turn" if number == 1 else f"{number} turns"


def write_activity(path: Path, engine: WatchedEngine, *, is_stopping: bool) -> None:
    """Say whether anybody needs this machine: one JSON object, whole or not at all.

    Its keys: ``state`` ("serving" or "stopping"), ``running_turns``, ``answered_turns``, and
    ``idle_seconds``, the time since the last call began or the last turn ended. A reader takes an
    old file, or none, as "in use": a server that does not write is starting, or in trouble.
    """
    is_idle = engine.num_running == 0
    idle_seconds = time.monotonic() - engine.used_at_seconds if is_idle else 0.0
    activity = {
        "state": "stopping" if is_stopping else "serving",
        "running_turns": engine.num_running,
        "answered_turns": engine.num_answered,
        "idle_seconds": round(idle_seconds, 1),
    }
    draft = path.with_name(f"{path.name}.part")
    # A full disk must not end the pulse.
    with suppress(OSError):
        draft.write_text(json.dumps(activity) + "\n")
        draft.replace(path)


async def extend_start(notifier: Notifier, limit_seconds: float) -> None:
    """Ask for more time while a model loads, as long as the event loop runs; until cancelled.

    Args:
        notifier: the manager whose patience is asked for.
        limit_seconds: after this, no more time is asked for.
    """
    began = time.monotonic()
    while time.monotonic() - began < limit_seconds:
        notifier.ask_time(EXTENSION_SECONDS)
        await asyncio.sleep(EXTENSION_SECONDS / 4)


EXTENSION_SECONDS = 40.0
MAX_START_SECONDS = 1800.0
"""A model that has not loaded after half an hour will not."""


def find_activity_file() -> Path | None:
    """Where the manager gave the server a folder of its own at run time; None where it did not."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(folder, "activity.json") if folder else None
