"""The intake with its real decoder processes: what they answer, what breaks them, what is left."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from corpus.evil import BOMBS, EVIL, SLOW
from corpus.good import GOOD, two_colours
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
    is_there,
    resident_bytes,
    shared_memory_bytes,
    wait_for_child,
    wait_until_busy,
    wait_until_gone,
)

LIMITS = ImageLimits()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker of the test's own, to be broken."""
    running = Worker()
    running.start()
    yield running
    running.end()


def keeper(worker: Worker) -> int:
    """The process that keeps the worker's decoder ready."""
    assert worker.process_id is not None
    return worker.process_id


def wait_for_request(worker: Worker) -> None:
    """Until a request lies on the worker's socket."""
    assert worker._decoder is not None
    deadline = time.monotonic() + 20
    while not int.from_bytes(
        fcntl.ioctl(worker._decoder.channel, termios.TIOCOUTQ, bytes(4)), "little"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    await intake.start()
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
    await intake.start()
    before = resident_bytes(*intake.process_ids)
    assert (4096, 4096) == (await intake.take(data)).pixels.size
    for _ in range(6):
        await intake.take(red_circle())
    assert resident_bytes(*intake.process_ids) - before < 20 * MIB
    assert shared_memory_bytes("llavachat-picture") < 20 * MIB


async def test_a_slow_picture_is_stopped_and_holds_up_nobody() -> None:
    """Pictures that take longer than they may are ended by the clock; a neighbour is served."""
    slow = SLOW.make()
    circle = red_circle()
    intake = Intake(ImageLimits(max_cpu_seconds=1))
    await intake.start()
    attacks = [asyncio.create_task(answer(intake, slow, "attacker")) for _ in range(3)]
    waits, gaps = [], []
    while not all(task.done() for task in attacks):
        began = time.monotonic()
        await intake.take(circle, tenant="neighbour")
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
        gaps.append(time.monotonic() - began - waits[-1])
    for attack in attacks:
        assert attack.result().startswith((SLOW.says, BUSY)), attack.result()
    intake.close()
    assert len(waits) > 10
    # Most, not all: a test's machine may have better things to do for a moment.
    for seconds in (waits, gaps):
        assert sorted(seconds)[len(seconds) * 9 // 10] < 0.5, seconds


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_that_picture_s_alone(worker: Worker, number: signal.Signals) -> None:
    """A decoder that dies on a picture is a refusal; the next picture finds another one."""
    data = SLOW.make()
    child = wait_for_child(keeper(worker))

    def crash() -> None:
        wait_until_busy(child, 0.5)  # far more than it takes to get ready
        os.kill(child, number)

    with ThreadPoolExecutor(1) as thread:
        crashed = thread.submit(crash)
        with pytest.raises(BadImage, match="damaged so that it can not be decoded"):
            worker.decode(data, LIMITS)
        crashed.result()
    before = keeper(worker)
    assert (320, 320) == worker.decode(red_circle(), LIMITS).kept
    assert before == keeper(worker)


def test_an_idle_decoder_that_dies_is_not_held_against_a_picture(worker: Worker) -> None:
    """What happened before a picture came is not its fault."""
    child = wait_for_child(keeper(worker))
    os.kill(child, signal.SIGKILL)
    wait_until_gone(child)
    assert (320, 320) == worker.decode(red_circle(), LIMITS).kept


def test_a_decoder_that_dies_as_it_is_asked_is_not_held_against_a_picture(worker: Worker) -> None:
    """A request that it had not taken up is the next one's, and no other picture's."""
    for _ in range(3):
        worker.start()  # and the one that answered last has ended
        child = wait_for_child(keeper(worker))
        os.kill(child, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            taken = thread.submit(worker.decode, red_circle(), LIMITS)
            wait_for_request(worker)
            os.kill(child, signal.SIGKILL)
            assert (320, 320) == taken.result().kept
        assert (24, 16) == worker.decode(encode(two_colours(), "PNG"), LIMITS).kept


def test_a_lost_keeper_is_replaced(worker: Worker) -> None:
    """The next picture starts the processes anew."""
    lost = keeper(worker)
    child = wait_for_child(lost)
    os.kill(lost, signal.SIGKILL)
    wait_until_gone(child)
    assert (320, 320) == worker.decode(red_circle(), LIMITS).kept
    assert lost != keeper(worker)


async def test_ending_leaves_no_process(intake: Intake) -> None:
    """After closing, even amid a picture, no process is left, not even as a zombie."""
    closing = Intake(LIMITS)
    await closing.start()
    pids = [*closing.process_ids, *(wait_for_child(pid) for pid in closing.process_ids)]
    task = asyncio.create_task(closing.take(SLOW.make()))
    await asyncio.sleep(0.2)
    closing.close()
    with pytest.raises(IntakeUnavailable):
        await task
    wait_until_gone(*pids)


OWNER = """
import asyncio, sys
from llavachat_server.images.intake import ImageLimits, Intake
async def main():
    intake = Intake(ImageLimits())
    await intake.start()
    print(*intake.process_ids, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_killed_server_takes_its_decoders_along() -> None:
    """When the server dies without a word, its decoders end by themselves."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert 3 == len(pids)
        pids += [wait_for_child(pid) for pid in pids]
        owner.kill()
    wait_until_gone(*pids)


def pretender(tmp_path: Path, answer: str) -> Worker:
    """A worker whose decoder has been taken over: it does `answer` when it is asked."""
    script = tmp_path / "decoder.py"
    script.write_text(
        "import json, os, socket, sys, time\n"
        "tell = lambda note: os.write(1, json.dumps(note).encode() + b'\\n')\n"
        "tell({'is_confined': True, 'has_heic': False})\n"
        "channel, memory = socket.socket(fileno=0), int(sys.argv[1])\n"
        "say = lambda words: channel.sendall(words)\n"
        "while channel.recv(65536):\n"
        f"    {answer}\n"
        "    tell({'code': 0, 'cpu_seconds': 0.0})\n"
    )
    return Worker([sys.executable, "-I", str(script)])


FITTING = '{"size": [4, 4], "kept": [4, 4], "media_type": "image/png", "num_frames": 1}'


@pytest.mark.parametrize(
    "act",
    [
        "say(b'rubbish\\n')",
        "say(b'[]\\n')",
        "say(b'{}\\n')",
        "say(b'x' * 100_000)",
        "say(b'{\"refusal\": 7}\\n')",
        "say(b'{\"refusal\": \"a\\\\\\\\nb\"}\\n'.replace(b'\\\\\\\\', b'\\\\'))",
        f"os.ftruncate(memory, 5); say(b'{FITTING}\\n')",
        f"say(b'{FITTING}\\n'.replace(b'4', b'20000'))",
        f"say(b'{FITTING}\\n'.replace(b'4', b'-4'))",
        f"say(b'{FITTING}\\n'.replace(b'image/png', b'text/html'))",
        f"say(b'{FITTING}\\n'.replace(b': 1', b': 0'))",
        f"say(b'{FITTING}\\n'.replace(b': 1', b': true'))",
        'say(b\'{"size": [9, 9], "kept": [4, 4], "media_type": "image/png", "num_frames": 1}\\n\')',
        "sys.exit(0)",
        "os.close(1); os.close(0); time.sleep(9)",
    ],
)
def test_a_decoder_that_was_taken_over_gains_nothing(tmp_path: Path, act: str) -> None:
    """Whatever it says or does, its picture is refused or not taken, and the next is no worse."""
    worker = pretender(tmp_path, act)
    for _ in range(2):
        with pytest.raises((BadImage, Exception)) as caught:
            worker.decode(red_circle(), LIMITS)
        assert type(caught.value).__name__ in ("BadImage", "DecoderBroken"), caught.value
    worker.end()


def test_words_for_the_next_picture_are_not_heard(tmp_path: Path) -> None:
    """A decoder that answers twice can not answer for the picture that comes next."""
    refusal = b'{"refusal": "for you"}\\n{"refusal": "for the next"}\\n'.decode()
    worker = pretender(tmp_path, f"say(b'{refusal}')")
    for _ in range(2):
        with pytest.raises(BadImage, match=r"for you|can not be decoded"):
            worker.decode(red_circle(), LIMITS)
    worker.end()


async def test_without_decoders_the_server_says_so() -> None:
    """Processes that do not start are the server's trouble, not the picture's."""
    intake = Intake(LIMITS, workers=[Worker(["/bin/false"])])
    with pytest.raises(IntakeUnavailable):
        await intake.start()
    with pytest.raises(IntakeUnavailable):
        await intake.take(red_circle())
    intake.close()


async def test_a_flood_is_refused_at_once(intake: Intake) -> None:
    """Past the line's end pictures are refused, and those in it are answered."""
    circle = red_circle()
    tasks = [asyncio.create_task(intake.take(circle)) for _ in range(200)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, IntakeBusy)]
    assert 0 < len(refused) < 100
    assert len(results) - len(refused) == sum(1 for one in results if hasattr(one, "pixels"))


async def test_no_picture_waits_on_the_event_loop(intake: Intake) -> None:
    """While pictures are decoded the loop goes on turning."""
    data = encode(draw_shape("star", "red", (3000, 3000)), "PNG")
    task = asyncio.gather(*(intake.take(data) for _ in range(4)))
    longest = 0.0
    while not task.done():
        began = time.monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - began)
    await task
    assert longest < 0.5


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
