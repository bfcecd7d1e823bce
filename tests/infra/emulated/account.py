"""The account itself: a server on a port of this machine, and what tests ask of it."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
from llavachat_cdk.configuration import GPU_IMAGE_PARAMETER
from moto.cloudformation import cloudformation_backends
from moto.server import ThreadedMotoServer
from moto.ssm import ssm_backends
from moto.ssm.models import Parameter

from emulated import mends
from emulated.resources import ACCOUNT
from emulated.stacks import Conductor

REGION = "us-east-1"
IMAGE = "ami-0a1b2c3d4e5f60718"

Launch = Callable[["Account", str], None]


class Account:
    """One account in one region.

    Attributes:
        url: where its services answer.
        on_launch: called with a machine's id, in a thread of its own, when one is started; does
            what the machine would. Left out, nothing happens.
        on_attach: called with a volume and a machine when one is attached to the other.
        on_detach: called with a volume when it is detached.
        holders: machines by the volumes attached to them.
        on_stop: called when a machine is stopped or terminated.
        full_zones: zones that have no capacity.
        full_places: types and zones that have none together.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.url = f"http://localhost:{port}"
        self.server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
        self.on_launch: Launch | None = None
        self.on_stop: Launch | None = None
        self.on_attach: Callable[[Account, str, str], None] | None = None
        self.on_detach: Launch | None = None
        self.holders: dict[str, str] = {}
        self.full_zones: set[str] = set()
        self.full_places: set[tuple[str, str]] = set()
        self.public_snapshots: set[str] = set()
        self.conductors: dict[str, Conductor] = {}

    def client(self, service: str) -> Any:
        """A boto3 client of this account."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this account and no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
        }

    @property
    def stacks(self) -> Any:
        """moto's CloudFormation."""
        return cloudformation_backends[ACCOUNT][REGION]

    def seed(self) -> None:
        """What AWS has for everybody: the machine image's parameter, which nobody may put."""
        # Any call makes the account's backends.
        self.client("ssm").describe_parameters()
        self.set_image(IMAGE)
        # moto's public images come with snapshots under everybody's name.
        snapshots = self.client("ec2").describe_snapshots()["Snapshots"]
        self.public_snapshots = {each["SnapshotId"] for each in snapshots}

    def set_image(self, image: str) -> None:
        """Publish a machine image as the newest."""
        parameters = ssm_backends[ACCOUNT][REGION]._parameters
        parameters[GPU_IMAGE_PARAMETER].clear()
        parameters[GPU_IMAGE_PARAMETER].append(
            Parameter(
                account_id=ACCOUNT,
                name=GPU_IMAGE_PARAMETER,
                value=image,
                parameter_type="String",
                description="",
                allowed_pattern=None,
                keyid=None,
                last_modified_date=datetime.now(tz=UTC),
                version=1,
                data_type="text",
                tier="Standard",
            )
        )

    def conduct(self, stack: Any) -> Conductor:
        """Who changes a stack now."""
        conductor = Conductor(self.stacks, stack, self.client)
        self.conductors[stack.stack_id] = conductor
        return conductor

    def signal(self, stack: str, resource: str, unique: str, status: str) -> None:
        """A machine's word to the stack that waits for it."""
        stack_id = self.stacks.get_stack(stack).stack_id
        self.conductors[stack_id].take_signal(resource, unique, status)

    def launch(self, instance: str) -> None:
        """A machine starts."""
        if self.on_launch:
            threading.Thread(target=self.on_launch, args=(self, instance), daemon=True).start()

    def stop(self, instance: str) -> None:
        """A machine stops."""
        if self.on_stop:
            self.on_stop(self, instance)

    def attach(self, volume: str, instance: str) -> None:
        """A volume appears in a machine."""
        self.holders[volume] = instance
        if self.on_attach:
            self.on_attach(self, volume, instance)

    def detach(self, volume: str) -> None:
        """A volume leaves its machine."""
        self.holders.pop(volume, None)
        if self.on_detach:
            self.on_detach(self, volume)

    def read_user_data(self, instance: str) -> str:
        """A machine's user data, as its metadata service gives it."""
        answer = self.client("ec2").describe_instance_attribute(
            InstanceId=instance, Attribute="userData"
        )
        return base64.b64decode(answer["UserData"]["Value"]).decode()

    def read_deployment(self, instance: str) -> dict[str, Any]:
        """What a machine's user data says of the deployment."""
        text = self.read_user_data(instance)
        return json.loads(text.split("<<'END'\n")[1].split("\nEND\n")[0])  # type: ignore[no-any-return]

    def list_left(self) -> dict[str, list[str]]:
        """What stands besides CDK's own and what every account has, by kind; empty kinds left out.

        Snapshots are told by the volume that they are of.
        """
        ec2, call = self.client("ec2"), self.client
        left = {
            "machines": [machine["InstanceId"] for machine in self.list_running()],
            "volumes": [each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]],
            "snapshots": [
                each["VolumeId"]
                for each in ec2.describe_snapshots()["Snapshots"]
                if each["SnapshotId"] not in self.public_snapshots
            ],
            "networks": [
                each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"] if not each["IsDefault"]
            ],
            "buckets": [
                each["Name"]
                for each in call("s3").list_buckets()["Buckets"]
                if not each["Name"].startswith("cdk-")
            ],
            "secrets": [
                each["Name"] for each in call("secretsmanager").list_secrets()["SecretList"]
            ],
            "alarms": [
                each["AlarmName"] for each in call("cloudwatch").describe_alarms()["MetricAlarms"]
            ],
            "logs": [
                each["logGroupName"] for each in call("logs").describe_log_groups()["logGroups"]
            ],
            "topics": [each["TopicArn"] for each in call("sns").list_topics()["Topics"]],
            "zones": [each["Name"] for each in call("route53").list_hosted_zones()["HostedZones"]],
            "roles": [
                each["RoleName"]
                for each in call("iam").list_roles()["Roles"]
                if not each["RoleName"].startswith(("cdk-", "CDKToolkit", "AWSServiceRole"))
            ],
            "budgets": [
                each["BudgetName"]
                for each in call("budgets").describe_budgets(AccountId=ACCOUNT).get("Budgets", [])
            ],
        }
        return {kind: names for kind, names in left.items() if names}

    def list_running(self) -> list[dict[str, Any]]:
        """Machines that are not terminated."""
        answer = self.client("ec2").describe_instances()
        return [
            machine
            for reservation in answer["Reservations"]
            for machine in reservation["Instances"]
            if machine["State"]["Name"] not in ("terminated", "shutting-down")
        ]


def find_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_account() -> Iterator[Account]:
    """An empty account, its services up."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    account = Account(find_port())
    with mends.mended(account):
        account.server.start()
        try:
            account.seed()
            yield account
        finally:
            account.server.stop()
