"""The emulation's mends: moto still needs each, and with each it answers as AWS does."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from emulated import stacks
from emulated.account import Account, run_account
from llavachat_cdk.configuration import GPU_IMAGE_PARAMETER
from moto import mock_aws
from moto.cloudformation.parsing import get_model_map
from moto.cloudformation.responses import CloudFormationResponse

REGION = {"region_name": "us-east-1"}
QUEUE = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}


def change(client: Any, kind: str, template: dict[str, Any], name: str = "change") -> None:
    """Make and execute a change set, as the CDK command line does."""
    client.create_change_set(
        StackName="stack",
        ChangeSetName=name,
        ChangeSetType=kind,
        TemplateBody=json.dumps(template),
    )
    client.execute_change_set(StackName="stack", ChangeSetName=name)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account on a port of this machine."""
    with run_account(0) as account:
        yield account


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

    @pytest.mark.parametrize(
        "kind", ["SecretsManager::Secret", "CloudWatch::Alarm", "S3::BucketPolicy"]
    )
    def test_types_are_missing(self, kind: str) -> None:
        """CloudFormation does not know them."""
        assert f"AWS::{kind}" not in get_model_map()

    def test_a_change_is_not_waited_for(self) -> None:
        """A machine that has to signal counts as made at once."""
        waiting = {
            "Resources": {
                "Queue": {
                    "Type": "AWS::SQS::Queue",
                    "CreationPolicy": {"ResourceSignal": {"Timeout": "PT5M"}},
                }
            }
        }
        with mock_aws():
            client = boto3.client("cloudformation", **REGION)
            change(client, "CREATE", waiting)
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
