"""A first boot ends in time, whatever hangs, and gives the chats back before it says so."""

import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from boots import make_boot, make_release, put_in_place, refuse_all

from firstboot import account, limit, service  # isort: skip
from firstboot.__main__ import FirstBoot  # isort: skip

HANGING = """
import pathlib, signal, subprocess, sys, time
if sys.argv[1] != {verb!r}:
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# A download of its own, which has the log open as well.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"])
print("hangs", child.pid, flush=True)
child.wait()
pathlib.Path(sys.argv[3], "ended").touch()
"""
FAILS_TO_ANSWER = "import sys; sys.exit(sys.argv[1] == 'run')"


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("prepare", "no end of preparing after 20 minutes; install_minutes is 30"),
        ("run", "no end after 22 minutes; install_minutes is 30"),
    ],
)
def test_an_installer_that_hangs_is_ended_and_the_chats_are_given_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, reason: str
) -> None:
    """With all its processes; then the chats go back, and when all is told, so is the failure. What
    is only prepared ends sooner, as the machine before is not to be stopped for nothing."""
    release = make_release(tmp_path / "release", HANGING.format(verb=verb))
    events: list[str] = []

    def call(_: str, operation: str, *words: str, **__: Any) -> Any:
        events.append(f"{operation} {words[1]}" if operation == "signal-resource" else operation)

    boot = make_boot(monkeypatch, release, call)
    monkeypatch.setattr(boot.handover, "claim", lambda: events.append("claimed"))
    monkeypatch.setattr(boot.handover, "give_back", lambda: events.append("given back"))
    monkeypatch.setattr(boot.journal, "flush", lambda: events.append("log sent"))
    children: list[int] = []

    def ring(line: str) -> None:
        if line.startswith("hangs"):
            children.append(os.pidfd_open(int(line.split()[1])))
            os.kill(os.getpid(), signal.SIGALRM)

    boot.journal.on_line = ring  # type: ignore[attr-defined]
    assert not boot.run()
    claimed = ["claimed"] if verb == "run" else []
    ended = ["given back", "log sent", "signal-resource FAILURE"]
    assert ["describe-instances", *claimed, *ended] == events
    assert not (release / "ended").exists()
    # Readable once the process has ended.
    assert (children, [], []) == select.select(children, [], [], 10)
    os.close(children[0])
    assert any(
        line == f"FAILED: {reason}"
        for line in boot.journal.written  # type: ignore[attr-defined]
    )


def test_an_alarm_that_was_meant_for_the_work_does_not_break_the_way_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is called off first; and what then hangs still ends with the signal."""
    release = make_release(tmp_path / "release", FAILS_TO_ANSWER)
    events: list[str] = []

    def call(_: str, operation: str, *words: str, **__: Any) -> Any:
        events.append(f"{operation} {words[1]}" if operation == "signal-resource" else operation)

    boot = make_boot(monkeypatch, release, call)
    monkeypatch.setattr(boot.handover, "claim", lambda: None)

    def give_back() -> None:
        # What is left of the time for stepping back, not of the time for the work.
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        events.append(f"given back with {round(left / 10) * 10} s left")
        os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(boot.handover, "give_back", give_back)
    assert not boot.run()
    assert [
        "describe-instances",
        "given back with 270 s left",
        "signal-resource FAILURE",
    ] == events
    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)
    told = boot.journal.written  # type: ignore[attr-defined]
    assert "not stepped back to the end: stepping back came to no end" in told


def test_a_journal_that_can_not_be_read_keeps_nothing_from_stepping_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the service said last is of use, the chats are of more."""
    explain = FirstBoot.explain
    boot = make_boot(monkeypatch, tmp_path, refuse_all)
    monkeypatch.setattr(FirstBoot, "explain", explain)
    monkeypatch.setenv("PATH", str(tmp_path))
    given_back: list[str] = []
    monkeypatch.setattr(boot.handover, "give_back", lambda: given_back.append("chats"))
    boot.give_up()
    assert ["chats"] == given_back
    told = boot.journal.written  # type: ignore[attr-defined]
    assert "the service's last words are missing" in told[0]


def test_what_came_in_time_is_left_alone() -> None:
    """An alarm on its way when the work ends raises nothing."""
    with limit.Limit(60, "too long") as bound:
        pass
    bound.ring(signal.SIGALRM, None)
    with pytest.raises(limit.TimeIsUp, match="too long"), limit.Limit(60, "too long"):
        os.kill(os.getpid(), signal.SIGALRM)


@pytest.mark.parametrize(
    ("minutes", "launched", "expected"),
    [
        (30, 1000.0 - 120, 1800 - 300 - 120),
        (30, None, 1800 - 300 - 180),
        # Clocks that are not set yet: ahead by a year, behind by one.
        (30, 1000.0 - 3e7, 1800 - 300 - 600),
        (30, 1000.0 + 3e7, 1800 - 300),
        (15, 1000.0 - 590, 60),
    ],
)
def test_time_counts_from_the_launch_and_five_minutes_are_kept(
    minutes: int, launched: float | None, expected: float
) -> None:
    """CloudFormation's clock runs while EC2 boots and cloud-init fetches."""
    assert expected == limit.reckon(minutes, launched, now=1000.0)


@pytest.mark.parametrize(("seconds", "expected"), [(1320, 1200), (200, 100), (60, 30)])
def test_two_minutes_are_kept_for_what_the_old_machine_is_stopped_for(
    seconds: float, expected: float
) -> None:
    """Or half of what there is."""
    assert expected == limit.reckon_preparation(seconds)


@pytest.mark.parametrize("text", ["2026-11-28T12:00:00+00:00", "2026-11-28T12:00:00.000Z"])
def test_the_launch_is_ec2s_own(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """As either of Amazon's command lines writes it."""
    answer = {"Reservations": [{"Instances": [{"LaunchTime": text}]}]}
    put_in_place(monkeypatch, lambda *_, **__: answer)
    assert 1795867200.0 == limit.find_launch("i-new")


def test_a_launch_that_nobody_tells_is_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The role's rights may not be in force yet."""
    put_in_place(monkeypatch, refuse_all)
    assert None is limit.find_launch("i-new")


def test_a_call_that_hangs_is_a_call_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command line by itself tries for minutes."""
    program = tmp_path / "aws"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(account.CallFailed, match=r"aws ec2 describe-volumes: no end after 0 s"):
        account.call("ec2", "describe-volumes", attempts=1, seconds=0.2)


def test_a_service_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its chats are unmounted."""
    asked = []

    def run(words: list[str], **options: Any) -> None:
        asked.append(words[1])
        if words[1] == "disable":
            raise subprocess.TimeoutExpired(words, options["timeout"])

    monkeypatch.setattr(service.subprocess, "run", run)
    service.stop()
    assert ["disable", "kill", "stop"] == asked
