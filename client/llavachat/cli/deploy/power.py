"""``llavachat stop`` and ``start``: the machine goes and comes, the chats stay."""

import time
from collections.abc import Collection

from botocore.exceptions import ClientError

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.stack import Deployment, need_deployment
from llavachat.cli.failure import ExitCode, Failure
from llavachat.cli.output import say

_WAIT = {"Delay": 2, "MaxAttempts": 150}
"""Seconds, times: a machine stops in a minute or two, five at the most."""


def stop(account: Account, name: str) -> ExitCode:
    """Stop the machine and wait until it is down.

    Raises:
        Failure: there is no such deployment, it is being changed, or it was never made.
    """
    deployment = _need_made(account, name)
    machine = deployment.machine
    if deployment.group:
        _scale(account, deployment, 0)
        say(f"{name} ends its machine; the chats stay. `llavachat start` brings a new one.")
        return ExitCode.OK
    if machine is None:
        raise Failure(f"{name} has no machine; `llavachat up --update` makes one.")
    if machine.state != "stopped":
        account.client("ec2").stop_instances(InstanceIds=[machine.id])
        account.client("ec2").get_waiter("instance_stopped").wait(
            InstanceIds=[machine.id], WaiterConfig=_WAIT
        )
    monthly = deployment.costs[1]
    say(
        f"{name} is stopped; the chats stay, and USD {monthly:.2f} a month for its disks and the "
        "like. `llavachat start` wakes it."
    )
    return ExitCode.OK


def start(account: Account, name: str) -> ExitCode:
    """Start the machine and wait until it runs; its service needs some minutes more.

    Raises:
        Failure: there is no such deployment, it is being changed, or it was never made.
    """
    deployment = _need_made(account, name)
    wake(account, deployment)
    say(f"{name} runs; its service needs some minutes more. `llavachat tunnel` reaches it.")
    return ExitCode.OK


def wake(account: Account, deployment: Deployment) -> None:
    """Bring the machine up, if it is not.

    Raises:
        Failure: it has none, or there is no spare capacity.
    """
    machine = deployment.machine
    if deployment.group:
        if machine is None or machine.state != "running":
            known = list_refusals(account, deployment.group)
            _scale(account, deployment, 1)
            _await_machine(account, deployment.name, known)
    elif machine is None:
        raise Failure(f"{deployment.name} has no machine; `llavachat up --update` makes one.")
    elif machine.state != "running":
        ec2 = account.client("ec2")
        if machine.state == "stopping":
            ec2.get_waiter("instance_stopped").wait(InstanceIds=[machine.id], WaiterConfig=_WAIT)
        ec2.start_instances(InstanceIds=[machine.id])
        ec2.get_waiter("instance_running").wait(InstanceIds=[machine.id], WaiterConfig=_WAIT)


def _need_made(account: Account, name: str) -> Deployment:
    """A deployment that has, or had, a machine."""
    deployment = need_deployment(account, name)
    refuse_changing(deployment)
    if deployment.has_nothing:
        raise Failure(
            f"{name} was drawn up and never made; `llavachat up` makes it, `llavachat down` "
            "removes it."
        )
    return deployment


def refuse_changing(deployment: Deployment) -> None:
    """Keep off what CloudFormation is at work on.

    Raises:
        Failure: it is.
    """
    if deployment.changes:
        raise Failure(
            f"{deployment.name} is being changed ({deployment.status}); try again when it is done."
        )


def list_refusals(account: Account, group: str) -> dict[str, str]:
    """Why tries to bring a spot machine failed, by the try's id, the newest first.

    A group that is not there, or not yet, has tried nothing.
    """
    try:
        answer = account.client("autoscaling").describe_scaling_activities(
            AutoScalingGroupName=group
        )
    except ClientError as error:
        if error.response["Error"].get("Code") == "ValidationError":
            return {}
        raise
    return {
        activity["ActivityId"]: str(activity.get("StatusMessage", "no reason is given"))
        for activity in answer["Activities"]
        if activity["StatusCode"] == "Failed"
    }


def _await_machine(account: Account, name: str, known: Collection[str]) -> None:
    say("waiting for spare capacity; a new machine's first boot: `llavachat logs --install -f`")
    for _ in range(_WAIT["MaxAttempts"]):
        found = need_deployment(account, name)
        if found.machine is not None and found.machine.state == "running":
            return
        for refusal, reason in list_refusals(account, name).items():
            if refusal not in known:
                raise Failure(f"There is no spare capacity now: {reason}")
        time.sleep(_WAIT["Delay"])
    raise Failure(f"No machine of {name} came; `llavachat status` tells how it is.")


def _scale(account: Account, deployment: Deployment, capacity: int) -> None:
    account.client("autoscaling").set_desired_capacity(
        AutoScalingGroupName=deployment.group, DesiredCapacity=capacity
    )
