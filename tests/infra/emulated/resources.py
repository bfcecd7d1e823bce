"""Resource types as CloudFormation makes them: by the same calls that a user would make.

Types that moto's own CloudFormation knows well are left to it; here stand those that it does not
know, or makes without what our tests look at. Each is a pair of functions over boto3 clients.
"""

from __future__ import annotations

import base64
import json
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Properties = dict[str, Any]
Clients = Callable[[str], Any]


class CreationFailed(Exception):
    """The service refused; the text is the reason CloudFormation shows."""


@dataclass
class Made:
    """A resource that stands: what Ref and GetAtt give."""

    physical_resource_id: str
    attributes: dict[str, str] = field(default_factory=dict)
    logical_resource_id: str = ""
    cf_resource_type: str = ""

    @property
    def type(self) -> str:
        """The type's name, as moto's own resources call it."""
        return self.cf_resource_type

    def get_cfn_attribute(self, name: str) -> str:
        """What Fn::GetAtt gives."""
        return self.attributes[name]

    @staticmethod
    def is_created() -> bool:
        """Resources are made at once."""
        return True


@dataclass(frozen=True)
class Kind:
    """How one type is made, changed in place and removed.

    A type without `change` is replaced when its properties change.
    """

    make: Callable[[Clients, str, Properties], Made]
    remove: Callable[[Clients, str, Properties], None]
    change: Callable[[Clients, str, Properties], None] | None = None


def list_tags(properties: Properties) -> list[dict[str, str]]:
    """A resource's tags."""
    return list(properties.get("Tags", []))


def make_secret(clients: Clients, name: str, properties: Properties) -> Made:
    """A secret, its text generated."""
    rule = properties["GenerateSecretString"]
    alphabet = string.ascii_letters + string.digits
    text = "".join(secrets.choice(alphabet) for _ in range(rule.get("PasswordLength", 32)))
    if "SecretStringTemplate" in rule:
        whole = json.loads(rule["SecretStringTemplate"]) | {rule["GenerateStringKey"]: text}
        text = json.dumps(whole)
    answer = clients("secretsmanager").create_secret(
        Name=name, SecretString=text, Tags=list_tags(properties)
    )
    return Made(answer["ARN"], {"Id": answer["ARN"]})


def remove_secret(clients: Clients, physical: str, properties: Properties) -> None:
    """At once, as CloudFormation does."""
    clients("secretsmanager").delete_secret(SecretId=physical, ForceDeleteWithoutRecovery=True)


def make_volume(clients: Clients, name: str, properties: Properties) -> Made:
    """A volume with its tags."""
    words = {"AvailabilityZone": properties["AvailabilityZone"]}
    for key in ("Size", "Encrypted", "VolumeType", "SnapshotId"):
        if key in properties:
            words[key] = properties[key]
    tags = [{"ResourceType": "volume", "Tags": list_tags(properties)}]
    answer = clients("ec2").create_volume(TagSpecifications=tags, **words)
    return Made(answer["VolumeId"], {"VolumeId": answer["VolumeId"]})


FIXED = ("AvailabilityZone", "Encrypted", "SnapshotId")


def change_volume(clients: Clients, physical: str, properties: Properties) -> None:
    """A volume grows; what it was made of stays, whatever a template says.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-volume.html
    and the sentence of https://github.com/awsdocs/aws-cloudformation-user-guide/pull/556
    """
    (volume,) = clients("ec2").describe_volumes(VolumeIds=[physical])["Volumes"]
    # moto says "" of a volume that was made from nothing.
    if any((properties.get(key) or "") != (volume.get(key) or "") for key in FIXED):
        raise CreationFailed(
            "Volume properties other than AutoEnableIO, type, size, and IOPS cannot be updated."
        )
    if properties["Size"] != volume["Size"]:
        clients("ec2").modify_volume(VolumeId=physical, Size=properties["Size"])


def remove_volume(clients: Clients, physical: str, properties: Properties) -> None:
    """Refused by EC2 while it is attached."""
    clients("ec2").delete_volume(VolumeId=physical)


def make_instance(clients: Clients, name: str, properties: Properties) -> Made:
    """A machine, with everything that the template says of it."""
    same = (
        *("ImageId", "InstanceType", "SubnetId", "SecurityGroupIds"),
        *("MetadataOptions", "BlockDeviceMappings", "InstanceInitiatedShutdownBehavior"),
    )
    words = {key: properties[key] for key in same if key in properties}
    answer = clients("ec2").run_instances(
        MinCount=1,
        MaxCount=1,
        UserData=base64.b64decode(properties["UserData"]).decode(),
        Placement={"AvailabilityZone": properties["AvailabilityZone"]},
        IamInstanceProfile={"Name": properties["IamInstanceProfile"]},
        TagSpecifications=[{"ResourceType": "instance", "Tags": list_tags(properties)}],
        **words,
    )
    machine = answer["Instances"][0]
    return Made(
        machine["InstanceId"],
        {
            "PrivateIp": machine["PrivateIpAddress"],
            "AvailabilityZone": machine["Placement"]["AvailabilityZone"],
        },
    )


def remove_instance(clients: Clients, physical: str, properties: Properties) -> None:
    """Terminate it."""
    clients("ec2").terminate_instances(InstanceIds=[physical])


def list_permissions(rules: list[Properties]) -> list[Properties]:
    """A template's rules as EC2 takes them."""
    return [
        {
            "IpProtocol": rule["IpProtocol"],
            "FromPort": int(rule["FromPort"]),
            "ToPort": int(rule["ToPort"]),
            "IpRanges": [{"CidrIp": rule["CidrIp"], "Description": rule["Description"]}],
        }
        for rule in rules
    ]


def make_security_group(clients: Clients, name: str, properties: Properties) -> Made:
    """A security group with its own rules alone: moto leaves the one that lets everything out."""
    ec2 = clients("ec2")
    group = ec2.create_security_group(
        GroupName=name,
        Description=properties["GroupDescription"],
        VpcId=properties["VpcId"],
        TagSpecifications=[{"ResourceType": "security-group", "Tags": list_tags(properties)}],
    )["GroupId"]
    (made,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=made["IpPermissionsEgress"])
    if rules := properties.get("SecurityGroupEgress"):
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=list_permissions(rules))
    if rules := properties.get("SecurityGroupIngress"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=list_permissions(rules))
    return Made(group, {"GroupId": group, "VpcId": properties["VpcId"]})


def remove_security_group(clients: Clients, physical: str, properties: Properties) -> None:
    """Refused by EC2 while a machine uses it."""
    clients("ec2").delete_security_group(GroupId=physical)


def put_alarm(clients: Clients, physical: str, properties: Properties) -> None:
    """Make or change an alarm."""
    words = {key: value for key, value in properties.items() if key != "Tags"}
    for metric in words.get("Metrics", []):
        if "Period" in metric.get("MetricStat", {}):
            metric["MetricStat"]["Period"] = int(metric["MetricStat"]["Period"])
    clients("cloudwatch").put_metric_alarm(AlarmName=physical, **words)


def make_alarm(clients: Clients, name: str, properties: Properties) -> Made:
    """An alarm."""
    put_alarm(clients, name, properties)
    (alarm,) = clients("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return Made(name, {"Arn": alarm["AlarmArn"]})


def remove_alarm(clients: Clients, physical: str, properties: Properties) -> None:
    """Remove it."""
    clients("cloudwatch").delete_alarms(AlarmNames=[physical])


def put_bucket_policy(clients: Clients, physical: str, properties: Properties) -> None:
    """Set the bucket's policy."""
    policy = json.dumps(properties["PolicyDocument"])
    clients("s3").put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)


def make_bucket_policy(clients: Clients, name: str, properties: Properties) -> Made:
    """A bucket's policy."""
    put_bucket_policy(clients, name, properties)
    return Made(name)


def remove_bucket_policy(clients: Clients, physical: str, properties: Properties) -> None:
    """Remove it."""
    clients("s3").delete_bucket_policy(Bucket=properties["Bucket"])


def put_topic_policy(clients: Clients, physical: str, properties: Properties) -> None:
    """Set the topics' policy."""
    for topic in properties["Topics"]:
        clients("sns").set_topic_attributes(
            TopicArn=topic,
            AttributeName="Policy",
            AttributeValue=json.dumps(properties["PolicyDocument"]),
        )


def make_topic_policy(clients: Clients, name: str, properties: Properties) -> Made:
    """A topic's policy."""
    put_topic_policy(clients, name, properties)
    return Made(name)


def remove_nothing(clients: Clients, physical: str, properties: Properties) -> None:
    """It goes with what it stands on."""


def put_metric_filter(clients: Clients, physical: str, properties: Properties) -> None:
    """Make or change a metric filter."""
    rename = {
        "MetricName": "metricName",
        "MetricNamespace": "metricNamespace",
        "MetricValue": "metricValue",
        "Unit": "unit",
    }
    clients("logs").put_metric_filter(
        logGroupName=properties["LogGroupName"],
        filterName=physical,
        filterPattern=properties["FilterPattern"],
        metricTransformations=[
            {rename[key]: str(value) for key, value in each.items() if key in rename}
            for each in properties["MetricTransformations"]
        ],
    )


def make_metric_filter(clients: Clients, name: str, properties: Properties) -> Made:
    """A metric filter."""
    put_metric_filter(clients, name, properties)
    return Made(name)


def remove_metric_filter(clients: Clients, physical: str, properties: Properties) -> None:
    """Remove it."""
    clients("logs").delete_metric_filter(
        logGroupName=properties["LogGroupName"], filterName=physical
    )


def make_log_group(clients: Clients, name: str, properties: Properties) -> Made:
    """A log group with its retention; refused if it exists."""
    name = properties.get("LogGroupName", name)
    logs = clients("logs")
    logs.create_log_group(logGroupName=name)
    logs.put_retention_policy(logGroupName=name, retentionInDays=properties["RetentionInDays"])
    (group,) = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return Made(name, {"Arn": group["arn"]})


def remove_log_group(clients: Clients, physical: str, properties: Properties) -> None:
    """Remove it."""
    clients("logs").delete_log_group(logGroupName=physical)


def make_budget(clients: Clients, name: str, properties: Properties) -> Made:
    """A budget; its limit is text in the service's own interface."""
    budget = dict(properties["Budget"]) | {"BudgetName": name}
    limit = budget["BudgetLimit"]
    budget["BudgetLimit"] = {"Amount": str(limit["Amount"]), "Unit": limit["Unit"]}
    clients("budgets").create_budget(
        AccountId=ACCOUNT,
        Budget=budget,
        NotificationsWithSubscribers=properties["NotificationsWithSubscribers"],
    )
    return Made(name)


def remove_budget(clients: Clients, physical: str, properties: Properties) -> None:
    """Remove it."""
    clients("budgets").delete_budget(AccountId=ACCOUNT, BudgetName=physical)


def make_emptying(clients: Clients, name: str, properties: Properties) -> Made:
    """CDK's custom resource that empties a bucket before the bucket is removed."""
    return Made(properties["BucketName"])


def remove_emptying(clients: Clients, physical: str, properties: Properties) -> None:
    """What its function does."""
    s3 = clients("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=physical):
        for each in page.get("Contents", []):
            s3.delete_object(Bucket=physical, Key=each["Key"])


def make_nothing(clients: Clients, name: str, properties: Properties) -> Made:
    """A type that nothing here looks at, and that moto has no service for."""
    return Made(name, {"Arn": f"arn:aws:unemulated:::{name}"})


def remove_route_table(clients: Clients, physical: str) -> None:
    """With its associations, which moto leaves behind."""
    ec2 = clients("ec2")
    (table,) = ec2.describe_route_tables(RouteTableIds=[physical])["RouteTables"]
    for association in table["Associations"]:
        if not association.get("Main"):
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    ec2.delete_route_table(RouteTableId=physical)


ACCOUNT = "123456789012"

REMOVALS: dict[str, Callable[[Clients, str], None]] = {
    "AWS::EC2::RouteTable": remove_route_table,
    "AWS::EC2::FlowLog": lambda clients, physical: clients("ec2").delete_flow_logs(
        FlowLogIds=[physical]
    ),
    "AWS::Route53::HostedZone": lambda clients, physical: clients("route53").delete_hosted_zone(
        Id=physical
    ),
    "AWS::EC2::VPCEndpoint": lambda clients, physical: clients("ec2").delete_vpc_endpoints(
        VpcEndpointIds=[physical]
    ),
}
"""How to remove what moto makes and then forgets to remove."""

KINDS = {
    "AWS::Budgets::Budget": Kind(make_budget, remove_budget),
    "AWS::CloudWatch::Alarm": Kind(make_alarm, remove_alarm, put_alarm),
    "AWS::DLM::LifecyclePolicy": Kind(make_nothing, remove_nothing),
    "AWS::EC2::Instance": Kind(make_instance, remove_instance),
    "AWS::EC2::SecurityGroup": Kind(make_security_group, remove_security_group),
    "AWS::EC2::Volume": Kind(make_volume, remove_volume, change_volume),
    "AWS::Lambda::Function": Kind(make_nothing, remove_nothing),
    "AWS::Logs::LogGroup": Kind(make_log_group, remove_log_group),
    "AWS::Logs::MetricFilter": Kind(make_metric_filter, remove_metric_filter, put_metric_filter),
    "AWS::S3::BucketPolicy": Kind(make_bucket_policy, remove_bucket_policy, put_bucket_policy),
    "AWS::SNS::TopicPolicy": Kind(make_topic_policy, remove_nothing, put_topic_policy),
    "AWS::SecretsManager::Secret": Kind(make_secret, remove_secret),
    "AWS::CDK::Metadata": Kind(make_nothing, remove_nothing),
    "Custom::S3AutoDeleteObjects": Kind(make_emptying, remove_emptying),
}
