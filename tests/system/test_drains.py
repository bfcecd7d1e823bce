"""A hundred stops amid answers: those that come to an end within the grace period are delivered
whole, the others end with a reason once it is over, and the process always ends well.

``DRAINS=1000 python -m pytest -s tests/system/test_drains.py`` stops a thousand servers.
"""

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from pathlib import Path

import pytest
from killed_server import ServerForks, Start, count_on
from llavachat import ServerUnavailable
from llavachat.aio import AsyncClient

NUM_DRAINS = int(os.environ.get("DRAINS", "100"))
NUM_ANSWERS = 4

SHORT, LONG = "Count on from {}.", "Count on for ever from {}."
WHOLE, ENDED = "whole", "ended with a reason"

PATIENT_SECONDS = 60.0
"""A grace period that outlasts a short answer on any machine."""
HASTY_SECONDS = 0.2
"""One that nobody would set: no answer without an end can outlast it."""


async def read(client: AsyncClient, question: str, begun: asyncio.Barrier) -> str:
    """Ask, and tell how it ended."""
    reply = client.start(None, question)
    parts = aiter(reply)
    await anext(parts)
    await begun.wait()
    try:
        async for _ in parts:
            pass
    except ServerUnavailable as error:
        is_told = error.retry_after_seconds and count_on(question).startswith(reply.text)
        return ENDED if is_told else f"ended at {reply.text!r}: {error}"
    return WHOLE if count_on(question) == reply.text else f"wrong: {reply.text!r}"


async def drain(
    forks: ServerForks, folder: Path, grace_seconds: float, questions: list[str]
) -> tuple[float, list[str]]:
    """Start a server and stop it amid answers; the seconds it took, and what became of each."""
    ready = folder / "ready"
    flags = ["--listen", "127.0.0.1:0", "--store", "sqlite", "--log-level", "warning"]
    flags += ["--state-folder", str(folder / "state"), "--grace-seconds", str(grace_seconds)]
    flags += ["--ready-file", str(ready)]
    await forks.start_and_wait(Start(flags, str(folder / "server.log")), ready)
    begun = asyncio.Barrier(len(questions) + 1)
    # A lost answer stays lost: a client that resumes would hide how it ended.
    async with AsyncClient(ready.read_text().strip(), resume_seconds=0) as client:
        tasks = [
            asyncio.create_task(read(client, question.format(number), begun))
            for number, question in enumerate(questions, 1)
        ]
        # Each answer has begun, and none has been read to its end.
        await begun.wait()
        began = time.monotonic()
        forks.kill(signal.SIGTERM)
        outcomes = await asyncio.gather(*tasks)
        status = await forks.ended()
    assert 0 == status, (folder / "server.log").read_text()[-3000:]
    return time.monotonic() - began, outcomes


@pytest.mark.parametrize(
    ("questions", "grace_seconds", "expected"),
    [
        ([SHORT] * NUM_ANSWERS, PATIENT_SECONDS, {SHORT: {WHOLE}}),
        # A short answer may be in time, and may be not.
        (
            [SHORT, LONG] * (NUM_ANSWERS // 2),
            HASTY_SECONDS,
            {SHORT: {WHOLE, ENDED}, LONG: {ENDED}},
        ),
    ],
    ids=["short", "short and long"],
)
async def test_every_drain_keeps_its_word(
    tmp_path: Path, questions: list[str], grace_seconds: float, expected: dict[str, set[str]]
) -> None:
    """Never CANCELLED, never a hang, never half an answer that was told as a whole one."""
    forks = await ServerForks.open()
    seconds: list[float] = []
    counts: Counter[tuple[str, str]] = Counter()
    try:
        for _ in range(NUM_DRAINS // 2):
            took, outcomes = await drain(forks, tmp_path, grace_seconds, questions)
            seconds.append(took)
            counts.update(zip(questions, outcomes, strict=True))
    finally:
        await forks.close()
    print(
        f"\n{len(seconds)} drains amid {len(questions)} answers, grace {grace_seconds} s: ended "
        f"after {statistics.median(seconds):.2f} s (p50), {max(seconds):.2f} s at the longest; "
        f"{dict(counts)}"
    )
    assert [] == [key for key in counts if key[1] not in expected[key[0]]]
    assert len(seconds) * len(questions) == counts.total()
    log = (tmp_path / "server.log").read_text()
    assert [] == [line for line in log.splitlines() if "Traceback" in line]
