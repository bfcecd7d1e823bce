"""``llavachat down``: everything that was deployed goes, after a question."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.credentials import forget_profile
from llavachat.cli.deploy.power import refuse_changing
from llavachat.cli.deploy.stack import Deployment, need_deployment
from llavachat.cli.deploy.tunnel import forget
from llavachat.cli.failure import ExitCode, Failure, wrong_use
from llavachat.cli.output import say

CHATS_TAG = "llavachat:chats"
"""On the chats' volumes and their daily snapshots; the value is the deployment's name."""

_WAIT = {"Delay": 3, "MaxAttempts": 600}
_BEGINNINGS = tuple(f"{act}_IN_PROGRESS" for act in ("REVIEW", "CREATE", "UPDATE", "DELETE"))
"""What a stack is in when a change of it begins. Those of a rollback belong to the same change."""


def down(account: Account, name: str, *, yes: bool) -> ExitCode:
    """Say what will be lost, ask, delete the stack and wait.

    Raises:
        Failure: there is no such deployment, nobody can be asked, or it does not go.
    """
    deployment = need_deployment(account, name)
    refuse_changing(deployment)
    if deployment.has_nothing:
        say(f"{name} was drawn up in {account.region} and never made; there is nothing to lose.")
    else:
        say(describe_loss(account, deployment))
    if not yes:
        if not sys.stdin.isatty():
            raise wrong_use("Nobody can be asked here; give --yes to remove it all the same.")
        sys.stderr.write(f"Type {name} to remove it: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != name:
            say("Nothing was removed.")
            return ExitCode.FAILED
    volumes = list_volumes(account, name)
    delete_stack(account, name)
    forget(name)
    forget_profile(name, account.region)
    say(f"{name} is removed.")
    say(describe_snapshots(account.region, name, volumes))
    return ExitCode.OK


def list_volumes(account: Account, name: str) -> list[str]:
    """Ids of the volumes that hold a deployment's chats."""
    filters = [{"Name": f"tag:{CHATS_TAG}", "Values": [name]}]
    answer = account.client("ec2").describe_volumes(Filters=filters)
    return [str(volume["VolumeId"]) for volume in answer["Volumes"]]


def describe_snapshots(region: str, name: str, volumes: Sequence[str]) -> str:
    """How to find and remove the snapshots of chats: nothing else removes them.

    Daily ones have the chats' tag; the last one, taken by CloudFormation, is known by its volume.
    """
    kept = [f"VolumeId=='{volume}'" for volume in volumes]
    kept.append(f"Tags[?Key=='{CHATS_TAG}' && Value=='{name}']")
    return (
        "What snapshots there are of its chats stay, and cost, until you remove them. To list them "
        "(the newest last) and to remove one:\n"
        f"aws ec2 describe-snapshots --region {region} --owner-ids self --output text --query "
        f'"sort_by(Snapshots[?{" || ".join(kept)}], &StartTime)'
        '[].[SnapshotId, StartTime, VolumeSize, Description]"\n'
        f"aws ec2 delete-snapshot --region {region} --snapshot-id snap-..."
    )


def delete_stack(account: Account, name: str) -> None:
    """Remove a stack and wait until it is gone.

    Raises:
        Failure: it does not go.
    """
    stacks = account.client("cloudformation")
    stacks.delete_stack(StackName=name)
    try:
        stacks.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig=_WAIT)
    except WaiterError:
        reason = find_reason(account, name) or "CloudFormation gives no reason."
        raise Failure(
            f"{name} could not be removed whole: {reason} Mend that and run `llavachat down` again."
        ) from None


def describe_loss(account: Account, deployment: Deployment) -> str:
    """What goes and what stays."""
    name = deployment.name
    stays = (
        "daily snapshots stay, and expire no more. What is left of the chats, and how to begin "
        "from it, is in docs/deploy.md"
    )
    policy = read_deletion_policy(account, name)
    chats = {
        "Snapshot": "a last snapshot of the chats is kept (about USD 0.05 a month for each GiB); ",
        # What CDK makes of `retain`.
        "RetainExceptOnCreate": "the chats' volume is kept, and costs on; ",
        "Delete": "ALL CHATS ARE LOST, but for daily snapshots; ",
    }
    return (
        f"Removes {name} in {account.region}: the machine, its network, key, certificate, alarms "
        f"and the mirror of the weights. Of the chats: {chats.get(policy, '')}{stays}."
    )


def read_deletion_policy(account: Account, name: str) -> str:
    """What the template says becomes of the chats' volume; "" where it has none."""
    answer = account.client("cloudformation").get_template(StackName=name)
    body = answer["TemplateBody"]
    resources = body.get("Resources", {}) if isinstance(body, dict) else {}
    for resource in resources.values():
        if resource["Type"] == "AWS::EC2::Volume":
            return str(resource.get("DeletionPolicy", "Delete"))
    return ""


def find_reason(account: Account, name: str, *, after: str = "") -> str:
    """What failed first in the newest change of a stack; "" where CloudFormation tells of nothing.

    Args:
        after: id of the newest event before that change, see `find_newest_event`.
    """
    reason = ""
    for event in _list_events(account, name):
        if event["EventId"] == after:
            break
        told = event.get("ResourceStatusReason", "")
        if told and event["ResourceStatus"].endswith("_FAILED"):
            # They come newest first, and the rest was cancelled for what failed first.
            reason = f"{event['LogicalResourceId']}: {told}"
        own = event.get("PhysicalResourceId") == event["StackId"]
        if own and event["ResourceStatus"] in _BEGINNINGS:
            break
    return reason


def find_newest_event(account: Account, name: str) -> str:
    """Id of the newest event of a stack; "" where there is no such stack."""
    try:
        newest = next(_list_events(account, name), None)
    except ClientError as error:
        if error.response["Error"].get("Code") == "ValidationError":
            return ""
        raise
    return str(newest["EventId"]) if newest else ""


def _list_events(account: Account, name: str) -> Iterator[dict[str, Any]]:
    """The newest first. A page has 100, and a rollback alone may tell more than that."""
    pages = account.client("cloudformation").get_paginator("describe_stack_events")
    for page in pages.paginate(StackName=name):
        yield from page["StackEvents"]
