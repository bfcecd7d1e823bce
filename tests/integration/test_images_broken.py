"""Decoder processes that die, are killed or are taken over: trouble for one picture alone."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from corpus.evil import SLOW
from corpus.good import two_colours
from llavachat_server.images.intake import (
    BadImage,
    ImageLimits,
    Intake,
    IntakeUnavailable,
)
from llavachat_server.images.process import DecoderBroken, DecoderProcess, end
from llavachat_server.images.worker import KEPT_MEMORY_BYTES, Worker
from pictures import encode, red_circle
from processes import (
    wait_for_child,
    wait_until_busy,
    wait_until_gone,
    wait_until_stopped,
)

LIMITS = ImageLimits()


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


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_that_picture_s_alone(worker: Worker, number: signal.Signals) -> None:
    """A decoder that dies on a picture is a refusal; the next picture finds another one."""
    data = SLOW.make()
    child = wait_for_child(keeper(worker))

    def crash() -> None:
        wait_until_busy(child, seconds=0.5)  # far more than it takes to get ready
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
        wait_until_stopped(child)
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


@pytest.mark.parametrize("is_keeper_there", [True, False])
def test_a_closed_socket_is_the_picture_s_fault_only_if_the_keeper_lives(
    is_keeper_there: bool,
) -> None:
    """A server that stops kills keeper and child, and whose end is seen first is chance."""
    ours, theirs = socket.socketpair()
    notes, their_notes = os.pipe()
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    decoder = DecoderProcess(process, ours, notes)
    theirs.shutdown(socket.SHUT_WR)
    if is_keeper_there:
        os.write(their_notes, b'{"code": 1, "cpu_seconds": 0.1}\n')
    else:
        os.close(their_notes)

    with pytest.raises(BadImage if is_keeper_there else DecoderBroken):
        decoder.ask({"limits": {"max_cpu_seconds": 2}})

    end(decoder)
    theirs.close()
    if is_keeper_there:
        os.close(their_notes)


async def test_ending_leaves_no_process(intake: Intake) -> None:
    """After closing, even amid a picture, no process is left, not even as a zombie."""
    closing = Intake(LIMITS)
    await closing.start_all()
    children = [wait_for_child(pid) for pid in closing.process_ids]
    pids = [*closing.process_ids, *children]
    task = asyncio.create_task(closing.take(SLOW.make()))
    # Far more than it takes to get ready.
    await asyncio.to_thread(wait_until_busy, *children, seconds=0.5)
    closing.close()
    with pytest.raises(IntakeUnavailable):
        await task
    wait_until_gone(*pids)


OWNER = """
import asyncio, sys
from llavachat_server.images.intake import ImageLimits, Intake
async def main():
    intake = Intake(ImageLimits())
    await intake.start_all()
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
        "say(b'[' * 4_000 + b'\\n')",
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


@pytest.mark.parametrize("num_dots", [0, 300_000])
@pytest.mark.parametrize("num_pixel_bytes", [3_000_000, KEPT_MEMORY_BYTES + 1])
@pytest.mark.parametrize(
    "act",
    [
        f"say(b'{FITTING}\\n')",
        'say(b\'{"refusal": "no"}\\n\')',
        "say(b'rubbish\\n')",
        "sys.exit(1)",
        "say(b'{}\\n')",
    ],
)
def test_nothing_of_an_earlier_picture_is_left(
    tmp_path: Path, act: str, num_pixel_bytes: int, num_dots: int
) -> None:
    """However a picture ends, who decodes the next one has that one's file alone."""
    worker = pretender(
        tmp_path,
        "held = os.pread(memory, 2**26, 0).rstrip(bytes(1))\n"
        "    is_second = held.startswith(b'second')\n"
        f"    os.pwrite(memory, b'x' * {num_pixel_bytes}, 0)\n"
        "    if is_second: say(json.dumps({'refusal': f'{len(held)}, {held.count(46)}'}).encode()"
        " + b'\\n')\n"
        f"    else: {act}",
    )
    is_check = act == "say(b'{}\\n')"
    with suppress(BadImage, DecoderBroken):
        (worker.check if is_check else worker.decode)(b"first", LIMITS)
    with pytest.raises(BadImage) as caught:
        worker.decode(b"second" + b"." * num_dots, LIMITS)
    worker.end()
    assert f"{6 + num_dots}, {num_dots}" == str(caught.value)


async def test_without_decoders_the_server_says_so() -> None:
    """Processes that do not start are the server's trouble, not the picture's."""
    intake = Intake(LIMITS, workers=[Worker(["/bin/false"])])
    with pytest.raises(IntakeUnavailable):
        await intake.start()
    with pytest.raises(IntakeUnavailable):
        await intake.take(red_circle())
    intake.close()
