"""The wiring: makes every part from settings, starts them in order, stops them in order.

Starting: the port opens first and answers "starting", so that a busy port is told at once and
clients know to wait; then the model loads; then a picture is answered; then the gate opens.
Stopping: health says so, the gate refuses what would begin, running turns get their grace period,
in which their readers may come back; then the gate refuses all, and the rest is ended.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from llavachat.v1 import chat_pb2_grpc

from llavachat_server.assembly import (
    Chats,
    EngineMaker,
    ServedEngine,
    make_batching_engine,
    make_desk,
    make_fetcher,
)
from llavachat_server.chats.importer import Importer
from llavachat_server.chats.retention import Retention
from llavachat_server.chats.turns import Turns
from llavachat_server.endings import EngineEnded, StartError, StoreLost
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.folders import find_keys_files
from llavachat_server.hangup import has_terminal
from llavachat_server.images.addresses import AllowedHosts
from llavachat_server.images.intake import Intake, IntakeUnavailable
from llavachat_server.images.worker import Worker
from llavachat_server.listener import ListenError, bind, make_floods, make_server, watch_floods
from llavachat_server.measuring import MetricsPort, make_telemetry, watch_server
from llavachat_server.network import is_loopback
from llavachat_server.ops.health import Health
from llavachat_server.ops.watch import Watch
from llavachat_server.profiles import Profile
from llavachat_server.ready_file import ReadyFile
from llavachat_server.reloading import reload_settings
from llavachat_server.rpc.access import IMPORT_CHAT, RULES, limit_import
from llavachat_server.rpc.gate import Gate, GateState
from llavachat_server.rpc.key_file import BadKeyFile, KeyFiles
from llavachat_server.rpc.key_watch import watch_keys
from llavachat_server.rpc.metering import MeteredEngine
from llavachat_server.rpc.quota import Quotas
from llavachat_server.rpc.service import ChatService
from llavachat_server.rpc.use import UseNotes
from llavachat_server.settings import Settings
from llavachat_server.stores import OpenedStore, StoreNotOpened, open_store
from llavachat_server.values import MAX_TURNS_PER_CHAT
from llavachat_server.warming import WarmUpFailed, warm_up

log = logging.getLogger("llavachat")

_LAST_WORD_SECONDS = 2.0
"""For every call to end by itself once the turns have ended."""

_ANSWER_SECONDS = 3.0
"""For those that did not to get their last word; who reads nothing gets none."""

_CLOSE_SECONDS = 1.0
"""For what is left then: who reads nothing does not take the word that ends its call either."""


class App:
    """One server process.

    Args:
        settings: how to serve.
        profile: what to serve, settings applied.
        make_engine: makes the engine, not started yet; gets both, and whom to tell of progress.
        read_settings: reads the settings anew, at a SIGHUP. None: there is nothing to read.
        workers: decode pictures; see `Intake`.
    """

    def __init__(
        self,
        settings: Settings,
        profile: Profile,
        make_engine: "EngineMaker | None" = None,
        read_settings: Callable[[], Settings] | None = None,
        workers: Sequence[Worker] = (),
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._make_engine = make_engine or make_batching_engine
        self._read_settings = read_settings
        loop = asyncio.get_running_loop()
        self.listening: asyncio.Future[str] = loop.create_future()
        """Done once the port is open: the address that was bound."""
        self.serving: asyncio.Future[str] = loop.create_future()
        """Done once the server serves: the same address."""
        self._began = time.monotonic()
        self._started_at = datetime.now(UTC)
        self._stop_asked = asyncio.Event()
        self._num_signals = 0
        self._grace_seconds = settings.grace_seconds
        self._ready_file = ReadyFile(settings.ready_file)
        self._health = Health()
        self._watch = Watch()
        self._telemetry = make_telemetry(settings)
        self._metrics_port: MetricsPort | None = None
        self.metrics_address = ""
        """Where the figures are, once the port for callers is open; "" for nowhere."""
        self._service = ChatService()
        self._hosts = AllowedHosts.parse(settings.image_url_hosts)
        self._intake = Intake(
            profile.image_limits,
            make_fetcher(self._hosts),
            workers,
            keep_originals=settings.keep_originals,
        )
        self._engine: ServedEngine | None = None
        self._store: OpenedStore | None = None
        self._turns: Turns | None = None
        self._importer: Importer | None = None
        self._retention: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until a signal says stop.

        Raises:
            StartError: it could not start.
            EngineEnded, StoreLost: it could not go on.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if self._read_settings is not None and not has_terminal():
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._ready_file.check()
        keys = self._read_keys()
        floods = make_floods(self._settings, self._telemetry.note_flood)
        imports = limit_import(MAX_TURNS_PER_CHAT, self._profile.max_images_per_turn)
        gate = self._gate = Gate(
            lambda: keys.ring,
            rules={**RULES, IMPORT_CHAT: imports},
            observe=self._telemetry.note_call,
            on_spoilt=floods.note,
        )
        note_use = UseNotes(self._watch.note_use)
        server = make_server(self._settings, self._profile, (gate, note_use))
        chat_pb2_grpc.add_ChatServiceServicer_to_server(self._service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            address = bind(server, self._settings)
        except ListenError as error:
            raise StartError(str(error)) from error
        self._ready_file.clear()
        await self._open_metrics(gate)
        await server.start()
        self.listening.set_result(address)
        self._tell("listening", address=address)
        self._watch.begin()
        start = asyncio.create_task(self._start_engine(gate.quotas))
        watch = asyncio.create_task(watch_keys(keys, gate))
        guard = asyncio.create_task(watch_floods(floods, address))
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                # A model that is being loaded in a thread can not be interrupted politely.
                self._tell("stopped while starting")
                sys.stderr.flush()
                os._exit(0)
            start.result()
            gate.state = GateState.OPEN
            self._health.set_serving(True)
            self._say_ready(address)
            self._watch.say_serving(f"Serving {self._profile.name} on {address}")
            self.serving.set_result(address)
            await self._wait_for_end(stop)
        finally:
            watch.cancel()
            guard.cancel()
            await self._shut_down(server, gate)
            self._watch.end()

    def stop(self) -> None:
        """Ask `run` to come to its end."""
        self._stop_asked.set()

    async def _start_engine(self, quotas: Quotas) -> None:
        profile, settings = self._profile, self._settings
        self._tell("loading", model=profile.model, quantization=profile.quantization.value)
        try:
            opened = await asyncio.to_thread(open_store, settings)
        except StoreNotOpened as error:
            raise StartError(str(error)) from error
        self._store = opened
        engine = self._make_engine(settings, profile, self._tell_stage)
        try:
            await engine.start()
        except LoadingError as error:
            raise StartError(f"the model can not be loaded: {error}") from error
        self._engine = engine
        info = engine.info
        self._tell("warming up", device=info.device)
        self._watch.say_starting("asking the model about a first picture")
        try:
            media_types = await self._intake.start()
            num_tokens = await warm_up(engine, self._intake)
        except IntakeUnavailable as error:
            raise StartError("the processes that decode pictures can not be started") from error
        except WarmUpFailed as error:
            raise StartError(f"the model does not answer about a first picture: {error}") from error
        self._tell("warmed up", completion_tokens=num_tokens)
        self._turns = Turns(
            MeteredEngine(self._watch.watch(engine), quotas),
            opened.store,
            self._intake,
            defaults=profile.default_sampling,
            max_turn_seconds=profile.max_turn_seconds,
            abandon_grace_seconds=settings.abandon_grace_seconds,
            observe=self._telemetry.note_turn,
        )
        if opened.kept is not None:
            age_days, max_bytes = settings.max_chat_age_days, settings.max_chats_bytes
            max_age = None if age_days is None else timedelta(days=age_days)
            retention = Retention(opened.kept, self._turns.retire_chat, max_age, max_bytes)
            self._retention = asyncio.create_task(retention.run())
        self._importer = Importer(
            opened.store,
            self._intake,
            engine.prompts,
            info.num_image_tokens,
            max_bytes=settings.max_import_bytes,
        )
        self._service.desk = make_desk(
            settings,
            profile,
            info,
            Chats(self._turns, opened.store, self._importer),
            takes_urls=bool(self._hosts),
            media_types=media_types,
            started_at=self._started_at,
        )

    async def _shut_down(self, server: grpc.aio.Server, gate: Gate) -> None:
        """Stop in order; see the module."""
        gate.stop()
        self._health.set_serving(False)
        self._ready_file.remove()
        if self._retention is not None:
            self._retention.cancel()
        if self._turns is not None:
            self._tell("stopping", grace_seconds=self._grace_seconds)
            self._watch.say_stopping(self._grace_seconds)
            began = time.monotonic()
            await self._turns.stop(self._grace_seconds)
            self._telemetry.note_drain(time.monotonic() - began)
        gate.close()
        await gate.wait_until_idle(_LAST_WORD_SECONDS)
        # Imports that still come in, pictures that nobody takes, health watches: gRPC would end
        # them in its words.
        gate.end_left()
        await gate.wait_until_idle(_ANSWER_SECONDS)
        await server.stop(_CLOSE_SECONDS)
        if self._engine is not None:
            await self._engine.stop()
        if self._importer is not None:
            self._importer.close()
        self._intake.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        await self._telemetry.close()
        if self._metrics_port is not None:
            await self._metrics_port.close()
        self._tell("stopped")

    async def _wait_for_end(self, stop: asyncio.Task[bool]) -> None:
        """Serve until a signal comes, or the engine or the store can not go on.

        Raises:
            EngineEnded, StoreLost: it can not go on.
        """
        fatal = self._engine.fatal if self._engine is not None else None
        lost = self._store.lost if self._store is not None else None
        waits: list[asyncio.Future[Any]] = [stop]
        waits += [] if fatal is None else [fatal]
        waits += [] if lost is None else [asyncio.wrap_future(lost)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return
        if fatal is not None and fatal.done():
            raise EngineEnded(fatal.result())
        if lost is not None:
            # What runs can not be kept: it need not go on.
            self._grace_seconds = 0.0
            raise StoreLost(lost.result())

    async def _open_metrics(self, gate: Gate) -> None:
        """From here on the server can be watched.

        Raises:
            StartError: the port can not be opened.
        """
        watch_server(
            self._telemetry, lambda: gate.state, lambda: self._watch.num_turns, lambda: self._engine
        )
        if not self._settings.metrics_listen:
            return
        self._metrics_port = MetricsPort(self._settings, self._telemetry, gate)
        try:
            self.metrics_address = await self._metrics_port.open()
        except ListenError as error:
            raise StartError(str(error)) from error
        self._tell("metrics", address=self.metrics_address)

    def _read_keys(self) -> KeyFiles:
        self._keys = KeyFiles(find_keys_files(self._settings))
        try:
            self._keys.read()
        except BadKeyFile as error:
            raise StartError(str(error)) from error
        return self._keys

    def _say_ready(self, address: str) -> None:
        name = self._profile.name
        log.info(
            "serving",
            extra={
                "fields": {"seconds": self._seconds(), "address": address, "profile": name},
                "text": f"llavachat is serving {name} on {address}",
            },
        )
        if not is_loopback(self._settings.listen) and self._keys.ring is None:
            log.warning("everybody who can reach this address may call: there is no key")
        self._ready_file.write(address)

    def _on_signal(self, number: signal.Signals) -> None:
        self._num_signals += 1
        if self._num_signals > 1 and number == signal.SIGINT:
            os._exit(130)
        self.stop()

    def _reload(self) -> None:
        assert self._read_settings is not None
        reload_settings(self._settings, self._read_settings)

    def _tell_stage(self, stage: str, took_seconds: float | None) -> None:
        if took_seconds is None:
            self._watch.say_starting(f"loading the model ({stage})")
        else:
            self._tell(f"loaded {stage}", took_seconds=round(took_seconds, 2))

    def _tell(self, stage: str, **fields: object) -> None:
        log.info(stage, extra={"fields": {"seconds": self._seconds(), **fields}})

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 2)
