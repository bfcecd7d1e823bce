"""Kills of whole servers while people talk to them: nothing that was told is lost, every answer
comes to its end, and the chats go on.

``KILLS=1000 python -m pytest -s tests/system/test_server_kills.py tests/system/test_kills.py``
kills a thousand times in all; see `kill_numbers`.
"""

import asyncio
import json
import random
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kill_numbers import COUNTING_SERVER_KILLS, REAL_SERVER_KILLS
from killed_server import ServerForks, Start
from llavachat.aio import AsyncClient
from llavachat_server.chats.audit import list_files, verify
from talkers import Memory, look_up, talk

NUM_TALKERS = 4
KILLS_A_FOLDER = 12
"""Then a new state folder, so that kills fall into its making as well."""

CHOSEN_POINTS = ("statement", "commit", "committed", "recorded")
WAYS = ("in mid-stream", "in mid-stream", "at random", "while stopping", *CHOSEN_POINTS)
LIMIT_SECONDS = 120.0
"""For one server's life; far above what any takes."""


@dataclass
class Scene:
    """One state folder with those who talk to its servers."""

    folder: Path
    forks: ServerForks
    memory: Memory
    address: str
    chance: random.Random
    starts: list[float]
    began: float = 0.0

    def start(self, point: str = "", count: int = 0) -> Start:
        """A server on this folder."""
        flags = ["--listen", self.address, "--store", "sqlite", "--log-level", "warning"]
        flags += ["--state-folder", str(self.folder / "state"), "--grace-seconds", "5"]
        flags += ["--ready-file", str(self.ready)]
        log = str(self.folder / "server.log")
        return Start(flags, log, point, count, self.memory.is_real)

    @property
    def ready(self) -> Path:
        """Written by a server once it serves."""
        return self.folder / "ready"

    async def live(self, point: str = "", count: int = 0) -> None:
        """Start a server."""
        self.ready.unlink(missing_ok=True)
        self.began = time.perf_counter()
        await self.forks.start(self.start(point, count))

    async def serving(self) -> None:
        """Wait until it serves."""
        await self.forks.wait(self.start(), self.ready)
        self.starts.append(time.perf_counter() - self.began)

    async def kill(self, way: str) -> None:
        """Start a server and kill it so."""
        chance = self.chance
        if way in CHOSEN_POINTS:
            await self.live(way, chance.choice((0, 3, 10, 40)))
        else:
            await self.live()
        if way == "in mid-stream":
            await self.memory.pieces(chance.randint(1, 100))
            self.forks.kill(signal.SIGKILL)
        elif way == "at random":
            await asyncio.sleep(chance.random())
            self.forks.kill(signal.SIGKILL)
        elif way == "while stopping":
            await self.serving()
            await self.memory.pieces(1)
            self.forks.kill(signal.SIGTERM)
            await asyncio.sleep(0.2 * chance.random())
            self.forks.kill(signal.SIGKILL)
        # One that is stopping may be through before it is killed.
        ends = {-signal.SIGKILL, 0} if way == "while stopping" else {-signal.SIGKILL}
        assert await self.forks.ended() in ends, self.log()

    def log(self) -> str:
        """The end of what servers have logged."""
        return (self.folder / "server.log").read_text()[-5000:]


@pytest.mark.parametrize(
    ("num_kills", "is_real"),
    [(COUNTING_SERVER_KILLS, False), (REAL_SERVER_KILLS, True)],
    ids=["counting", "model"],
)
async def test_killed_servers_lose_nothing_that_they_told(
    tmp_path: Path, num_kills: int, is_real: bool
) -> None:
    """Whoever talks to a server that is killed again and again sees nothing but delays."""
    chance, counts = random.Random(11), Counter[str]()
    starts: list[float] = []
    forks = await ServerForks.open(is_real=is_real)
    try:
        for first in range(0, num_kills, KILLS_A_FOLDER):
            folder = tmp_path / str(first)
            folder.mkdir()
            with _free_address() as address:
                scene = Scene(folder, forks, Memory(is_real), address, chance, starts)
            counts += await _play(scene, min(KILLS_A_FOLDER, num_kills - first))
    finally:
        await forks.close()
    starts.sort()
    print(
        f"\n{num_kills} kills of servers ({'the embedded model' if is_real else 'counting'}): "
        f"{dict(counts)}; serving again after {starts[len(starts) // 2]:.2f} s (p50), "
        f"{starts[-1]:.2f} s (longest)"
    )
    assert num_kills == sum(counts[way] for way in set(WAYS))
    assert counts["turns acknowledged"] > 0


async def _play(scene: Scene, num_kills: int) -> "Counter[str]":
    """Kill so often, look at everything, and stop in good order."""
    counts: Counter[str] = Counter()
    memory, seed = scene.memory, scene.chance.randrange(1 << 30)
    async with asyncio.TaskGroup() as group:
        for number in range(NUM_TALKERS):
            group.create_task(talk(scene.address, memory, random.Random(seed + number)))
        group.create_task(look_up(scene.address, memory))
        for _ in range(num_kills):
            way = scene.chance.choice(WAYS)
            async with asyncio.timeout(LIMIT_SECONDS):
                await scene.kill(way)
            counts[way] += 1
        await scene.live()
        await scene.serving()
        memory.is_enough = True
    async with AsyncClient(scene.address) as client:
        for chat_id in memory.told:
            memory.check(await client.chat(chat_id).record())
    scene.forks.kill(signal.SIGTERM)
    assert 0 == await scene.forks.ended(), scene.log()
    counts["turns acknowledged"] += sum(map(len, memory.told.values()))
    counts["turns found cancelled"] += _check_files(scene)
    return counts + memory.counts


def _check_files(scene: Scene) -> int:
    """The database is sound, the audit record whole; how many turns are kept as cancelled."""
    with sqlite3.connect(scene.folder / "state" / "chats.db") as file:
        assert [("ok",)] == file.execute("PRAGMA integrity_check").fetchall()
        assert [] == file.execute("PRAGMA foreign_key_check").fetchall()
        running = "SELECT count(*) FROM turns WHERE state = ?"
        assert (0,) == file.execute(running, ("running",)).fetchone()
        num_cancelled = int(file.execute(running, ("cancelled",)).fetchone()[0])
    audit = scene.folder / "state" / "audit"
    assert verify(audit).fault is None
    lines = [
        json.loads(line) for path in list_files(audit) for line in path.read_text().splitlines()
    ]
    recorded = {line["turn_id"] for line in lines if line["event"] == "turn"}
    told = {turn.turn_id for turns in scene.memory.told.values() for turn in turns}
    assert set() == told - recorded, "an acknowledged turn is not in the audit record"
    return num_cancelled


@contextmanager
def _free_address() -> Iterator[str]:
    """An address of this machine that nothing else has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"
