"""What `llavachat down` says of the snapshots that it leaves."""

import shlex
from datetime import UTC, datetime
from typing import Any, cast

import jmespath
import pytest
from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.down import describe_loss, describe_snapshots
from llavachat.cli.deploy.stack import Deployment


def snapshot(id: str, day: int, volume: str, **tags: str) -> dict[str, Any]:
    """As the AWS command line sees one; one without tags has no list of them."""
    seen: dict[str, Any] = {
        "SnapshotId": id,
        "StartTime": f"2026-11-{day:02}T03:00:00+00:00",
        "VolumeId": volume,
        "VolumeSize": 20,
        "Description": "",
    }
    if tags:
        seen["Tags"] = [{"Key": f"llavachat:{key}", "Value": tags[key]} for key in tags]
    return seen


SNAPSHOTS = [
    snapshot("snap-last", 9, "vol-own"),
    snapshot("snap-daily", 8, "vol-own", chats="llavachat"),
    snapshot("snap-older", 2, "vol-before", chats="llavachat"),
    snapshot("snap-neighbours", 3, "vol-other", chats="pictures"),
    snapshot("snap-others", 4, "vol-elses"),
]


def test_the_command_lists_what_is_left_of_these_chats_and_nothing_else() -> None:
    """The last snapshot, the daily ones, and those of a volume before; oldest first."""
    _, listing, removal = describe_snapshots("us-east-1", "llavachat", ["vol-own"]).splitlines()
    words = shlex.split(listing)
    assert ["aws", "ec2", "describe-snapshots", "--region", "us-east-1"] == words[:5]
    query = words[words.index("--query") + 1]
    found = jmespath.search(query, {"Snapshots": SNAPSHOTS})
    assert ["snap-older", "snap-daily", "snap-last"] == [row[0] for row in found]
    assert removal.startswith("aws ec2 delete-snapshot --region us-east-1 --snapshot-id snap-")


class Stack:
    """An account, and its CloudFormation, that has one template."""

    region = "us-east-1"

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def client(self, service: str) -> Any:
        """CloudFormation."""
        return self

    def get_template(self, **names: str) -> Any:
        """With a volume."""
        volume = {"Type": "AWS::EC2::Volume", "DeletionPolicy": self.policy}
        return {"TemplateBody": {"Resources": {"Chats": volume}}}


@pytest.mark.parametrize(
    ("policy", "chats"),
    [
        ("Snapshot", "a last snapshot of the chats is kept"),
        ("RetainExceptOnCreate", "the chats' volume is kept, and costs on"),
        ("Delete", "ALL CHATS ARE LOST, but for daily snapshots;"),
    ],
)
def test_nobody_is_promised_that_daily_snapshots_expire(policy: str, chats: str) -> None:
    """What would remove them goes with the stack; what becomes of the chats is said before it."""
    now = datetime.now(UTC)
    deployment = Deployment("llavachat", "CREATE_COMPLETE", now, {}, None, "")
    said = describe_loss(cast(Account, Stack(policy)), deployment)
    assert chats in said
    assert "daily snapshots stay, and expire no more" in said
