"""Every right that the deployment gives, statement by statement."""

from typing import Any

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
            [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
                "logs:PutRetentionPolicy",
            ],
            [
                f"{LOGS}/install",
                f"{LOGS}/install:log-stream:*",
                f"{LOGS}/service",
                f"{LOGS}/service:log-stream:*",
            ],
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
    snapshots = "arn:<AWS::Partition>:ec2:<AWS::Region>::snapshot/*"
    expected = {
        "Take": allow(take, f"{EC2}:volume/*", chats),
        "Store": allow(take, snapshots),
        "Mark": allow(
            "ec2:CreateTags", snapshots, {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}
        ),
        "Expire": allow("ec2:DeleteSnapshot", snapshots, chats),
        "Look": allow(["ec2:DescribeVolumes", "ec2:DescribeSnapshots"], "*"),
    }
    (policy,) = role["Policies"]
    assert expected == read_statements(policy)


def test_a_spot_machine_may_end_itself(synthesise: Any, template: Template) -> None:
    """By its group's size; a machine that can be stopped needs no such right."""
    spot = find_one(synthesise(spot=True), "AWS::IAM::Policy", "ChatHostPolicy")["Properties"]
    expected = allow(
        "autoscaling:SetDesiredCapacity",
        "arn:<AWS::Partition>:autoscaling:<AWS::Region>:<AWS::AccountId>:"
        "autoScalingGroup:*:autoScalingGroupName/*",
        {"StringEquals": {"autoscaling:ResourceTag/llavachat:deployment": "llavachat"}},
    )
    assert expected == read_statements(spot)["GoIdle"]
    plain = find_one(template, "AWS::IAM::Policy", "ChatHostPolicy")["Properties"]
    assert "GoIdle" not in read_statements(plain)
