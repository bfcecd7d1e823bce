"""Draws the deployment from its synthesised template: ``draw_architecture.py TEMPLATE PICTURE``.

Where a kind of thing stands on the page is written here; what stands there, what is said of it, and
every arrow come from the template. A resource of a kind that is neither drawn nor known to be mere
plumbing is refused, so that the picture cannot fall behind. The same template gives the same bytes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from page import Box, draw_arrow, draw_page, wrap

WIDTH, HEIGHT = 1000, 580

PLUMBING = {
    "AWS::CDK::Metadata",
    "AWS::EC2::FlowLog",
    "AWS::EC2::InternetGateway",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::MetricFilter",
    "AWS::Route53::RecordSet",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "Custom::S3AutoDeleteObjects",
}
"""Kinds without a box: they are arrows, or parts of a box."""


class Template:
    """What the picture asks of a template."""

    def __init__(self, template: dict[str, Any]) -> None:
        self.template = template
        self.resources: dict[str, dict[str, Any]] = template["Resources"]
        self.drawn: set[str] = set()

    def find(self, kind: str, part: str = "") -> tuple[str, dict[str, Any]]:
        """The logical id and the properties of the only resource of a kind; it counts as drawn."""
        ((name, resource),) = (
            (name, resource)
            for name, resource in self.resources.items()
            if resource["Type"] == f"AWS::{kind}" and part in name
        )
        self.drawn.add(name)
        return name, resource.get("Properties", {})

    def list_all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties by logical id; all count as drawn."""
        found = {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] == f"AWS::{kind}"
        }
        self.drawn |= set(found)
        return found

    def read_rights(self) -> dict[str, str]:
        """The machine's statements: the resources of each, as text, by its name."""
        (policy,) = (
            resource["Properties"]
            for name, resource in self.resources.items()
            if resource["Type"] == "AWS::IAM::Policy" and "HostPolicy" in name
        )
        statements = policy["PolicyDocument"]["Statement"]
        return {each["Sid"]: json.dumps(each["Resource"]) for each in statements}

    def check_complete(self) -> None:
        """Refuse a resource that nobody drew.

        Raises:
            ValueError: naming it.
        """
        for name, resource in self.resources.items():
            if name not in self.drawn and resource["Type"] not in PLUMBING:
                raise ValueError(
                    f"{name} ({resource['Type']}) is in the template and not in the picture: draw "
                    "it in scripts/draw_architecture.py, or list its type under PLUMBING"
                )


def describe_rules(group: dict[str, Any]) -> tuple[str, str]:
    """What a security group lets in and out."""
    inward = [
        f"{rule['FromPort']} from {rule['CidrIp']}"
        for rule in group.get("SecurityGroupIngress", [])
    ]
    outward = [f"{rule['FromPort']}" for rule in group["SecurityGroupEgress"]]
    return "in: " + (", ".join(inward) or "nothing"), "out: " + ", ".join(outward)


def draw(template: dict[str, Any]) -> str:
    """The picture of one deployment on a machine in a network of its own.

    Args:
        template: CloudFormation's, as CDK writes it for the default options.

    Raises:
        ValueError: it holds something that the picture does not show.
    """
    it = Template(template)
    vpc = it.find("EC2::VPC")[1]
    subnet = it.find("EC2::Subnet")[1]
    group = it.find("EC2::SecurityGroup")[1]
    machine, instance = it.find("EC2::Instance")
    volume, chats = it.find("EC2::Volume")
    zone = it.find("Route53::HostedZone")[1]
    key, _ = it.find("SecretsManager::Secret", "ApiKey")
    certificate, _ = it.find("SecretsManager::Secret", "Certificate")
    weights, _ = it.find("S3::Bucket")
    topic, _ = it.find("SNS::Topic")
    log = it.find("Logs::LogGroup", "Observability")[1]
    it.find("Logs::LogGroup", "Refused")
    schedule = it.find("DLM::LifecyclePolicy")[1]["PolicyDetails"]["Schedules"][0]
    budget = it.find("Budgets::Budget")[1]
    alarms = it.list_all("CloudWatch::Alarm")
    it.find("CloudWatch::Dashboard")
    it.check_complete()
    rights = it.read_rights()
    disk = instance["BlockDeviceMappings"][0]["Ebs"]
    image = "latest Deep Learning image" if "Ref" in instance["ImageId"] else instance["ImageId"]
    token = "IMDSv2 only" if instance["MetadataOptions"]["HttpTokens"] == "required" else "IMDSv1"
    coming, going = describe_rules(group)
    minutes = it.resources[machine]["CreationPolicy"]["ResourceSignal"]["Timeout"][2:-1]
    names = [name.removeprefix("ChatObservability")[:-8] for name in alarms]
    secure = "encrypted" if disk["Encrypted"] and chats["Encrypted"] else ""
    limit = budget["Budget"]["BudgetLimit"]

    ways = "your way in" if "SecurityGroupIngress" in group else "the only way in"
    daily, kept = schedule["CreateRule"]["Times"][0], schedule["RetainRule"]["Count"]
    retention, money = log["RetentionInDays"], f"{limit['Amount']} {limit['Unit']}"
    shell = ("Subnet " + subnet["CidrBlock"], f"security group - {coming}; {going}")
    network = (f"VPC {vpc['CidrBlock']}", "S3 by a gateway; refused calls are logged")
    host = (
        instance["InstanceType"],
        f"{image}; {token}",
        "first boot: claim chats, install, ask",
        "llavachat.service, gRPC over TLS",
        "stops itself when idle",
    )
    watching = (f"CloudWatch: {len(alarms)} alarms, dashboard", *wrap(names, 40))
    boxes = [
        Box(20, 20, 170, ("Your terminal", "tunnel, chat, stop, start")),
        Box(20, 130, 170, ("Session Manager", ways)),
        Box(20, 300, 170, ("Private DNS", zone["Name"].rstrip("."), "for callers let in")),
        Box(20, 450, 170, ("CloudFormation", "done when SERVING,", f"failed after {minutes} min")),
        Box(230, 20, 380, network, "zone", height=410),
        Box(250, 75, 340, shell, "subnet", height=340),
        Box(275, 135, 290, host, "machine", height=128),
        Box(275, 325, 137, ("Chats", f"{chats['Size']} GiB {secure}", "outlives machines")),
        Box(428, 325, 137, ("System", f"{disk['VolumeSize']} GiB {secure}", "goes with it")),
        Box(275, 470, 290, ("Snapshots", f"daily at {daily} UTC, {kept} kept")),
        Box(690, 20, 290, ("S3", "release (CDK's bucket); mirror of weights")),
        Box(690, 100, 290, ("Secrets Manager", "API key; TLS certificate and key")),
        Box(690, 180, 290, ("CloudWatch Logs", f"first boot; service, {retention} days")),
        Box(690, 270, 290, watching),
        Box(690, 410, 290, ("SNS topic", "e-mail to whom alarm_email names")),
        Box(690, 500, 290, ("Budget", f"{money} a month, warns at 80 %")),
    ]
    arrows = [
        draw_arrow((105, 80), (105, 130)),
        draw_arrow((497, 263), (497, 325)),
        draw_arrow((343, 402), (343, 470)),
    ]
    if "OpenTunnel" in rights:
        arrows.append(draw_arrow((190, 160), (275, 160)))
    if machine in json.dumps(it.list_all("Route53::RecordSet")):
        arrows.append(draw_arrow((190, 335), (262, 335), (262, 215), (275, 215)))
    if "AWS::StackId" in rights.get("ReportFirstBoot", ""):
        way: tuple[tuple[int, int], ...]
        way = (300, 263), (300, 290), (210, 290), (210, 488), (190, 488)
        arrows.append(draw_arrow(*way, label="signal", at=(216, 484)))
    if volume in rights.get("ClaimVolume", ""):
        arrows.append(draw_arrow((343, 263), (343, 325), label="claims", at=(350, 300)))
    if weights in rights.get("MirrorWeights", "") and "FetchRelease" in rights:
        way = (565, 155), (630, 155), (630, 50), (690, 50)
        arrows.append(draw_arrow(*way, label="fetch, mirror", at=(614, 44)))
    if key in rights.get("ReadKey", "") and certificate in rights.get("KeepCertificate", ""):
        way = (565, 180), (650, 180), (650, 130), (690, 130)
        arrows.append(draw_arrow(*way, label="read", at=(656, 124)))
    if "WriteLogs" in rights:
        arrows.append(draw_arrow((565, 210), (690, 210), label="write", at=(656, 204)))
    if "SendMetrics" in rights:
        way = (565, 240), (650, 240), (650, 302), (690, 302)
        arrows.append(draw_arrow(*way, label="send", at=(656, 296)))
    if all(topic in json.dumps(alarm["AlarmActions"]) for alarm in alarms.values()):
        arrows.append(draw_arrow((835, 347), (835, 410), label="all of them", at=(842, 384)))
    if topic in json.dumps(budget["NotificationsWithSubscribers"]):
        arrows.append(draw_arrow((835, 500), (835, 470)))
    label = "What llavachat's stack consists of, and who talks to whom"
    return draw_page(WIDTH, HEIGHT, label, [*(box.draw() for box in boxes), *arrows])


def main() -> None:
    """Read the template, write the picture."""
    template, picture = Path(sys.argv[1]), Path(sys.argv[2])
    picture.write_text(draw(json.loads(template.read_text())))


if __name__ == "__main__":
    main()
