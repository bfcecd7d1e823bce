"""What stands of a deployment, as AWS tells it."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from llavachat.cli.deploy.account import Account
from llavachat.cli.failure import ExitCode, Failure

DEPLOYMENT_TAG = "llavachat:deployment"
"""On machines; the value is the deployment's name."""

_COST = re.compile(r"USD ([\d.]+) an hour while it runs, USD ([\d.]+) a month")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a deployment.

    Args:
        state: EC2's word: pending, running, stopping or stopped.
        started: when it was last started.
    """

    id: str
    type: str
    zone: str
    state: str
    started: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """A stack and its machine.

    Args:
        status: CloudFormation's word.
        machine: None where there is none, as with spot capacity that went idle.
        group: the group that spot machines come in; "" for none.
    """

    name: str
    status: str
    created: datetime
    outputs: dict[str, str]
    machine: Machine | None
    group: str

    @property
    def stands(self) -> bool:
        """Whether its last change ended well, or was rolled back to what was well."""
        return self.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")

    @property
    def changes(self) -> bool:
        """Whether CloudFormation is at work on it."""
        return self.status.endswith("_IN_PROGRESS") and not self.has_nothing

    @property
    def has_nothing(self) -> bool:
        """Whether its first change was drawn up, and never begun: nothing ends that by itself."""
        return self.status == "REVIEW_IN_PROGRESS"

    @property
    def lacks_machine(self) -> bool:
        """Whether its machine is gone for good; spare capacity that went idle comes back."""
        return self.machine is None and not self.group

    @property
    def costs(self) -> tuple[float, float]:
        """US dollars an hour while it runs, and a month besides; list prices."""
        found = _COST.search(self.outputs.get("Cost", ""))
        return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def find_deployment(account: Account, name: str) -> Deployment | None:
    """The deployment of that name in the account's region. None: there is none."""
    try:
        (stack,) = account.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"].get("Code") == "ValidationError":
            return None
        raise
    if stack["StackStatus"] == "DELETE_COMPLETE":
        return None
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
    return Deployment(
        name,
        stack["StackStatus"],
        stack["CreationTime"],
        outputs,
        _find_machine(account, name, outputs.get("InstanceId", "")),
        "" if "InstanceId" in outputs else name,
    )


def need_deployment(account: Account, name: str) -> Deployment:
    """The deployment of that name.

    Raises:
        Failure: there is none.
    """
    found = find_deployment(account, name)
    if found is None:
        raise Failure(
            f"Nothing is deployed as {name} in {account.region}; `llavachat up` deploys it, "
            "--name and --region name another.",
            ExitCode.UNAVAILABLE,
        )
    return found


def read_secret(account: Account, deployment: Deployment, part: str) -> str:
    """The value of one of the stack's secrets, ``ApiKey`` or ``Certificate``.

    Raises:
        Failure: the stack has none.
    """
    found = re.search(r"--secret-id (\S+)", deployment.outputs.get(part, ""))
    if not found:
        raise Failure(f"The stack {deployment.name} has no output {part}; deploy it again.")
    answer = account.client("secretsmanager").get_secret_value(SecretId=found[1])
    return str(answer["SecretString"])


def read_certificate(account: Account, deployment: Deployment) -> str:
    """The PEM of the certificate that its first machine made.

    Raises:
        Failure: no machine has made one yet.
    """
    try:
        return str(json.loads(read_secret(account, deployment, "Certificate"))["certificate"])
    except (ValueError, KeyError):
        raise Failure(
            f"No machine of {deployment.name} has made its certificate yet; see `llavachat logs`."
        ) from None


def _find_machine(account: Account, name: str, preferred: str) -> Machine | None:
    filters = [{"Name": f"tag:{DEPLOYMENT_TAG}", "Values": [name]}]
    answer = account.client("ec2").describe_instances(Filters=filters)
    machines = [
        machine
        for reservation in answer["Reservations"]
        for machine in reservation["Instances"]
        if machine["State"]["Name"] not in ("terminated", "shutting-down")
    ]

    def rank(machine: dict[str, Any]) -> tuple[bool, datetime]:
        return machine["InstanceId"] == preferred, machine["LaunchTime"]

    if not machines:
        return None
    best = max(machines, key=rank)
    return Machine(
        best["InstanceId"],
        best["InstanceType"],
        best["Placement"]["AvailabilityZone"],
        best["State"]["Name"],
        best["LaunchTime"],
    )
