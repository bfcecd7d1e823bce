"""What the agent on the machine is told, and when: a server that is yet to come is no incident."""

import json
from pathlib import Path
from typing import Any

import pytest
from boots import make_boot, make_release
from cloud import Cloud

from firstboot import telemetry  # isort: skip
from firstboot import __main__ as main  # isort: skip

VALUES = {"name": "n", "service_log": "/llavachat/n/service", "chats_folder": "/chats"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program in the agent's place, and where it keeps each file of settings that it is given."""
    folder = tmp_path / "told"
    folder.mkdir()
    agent = tmp_path / "agent-ctl"
    agent.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncp "${{last#file:}}" "{folder}/$(ls {folder} | wc -l)"\n'
    )
    agent.chmod(0o755)
    monkeypatch.setattr(telemetry, "AGENT", agent)
    monkeypatch.setattr(telemetry, "SETTINGS", tmp_path / "agent.json")
    monkeypatch.setattr(telemetry, "GPU_TOOL", agent)
    return folder


def list_plugins(file: Path) -> set[str]:
    """What the agent is to measure."""
    return set(json.loads(file.read_text())["metrics"]["metrics_collected"])


def test_servers_are_counted_once_one_answers(told: Path) -> None:
    """And all else from the beginning: an alarm rings where the count is 0, and only there."""
    said: list[str] = []
    telemetry.start_agent(VALUES, said.append, without=telemetry.PROCESSES)
    telemetry.watch_server(VALUES, said.append)
    assert [{"disk", "mem", "nvidia_gpu"}, {"disk", "mem", "nvidia_gpu", "procstat"}] == [
        list_plugins(told / name) for name in ("0", "1")
    ]
    assert [
        "CloudWatch agent started, not counting servers yet",
        "CloudWatch agent started",
    ] == said


def test_no_gpu_is_asked_for_where_nothing_can_ask_it(
    told: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The agent would end over it, and send no logs either: an image for machines without a GPU."""
    monkeypatch.setattr(telemetry, "GPU_TOOL", tmp_path / "nvidia-smi")
    telemetry.watch_server(VALUES, [].append)
    assert {"disk", "mem", "procstat"} == list_plugins(told / "0")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, ["set up", "claimed", "health", "counted", "SUCCESS"]),
        (1, ["set up", "FAILURE", "counted"]),
    ],
)
def test_the_count_begins_with_the_first_answer_or_when_there_will_be_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, expected: list[str]
) -> None:
    """Not while libraries or weights come; but nobody else tells of a group's later machine."""
    events: list[str] = []

    def note(event: str) -> Any:
        return lambda *_: events.append(event)

    release = make_release(tmp_path, f"import sys; sys.exit({code})")
    boot = make_boot(monkeypatch, release, Cloud().call, tmp_path)
    monkeypatch.setattr(telemetry, "set_up", note("set up"))
    monkeypatch.setattr(boot.handover, "claim", note("claimed"))
    monkeypatch.setattr(main, "check_health", note("health"))
    monkeypatch.setattr(telemetry, "watch_server", note("counted"))
    monkeypatch.setattr(boot, "report", events.append)
    assert (code == 0) == boot.run()
    assert expected == events


@pytest.mark.parametrize(
    ("program", "seconds", "expected"),
    [
        ("echo no room >&2; exit 1", 60.0, "CloudWatch agent: no room"),
        ("exit 1", 60.0, "CloudWatch agent: it does not say why"),
        ("exec sleep 60", 0.2, "CloudWatch agent: no end after 0.2 s"),
    ],
)
def test_trouble_with_the_agent_fails_no_first_boot(
    monkeypatch: pytest.MonkeyPatch, told: Path, program: str, seconds: float, expected: str
) -> None:
    """It is told, and the service serves without it."""
    telemetry.AGENT.write_text(f"#!/bin/sh\n{program}\n")
    monkeypatch.setattr(telemetry, "AGENT_SECONDS", seconds)
    said: list[str] = []
    telemetry.watch_server(VALUES, said.append)
    assert [expected] == said
