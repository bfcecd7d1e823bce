"""Every right that the deployment gives, statement by statement."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cfnlint
import pytest
from conftest import Template, find, find_one, flatten

BUCKET = "ChatServiceWeights9B177997"
LOGS = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/llavachat/llavachat"
EC2 = "arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>"


def read_statements(policy: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A policy's statements by their names."""
    return {
        statement["Sid"]: {
            "actions": statement["Action"],
            "resources": flatten(statement["Resource"]),
            "condition": statement.get("Condition"),
            "effect": statement["Effect"],
        }
        for statement in policy["PolicyDocument"]["Statement"]
    }


def allow(actions: Any, resources: Any, condition: Any = None) -> dict[str, Any]:
    """What a statement should be."""
    return {
        "actions": actions,
        "resources": resources,
        "condition": condition,
        "effect": "Allow",
    }


def test_the_machines_rights(template: Template) -> None:
    """These and no others."""
    policy = find_one(template, "AWS::IAM::Policy", "ChatHostPolicy")["Properties"]
    statements = read_statements(policy)
    release = statements.pop("FetchRelease")
    assert "s3:GetObject" == release["actions"]
    prefix = "arn:<AWS::Partition>:s3:::cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/"
    key = release["resources"].removeprefix(prefix)
    assert (68, ".zip") == (len(key), key[-4:])
    own = {"StringEquals": {"ec2:ResourceTag/llavachat:deployment": "llavachat"}}
    expected = {
        "ListWeights": allow("s3:ListBucket", f"<{BUCKET}.Arn>"),
        "MirrorWeights": allow(
            ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], f"<{BUCKET}.Arn>/*"
        ),
        "ReadKey": allow("secretsmanager:GetSecretValue", "<ChatServiceApiKey214252CE>"),
        "KeepCertificate": allow(
            ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
            "<ChatServiceCertificate6C69CC09>",
        ),
        "ReportFirstBoot": allow("cloudformation:SignalResource", "<AWS::StackId>"),
        "OpenTunnel": allow(
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            "*",
        ),
        "WriteLogs": allow(
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [
                f"{LOGS}/install",
                f"{LOGS}/install:log-stream:*",
                f"{LOGS}/service",
                f"{LOGS}/service:log-stream:*",
            ],
        ),
        "MakeInstallLog": allow(
            ["logs:CreateLogGroup", "logs:PutRetentionPolicy"],
            [f"{LOGS}/install", f"{LOGS}/install:log-stream:*"],
        ),
        "SendMetrics": allow(
            "cloudwatch:PutMetricData",
            "*",
            {"StringEquals": {"cloudwatch:namespace": "LlavaChat"}},
        ),
        "ClaimVolume": allow(
            ["ec2:AttachVolume", "ec2:DetachVolume"], f"{EC2}:volume/<ChatHostChats130BE911>"
        ),
        "ClaimFromMachine": allow(
            [
                "ec2:AttachVolume",
                "ec2:DetachVolume",
                "ec2:StartInstances",
                "ec2:StopInstances",
            ],
            f"{EC2}:instance/*",
            own,
        ),
        "LookAround": allow(["ec2:DescribeInstances", "ec2:DescribeVolumes"], "*"),
        "GoIdle": allow(
            "autoscaling:SetDesiredCapacity",
            "arn:<AWS::Partition>:autoscaling:<AWS::Region>:<AWS::AccountId>:"
            "autoScalingGroup:*:autoScalingGroupName/*",
            {"StringEquals": {"autoscaling:ResourceTag/llavachat:deployment": "llavachat"}},
        ),
    }
    assert expected == statements


def test_the_machines_role_is_for_machines_and_has_no_managed_policy(template: Template) -> None:
    """Rights come from the one policy alone."""
    role = find_one(template, "AWS::IAM::Role", "ChatHostRole")["Properties"]
    assert {"Service": "ec2.amazonaws.com"} == role["AssumeRolePolicyDocument"]["Statement"][0][
        "Principal"
    ]
    assert "ManagedPolicyArns" not in role
    assert "Policies" not in role
    (policy,) = (
        name
        for name, each in find(template, "AWS::IAM::Policy").items()
        if {"Ref": "ChatHostRole42ABBEDB"} in each["Properties"]["Roles"]
    )
    assert policy.startswith("ChatHostPolicy")


def test_the_snapshot_role(template: Template) -> None:
    """It takes snapshots of the chats' volumes and deletes only those."""
    role = find_one(template, "AWS::IAM::Role", "ChatSnapshotsRole")["Properties"]
    chats = {"StringEquals": {"ec2:ResourceTag/llavachat:chats": "llavachat"}}
    take = ["ec2:CreateSnapshot", "ec2:CreateSnapshots"]
    look = ["ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSnapshots"]
    snapshots = "arn:<AWS::Partition>:ec2:<AWS::Region>::snapshot/*"
    expected = {
        "Take": allow(take, f"{EC2}:volume/*", chats),
        "Store": allow(take, snapshots),
        "Mark": allow("ec2:CreateTags", snapshots),
        "Expire": allow("ec2:DeleteSnapshot", snapshots, chats),
        "Look": allow(look, "*"),
    }
    (policy,) = role["Policies"]
    assert expected == read_statements(policy)


def test_rights_are_the_same_with_spare_capacity(
    synthesise: Callable[..., Template], template: Template
) -> None:
    """Either kind of machine may follow the other, and has to end it or be ended by it."""
    plain, spot = (
        read_statements(find_one(each, "AWS::IAM::Policy", "ChatHostPolicy")["Properties"])
        for each in (template, synthesise(spot=True))
    )
    assert "GoIdle" in plain
    assert plain == spot


KEY = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-4000-8000-000000000000"


def test_a_key_of_ones_own_may_be_used_for_volumes_and_nothing_else(
    synthesise: Callable[..., Template], template: Template
) -> None:
    """Through EC2 alone; without the option no right on any key is given."""
    plain, keyed = (
        read_statements(find_one(each, "AWS::IAM::Policy", "ChatHostPolicy")["Properties"])
        for each in (template, synthesise(ebs_key_arn=KEY))
    )
    by_ec2 = {
        "kms:ViaService": {"Fn::Join": ["", ["ec2.", {"Ref": "AWS::Region"}, ".amazonaws.com"]]}
    }
    expected = {
        "UseVolumesKey": allow(["kms:Decrypt", "kms:DescribeKey"], KEY, {"StringEquals": by_ec2}),
        "LendVolumesKey": allow(
            "kms:CreateGrant",
            KEY,
            {"StringEquals": by_ec2, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
    }
    assert plain | expected == keyed


REFERENCE = Path(cfnlint.__file__).parent / "data" / "AdditionalSpecs" / "Policies.json"
"""AWS's service authorization reference as cfn-lint ships it."""


def list_everything_given(template: Template) -> Iterator[dict[str, Any]]:
    """Every statement of every role, inline or attached."""
    for resource in template["Resources"].values():
        kind, properties = resource["Type"], resource.get("Properties", {})
        documents = []
        if kind == "AWS::IAM::Policy":
            documents = [properties["PolicyDocument"]]
        elif kind == "AWS::IAM::Role":
            documents = [each["PolicyDocument"] for each in properties.get("Policies", [])]
        for document in documents:
            yield from document["Statement"]


def as_list(value: Any) -> list[Any]:
    """What a policy writes as one or many."""
    return value if isinstance(value, list) else [value]


def read_kinds(template: Template, resource: Any) -> str:
    """A resource as an ARN whose references are told by what they refer to."""
    if isinstance(resource, dict):
        (reference,) = resource.values()
        name = reference[0] if isinstance(reference, list) else reference
        if name == "AWS::StackId":
            return "arn:p:cloudformation:r:a:stack/x"
        kind = template["Resources"].get(name, {}).get("Type", "")
        if kind == "AWS::SecretsManager::Secret":
            return "arn:p:secretsmanager:r:a:secret:x"
        if kind == "AWS::S3::Bucket":
            return "arn:p:s3:::x"
        if kind == "AWS::Logs::LogGroup":
            return "arn:p:logs:r:a:log-group:x"
    text = re.sub(r"<AWS::\w+>|\$\{AWS::\w+\}", "x", str(flatten(resource)))
    return re.sub(r"^<\w+\.Arn>", "arn:p:s3:::x", text)


def fits(reference: dict[str, Any], action: str, arn: str) -> bool:
    """Whether an action can be given for a resource, by AWS's reference."""
    service, _, name = action.partition(":")
    kinds = reference[service]["Actions"][name.lower()].get("Resources", [])
    known = {key.lower(): each for key, each in reference[service]["Resources"].items()}
    formats = [form for kind in kinds for form in known[kind.lower()]["ARNFormats"]]
    patterns = [re.sub(r"\$\{\w+\}", "[^:]*", form) for form in formats]
    return any(re.fullmatch(pattern, arn) for pattern in patterns)


@pytest.mark.parametrize("options", [{}, {"spot": True}, {"ebs_key_arn": KEY}], ids=str)
def test_every_right_is_one_that_aws_has(
    synthesise: Callable[..., Template], options: dict[str, Any]
) -> None:
    """Each action is known, and applies to a resource that its statement names."""
    reference = json.loads(REFERENCE.read_text())
    template = synthesise(**options)
    statements = list(list_everything_given(template))
    assert len(statements) > 15
    wrong = []
    for statement in statements:
        arns = [read_kinds(template, each) for each in as_list(statement["Resource"])]
        for action in as_list(statement["Action"]):
            service, _, name = action.partition(":")
            if name.lower() not in reference[service]["Actions"]:
                wrong.append(f"{action}: unknown")
            elif "*" not in arns and not any(fits(reference, action, arn) for arn in arns):
                wrong.append(f"{action}: not for {arns}")
    assert [] == wrong
