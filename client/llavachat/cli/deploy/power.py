"""``llavachat stop`` and ``start``: the machine goes and comes, the chats stay."""

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.stack import Deployment, need_deployment
from llavachat.cli.failure import ExitCode, Failure
from llavachat.cli.output import say

_WAIT = {"Delay": 2, "MaxAttempts": 150}
"""Seconds, times: a machine stops in a minute or two, five at the most."""


def stop(account: Account, name: str) -> ExitCode:
    """Stop the machine and wait until it is down.

    Raises:
        Failure: there is no such deployment, or it is being changed.
    """
    deployment = need_deployment(account, name)
    refuse_changing(deployment)
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
    """Start the machine and wait until it runs; its service needs about a minute more.

    Raises:
        Failure: there is no such deployment, or it is being changed.
    """
    deployment = need_deployment(account, name)
    refuse_changing(deployment)
    wake(account, deployment)
    say(f"{name} runs; its service needs about a minute more. `llavachat tunnel` reaches it.")
    return ExitCode.OK


def wake(account: Account, deployment: Deployment) -> None:
    """Bring the machine up, if it is not.

    Raises:
        Failure: it has none.
    """
    machine = deployment.machine
    if deployment.group:
        _scale(account, deployment, 1)
    elif machine is None:
        raise Failure(f"{deployment.name} has no machine; `llavachat up --update` makes one.")
    elif machine.state != "running":
        ec2 = account.client("ec2")
        if machine.state == "stopping":
            ec2.get_waiter("instance_stopped").wait(InstanceIds=[machine.id], WaiterConfig=_WAIT)
        ec2.start_instances(InstanceIds=[machine.id])
        ec2.get_waiter("instance_running").wait(InstanceIds=[machine.id], WaiterConfig=_WAIT)


def refuse_changing(deployment: Deployment) -> None:
    """Keep off what CloudFormation is at work on.

    Raises:
        Failure: it is.
    """
    if deployment.changes:
        raise Failure(
            f"{deployment.name} is being changed ({deployment.status}); try again when it is done."
        )


def _scale(account: Account, deployment: Deployment, capacity: int) -> None:
    account.client("autoscaling").set_desired_capacity(
        AutoScalingGroupName=deployment.group, DesiredCapacity=capacity
    )
