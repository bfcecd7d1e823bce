"""One server's watch, from its start to its end: what the service manager is told, and when.

Contract: the wiring calls it at each turn of the server's life and need not know the manager's
protocol. Without a manager it says nothing and asks nothing of the engine. It must not know
gRPC, chats or torch.
"""

import asyncio

from llavachat_server.interfaces import Engine
from llavachat_server.ops.pulse import (
    MAX_START_SECONDS,
    Pulse,
    WatchedEngine,
    extend_start,
    find_activity_file,
)
from llavachat_server.ops.systemd import Notifier


class Watch:
    """See the module; all methods belong to one event loop.

    Args:
        notifier: the manager; the one that started this process when not given.
    """

    def __init__(self, notifier: Notifier | None = None) -> None:
        self._notifier = notifier or Notifier.from_environment()
        self._engine: WatchedEngine | None = None
        self._pulse: Pulse | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The server starts: ask for time until it serves."""
        self._task = asyncio.create_task(extend_start(self._notifier, MAX_START_SECONDS))

    def say_starting(self, doing: str) -> None:
        """What the start is at, such as "loading the model"."""
        self._notifier.say_status(f"Starting: {doing}")

    def watch(self, engine: Engine) -> WatchedEngine:
        """The engine to serve with, so that its steps and turns are seen."""
        self._engine = WatchedEngine(engine)
        return self._engine

    @property
    def num_turns(self) -> int:
        """Turns that run or wait; the pulse's own are none."""
        return 0 if self._engine is None else self._engine.num_running

    def note_use(self) -> None:
        """Somebody called."""
        if self._engine is not None:
            self._engine.note_use()

    def say_serving(self, serving: str) -> None:
        """The server serves, such as "Serving shapes on 127.0.0.1:50051": the pulse begins."""
        assert self._engine is not None
        self.end()
        self._notifier.say_ready(serving)
        self._pulse = Pulse(self._engine, self._notifier, serving, find_activity_file())
        self._task = asyncio.create_task(self._pulse.beat())

    def say_stopping(self, grace_seconds: float) -> None:
        """The server stops; running turns have `grace_seconds`. The pulse goes on."""
        if self._pulse is not None:
            self._pulse.tell_stopping(grace_seconds)

    def end(self) -> None:
        """Nothing more is said."""
        if self._task is not None:
            self._task.cancel()
