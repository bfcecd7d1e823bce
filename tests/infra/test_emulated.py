"""The emulation's mends: moto still needs each, and with each it answers as AWS does."""

import json
import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from emulated import stacks
from emulated.account import Account
from llavachat_cdk.configuration import GPU_IMAGE_PARAMETER
from moto import mock_aws
from moto.cloudformation.parsing import get_model_map
from moto.cloudformation.responses import CloudFormationResponse
from moto.ssm.responses import SimpleSystemManagerResponse

REGION = {"region_name": "us-east-1"}
WAITING = {
    "Type": "AWS::SQS::Queue",
    "CreationPolicy": {"ResourceSignal": {"Timeout": "PT5M"}},
}


def change(client: Any, kind: str, template: dict[str, Any], name: str = "change") -> None:
    """Make and execute a change set, as the CDK command line does."""
    client.create_change_set(
        StackName="stack",
        ChangeSetName=name,
        ChangeSetType=kind,
        TemplateBody=json.dumps(template),
    )
    client.execute_change_set(StackName="stack", ChangeSetName=name)


class TestPlainMoto:
    """A release of moto that no longer fails one of these needs its mend no longer."""

    def test_the_machine_image_has_no_parameter(self) -> None:
        """And nobody may put one under /aws."""
        with mock_aws():
            client = boto3.client("ssm", **REGION)
            with pytest.raises(ClientError, match="ParameterNotFound"):
                client.get_parameter(Name=GPU_IMAGE_PARAMETER)
            with pytest.raises(ClientError):
                client.put_parameter(Name="/aws/x", Value="x", Type="String")

    def test_nothing_can_be_signalled(self) -> None:
        """There is no SignalResource."""
        assert not hasattr(CloudFormationResponse, "signal_resource")

    def test_no_session_can_be_started(self) -> None:
        """There is no StartSession."""
        assert not hasattr(SimpleSystemManagerResponse, "start_session")

    def test_ec2_has_no_quotas(self) -> None:
        """Only VPC has."""
        with mock_aws():
            client = boto3.client("service-quotas", **REGION)
            with pytest.raises(client.exceptions.NoSuchResourceException):
                client.get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")

    @pytest.mark.parametrize(
        "kind", ["SecretsManager::Secret", "CloudWatch::Alarm", "S3::BucketPolicy"]
    )
    def test_types_are_missing(self, kind: str) -> None:
        """CloudFormation does not know them."""
        assert f"AWS::{kind}" not in get_model_map()

    def test_a_change_is_not_waited_for(self) -> None:
        """A machine that has to signal counts as made at once."""
        with mock_aws():
            client = boto3.client("cloudformation", **REGION)
            change(client, "CREATE", {"Resources": {"Queue": WAITING}})
            (stack,) = client.describe_stacks(StackName="stack")["Stacks"]
            assert "CREATE_COMPLETE" == stack["StackStatus"]

    def test_an_absent_change_set_has_another_code(self) -> None:
        """The command line waits for ChangeSetNotFound."""
        with mock_aws():
            client = boto3.client("cloudformation", **REGION)
            with pytest.raises(ClientError, match="ValidationError"):
                client.describe_change_set(StackName="stack", ChangeSetName="absent")

    def test_conditions_of_a_bucket_policy_are_overlooked(self) -> None:
        """A demand for TLS refuses everything."""
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": ["arn:aws:s3:::weights", "arn:aws:s3:::weights/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
        with mock_aws():
            client = boto3.client("s3", **REGION)
            client.create_bucket(Bucket="weights")
            client.put_bucket_policy(Bucket="weights", Policy=json.dumps(policy))
            with pytest.raises(ClientError):
                client.put_object(Bucket="weights", Key="k", Body=b"")


def test_resources_are_made_after_what_they_need() -> None:
    """By reference, by attribute, in a text, or by word."""
    resources = {
        "D": {"Type": "X", "Properties": {"Text": {"Fn::Sub": "${C}"}}},
        "C": {"Type": "X", "Properties": {"From": {"Fn::GetAtt": ["B", "Arn"]}}},
        "B": {"Type": "X", "Properties": {"From": [{"Ref": "A"}]}},
        "E": {"Type": "X", "DependsOn": "D"},
        "A": {"Type": "X"},
    }
    assert ["A", "B", "C", "D", "E"] == stacks.order(resources)


def wait_for(account: Account, status: str) -> list[tuple[str, str]]:
    """Wait until the stack has a status; its events, oldest first."""
    stack = account.stacks.get_stack("stack")
    deadline = time.monotonic() + 20
    while stack.status != status:
        assert time.monotonic() < deadline, (stack.status, stacks.describe(stack))
        time.sleep(0.01)  # moto's stack has nothing to wait on
    return [(event.logical_resource_id, event.resource_status) for event in stack.events]


class TestMended:
    """One story, in order: each test goes on where the one before it left off."""

    def test_a_stack_waits_for_its_signal(self, account: Account) -> None:
        """And is complete when it comes."""
        client = account.client("cloudformation")
        change(client, "CREATE", {"Resources": {"Old": WAITING}})
        signal = {"StackName": "stack", "LogicalResourceId": "Old", "UniqueId": "i-1"}
        wait_for(account, "CREATE_IN_PROGRESS")
        client.signal_resource(**signal, Status="SUCCESS")
        events = wait_for(account, "CREATE_COMPLETE")
        assert ("Old", "CREATE_COMPLETE") in events

    def test_an_update_removes_only_when_all_is_made(self, account: Account) -> None:
        """So that a new machine stands before the old one goes."""
        template = {"Resources": {"New": {"Type": "AWS::SQS::Queue"}}}
        change(account.client("cloudformation"), "UPDATE", template, "update")
        events = wait_for(account, "UPDATE_COMPLETE")
        assert events.index(("New", "CREATE_COMPLETE")) < events.index(
            ("Old", "DELETE_IN_PROGRESS")
        )

    def test_a_failure_takes_the_new_away_and_leaves_the_old(self, account: Account) -> None:
        """At once."""
        client = account.client("cloudformation")
        template = {"Resources": {"New": {"Type": "AWS::SQS::Queue"}, "Newer": WAITING}}
        change(client, "UPDATE", template, "failing")
        client.signal_resource(
            StackName="stack", LogicalResourceId="Newer", UniqueId="i-2", Status="FAILURE"
        )
        events = wait_for(account, "UPDATE_ROLLBACK_COMPLETE")
        assert ("Newer", "DELETE_COMPLETE") in events
        assert {"New"} == set(account.stacks.get_stack("stack").standing)

    def test_a_stack_that_is_removed_takes_its_change_sets_along(self, account: Account) -> None:
        """The command line would wait for one of the same name to go."""
        client = account.client("cloudformation")
        assert (
            "EXECUTE_COMPLETE"
            == (
                client.describe_change_set(StackName="stack", ChangeSetName="update")[
                    "ExecutionStatus"
                ]
            )
        )
        stack = account.stacks.get_stack("stack")
        client.delete_stack(StackName="stack")
        deadline = time.monotonic() + 20
        while stack.status != "DELETE_COMPLETE" or stack.stack_id in account.stacks.stacks:
            assert time.monotonic() < deadline, stack.status
            time.sleep(0.01)  # moto's stack has nothing to wait on
        with pytest.raises(ClientError, match="ChangeSetNotFound"):
            client.describe_change_set(StackName="stack", ChangeSetName="update")

    def test_a_full_zone_refuses_machines(self, account: Account) -> None:
        """With EC2's own code."""
        account.full_zones = {"us-east-1c"}
        with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
            account.client("ec2").run_instances(
                ImageId="ami-1",
                MinCount=1,
                MaxCount=1,
                Placement={"AvailabilityZone": "us-east-1c"},
            )

    def test_a_group_that_is_not_there_has_no_tries(self, account: Account) -> None:
        """An error, as other clients of Auto Scaling provide for, and no empty list."""
        with pytest.raises(ClientError, match=r"ValidationError.*name not found"):
            account.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="none")

    def test_everybody_has_the_machine_image(self, account: Account) -> None:
        """As in every account of AWS."""
        parameter = account.client("ssm").get_parameter(Name=GPU_IMAGE_PARAMETER)["Parameter"]
        assert parameter["Value"].startswith("ami-")
