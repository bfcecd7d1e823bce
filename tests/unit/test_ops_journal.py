"""Entries of the journal, over a real datagram socket."""

import io
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.ops import logs
from llavachat_server.ops.journal import JournalHandler, encode, find_priority, is_journal
from processes import PATIENCE_SECONDS, shared_memory_bytes


class Journal:
    """The journal's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def read(self) -> dict[str, str]:
        """The next entry, whichever way it came."""
        data, descriptors, _, _ = socket.recv_fds(self._end, 2**20, 1)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as memory:
                memory.seek(0)
                data = memory.read()
        return decode(data)

    def has_entry(self) -> bool:
        """Whether there is one to read."""
        return bool(select.select([self._end], [], [], 0)[0])


def decode(data: bytes) -> dict[str, str]:
    """Read an entry. Source: systemd's "Native Journal Protocol"."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode()] = value.decode("utf-8", "surrogateescape")
        data = rest
    return fields


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal listens."""
    return tmp_path / "socket"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Somebody who listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.settimeout(PATIENCE_SECONDS)
        yield Journal(end)


def log_to(path: Path, stderr: io.StringIO | None = None) -> logging.Logger:
    """A logger of its own."""
    logger = logging.Logger("llavachat.turns")
    handler = JournalHandler(path, stderr or io.StringIO())
    handler.setFormatter(logs.JsonLines())
    logger.addHandler(handler)
    return logger


def test_an_entry_is_found_by_its_fields(journal: Journal, path: Path) -> None:
    """The message is the JSON line; fields and priority stand beside it."""
    fields = {"turn_id": "t1", "completion_tokens": 3, "empty": "", "odd name!": "x"}
    log_to(path).info("turn", extra={"fields": fields})
    entry = journal.read()
    assert entry.pop("MESSAGE").startswith('{"time": ')
    assert {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "llavachat-server",
        "LOGGER": "llavachat.turns",
        "LLAVACHAT_EVENT": "turn",
        "LLAVACHAT_TURN_ID": "t1",
        "LLAVACHAT_COMPLETION_TOKENS": "3",
        "LLAVACHAT_ODD_NAME_": "x",
    } == entry


def test_levels_become_priorities(journal: Journal, path: Path) -> None:
    """As journalctl -p counts."""
    logger = log_to(path)
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    for level in levels:
        logger.log(level, "so")
    assert ["7", "6", "4", "3", "2"] == [journal.read()["PRIORITY"] for _ in levels]
    assert 6 == find_priority(logging.INFO + 5)


def test_a_traceback_is_one_entry(journal: Journal, path: Path) -> None:
    """However many lines it has."""
    try:
        raise ValueError("odd")
    except ValueError:
        log_to(path).exception("failed")
    entry = journal.read()
    assert "ValueError: odd" in entry["MESSAGE"]
    assert ("failed", "3") == (entry["LLAVACHAT_EVENT"], entry["PRIORITY"])


def test_an_entry_larger_than_a_datagram_arrives(journal: Journal, path: Path) -> None:
    """By a sealed file in memory, as the protocol has it."""
    long = "x" * 3_000_000
    log_to(path).warning("much", extra={"fields": {"stacks": long}})
    assert long == journal.read()["LLAVACHAT_STACKS"]


def test_entries_larger_than_a_datagram_leave_nothing_open(journal: Journal, path: Path) -> None:
    """The files in memory that they went by are the journal's alone once they are sent."""
    logger = log_to(path)
    for _ in range(3):
        logger.warning("much", extra={"fields": {"stacks": "x" * 300_000}})
        journal.read()
    assert 0 == shared_memory_bytes("llavachat-log")


def test_a_long_name_is_cut(journal: Journal, path: Path) -> None:
    """The journal takes names of 64 characters, and drops what is longer."""
    log_to(path).info("so", extra={"fields": {"n" * 100: "x"}})
    entry = journal.read()
    assert "x" == entry["LLAVACHAT_" + "N" * (64 - len("LLAVACHAT_"))]
    assert 64 == max(map(len, entry))


def test_without_a_journal_nothing_is_lost(path: Path) -> None:
    """The line goes to stderr, with the prefix that says its priority."""
    stderr = io.StringIO()
    log_to(path, stderr).error("failed")
    assert stderr.getvalue().startswith('<3>{"time": ')
    assert '"event": "failed"' in stderr.getvalue()


def test_a_journal_that_comes_back_is_used_again(path: Path) -> None:
    """The socket is looked up for each entry."""
    stderr = io.StringIO()
    logger = log_to(path, stderr)
    logger.info("before")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.settimeout(PATIENCE_SECONDS)
        logger.info("after")
        assert "after" == Journal(end).read()["LLAVACHAT_EVENT"]
    assert "before" in stderr.getvalue()
    assert "after" not in stderr.getvalue()


@pytest.mark.parametrize("text", ["x", "x" * 300_000], ids=["datagram", "file"])
def test_a_journal_that_does_not_read_is_not_waited_for(
    journal: Journal, path: Path, text: str
) -> None:
    """What comes meanwhile is dropped, and the next entry that is taken says how many."""
    stderr = io.StringIO()
    logger = log_to(path, stderr)
    num_logged, num_taken = 600, 0
    thread = threading.Thread(
        target=lambda: [logger.info(text) for _ in range(num_logged)], daemon=True
    )
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    while journal.has_entry():
        assert "LLAVACHAT_LINES_DROPPED" not in journal.read()
        num_taken += 1
    logger.warning("reading again", extra={"fields": {"why": "so"}})
    entry = journal.read()
    assert str(num_logged - num_taken) == entry["LLAVACHAT_LINES_DROPPED"]
    assert num_logged - num_taken == json.loads(entry["MESSAGE"])["lines_dropped"]
    assert "so" == entry["LLAVACHAT_WHY"]
    logger.info("and on")
    assert "LLAVACHAT_LINES_DROPPED" not in journal.read()
    assert "" == stderr.getvalue()


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text()))
def test_whatever_a_field_holds_comes_out_again(fields: dict[str, str]) -> None:
    """Line breaks, equals signs, anything: no value can pass for another field."""
    expected = {
        name: value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        if any("\ud800" <= char <= "\udfff" for char in value)
        else value
        for name, value in fields.items()
    }
    if all(value == fields[name] for name, value in expected.items()):
        assert fields == decode(encode(fields))


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    """As systemd tells it: device and inode of what stderr is."""
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        said = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(stream, said)
        assert not is_journal(stream, {})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:1"})
        assert not is_journal(stream, {"JOURNAL_STREAM": "?"})
        assert not is_journal(io.StringIO(), said)
