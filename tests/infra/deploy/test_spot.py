"""Spare capacity by `llavachat up` and the like: a group of one, which goes to none and back.

One story, in order, as `test_commands`.
"""

import json

from conftest import Command
from emulated.account import Account
from service import PICTURE

SPOT = ("-o", "profile=shapes", "-o", "quantization=none", "--type", "t3.large", "-o", "spot=true")


def test_up_does_not_wait_where_there_is_no_spare_capacity(
    account: Account, command: Command
) -> None:
    """CloudFormation would, for half an hour; the next zone has a machine, and it answers."""
    account.full_zones = {"us-east-1a"}
    done = command("up", *SPOT, "--zone", "us-east-1a", "--zone", "us-east-1b")
    assert 0 == done.returncode, done.stderr
    assert "no t3.large is free in us-east-1a" in done.stderr
    assert "red circle" in done.stdout
    (machine,) = account.list_running()
    assert "us-east-1b" == machine["Placement"]["AvailabilityZone"]
    seen = json.loads(command("status", "--json").stdout)
    assert ("running", True) == (seen["machine_state"], seen["service"]["healthy"])


def test_an_update_while_idle_starts_a_machine_and_says_so(
    account: Account, command: Command
) -> None:
    """CloudFormation leaves the group empty, and is content with a release that nobody tried."""
    assert 0 == command("stop").returncode
    assert [] == account.list_running()
    done = command("up", "--update", "-o", "budget_usd=7")
    assert 0 == done.returncode, done.stderr
    assert "no machine has tried this release yet" in done.stderr
    assert "red circle" in done.stdout
    assert 1 == len(account.list_running())


def test_stop_ends_the_machine_and_a_new_one_has_the_chats(
    account: Account, command: Command
) -> None:
    """Its first boot is waited for; where there is no capacity, that is said at once."""
    (before,) = account.list_running()
    assert 0 == command("ask", str(PICTURE), "What is this?").returncode
    done = command("stop")
    assert 0 == done.returncode, done.stderr
    assert [] == account.list_running()
    assert 3 == command("status").returncode
    account.full_zones = {"us-east-1b"}
    done = command("start")
    assert 1 == done.returncode
    assert "There is no spare capacity now: Could not launch Spot Instances." in done.stderr
    account.full_zones = set()
    command("stop")
    done = command("up")
    assert 0 == done.returncode, done.stderr
    (after,) = account.list_running()
    assert before["InstanceId"] != after["InstanceId"]
    done = command("ask", "-c", "What about the one on the right?")
    assert 0 == done.returncode, done.stderr
    done = command("down", "--yes")
    assert 0 == done.returncode, done.stderr
    assert [] == account.list_running()
