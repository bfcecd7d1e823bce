"""The first boot's log comes to CloudWatch, and most surely when it tells of a failure."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boots import MACHINE

from firstboot import account, journal  # isort: skip

assert Path(journal.__file__).is_relative_to(MACHINE)

PROGRAM = """#!/bin/sh
# The AWS command line's part that matters here: a file's content for its name.
for word; do
    case $word in
        file://*) cat "${word#file://}" >>"$0.sent"; echo >>"$0.sent" ;;
    esac
done
"""


class Sink:
    """CloudWatch, as far as it takes and refuses lines.

    Attributes:
        batches: the lines of each call that was taken.
        errors: what the next calls fail with.
        asked: the operations, in order.
    """

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.errors: list[Exception] = []
        self.asked: list[str] = []
        self.failed = threading.Event()

    def call(self, _: str, operation: str, *words: str, **__: Any) -> None:
        """Answer as the AWS command line does."""
        self.asked.append(operation)
        if operation != "put-log-events":
            return
        if self.errors:
            self.failed.set()
            raise self.errors.pop(0)
        batch = json.loads(Path(words[-1].removeprefix("file://")).read_text())
        self.batches.append(batch)

    @property
    def lines(self) -> list[str]:
        """Everything that was taken, without its time."""
        return [line["message"].partition(" s  ")[2] for batch in self.batches for line in batch]


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """Where the lines go; nobody waits between two looks."""
    sink = Sink()
    monkeypatch.setattr(journal, "call", sink.call)
    monkeypatch.setattr(journal, "SEND_SECONDS", 0.01)
    yield sink
    assert [] == sink.errors


def test_the_long_lines_of_a_failing_service_come_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a real program, which the kernel gives no word of more than 128 KiB."""
    program = tmp_path / "aws"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # All of them wait while the stream is made.
    made = threading.Event()
    monkeypatch.setattr(journal.Journal, "open_stream", lambda _: made.wait(10))
    log = journal.Journal("group", "stream", 30)
    for number in range(60):
        log.write(f"{number} " + "x" * 2300)
    log.write("signalled FAILURE")
    made.set()
    log.close()
    assert not log.sender.is_alive()
    (sent,) = (tmp_path / "aws.sent").read_text().splitlines()
    assert 61 == len(json.loads(sent))
    assert len(sent) > 131072
    assert json.loads(sent)[-1]["message"].endswith("signalled FAILURE")


def test_a_batch_is_no_larger_than_cloudwatch_takes(sink: Sink) -> None:
    """In bytes, each event's own 26 among them; a line that is too long is cut."""
    log = journal.Journal("group", "stream", 30)
    log.close()
    log.lines.clear()
    for _ in range(30):
        log.write("é" * 50_000)
    log.write("é" * 500_000)
    assert log.send()
    assert 31 == len(sink.lines)
    sizes = [
        sum(len(line["message"].encode()) + 26 for line in batch) for batch in sink.batches[-4:]
    ]
    assert max(sizes) <= 1_048_576
    assert max(sizes) > 900_000
    assert journal.MAX_LINE_BYTES - 1 <= len(sink.batches[-1][-1]["message"].encode())
    assert journal.MAX_LINE_BYTES >= len(sink.batches[-1][-1]["message"].encode())


@pytest.mark.parametrize(
    "error", [account.CallFailed("aws logs put-log-events: timed out"), OSError(7, "too long")]
)
def test_sending_goes_on_after_trouble(sink: Sink, error: Exception) -> None:
    """No line is lost, none comes twice."""
    sink.errors = [error]
    log = journal.Journal("group", "stream", 30)
    log.write("one")
    assert sink.failed.wait(10)
    log.write("two")
    log.close()
    assert ["start: one", "start: two"] == sink.lines


def test_what_was_said_can_be_sent_at_once(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a signal upon which the machine is taken away."""
    monkeypatch.setattr(journal, "SEND_SECONDS", 3600)
    log = journal.Journal("group", "stream", 30)
    log.write("FAILED")
    log.flush()
    assert ["start: FAILED"] == sink.lines
    log.close()


def test_the_last_lines_are_tried_again(sink: Sink) -> None:
    """They say why the deployment failed."""
    log = journal.Journal("group", "stream", 30)
    log.write("one")
    log.close()
    sink.batches.clear()
    log.write("signalled FAILURE")
    sink.errors = [account.CallFailed("no")] * 2
    log.send_until_closed()
    assert ["start: signalled FAILURE"] == sink.lines


def test_a_stream_that_could_not_be_made_is_made_later(sink: Sink) -> None:
    """The role's rights may take some seconds to be in force."""
    sink.errors = [account.CallFailed("ResourceNotFoundException: no such stream")]
    log = journal.Journal("group", "stream", 30)
    log.write("one")
    log.close()
    assert 2 == sink.asked.count("create-log-stream")
    assert ["start: one"] == sink.lines


def test_what_is_never_taken_does_not_hold_up_the_rest(sink: Sink) -> None:
    """Refused for what it is, and not for the moment."""
    sink.errors = [account.CallFailed("InvalidParameterException: not so")]
    log = journal.Journal("group", "stream", 30)
    log.write("one")
    assert sink.failed.wait(10)
    log.write("two")
    log.close()
    assert ["start: two"] == sink.lines


def test_a_clock_that_is_set_back_leaves_lines_in_order(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CloudWatch refuses a batch that is not."""
    log = journal.Journal("group", "stream", 30)
    clock = SimpleNamespace(time=iter([2000.0, 1000.0]).__next__, monotonic=time.monotonic)
    monkeypatch.setattr(journal, "time", clock)
    log.write("one")
    log.write("two")
    log.close()
    assert [2000000, 2000000] == [line["timestamp"] for batch in sink.batches for line in batch]


def test_a_program_that_cannot_be_started_is_a_call_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Everything that calls AWS is ready for that, and for nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(account.time, "sleep", lambda _: None)
    with pytest.raises(account.CallFailed, match=r"aws ec2 describe-volumes: .*No such file"):
        account.call("ec2", "describe-volumes")
