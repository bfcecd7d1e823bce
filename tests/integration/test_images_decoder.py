"""The intake with its real decoder processes: what they answer, what it costs, what is left."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from corpus.evil import BOMBS, EVIL, SLOW
from corpus.good import GOOD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llavachat_server.images.intake import (
    BadImage,
    ImageLimits,
    Intake,
    IntakeBusy,
    IntakeUnavailable,
    decode,
)
from llavachat_server.images.worker import Worker
from pictures import draw_shape, encode, red_circle
from processes import (
    MIB,
    Gauge,
    children,
    count_own_bytes,
    is_there,
    shared_memory_bytes,
)

LIMITS = ImageLimits()


BUSY = "the server can not look at pictures now"
"""On a machine that is so busy that the decoder had no time to use up."""


async def answer(intake: Intake, data: bytes, tenant: str = "") -> str:
    """How a file is answered, in words."""
    try:
        return (await intake.take(data, tenant=tenant)).info.id
    except (BadImage, IntakeUnavailable) as error:
        return str(error)


async def checked(intake: Intake, data: bytes) -> str | None:
    """What a check of the header says of a file; None when it finds nothing wrong."""
    try:
        await intake.check(data)
    except BadImage as error:
        return str(error)
    return None


async def test_the_good_come_out_as_they_would_here(intake: Intake) -> None:
    """What the processes make of each good picture is what decoding in this process makes."""
    for good in GOOD:
        data = good.make()
        taken, here = await intake.take(data), decode(data, LIMITS)
        assert here.info == taken.info, good.name
        assert here.pixels.tobytes() == taken.pixels.tobytes(), good.name


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
async def test_the_evil_get_their_sentences(intake: Intake) -> None:
    """Each evil file gets the sentence that it would get here; a check of the header none else."""
    for evil in EVIL:
        data = evil.make()
        sentence = await answer(intake, data)
        assert sentence.startswith(evil.says), (evil.name, sentence)
        assert await checked(intake, data) in (None, sentence), evil.name


async def test_bombs_cost_no_memory(intake: Intake) -> None:
    """Of all bombs, one after the other, none takes the server and its processes 20 MiB."""
    await intake.start_all()
    files = [evil.make() for evil in BOMBS]
    for data in files:
        await answer(intake, data)
    with Gauge(os.getpid()) as gauge:
        for data in files:
            await answer(intake, data)
    assert gauge.grown_mib < 20, gauge.grown_mib


async def test_large_pictures_leave_nothing_behind(intake: Intake) -> None:
    """After the largest that is taken, the memory that it needed is given back."""
    data = encode(draw_shape("star", "red", (5000, 5000)), "JPEG")
    await intake.start_all()
    before = count_own_bytes(*intake.process_ids)
    assert (4096, 4096) == (await intake.take(data)).pixels.size
    for _ in range(6):
        await intake.take(red_circle())
    assert count_own_bytes(*intake.process_ids) - before < 20 * MIB
    assert shared_memory_bytes("llavachat-picture") < 20 * MIB


async def test_a_slow_picture_is_stopped_and_holds_up_nobody() -> None:
    """Pictures that take longer than they may are ended by the clock; a neighbour is served."""
    slow = SLOW.make()
    circle = red_circle()
    intake = Intake(ImageLimits(max_cpu_seconds=1))
    await intake.start_all()
    attacks = [asyncio.create_task(answer(intake, slow, "attacker")) for _ in range(3)]
    num_served = 0
    while not all(task.done() for task in attacks):
        await intake.take(circle, tenant="neighbour")
        num_served += 1
        await asyncio.sleep(0.01)
    for attack in attacks:
        assert attack.result().startswith((SLOW.says, BUSY)), attack.result()
    intake.close()
    # Who waited for each of them would have been served as often as they are.
    assert num_served > 10


async def test_a_flood_is_refused_at_once(intake: Intake) -> None:
    """Past the line's end pictures are refused, and those in it are answered."""
    circle = red_circle()
    tasks = [asyncio.create_task(intake.take(circle)) for _ in range(200)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, IntakeBusy)]
    assert 0 < len(refused) < 100
    assert len(results) - len(refused) == sum(1 for one in results if hasattr(one, "pixels"))


async def test_no_picture_waits_on_the_event_loop(intake: Intake) -> None:
    """While pictures are decoded the loop goes on turning, more often than there are pictures."""
    data = encode(draw_shape("star", "red", (3000, 3000)), "PNG")
    task = asyncio.gather(*(intake.take(data) for _ in range(4)))
    num_turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        num_turns += 1
    await task
    assert num_turns > 10


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_bent_files_are_always_answered(shared_worker: Worker, data: st.DataObject) -> None:
    """However a good file is bent, cut or joined, the real decoder takes it or refuses it."""
    good = bytearray(data.draw(st.sampled_from(GOOD_FILES)))
    for _ in range(data.draw(st.integers(0, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(good)), st.integers(0, len(good)))))
    match data.draw(st.sampled_from(["as it is", "cut", "doubled", "moved"])):
        case "cut":
            good = good[:start] + good[end:]
        case "doubled":
            good = good[:end] + good[start:]
        case "moved":
            good = good[start:] + good[:start]
    try:
        taken = shared_worker.decode(bytes(good), LIMITS)
    except BadImage:
        return
    assert taken.kept[0] * taken.kept[1] * 3 == len(taken.rgb)


GOOD_FILES = [data for data in (good.make() for good in GOOD) if len(data) < 5000]


@pytest.fixture(scope="module")
def shared_worker() -> Iterator[Worker]:
    """A worker for tests that leave it whole."""
    running = Worker()
    yield running
    running.end()


def test_the_fixture_s_processes_are_children_of_ours(intake: Intake) -> None:
    """The decoders are the server's children, so that its unit counts and ends them."""
    assert set(intake.process_ids) <= set(children(os.getpid()))
    assert all(map(is_there, intake.process_ids))
