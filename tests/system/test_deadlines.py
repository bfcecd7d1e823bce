"""Calls end at their deadline, also those that gRPC was to try again when the server was killed:
in clients with threads, too, for which gRPC has another way of calling."""

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from killed_server import ServerForks, Start
from llavachat import Client, LlavaChatError
from pictures import red_circle

NUM_KILLS = 6
NUM_CALLS = 10
"""At once; of such calls, one in ten hung where the client let gRPC's own thread read."""

AWAY_SECONDS = 2.5
"""The longest that the server is away: longer than some of gRPC's retries, shorter than all."""

DEADLINE_SECONDS = 5.0
SLACK_SECONDS = 10.0


def ask(address: str, after_seconds: float, outcomes: list[str]) -> None:
    """One question, and how it ended."""
    time.sleep(after_seconds)
    try:
        # A lost answer stays lost: what is looked at is gRPC's own trying.
        with Client(address, resume_seconds=0) as client:
            question = "Count on from 7 slowly."
            client.start(red_circle(), question, timeout_seconds=DEADLINE_SECONDS).read()
        outcomes.append("answered")
    except LlavaChatError as error:
        outcomes.append(type(error).__name__)


async def test_no_call_outlasts_its_deadline(tmp_path: Path) -> None:
    """Killed while calls begin, gone for a moment, and there again: each call has an end."""
    chance, ready = random.Random(11), tmp_path / "ready"
    forks = await ServerForks.open()
    address = "127.0.0.1:0"
    outcomes: list[str] = []

    async def start_server() -> str:
        flags = ["--listen", address, "--store", "memory", "--log-level", "warning"]
        start = Start([*flags, "--ready-file", str(ready)], str(tmp_path / "log"))
        await forks.start_and_wait(start, ready)
        return ready.read_text().strip()

    try:
        for _ in range(NUM_KILLS):
            address = await start_server()
            threads = [
                threading.Thread(
                    target=ask, args=(address, chance.uniform(0, 0.2), outcomes), daemon=True
                )
                for _ in range(NUM_CALLS)
            ]
            for thread in threads:
                thread.start()
            await asyncio.sleep(chance.uniform(0, 0.2))
            forks.kill(signal.SIGKILL)
            await forks.ended()
            await asyncio.sleep(chance.uniform(0, AWAY_SECONDS))
            await start_server()
            end = time.monotonic() + DEADLINE_SECONDS + SLACK_SECONDS
            for thread in threads:
                await asyncio.to_thread(thread.join, max(0, end - time.monotonic()))
            assert 0 == sum(thread.is_alive() for thread in threads), Counter(outcomes)
            forks.kill(signal.SIGTERM)
            await forks.ended()
    finally:
        await forks.close()
    assert NUM_KILLS * NUM_CALLS == len(outcomes)
