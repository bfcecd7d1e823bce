"""AWS Control Tower's proactive controls, asked by CloudFormation Guard, offline.

What a control objects to and we keep stands in `KEPT` with its reason; an entry that no control
objects to any more fails the test as well.
"""

import json
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from cdklabs.cdk_validator_cfnguard import CfnGuardValidator
from llavachat_cdk import LlavaChatStack, Release, read_context

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {"stack_name": "defaults"},
    "spot": {"stack_name": "spot", "spot": True},
}

LOGS = "{0}/Chat/Observability/Log/Resource", "{0}/Chat/Network/RefusedLog/Resource"
MACHINE = ("{0}/Chat/Host/Instance/Resource",)
WEIGHTS = ("{0}/Chat/Service/Weights/Resource",)
HANDLER = ("{0}/Custom::S3AutoDeleteObjectsCustomResourceProvider/Handler",)
SUBNET = ("{0}/Chat/Network/Vpc/PublicSubnet1/Subnet",)
ALL = tuple(VARIANTS)
STOPPABLE = ("defaults",)

KEPT: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "cloudwatch_log_group_retention_period_check": (
        ALL,
        LOGS,
        "How long is the operator's choice: retention_days; refused calls are of use for a week.",
    ),
    "cloudwatch_log_group_encrypted_check": (
        ALL,
        LOGS,
        "CloudWatch encrypts by itself; a key of one's own costs USD 1 a month, and no log holds "
        "a word of a caller.",
    ),
    "subnet_auto_assign_public_ip_disabled_check": (
        ALL,
        SUBNET,
        "The address is the way out, without a gateway at USD 37 a month; nothing may come in.",
    ),
    "ec2_instance_no_public_ip_check": (
        STOPPABLE,
        MACHINE,
        "The same; with egress nat the machine is in a subnet that gives no address.",
    ),
    "ec2_instance_detailed_monitoring_enabled_check": (
        STOPPABLE,
        MACHINE,
        "Alarms stand on the agent's own one-minute metrics.",
    ),
    "ec2_launch_template_monitoring_enabled_check": (
        ("spot",),
        ("{0}/Chat/Host/Template/Resource",),
        "The same.",
    ),
    "autoscaling_multiple_az_check": (
        ("spot",),
        ("{0}/Chat/Host/Group/ASG",),
        "The chats' volume lives in one zone, and so must the machine.",
    ),
    "autoscaling_mixed_instances_policy_multiple_instance_types_check": (
        ("spot",),
        ("{0}/Chat/Host/Group/ASG",),
        "The model's room on the GPU was checked for the type that was asked for.",
    ),
    "lambda_inside_vpc_check": (
        ALL,
        HANDLER,
        "CDK's own: it empties the bucket when the stack goes, by S3's public interface.",
    ),
    "s3_bucket_default_encryption_kms_check": (
        ALL,
        WEIGHTS,
        "Encrypted by S3; the weights are published ones.",
    ),
    "s3_bucket_versioning_enabled_check": (ALL, WEIGHTS, "A mirror: what is lost is fetched."),
    "s3_bucket_logging_enabled_check": (ALL, WEIGHTS, "Who reads published weights is no matter."),
    "s3_event_notifications_enabled_check": (ALL, WEIGHTS, "Nobody waits for a copy of weights."),
    "s3_bucket_object_lock_enabled_check": (ALL, WEIGHTS, "The stack must be able to go."),
}


def read_objections(folder: Path) -> set[tuple[str, str]]:
    """Pairs of rule and construct from the report of a synthesis."""
    report = json.loads((folder / "validation-report.json").read_text())
    return {
        (violation["ruleName"], construct["constructPath"])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    }


def ask(app: aws_cdk.App, folder: Path) -> set[tuple[str, str]]:
    """Synthesise; what the controls object to."""
    aws_cdk.Validations.of(app).add_plugins(CfnGuardValidator())
    with pytest.raises(RuntimeError, match="Acknowledge with"):
        app.synth()
    return read_objections(folder)


def test_the_controls_object_to_nothing_but_what_is_kept_for_a_reason(
    release: Release, tmp_path: Path
) -> None:
    """For a machine that stops and starts, and for spare capacity."""
    app = aws_cdk.App(outdir=str(tmp_path))
    for name, values in VARIANTS.items():
        LlavaChatStack(app, name, options=read_context(values), release=release)
    expected = {
        (rule, path.format(name))
        for rule, (names, paths, _) in KEPT.items()
        for name in names
        for path in paths
    }
    assert expected == ask(app, tmp_path)


def test_a_port_open_to_the_world_is_objected_to(tmp_path: Path) -> None:
    """The controls are really asked."""
    app = aws_cdk.App(outdir=str(tmp_path))
    stack = aws_cdk.Stack(app, "careless")
    group = ec2.SecurityGroup(stack, "Group", vpc=ec2.Vpc(stack, "Vpc"))
    group.add_ingress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(22))
    rules = {rule for rule, path in ask(app, tmp_path) if path == "careless/Group/Resource"}
    assert "vpc_sg_open_only_to_authorized_ports_check" in rules
