"""A decoder before it is asked: when it practises, and what memory it will have."""

import socket
import time
from pathlib import Path

from corpus.good import HEIGHT, WIDTH, two_colours
from llavachat_server.images import decoder
from llavachat_server.images.intake import ImageLimits
from llavachat_server.images.worker import Worker
from pictures import encode
from processes import wait_for_child

PATIENCE_SECONDS = 30.0
PRACTISED_FAULTS = 700
"""A child waits with 494 pages of its own, and after its practice with 975."""


def count_faults(process_id: int) -> int:
    """Pages that a process was given since it began."""
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[7])


def test_a_decoder_practises_when_nobody_asks(worker: Worker) -> None:
    """What decoding writes to is a waiting child's own before it is asked, without a request."""
    assert worker.process_id is not None
    child = wait_for_child(worker.process_id)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count_faults(child) < PRACTISED_FAULTS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count_faults(child) >= PRACTISED_FAULTS


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
