"""What the default template holds, and what each option changes in it."""

import re
import subprocess
from typing import Any

import pytest
from conftest import Synthesise, Template, find, find_one, flatten, read_deployment, read_user_data
from llavachat_cdk.configuration import GPU_IMAGE_PARAMETER

EXISTING = {"vpc_id": "vpc-12345678", "subnet_id": "subnet-12345678", "zone": "eu-central-1b"}


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


def test_a_networks_own_dns_servers_may_be_asked(synthesise: Synthesise) -> None:
    """By UDP, and by TCP where the answer is long; each of them and nobody else."""
    servers = ["10.0.0.2", "10.0.1.2"]
    group = find_one(synthesise(**EXISTING, dns_servers=servers), "AWS::EC2::SecurityGroup")
    assert [
        *[("0.0.0.0/0", "tcp", 443)],
        *[(f"{server}/32", kind, 53) for server in servers for kind in ("udp", "tcp")],
    ] == [
        (rule["CidrIp"], rule["IpProtocol"], rule["FromPort"])
        for rule in group["Properties"]["SecurityGroupEgress"]
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"allowed_cidrs": ["10.1.0.0/16"]},
        {"ami_parameter": GPU_IMAGE_PARAMETER.replace("amazon-linux-2023", "ubuntu-24.04")},
        {**EXISTING, "dns_servers": ["10.0.0.2"]},
    ],
)
def test_ec2_takes_every_description_of_a_rule(
    synthesise: Synthesise, options: dict[str, Any]
) -> None:
    """It refuses letters that other services take, an apostrophe among them.

    Source: EC2, AuthorizeSecurityGroupEgress, "Valid descriptions are ...".
    """
    group = find_one(synthesise(**options), "AWS::EC2::SecurityGroup")["Properties"]
    rules = group["SecurityGroupEgress"] + group.get("SecurityGroupIngress", [])
    texts = [group["GroupDescription"], *(rule["Description"] for rule in rules)]
    allowed = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}")
    assert [] == [text for text in texts if not allowed.fullmatch(text)]


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
    template = synthesise(**EXISTING)
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
    assert "" == deployment["domain"]
    assert {} == find(template, "AWS::Route53::HostedZone")
    assert "Address" not in template["Outputs"]


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


def test_every_call_in_an_output_names_the_region(synthesise: Synthesise) -> None:
    """That of spare capacity's tunnel, which finds the machine by another call, has two."""
    outputs = {
        name: flatten(each["Value"]) for name, each in synthesise(spot=True)["Outputs"].items()
    }
    calls = {name: text.count("aws ") for name, text in outputs.items() if "aws " in text}
    named = {name: outputs[name].count("--region <AWS::Region> ") for name in calls}
    assert 2 == calls["Tunnel"]
    assert calls == named


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


@pytest.mark.parametrize(
    "change", [{"idle_minutes": 9}, {"instance_type": "g6.xlarge"}, {"generation": 1}], ids=str
)
def test_a_new_release_or_option_replaces_the_machine(
    synthesise: Synthesise, change: dict[str, object]
) -> None:
    """Its logical id changes, and so it has to be healthy; the volume's does not."""
    before, after = synthesise(), synthesise(**change)
    assert set(find(before, "AWS::EC2::Instance")) != set(find(after, "AWS::EC2::Instance"))
    assert set(find(before, "AWS::EC2::Volume")) == set(find(after, "AWS::EC2::Volume"))


def test_what_does_not_concern_the_machine_leaves_it_alone(synthesise: Synthesise) -> None:
    """An alarm's address or a budget restarts nobody's chats."""
    before, after = synthesise(), synthesise(alarm_email="me@example.org", budget_usd=7)
    assert find(before, "AWS::EC2::Instance") == find(after, "AWS::EC2::Instance")
