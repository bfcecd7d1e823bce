"""One contender's part of one round: start it, wait for its first answer, measure, end it."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.served.clients.talk import AnswerFailed, Interface, Talk
from bench.served.peers.peer import Peer, Place
from bench.served.processes import ServerDied, ServerProcess, find_free_port
from bench.served.rows import Measured, Scale, UnequalWork, measure
from bench.served.workload import Workload

START_SECONDS = 900.0
"""A first start may compile; on a busy machine that takes minutes."""
POLL_SECONDS = 0.05


class Failed(Exception):
    """A contender did not get through a round; the message says why."""


async def compete(
    peer: Peer, place: Place, words: Sequence[str], seed: str, scale: Scale, log: Path
) -> Measured:
    """Measure a contender once.

    Args:
        peer: which, installed and prepared.
        place: where.
        words, seed: of the round's workload.
        scale: how much of it.
        log: for the server's output.

    Raises:
        Failed: it did not start, died, refused, or answered something else than was asked.
    """
    port = find_free_port()
    command = peer.command(place, port)
    server = ServerProcess(command.words, command.environment, log)
    interface: Interface | None = None
    try:
        ready_file = peer.ready_file(place)
        await wait_for(server, port, ready_file)
        interface = peer.connect(place, port)
        await get_first_answer(server, interface, Workload(words, f"start of {seed}"))
        start_seconds = time.perf_counter() - server.began_seconds
        measured = await measure(interface, Workload(words, seed), scale)
        measured.figures["start"] = start_seconds
        measured.figures["memory"] = server.measure_memory()
        return measured
    except (ServerDied, AnswerFailed, UnequalWork, OSError) as error:
        words = server.read_last_words()[-400:]
        raise Failed(f"{type(error).__name__}: {error} (its log ends: {words})") from error
    finally:
        if interface is not None:
            with suppress(Exception):
                await interface.close()
        server.stop()


async def wait_for(server: ServerProcess, port: int, ready_file: Path | None) -> None:
    """Wait until it says that it serves, or until its port is open.

    Raises:
        ServerDied: it ended, or took too long.
    """
    while True:
        server.check()
        if time.perf_counter() - server.began_seconds > START_SECONDS:
            raise ServerDied(f"not ready within {START_SECONDS:.0f} s")
        if ready_file is not None:
            if await asyncio.to_thread(ready_file.exists):
                return
        else:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
        await asyncio.sleep(POLL_SECONDS)


async def get_first_answer(server: ServerProcess, interface: Interface, workload: Workload) -> None:
    """Ask until an answer comes: an open port is not yet a model.

    Raises:
        AnswerFailed, ServerDied: none came in time.
    """
    opening = workload.draw_opening()
    while True:
        server.check()
        try:
            async with asyncio.timeout(START_SECONDS):
                async for _ in interface.ask(Talk(opening.picture), opening.question, 1):
                    pass
            return
        except (AnswerFailed, OSError, asyncio.IncompleteReadError) as error:
            if time.perf_counter() - server.began_seconds > START_SECONDS:
                raise AnswerFailed(str(error)) from error
        await asyncio.sleep(POLL_SECONDS)
