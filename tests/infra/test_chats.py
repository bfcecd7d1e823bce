"""The chats' volume stays what it is: through upgrades, and whatever options say later."""

import json
import time
from typing import Any

import pytest
from conftest import Synthesise, Template, find, find_one, read_deployment, read_user_data
from emulated.account import Account

SNAPSHOT = "snap-0123456789abcdef0"
PLACED = {"vpc_id": "vpc-12345678", "subnet_id": "subnet-12345678", "zone": "us-east-1b"}


def read_parameter(template: Template, part: str) -> tuple[str, str]:
    """Logical id and default of what the deployment began with."""
    ((name, parameter),) = (
        (name, each) for name, each in template["Parameters"].items() if part in name
    )
    return name, parameter["Default"]


def decide(expression: Any, values: dict[str, str]) -> Any:
    """A condition or a rule's assertion, as CloudFormation decides it."""
    if not isinstance(expression, dict):
        return expression
    ((word, operands),) = expression.items()
    if word == "Ref":
        return values[operands]
    operands = [decide(operand, values) for operand in operands]
    return {
        "Fn::Equals": lambda one, other: one == other,
        "Fn::Not": lambda one: not one,
        "Fn::Or": lambda *each: any(each),
    }[word](*operands)


def list_refusals(template: Template, before: Template | None = None) -> list[str]:
    """What a change is refused with, where CDK's command line keeps parameters that have a value.

    Args:
        before: the template that was deployed last. None: nothing stands.
    """
    values = {}
    for each in (template, before or {"Parameters": {}}):
        values |= {name: slot.get("Default") for name, slot in each["Parameters"].items()}
    return [
        assertion["AssertDescription"]
        for name, rule in template["Rules"].items()
        if name != "CheckBootstrapVersion"
        for assertion in rule["Assertions"]
        if not decide(assertion["Assert"], values)
    ]


def keep_volume(template: Template) -> dict[str, Any]:
    """A template that holds the chats' volume, and what it refers to, alone."""
    return {
        "Parameters": {
            name: each
            for name, each in template["Parameters"].items()
            if name.startswith("ChatHostBegan")
        },
        "Conditions": template.get("Conditions", {}),
        "Resources": find(template, "AWS::EC2::Volume"),
    }


def test_the_machine_knows_what_its_volume_was_made_from(
    synthesise: Synthesise, template: Template
) -> None:
    """What the deployment began with, whatever the option says later: it formats no such volume."""
    for each in (template, synthesise(restore_snapshot_id=SNAPSHOT)):
        name, _ = read_parameter(each, "BeganFromSnapshot")
        assert f"<{name}>" == read_deployment(read_user_data(each))["snapshot"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zone": "us-east-1b"},
        {"restore_snapshot_id": SNAPSHOT},
        {"zone": "us-east-1b", "restore_snapshot_id": SNAPSHOT, "spot": True},
        {"chats_on_delete": "delete"},
        PLACED,
    ],
    ids=str,
)
def test_an_upgrade_finds_its_volume_and_its_network(
    synthesise: Synthesise, options: dict[str, Any]
) -> None:
    """Under the logical ids of old, whatever the options: another id is another, empty volume."""
    template = synthesise(**options)
    assert {"ChatHostChats130BE911"} == set(find(template, "AWS::EC2::Volume"))
    subnets = set() if "vpc_id" in options else {"ChatNetworkVpcPublicSubnet1Subnet438D0ED0"}
    assert subnets == set(find(template, "AWS::EC2::Subnet"))
    volume = find_one(template, "AWS::EC2::Volume")["Properties"]
    zone = options.get("zone", {"Fn::Select": [0, {"Fn::GetAZs": ""}]})
    assert zone == volume["AvailabilityZone"]
    assert [] == list_refusals(template)
    _, snapshot = read_parameter(template, "BeganFromSnapshot")
    assert options.get("restore_snapshot_id", "") == snapshot


@pytest.mark.parametrize(
    ("before", "after", "refusal"),
    [
        (
            {"zone": "us-east-1a"},
            {"zone": "us-east-1b"},
            "zone=us-east-1b is not the one that this",
        ),
        ({"zone": "us-east-1a"}, {}, "zone=none is not the one that this deployment began with"),
        ({}, {"restore_snapshot_id": SNAPSHOT}, "this one stands and has chats of its own"),
        (
            {"restore_snapshot_id": "snap-11111111"},
            {"restore_snapshot_id": SNAPSHOT},
            "this one stands and has chats of its own",
        ),
    ],
    ids=str,
)
def test_what_would_leave_the_chats_behind_is_refused(
    synthesise: Synthesise, before: dict[str, Any], after: dict[str, Any], refusal: str
) -> None:
    """By a rule, before anything is touched, and with a sentence."""
    (said,) = list_refusals(synthesise(**after), synthesise(**before))
    assert refusal in said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"restore_snapshot_id": SNAPSHOT}, {"restore_snapshot_id": SNAPSHOT}),
        ({"restore_snapshot_id": SNAPSHOT}, {}),
        ({"zone": "us-east-1a"}, {"zone": "us-east-1a", "chats_gib": 40}),
        ({}, {"zone": "us-east-1a"}),
    ],
    ids=str,
)
def test_what_keeps_the_chats_is_not_refused(
    synthesise: Synthesise, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """A snapshot need not be named for ever; the zone that was the region's first may be named."""
    assert [] == list_refusals(synthesise(**after), synthesise(**before))


def deploy(account: Account, template: dict[str, Any], *, first: bool = False) -> str:
    """Apply a template as the command line does, keeping parameters; the stack's status then."""
    client = account.client("cloudformation")
    stood = [] if first else client.describe_stacks(StackName="chats")["Stacks"][0]["Parameters"]
    kept = {each["ParameterKey"] for each in stood} & set(template["Parameters"])
    client.create_change_set(
        StackName="chats",
        ChangeSetName="change",
        ChangeSetType="CREATE" if first else "UPDATE",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)],
    )
    client.execute_change_set(StackName="chats", ChangeSetName="change")
    stack = account.stacks.get_stack("chats")
    deadline = time.monotonic() + 20
    while not stack.status.endswith(("_COMPLETE", "_FAILED")):
        assert time.monotonic() < deadline, stack.status
        time.sleep(0.01)  # moto's stack has nothing to wait on
    return str(stack.status)


def find_volume(account: Account, snapshot: str) -> dict[str, Any]:
    """The only volume that was made from a snapshot."""
    filters = [{"Name": "snapshot-id", "Values": [snapshot]}]
    (volume,) = account.client("ec2").describe_volumes(Filters=filters)["Volumes"]
    return volume  # type: ignore[no-any-return]


def test_a_restored_volume_goes_on_without_its_snapshots_name(
    account: Account, synthesise: Synthesise
) -> None:
    """Through an update that leaves it out, and one that lets the volume grow besides."""
    ec2 = account.client("ec2")
    source = ec2.create_volume(AvailabilityZone="us-east-1a", Size=20)["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=source)["SnapshotId"]
    zone = {"zone": "us-east-1a"}
    restored = keep_volume(synthesise(**zone, restore_snapshot_id=snapshot))
    assert "CREATE_COMPLETE" == deploy(account, restored, first=True)
    before = find_volume(account, snapshot)
    for options, size in (({}, 20), ({"chats_gib": 40}, 40)):
        assert "UPDATE_COMPLETE" == deploy(account, keep_volume(synthesise(**zone, **options)))
        after = find_volume(account, snapshot)
        assert (before["VolumeId"], size) == (after["VolumeId"], after["Size"])
