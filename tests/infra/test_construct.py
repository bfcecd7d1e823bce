"""`LlavaChat` in others' stacks."""

import json
from pathlib import Path

import aws_cdk
from cdk_nag import AwsSolutionsChecks
from llavachat_cdk import LlavaChat, Options, Release


def test_two_services_in_one_stack_of_others(release: Release, tmp_path: Path) -> None:
    """Side by side, each with its own name, machine and rights, and AwsSolutions content."""
    app = aws_cdk.App(outdir=str(tmp_path))
    stack = aws_cdk.Stack(app, "Theirs")
    small = LlavaChat(
        stack, "Small", options=Options(profile="shapes", instance_type="t3.large"), release=release
    )
    large = LlavaChat(
        stack,
        "Large",
        options=Options(profile="llava-1.5-13b", domain="large.internal"),
        release=release,
        name="pictures",
    )
    aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
    assert ("Theirs-Small", "pictures") == (small.name, large.name)
    resources = json.loads((tmp_path / "Theirs.template.json").read_text())["Resources"]
    types = [
        resource["Properties"]["InstanceType"]
        for resource in resources.values()
        if resource["Type"] == "AWS::EC2::Instance"
    ]
    assert {"t3.large", "g5.xlarge"} == set(types)


def test_a_caller_may_be_let_in_and_an_alarm_be_used(release: Release, tmp_path: Path) -> None:
    """The parts are attributes, to be wired up."""
    app = aws_cdk.App(outdir=str(tmp_path))
    stack = aws_cdk.Stack(app, "Theirs")
    chat = LlavaChat(stack, "Chat", release=release)
    reader = aws_cdk.aws_iam.Role(
        stack, "Caller", assumed_by=aws_cdk.aws_iam.ServicePrincipal("lambda.amazonaws.com")
    )
    chat.service.api_key.grant_read(reader)
    group = aws_cdk.aws_ec2.SecurityGroup(stack, "Callers", vpc=chat.network.vpc)
    chat.network.security_group.add_ingress_rule(group, aws_cdk.aws_ec2.Port.tcp(50051))
    assert "Unhealthy" in chat.observability.alarms
    app.synth()
    resources = json.loads((tmp_path / "Theirs.template.json").read_text())["Resources"]
    rules = [each for each in resources.values() if "SecurityGroupIngress" in each["Type"]]
    assert [50051] == [rule["Properties"]["FromPort"] for rule in rules]
