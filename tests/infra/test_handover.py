"""The chats' volume goes to the new machine, and back from wherever it has come to."""

import json
from pathlib import Path
from typing import Any

import pytest
from boots import MACHINE, make_boot, make_release, put_in_place
from cloud import Cloud

from firstboot import account, volume, wake  # isort: skip
from firstboot.handover import Handover  # isort: skip
from firstboot.limit import TimeIsUp  # isort: skip
from firstboot.service import CHATS  # isort: skip


FAILS_TO_ANSWER = "import sys; sys.exit(sys.argv[1] == 'run')"
"""An install script that has everything, and whose service then does not come up."""

CAN_NOT_BE_PREPARED = """
import sys
print("install: this machine can not run llavachat: GPU driver", flush=True)
sys.exit(sys.argv[1] == "prepare")
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks."""
    monkeypatch.setattr(account, "POLL_SECONDS", 0)


@pytest.fixture
def said() -> list[str]:
    """What was told."""
    return []


def make_handover(patch: pytest.MonkeyPatch, cloud: Cloud, said: list[str]) -> Handover:
    """Machine "i-new", about to claim."""
    put_in_place(patch, cloud.call)
    return Handover("vol-1", "i-new", said.append)


def test_a_free_volume_is_attached(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """Nobody is stopped for it, and there is nobody to give it back to."""
    cloud = Cloud(holder="")
    hand = make_handover(monkeypatch, cloud, said)
    hand.claim()
    hand.give_back()
    assert ["attach-volume i-new"] == cloud.calls
    assert ("i-new", "attached") == (cloud.holder, cloud.attachment)


@pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
def test_a_machine_that_has_the_chats_is_stopped_first(
    monkeypatch: pytest.MonkeyPatch, said: list[str], state: str
) -> None:
    """Its volume is taken once it is down."""
    cloud = Cloud(i_old=state)
    make_handover(monkeypatch, cloud, said).claim()
    assert ["stop-instances i-old", "detach-volume i-old", "attach-volume i-new"] == cloud.calls
    assert ("i-new", "attached", "stopped") == (
        cloud.holder,
        cloud.attachment,
        cloud.states["i-old"],
    )


def test_spot_capacity_is_ended_by_its_group(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """EC2 would refuse to stop it; and a new one comes if this machine fails."""
    cloud = Cloud(i_old="running")
    cloud.groups["i-old"] = "llavachat"
    hand = make_handover(monkeypatch, cloud, said)
    hand.claim()
    assert ["set-desired-capacity llavachat 0", "attach-volume i-new"] == cloud.calls
    assert "terminated" == cloud.states["i-old"]
    hand.give_back()
    assert ["detach-volume i-new", "set-desired-capacity llavachat 1"] == cloud.calls[2:]
    assert "" == cloud.holder


def test_a_group_is_not_told_to_end_the_machine_that_asks(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """It ends the one before by itself; that is waited for."""
    cloud = Cloud(i_old="running")
    cloud.groups |= {"i-old": "llavachat", "i-new": "llavachat"}
    hand = make_handover(monkeypatch, cloud, said)
    hand.say = lambda line: cloud.states.update({"i-old": "shutting-down"})
    hand.claim()
    assert ["attach-volume i-new"] == cloud.calls
    assert {} == cloud.sizes


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_a_machine_that_goes_anyway_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, said: list[str], state: str
) -> None:
    """As one whose capacity was taken back; it can neither be stopped nor woken again."""
    cloud = Cloud(i_old=state)
    hand = make_handover(monkeypatch, cloud, said)
    hand.claim()
    hand.give_back()
    assert ["attach-volume i-new"] == cloud.calls
    assert ["i-old is letting the chats go"] == said


def test_a_volume_that_is_being_detached_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Whoever had it runs on."""
    cloud = Cloud(i_old="running")
    cloud.attachment = "detaching"
    make_handover(monkeypatch, cloud, said).claim()
    assert ["attach-volume i-new"] == cloud.calls
    assert "running" == cloud.states["i-old"]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("stop-instances", ["start-instances i-old"]),
        ("detach-volume", ["stop-instances i-old", "start-instances i-old"]),
        (
            "attach-volume",
            ["stop-instances i-old", "detach-volume i-old", "start-instances i-old"],
        ),
    ],
)
def test_a_claim_that_fails_half_way_is_undone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str, expected: list[str]
) -> None:
    """Whatever AWS refuses: the old machine runs again before the failure is signalled."""
    cloud = Cloud(i_old="running")
    cloud.broken.add(broken)
    boot = make_boot(monkeypatch, make_release(tmp_path / "release", ""), cloud.call)
    assert not boot.run()
    assert [*expected, "signal-resource FAILURE"] == cloud.calls
    assert cloud.states["i-old"] in ("pending", "running")
    told = "\n".join(boot.journal.written)  # type: ignore[attr-defined]
    assert f"FAILED: aws ec2 {broken}: refused" in told
    assert "giving the chats back to i-old" in told


def test_a_machine_that_was_just_told_to_stop_is_started_again(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Time was up while it stopped: EC2 starts none before it has."""
    cloud = Cloud(i_old="running")
    hand = make_handover(monkeypatch, cloud, said)

    def call(service: str, operation: str, *words: str, **_: Any) -> Any:
        answer = cloud.call(service, operation, *words)
        if operation == "stop-instances":
            raise TimeIsUp
        return answer

    put_in_place(monkeypatch, call)
    with pytest.raises(TimeIsUp):
        hand.claim()
    hand.give_back()
    assert ["giving the chats back to i-old"] == said[1:]
    assert ["stop-instances i-old", "start-instances i-old"] == cloud.calls
    assert ("i-old", "pending") == (cloud.holder, cloud.states["i-old"])


def test_a_machine_that_fails_later_gives_the_volume_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Detached here, attached there, and the old machine started: in this order."""
    cloud = Cloud(i_old="running")
    release = make_release(tmp_path / "release", FAILS_TO_ANSWER)
    assert not make_boot(monkeypatch, release, cloud.call).run()
    assert [
        *("stop-instances i-old", "detach-volume i-old", "attach-volume i-new"),
        *("detach-volume i-new", "attach-volume i-old", "start-instances i-old"),
        "signal-resource FAILURE",
    ] == cloud.calls
    assert "i-old" == cloud.holder


def test_a_machine_that_can_not_be_prepared_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An unfit image, a library that can not be had: the old machine has not even been stopped."""
    cloud = Cloud(i_old="running")
    release = make_release(tmp_path / "release", CAN_NOT_BE_PREPARED)
    boot = make_boot(monkeypatch, release, cloud.call)
    assert not boot.run()
    assert ["signal-resource FAILURE"] == cloud.calls
    assert ("i-old", "running") == (cloud.holder, cloud.states["i-old"])
    told = boot.journal.written  # type: ignore[attr-defined]
    assert "install: this machine can not run llavachat: GPU driver" in told
    assert "FAILED: the install script failed at 'prepare'; see above" in told


def test_a_machine_that_wakes_takes_a_free_volume(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path
) -> None:
    """CloudFormation took the machine away that would have given it back."""
    cloud = Cloud(holder="")
    put_in_place(monkeypatch, cloud.call)
    file = tmp_path / "deployment.json"
    file.write_text(json.dumps({"volume": "vol-1", "region": "us-east-1"}))
    monkeypatch.setattr(wake, "DEPLOYMENT", file)
    monkeypatch.setattr(wake, "read_instance_id", lambda: "i-new")
    monkeypatch.setattr(wake, "say", said.append)
    monkeypatch.setattr(volume, "find_device", lambda _: Path("/dev/none"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert 0 == wake.attach()
    assert ("i-new", ["attach-volume i-new"]) == (cloud.holder, cloud.calls)
    # The next time the device is there, and AWS is not asked.
    monkeypatch.setattr(volume, "is_here", lambda _: True)
    cloud.broken.add("describe-volumes")
    assert 0 == wake.attach()


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("running", 1, ["i-other holds the chats, and is running"]),
        (
            "shutting-down",
            0,
            [
                "i-other is letting the chats go",
                "nobody has the chats: attaching their volume",
            ],
        ),
    ],
)
def test_a_machine_that_wakes_takes_the_volume_from_nobody(
    monkeypatch: pytest.MonkeyPatch, said: list[str], state: str, code: int, expected: list[str]
) -> None:
    """The machine that runs is the deployment's; one that ends is waited for."""
    cloud = Cloud(holder="i-other", i_other=state)
    hand = make_handover(monkeypatch, cloud, said)
    assert (code == 0) == hand.take_if_free()
    assert expected == said
    assert ("i-new" if code == 0 else "i-other") == cloud.holder


@pytest.mark.parametrize("word", ["attach", "settle"])
def test_the_units_find_the_release_that_the_first_boot_unpacked(word: str) -> None:
    """One before the mount, one after it, and both before the service."""
    unit = (MACHINE / f"llavachat-{word}.service").read_text()
    stub = (MACHINE / "user-data.sh").read_text()
    folder = next(line for line in stub.splitlines() if line.startswith("release="))[8:]
    assert f"PYTHONPATH={folder}/machine " in unit
    assert f"ExecStart=/usr/bin/python3 -m firstboot.wake {word}\n" in unit
    assert {
        "attach": "Before=var-lib-private-llavachat.mount llavachat.service\n",
        "settle": f"RequiresMountsFor={CHATS}\nBefore=llavachat.service\n",
    }[word] in unit
