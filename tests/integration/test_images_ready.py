"""A decoder before it is asked: when it starts and practises, and what memory it will have."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from corpus.good import HEIGHT, WIDTH, two_colours
from llavachat_server.images import decoder, intake
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.images.worker import Worker
from pictures import encode
from processes import wait_for_child

PATIENCE_SECONDS = 30.0
PRACTISED_FAULTS = 300
"""A child waits with 140 to 494 pages of its own; its practice brings 480 to 620 more."""


def read_stat(process_id: int) -> tuple[bool, int]:
    """Whether a process waits, and how many pages it was given since it began."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return fields[0] == "S", int(fields[7])


def ignored_signals(process_id: int) -> set[int]:
    """Signals that do nothing to a process."""
    status = Path(f"/proc/{process_id}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_a_decoder_practises_when_nobody_asks(worker: Worker) -> None:
    """What decoding writes to is a waiting child's own before it is asked, without a request."""
    assert worker.process_id is not None
    child = wait_for_child(worker.process_id)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not read_stat(child)[0] and time.monotonic() < deadline:
        time.sleep(0.001)
    _, before = read_stat(child)
    while read_stat(child)[1] < before + PRACTISED_FAULTS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read_stat(child)[1] >= before + PRACTISED_FAULTS


def test_who_is_asked_does_not_practise_first() -> None:
    """A request that is there ends the rest before practice, and silence ends it with practice."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        assert decoder._is_asked_within(ours, 0.0) is False
        theirs.sendall(b"{")
        assert decoder._is_asked_within(ours, PATIENCE_SECONDS) is True
        assert ours.recv(2) == b"{"


def test_a_decoder_asks_for_large_pages(worker: Worker) -> None:
    """The keeper runs with glibc told to ask for pages of 2 MB, and decodes all the same."""
    environment = Path(f"/proc/{worker.process_id}/environ").read_bytes().split(b"\0")
    assert b"GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in environment
    pixels = worker.decode(encode(two_colours(), "PNG"), ImageLimits())
    assert pixels.size == (WIDTH, HEIGHT)


def test_a_decoder_has_no_file_that_it_does_not_need(worker: Worker) -> None:
    """Its socket, the shared memory, and nowhere for errors: the server's log is out of reach."""
    assert worker.process_id is not None
    files = Path(f"/proc/{wait_for_child(worker.process_id)}/fd")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (files / "1").exists():  # what it closes last of all that is the keeper's
        assert time.monotonic() < deadline
        time.sleep(0.001)
    names = {file.name: str(file.readlink()) for file in files.iterdir()}
    assert "/dev/null" == names.pop("2")
    assert names.pop("0").startswith("socket:")
    # libffi from 3.5 on keeps its own file open, whose code it maps again; that is readable anyway.
    others = [name for name in names.values() if not Path(name).name.startswith("libffi.so")]
    assert ["/memfd:llavachat-picture (deleted)"] == others


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_service_ends_no_decoder(
    worker: Worker, number: signal.Signals
) -> None:
    """Ctrl-C, and the hangup that has the server read its settings again: neither is for them."""
    keeper = worker.process_id
    assert keeper is not None
    assert number in ignored_signals(wait_for_child(keeper))
    os.killpg(keeper, number)
    data = encode(two_colours(), "PNG")
    # Before the second the keeper tells of the first.
    assert [(WIDTH, HEIGHT)] * 2 == [worker.decode(data, ImageLimits()).size for _ in range(2)]
    assert keeper == worker.process_id


def test_a_decoder_that_was_begun_is_waited_for() -> None:
    """And no other is started; one that has ended meanwhile is replaced."""
    worker = Worker()
    worker.begin()
    begun = worker.process_id
    worker.start()
    assert begun == worker.process_id is not None

    other = Worker()
    other.begin()
    other_begun = other.process_id
    assert other._decoder is not None
    other._decoder.process.kill()
    other._decoder.process.wait()
    assert (WIDTH, HEIGHT) == other.decode(encode(two_colours(), "PNG"), ImageLimits()).size
    assert other_begun != other.process_id
    worker.end()
    other.end()


def test_a_decoder_whose_server_was_killed_says_nothing() -> None:
    """Its own end, just before it would have told that it is ready, is no fault of anybody's."""
    notes, their_notes = os.pipe()
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("picture")
    os.close(notes)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llavachat_server.images.decoder", str(memory)],
            stdin=theirs.fileno(),
            stdout=their_notes,
            stderr=subprocess.PIPE,
            pass_fds=(memory,),
            timeout=PATIENCE_SECONDS,
        )
    finally:
        ours.close()
        theirs.close()
        os.close(their_notes)
        os.close(memory)
    assert (0, b"") == (done.returncode, done.stderr)


def test_callers_of_one_worker_take_turns(worker: Worker) -> None:
    """Each has its own picture's answer, and nobody starts the decoder anew."""
    before = worker.process_id
    data = encode(two_colours(), "PNG")

    def use(number: int) -> tuple[int, int]:
        if number % 2:
            worker.start()
            return (WIDTH, HEIGHT)
        return worker.decode(data, ImageLimits()).size

    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(use, range(12)))

    assert [(WIDTH, HEIGHT)] * 12 == sizes
    assert before == worker.process_id


async def test_one_decoder_is_enough_to_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first starts with the intake, the others by themselves some time after it is ready."""
    monkeypatch.setattr(intake, "OTHERS_SECONDS", 0.0)
    taking = Intake(ImageLimits())
    assert 1 == len(taking.process_ids)
    await taking.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(taking.process_ids) < 3:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
    taking.close()
    assert taking.process_ids == ()
