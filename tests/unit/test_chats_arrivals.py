"""Imports on their way: who is late makes room for others, and nobody else does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest
from llavachat_server.chats import arrivals
from llavachat_server.chats.arrivals import LATE_SECONDS, MAX_RUNNING, Arrivals
from llavachat_server.chats.errors import ImportStalled, TooManyAtOnce
from llavachat_server.chats.importer import BODY_SECONDS, MAX_FILE_BYTES

PATIENCE_SECONDS = 5.0

TENANTS = [f"tenant-{number}" for number in range(MAX_RUNNING)]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """In the place of `time.monotonic`."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the arrivals go by."""
    clock = Clock()
    monkeypatch.setattr(arrivals, "monotonic", clock)
    return clock


def test_the_largest_part_comes_in_its_time() -> None:
    """Over a line that is not late, and within the time of the whole body."""
    assert arrivals.PART_SECONDS * arrivals._BYTES_PER_SECOND >= MAX_FILE_BYTES
    assert arrivals.PART_SECONDS <= BODY_SECONDS


class Sender:
    """Sends what it is given."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        """The parts of a body without an end."""
        while True:
            yield await self.parts.get()


async def take(place: Arrivals, tenant: str, sender: Sender, arrived: asyncio.Event) -> None:
    """Take an import in that never ends by itself."""
    with place.enter(tenant) as arrival:
        parts = sender()
        arrived.set()
        while (part := await arrival.receive(parts)) is not None:
            arrival.num_bytes += len(part)
            arrived.set()


async def fill(places: Arrivals) -> list[tuple[Sender, asyncio.Event, "asyncio.Task[None]"]]:
    """Have as many imports on their way as may be, all waited for."""
    found = []
    for tenant in TENANTS:
        sender, arrived = Sender(), asyncio.Event()
        task = asyncio.create_task(take(places, tenant, sender, arrived))
        await arrived.wait()
        found.append((sender, arrived, task))
    return found


async def end(tasks: list["asyncio.Task[None]"]) -> None:
    """Whatever they wait for."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_the_latest_makes_room_for_another(clock: Clock) -> None:
    """And no other one; its place is there at once, and it can come again once it has ended."""
    places = Arrivals()
    (sender, arrived, other), *_, (_, _, latest) = await fill(places)
    clock.now = LATE_SECONDS
    arrived.clear()
    sender.parts.put_nowait(bytes(25_000_000))
    await arrived.wait()
    with places.enter("new"):
        with pytest.raises(ImportStalled):
            await asyncio.wait_for(latest, PATIENCE_SECONDS)
        with pytest.raises(TooManyAtOnce), places.enter(TENANTS[-1]):
            pass
    assert not other.done()
    with places.enter(TENANTS[-1]):
        await end([other])


async def test_who_is_not_late_keeps_its_place(clock: Clock) -> None:
    """However many others come, for a while, and for as long as its bytes come."""
    places = Arrivals()
    senders = await fill(places)
    clock.now = LATE_SECONDS - 1
    for _ in range(3):
        with pytest.raises(TooManyAtOnce), places.enter("new"):
            pass
        for sender, arrived, _ in senders:
            arrived.clear()
            sender.parts.put_nowait(bytes(25_000_000))
            await arrived.wait()
        clock.now += 2 * LATE_SECONDS
    await end([task for *_, task in senders])


async def test_a_little_now_and_then_keeps_no_place(clock: Clock) -> None:
    """A tiny picture every second is as late as none."""
    places = Arrivals()
    senders = await fill(places)
    for _ in range(int(LATE_SECONDS)):
        clock.now += 1
        for sender, arrived, _ in senders:
            arrived.clear()
            sender.parts.put_nowait(bytes(100))
            await arrived.wait()
    clock.now += 1
    with places.enter("new"):
        pass
    await end([task for *_, task in senders])


async def test_who_is_worked_on_is_not_late(clock: Clock) -> None:
    """To decode its pictures may take long, for which nobody waits for it."""
    places = Arrivals()
    with ExitStack() as stack:
        for tenant in TENANTS:
            stack.enter_context(places.enter(tenant))
        clock.now = 10 * LATE_SECONDS
        with pytest.raises(TooManyAtOnce), places.enter("new"):
            pass


async def test_what_came_too_late_is_not_taken(clock: Clock) -> None:
    """Though it came in the moment in which its place went to another."""
    places = Arrivals()
    senders = await fill(places)
    clock.now = LATE_SECONDS
    for sender, _, _ in senders:
        sender.parts.put_nowait(b"late")
    with places.enter("new"):
        done, left = await asyncio.wait(
            [task for *_, task in senders],
            timeout=PATIENCE_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        (late,) = done
        with pytest.raises(ImportStalled):
            await late
    await end([*left])
