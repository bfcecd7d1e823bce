"""What the default template holds, and what each option changes in it."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import aws_cdk
import pytest
from aws_cdk.assertions import Template as Assertions
from conftest import Template, find, find_one, flatten, read_user_data
from llavachat_cdk.configuration import GPU_IMAGE_PARAMETER, RETENTION_DAYS
from llavachat_cdk.observability import RETENTIONS

Synthesise = Callable[..., Template]


def test_nothing_comes_in_by_default(template: Template) -> None:
    """No inbound rule at all: the tunnel needs none."""
    group = find_one(template, "AWS::EC2::SecurityGroup")["Properties"]
    assert "SecurityGroupIngress" not in group
    assert {} == find(template, "AWS::EC2::SecurityGroupIngress")


def test_only_https_goes_out(template: Template) -> None:
    """Packages, weights and AWS's own endpoints are all HTTPS."""
    group = find_one(template, "AWS::EC2::SecurityGroup")["Properties"]
    expected = [("0.0.0.0/0", "tcp", 443, 443)]
    assert expected == [
        (rule["CidrIp"], rule["IpProtocol"], rule["FromPort"], rule["ToPort"])
        for rule in group["SecurityGroupEgress"]
    ]


def test_named_networks_may_call_the_service_port(synthesise: Synthesise) -> None:
    """And no other port."""
    group = find_one(
        synthesise(allowed_cidrs=["10.1.0.0/16", "192.168.7.0/24"]), "AWS::EC2::SecurityGroup"
    )["Properties"]
    expected = [("10.1.0.0/16", 50051, 50051), ("192.168.7.0/24", 50051, 50051)]
    assert expected == [
        (rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupIngress"]
    ]


def test_the_machine(template: Template) -> None:
    """A g5.xlarge that demands IMDSv2, no container may reach it, and a shutdown only stops."""
    machine = find_one(template, "AWS::EC2::Instance")["Properties"]
    assert "g5.xlarge" == machine["InstanceType"]
    assert {"HttpTokens": "required", "HttpPutResponseHopLimit": 1} == machine["MetadataOptions"]
    assert "stop" == machine["InstanceInitiatedShutdownBehavior"]
    assert "KeyName" not in machine
    assert [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "DeleteOnTermination": True,
                "Encrypted": True,
                "VolumeSize": 100,
                "VolumeType": "gp3",
            },
        }
    ] == machine["BlockDeviceMappings"]


def test_the_deployment_waits_for_the_machines_word(template: Template) -> None:
    """One signal from the first boot, or failure."""
    machine = find_one(template, "AWS::EC2::Instance")
    assert {"ResourceSignal": {"Timeout": "PT30M"}} == machine["CreationPolicy"]


def test_the_machine_boots_with_its_rights_and_its_way_out(template: Template) -> None:
    """Neither may be missing in the first boot's first second."""
    needed = {"AWS::IAM::Policy", "AWS::EC2::Route"}
    machine = find_one(template, "AWS::EC2::Instance")
    kinds = {template["Resources"][name]["Type"] for name in machine["DependsOn"]}
    assert needed <= kinds


def test_the_newest_image_or_the_pinned_one(synthesise: Synthesise) -> None:
    """A pin leaves nothing to be looked up at deployment."""
    newest, pinned = synthesise(), synthesise(ami_id="ami-0123456789abcdef0")
    name = flatten(find_one(newest, "AWS::EC2::Instance")["Properties"]["ImageId"]).strip("<>")
    assert GPU_IMAGE_PARAMETER == newest["Parameters"][name]["Default"]
    image = find_one(pinned, "AWS::EC2::Instance")["Properties"]["ImageId"]
    assert "ami-0123456789abcdef0" == image
    assert not [key for key in pinned["Parameters"] if "SsmParameterValueawsservice" in key]


def test_chats_live_on_a_volume_of_their_own(template: Template) -> None:
    """Encrypted, in the machine's zone, kept as a snapshot; nothing ties it to one machine."""
    volume = find_one(template, "AWS::EC2::Volume")
    machine = find_one(template, "AWS::EC2::Instance")["Properties"]
    subnet = find_one(template, "AWS::EC2::Subnet")["Properties"]
    assert (True, 20, "gp3") == tuple(
        volume["Properties"][key] for key in ("Encrypted", "Size", "VolumeType")
    )
    zones = [flatten(each["AvailabilityZone"]) for each in (volume["Properties"], machine, subnet)]
    assert zones[0] == zones[1] == zones[2]
    assert ("Snapshot", "Snapshot") == (volume["DeletionPolicy"], volume["UpdateReplacePolicy"])
    assert {} == find(template, "AWS::EC2::VolumeAttachment")


@pytest.mark.parametrize(
    ("choice", "policy"),
    [("snapshot", "Snapshot"), ("retain", "RetainExceptOnCreate"), ("delete", "Delete")],
)
def test_what_becomes_of_the_chats(synthesise: Synthesise, choice: str, policy: str) -> None:
    """Whoever deletes the stack has decided before."""
    volume = find_one(synthesise(chats_on_delete=choice), "AWS::EC2::Volume")
    assert policy == volume["DeletionPolicy"]


def test_chats_begin_from_a_snapshot(synthesise: Synthesise) -> None:
    """An earlier deployment's chats come back."""
    volume = find_one(synthesise(restore_snapshot_id="snap-0123456789abcdef0"), "AWS::EC2::Volume")
    assert "snap-0123456789abcdef0" == volume["Properties"]["SnapshotId"]


def test_daily_snapshots(synthesise: Synthesise, template: Template) -> None:
    """Of the volumes with this deployment's tag; none if none are kept."""
    policy = find_one(template, "AWS::DLM::LifecyclePolicy")["Properties"]["PolicyDetails"]
    assert [{"Key": "llavachat:chats", "Value": "llavachat"}] == policy["TargetTags"]
    assert 7 == policy["Schedules"][0]["RetainRule"]["Count"]
    volume = find_one(template, "AWS::EC2::Volume")["Properties"]
    assert {"Key": "llavachat:chats", "Value": "llavachat"} in volume["Tags"]
    assert {} == find(synthesise(snapshots_kept=0), "AWS::DLM::LifecyclePolicy")


def test_the_weights_bucket_is_private(template: Template) -> None:
    """Blocked, encrypted, over TLS only, and emptied with the stack."""
    bucket = find_one(template, "AWS::S3::Bucket")["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert 4 == len(bucket["PublicAccessBlockConfiguration"])
    assert "BucketEncryption" in bucket
    statements = find_one(template, "AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"]
    assert {"Bool": {"aws:SecureTransport": "false"}} in [
        statement.get("Condition") for statement in statements["Statement"]
    ]
    assert 1 == len(find(template, "Custom::S3AutoDeleteObjects"))


def test_no_secret_stands_in_the_template(template: Template) -> None:
    """The key is made by Secrets Manager, the certificate by the machine."""
    key = find_one(template, "AWS::SecretsManager::Secret", "ApiKey")["Properties"]
    certificate = find_one(template, "AWS::SecretsManager::Secret", "Certificate")["Properties"]
    assert {"ExcludePunctuation": True, "PasswordLength": 43} == key["GenerateSecretString"]
    assert "SecretString" not in key
    assert "SecretString" not in certificate


ALARMS = {
    "Unhealthy": ("procstat_lookup_pid_count", "LessThanThreshold", 1),
    "Restarts": ("llavachat/WatchdogRestarts", "GreaterThanOrEqualToThreshold", 1),
    "Failures": ("llavachat/Failures", "GreaterThanOrEqualToThreshold", 1),
    "GpuMemory": ("nvidia_smi_memory_used", "GreaterThanOrEqualToThreshold", 98),
    "Disk": ("disk_used_percent", "GreaterThanOrEqualToThreshold", 85),
    "Latency": ("llavachat/FirstTokenSeconds", "GreaterThanOrEqualToThreshold", 5),
    "Unreachable": ("StatusCheckFailed_Instance", "GreaterThanOrEqualToThreshold", 1),
}
"""Metric, comparison and threshold by the alarm's name."""


def list_metrics(alarm: dict[str, Any]) -> list[str]:
    """Names of the metrics that an alarm watches, by itself or in an expression."""
    watched = [
        each["MetricStat"]["Metric"]
        for each in alarm.get("Metrics", [])
        if "Id" in each and "MetricStat" in each
    ]
    return [each["MetricName"] for each in watched or [alarm]]


@pytest.mark.parametrize("name", ALARMS)
def test_each_alarm_watches_its_own_metric(template: Template, name: str) -> None:
    """Unhealthy, hung, failed, GPU memory, disk, slow, unreachable."""
    alarm = find_one(template, "AWS::CloudWatch::Alarm", f"Observability{name}")["Properties"]
    metric, comparison, threshold = ALARMS[name]
    assert metric in list_metrics(alarm)
    assert (comparison, threshold) == (alarm["ComparisonOperator"], alarm["Threshold"])


def test_lines_that_are_counted_are_those_that_are_written(template: Template) -> None:
    """systemd's words for a hung and a failed service, and the server's own field."""
    patterns = {
        each["Properties"]["FilterPattern"]
        for each in find(template, "AWS::Logs::MetricFilter").values()
    }
    expected = {
        '"llavachat.service: Watchdog timeout"',
        '"llavachat.service: Failed with result"',
        "{ $.first_token_seconds >= 0 }",
    }
    assert expected == patterns


def test_the_dashboard_shows_alarms_gpu_and_log(synthesise: Synthesise, template: Template) -> None:
    """On one page; none if it is not wanted."""
    body = str(flatten(find_one(template, "AWS::CloudWatch::Dashboard")["Properties"]))
    for word in ("Alarms", "First token", "nvidia_smi_utilization_gpu", "Newest log lines"):
        assert word in body
    assert {} == find(synthesise(dashboard=False), "AWS::CloudWatch::Dashboard")


def test_every_alarm_reaches_the_topic_and_none_rings_for_a_stopped_machine(
    template: Template,
) -> None:
    """Idle stop is no incident."""
    alarms = find(template, "AWS::CloudWatch::Alarm")
    topic = f"<{next(iter(find(template, 'AWS::SNS::Topic')))}>"
    assert len(ALARMS) == len(alarms)
    for alarm in alarms.values():
        assert "notBreaching" == alarm["Properties"]["TreatMissingData"]
        assert topic in flatten(alarm["Properties"]["AlarmActions"])


def test_alarms_may_publish_to_the_topic(template: Template) -> None:
    """A policy of our own takes the place of the default that lets them."""
    policy = find_one(template, "AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]
    allowed = {
        str(statement["Principal"]["Service"])
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
    }
    assert {"cloudwatch.amazonaws.com", "budgets.amazonaws.com"} == allowed


def test_an_unreachable_machine_is_rebooted(template: Template) -> None:
    """`recover` is refused for machines with instance store."""
    alarm = find_one(template, "AWS::CloudWatch::Alarm", "Unreachable")["Properties"]
    expected = "arn:<AWS::Partition>:automate:<AWS::Region>:ec2:reboot"
    assert expected in flatten(alarm["AlarmActions"])


def test_the_mail_address_hears_of_alarms(synthesise: Synthesise, template: Template) -> None:
    """By subscription; without an address there is none."""
    subscription = find_one(synthesise(alarm_email="me@example.org"), "AWS::SNS::Subscription")
    assert ("email", "me@example.org") == (
        subscription["Properties"]["Protocol"],
        subscription["Properties"]["Endpoint"],
    )
    assert {} == find(template, "AWS::SNS::Subscription")


def test_logs_are_kept_as_long_as_asked() -> None:
    """CDK's names for the days pair with the days."""
    stack = aws_cdk.Stack()
    for days, name in RETENTIONS.items():
        aws_cdk.aws_logs.LogGroup(stack, f"Days{days}", retention=name)
    groups = Assertions.from_stack(stack).find_resources("AWS::Logs::LogGroup")
    kept = {name: each["Properties"]["RetentionInDays"] for name, each in groups.items()}
    assert set(RETENTION_DAYS) == set(RETENTIONS)
    assert all(name.startswith(f"Days{days}") for name, days in kept.items())


def test_the_chosen_days_reach_both_logs(synthesise: Synthesise) -> None:
    """The service's by the template, the first boot's by the machine that makes it."""
    template = synthesise(retention_days=7)
    group = find_one(template, "AWS::Logs::LogGroup", "ObservabilityLog")["Properties"]
    assert 7 == group["RetentionInDays"]
    assert 7 == read_deployment(read_user_data(template))["retention_days"]


def test_the_install_log_outlives_a_rollback(template: Template) -> None:
    """CloudFormation does not know it, so that it cannot delete it."""
    groups = [
        group["Properties"].get("LogGroupName")
        for group in find(template, "AWS::Logs::LogGroup").values()
    ]
    assert "/llavachat/llavachat/install" not in groups
    assert '"install_log": "/llavachat/llavachat/install"' in read_user_data(template)


def test_budget(synthesise: Synthesise, template: Template) -> None:
    """Warns at 80 % spent and when 100 % is forecast; 0 makes none."""
    budget = find_one(template, "AWS::Budgets::Budget")["Properties"]
    assert {"Amount": 100, "Unit": "USD"} == budget["Budget"]["BudgetLimit"]
    assert [("ACTUAL", 80), ("FORECASTED", 100)] == [
        (warning["Notification"]["NotificationType"], warning["Notification"]["Threshold"])
        for warning in budget["NotificationsWithSubscribers"]
    ]
    assert {} == find(synthesise(budget_usd=0), "AWS::Budgets::Budget")


def test_private_name(synthesise: Synthesise, template: Template) -> None:
    """The machine's private address under the domain; "" makes no zone."""
    record = find_one(template, "AWS::Route53::RecordSet")["Properties"]
    machine = next(iter(find(template, "AWS::EC2::Instance")))
    assert ("A", "llavachat.internal.", [f"<{machine}.PrivateIp>"]) == (
        record["Type"],
        record["Name"],
        flatten(record["ResourceRecords"]),
    )
    assert {} == find(synthesise(domain=""), "AWS::Route53::HostedZone")


def test_its_own_network_is_small(template: Template) -> None:
    """One subnet in 256 addresses, no gateway that costs by the hour, S3 without a detour."""
    assert "10.77.0.0/24" == find_one(template, "AWS::EC2::VPC")["Properties"]["CidrBlock"]
    assert 1 == len(find(template, "AWS::EC2::Subnet"))
    assert {} == find(template, "AWS::EC2::NatGateway")
    endpoint = find_one(template, "AWS::EC2::VPCEndpoint")["Properties"]
    assert "com.amazonaws.<AWS::Region>.s3" == flatten(endpoint["ServiceName"])
    assert "REJECT" == find_one(template, "AWS::EC2::FlowLog")["Properties"]["TrafficType"]


def test_nat_hides_the_machine(synthesise: Synthesise) -> None:
    """In a private subnet behind a gateway."""
    template = synthesise(egress="nat")
    assert 1 == len(find(template, "AWS::EC2::NatGateway"))
    subnet = flatten(find_one(template, "AWS::EC2::Instance")["Properties"]["SubnetId"])
    assert "Private" in subnet


def test_an_existing_network_is_used_as_it_is(synthesise: Synthesise) -> None:
    """Nothing of a network is made, and nothing looked up."""
    template = synthesise(vpc_id="vpc-12345678", subnet_id="subnet-12345678", zone="eu-central-1b")
    for kind in ("VPC", "Subnet", "Route", "InternetGateway", "NatGateway"):
        assert {} == find(template, f"AWS::EC2::{kind}")
    machine = find_one(template, "AWS::EC2::Instance")["Properties"]
    assert ("subnet-12345678", "eu-central-1b") == (
        machine["SubnetId"],
        machine["AvailabilityZone"],
    )
    assert (
        "eu-central-1b" == find_one(template, "AWS::EC2::Volume")["Properties"]["AvailabilityZone"]
    )


def test_spot_comes_in_a_group_of_one(synthesise: Synthesise) -> None:
    """Taken back, it is replaced; an update ends the old one first."""
    template = synthesise(spot=True)
    assert {} == find(template, "AWS::EC2::Instance")
    group = find_one(template, "AWS::AutoScaling::AutoScalingGroup")
    assert ("0", "1", "1") == tuple(
        group["Properties"][key] for key in ("MinSize", "MaxSize", "DesiredCapacity")
    )
    assert {"Count": 1, "Timeout": "PT30M"} == group["CreationPolicy"]["ResourceSignal"]
    data = find_one(template, "AWS::EC2::LaunchTemplate")["Properties"]["LaunchTemplateData"]
    assert "spot" == data["InstanceMarketOptions"]["MarketType"]
    assert "required" == data["MetadataOptions"]["HttpTokens"]
    name = group["Properties"]["AutoScalingGroupName"]
    deployment = read_deployment(str(flatten(data["UserData"]["Fn::Base64"])))
    assert f"--auto-scaling-group-name {name} --desired-capacity 0" in deployment["stop_command"]


def test_everything_carries_the_deployments_tag(template: Template) -> None:
    """So that costs can be told apart, and the machine's rights be held to its own."""
    tag = {"Key": "llavachat", "Value": "llavachat"}
    for kind in ("EC2::Instance", "EC2::Volume", "EC2::VPC", "S3::Bucket", "SNS::Topic"):
        assert tag in find_one(template, f"AWS::{kind}")["Properties"]["Tags"]


def test_outputs_are_commands_to_copy(template: Template) -> None:
    """Each parses as shell, and names a region."""
    outputs = {name: flatten(each["Value"]) for name, each in template["Outputs"].items()}
    commands = {"Tunnel", "ApiKey", "Certificate", "Logs", "InstallLog", "Stop", "Start"}
    assert commands | {"Cost", "InstanceId", "ImageId", "Address"} == set(outputs)
    for name in commands:
        line = outputs[name].replace("<", "").replace(">", "") if name != "Certificate" else "true"
        assert 0 == subprocess.run(["bash", "-n", "-c", line], check=False).returncode
        assert "--region <AWS::Region>" in outputs[name]
    assert "portNumber=50051,localPortNumber=50051" in outputs["Tunnel"]


def read_deployment(data: str) -> dict[str, Any]:
    """The deployment that user data writes down."""
    return json.loads(data.split("<<'END'\n")[1].split("\nEND\n")[0])  # type: ignore[no-any-return]


def test_user_data_is_a_small_script(template: Template) -> None:
    """cloud-init looks for `#!` in the first two bytes; EC2 takes 16 KB."""
    data = read_user_data(template)
    assert data.startswith("#!/bin/bash\n")
    assert len(data.encode()) < 16 * 1024
    assert 0 == subprocess.run(["bash", "-n"], input=data, text=True, check=False).returncode


def test_user_data_knows_the_resource_that_waits_for_it(template: Template) -> None:
    """The logical id carries a hash of the user data; the signal must name the same."""
    (name,) = find(template, "AWS::EC2::Instance")
    assert name == read_deployment(read_user_data(template))["resource"]


def test_user_data_says_what_was_chosen(synthesise: Synthesise) -> None:
    """Options reach the machine."""
    template = synthesise(profile="llava-1.5-13b", quantization="nf4", idle_minutes=7)
    deployment = read_deployment(read_user_data(template))
    expected = ("llava-1.5-13b", "nf4", 7, 50051, "")
    keys = ("profile", "quantization", "idle_minutes", "port", "stop_command")
    assert expected == tuple(deployment[key] for key in keys)


def test_a_new_release_or_option_replaces_the_machine(synthesise: Synthesise) -> None:
    """Its logical id changes; the volume's does not."""
    before, after = synthesise(), synthesise(idle_minutes=9)
    assert set(find(before, "AWS::EC2::Instance")) != set(find(after, "AWS::EC2::Instance"))
    assert set(find(before, "AWS::EC2::Volume")) == set(find(after, "AWS::EC2::Volume"))


def test_what_does_not_concern_the_machine_leaves_it_alone(synthesise: Synthesise) -> None:
    """An alarm's address or a budget restarts nobody's chats."""
    before, after = synthesise(), synthesise(alarm_email="me@example.org", budget_usd=7)
    assert find(before, "AWS::EC2::Instance") == find(after, "AWS::EC2::Instance")
