"""The machine: its image, role, disks and first boot.

The chats live on a volume of their own, which each machine claims for itself when it boots, from
the machine before it if need be. So a machine may be replaced without losing a chat, which an
attachment made by CloudFormation cannot do: it would attach to the new machine before it
detaches from the old one.
"""

from pathlib import Path

import jsii
from aws_cdk import (
    Acknowledgment,
    Aws,
    CfnResource,
    Duration,
    Stack,
    Tags,
    Validations,
)
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from llavachat_cdk.chats import build_volume
from llavachat_cdk.configuration import Options
from llavachat_cdk.network import PORT, Network
from llavachat_cdk.service import Service
from llavachat_cdk.waivers import waive, waive_wildcards

STUB = Path(__file__).resolve().parent / "machine" / "user-data.sh"

DEPLOYMENT_TAG = "llavachat:deployment"
"""Marks machines; the value is the deployment's name. The machine's rights hang on it."""

GROUPS = "autoScalingGroup:*:autoScalingGroupName/*"


@jsii.implements(ec2.IMachineImage)
class PinnedImage:
    """One image by its id, whatever the region."""

    def __init__(self, image_id: str) -> None:
        self.image_id = image_id

    def get_image(self, scope: Construct) -> ec2.MachineImageConfig:
        """What CDK asks for."""
        return ec2.MachineImageConfig(
            image_id=self.image_id,
            os_type=ec2.OperatingSystemType.LINUX,
            user_data=ec2.UserData.for_linux(),
        )


class Host(Construct):
    """One machine that boots the release and tells CloudFormation how that went.

    Attributes:
        name: the deployment's name.
        role: the machine's rights.
        volume: the chats' volume.
        snapshot: what it was made from, a token; "" for none.
        instance: the machine; None where it is spot capacity.
        group: the group of at most one machine that spot capacity comes in; else None.
        resource: the one of these two as CloudFormation knows it.
        install_log: name of the log group that the first boot writes; the machine makes it, so
            that it outlives a deployment that is rolled back.
        service_log: name of the log group that the service writes; the stack's, see
            `Observability`.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        options: Options,
        network: Network,
        service: Service,
    ) -> None:
        super().__init__(scope, id)
        self.name = name
        self.install_log = f"/llavachat/{name}/install"
        self.service_log = f"/llavachat/{name}/service"
        self.volume, self.snapshot = build_volume(
            self, name=name, options=options, zone=network.zone
        )
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description="What llavachat's machine may do",
        )
        self.policy = iam.Policy(self, "Policy", roles=[self.role])
        self.policy.add_statements(*service.list_statements(), *self.list_statements())
        if options.ebs_key_arn:
            self.policy.add_statements(*self.list_key_statements(options.ebs_key_arn))
        waive_wildcards(self.policy, self.explain_wildcards(service))
        self.image = self.choose_image(options)
        self.user_data = ec2.UserData.for_linux()
        self.instance: ec2.Instance | None = None
        self.group: autoscaling.AutoScalingGroup | None = None
        if options.spot:
            self.group = self.build_group(options, network)
            machine = self.group.node.default_child
        else:
            self.instance = self.build_instance(options, network)
            machine = self.instance.node.default_child
        assert isinstance(machine, CfnResource)
        self.resource = machine
        self.user_data.add_commands(self.write_user_data(options, service, machine.logical_id))
        # The first boot needs its rights and a way out from its first second.
        machine.node.add_dependency(self.policy, network.way_out)
        Tags.of(self).add(DEPLOYMENT_TAG, name)
        Tags.of(self).add("Name", name, priority=300)

    def choose_image(self, options: Options) -> ec2.IMachineImage:
        """The pinned image, or the newest."""
        if options.ami_id:
            return PinnedImage(options.ami_id)
        return ec2.MachineImage.from_ssm_parameter(options.ami_parameter)

    def build_disks(self, options: Options) -> list[ec2.BlockDevice]:
        """The system's volume, encrypted."""
        device = "/dev/sda1" if "ubuntu" in options.ami_parameter else "/dev/xvda"
        disk = ec2.BlockDeviceVolume.ebs(
            options.system_gib,
            encrypted=True,
            volume_type=ec2.EbsDeviceVolumeType.GP3,
            delete_on_termination=True,
        )
        return [ec2.BlockDevice(device_name=device, volume=disk)]

    def build_instance(self, options: Options, network: Network) -> ec2.Instance:
        """A machine that can be stopped and started; replaced when its release changes."""
        instance = ec2.Instance(
            self,
            "Instance",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            availability_zone=network.zone,
            instance_type=ec2.InstanceType(options.instance_type),
            machine_image=self.image,
            block_devices=self.build_disks(options),
            role=self.role,
            security_group=network.security_group,
            user_data=self.user_data,
            user_data_causes_replacement=True,
            require_imdsv2=False,
            http_tokens=ec2.HttpTokens.REQUIRED,
            http_put_response_hop_limit=1,
            instance_initiated_shutdown_behavior=ec2.InstanceInitiatedShutdownBehavior.STOP,
            resource_signal_timeout=Duration.minutes(options.install_minutes),
            propagate_tags_to_volume_on_creation=True,
        )
        if options.zone:
            Validations.of(self).acknowledge(
                Acknowledgment(
                    id="CloudFormation-Validate::W3010", reason="The operator chose the zone."
                )
            )
        waive(
            instance,
            {
                "EC28": "Alarms stand on the agent's own one-minute metrics; EC2's would cost USD "
                "2.10 a month and add nothing.",
                "EC29": "Nothing is lost with the machine: the chats have a volume of their own, "
                "and an update replaces the machine.",
            },
        )
        return instance

    def build_group(self, options: Options, network: Network) -> autoscaling.AutoScalingGroup:
        """At most one spot machine: taken back, it is replaced; gone idle, it is ended."""
        template = ec2.LaunchTemplate(
            self,
            "Template",
            instance_type=ec2.InstanceType(options.instance_type),
            machine_image=self.image,
            block_devices=self.build_disks(options),
            role=self.role,
            security_group=network.security_group,
            user_data=self.user_data,
            http_tokens=ec2.LaunchTemplateHttpTokens.REQUIRED,
            http_put_response_hop_limit=1,
            spot_options=ec2.LaunchTemplateSpotOptions(),
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            launch_template=template,
            # The machine must know the name before the group exists.
            auto_scaling_group_name=self.name,
            min_capacity=0,
            max_capacity=1,
            desired_capacity=1,
            signals=autoscaling.Signals.wait_for_count(
                1, timeout=Duration.minutes(options.install_minutes)
            ),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                min_instances_in_service=0,
                pause_time=Duration.minutes(options.install_minutes),
                wait_on_resource_signals=True,
            ),
        )
        waive(
            group,
            {"AS3": "The group goes to none and back by itself, at every idle stop and start."},
        )
        return group

    def name_arn(self, service: str, resource: str) -> str:
        """The ARN of something in the stack's own account and region."""
        return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"

    def list_log_arns(self, *groups: str) -> list[str]:
        """Log groups and what is in them; calls about a group are told by either."""
        return [
            self.name_arn("logs", f"log-group:{group}{streams}")
            for group in groups
            for streams in ("", ":log-stream:*")
        ]

    def explain_wildcards(self, service: Service) -> dict[str, str]:
        """Why the policy's wildcards are as narrow as they can be."""
        streams = "Streams are named after machines, in a group of this deployment's own."
        return {
            "*": "Session Manager's actions, PutMetricData (held to one namespace) and Describe "
            "calls know no resources.",
            service.weights.arn_for_objects(
                "*"
            ): "Any object, in a bucket of the deployment's own.",
            self.name_arn("ec2", "instance/*"): "Held by a tag to this deployment's machines, "
            "whose ids are not known beforehand.",
            self.name_arn("autoscaling", GROUPS): "Held by a tag to this deployment's group.",
            self.name_arn("logs", f"log-group:{self.install_log}:log-stream:*"): streams,
            self.name_arn("logs", f"log-group:{self.service_log}:log-stream:*"): streams,
        }

    def list_statements(self) -> list[iam.PolicyStatement]:
        """What the machine may do beside serving."""
        tag = f"ResourceTag/{DEPLOYMENT_TAG}"
        return [
            iam.PolicyStatement(
                sid="ReportFirstBoot",
                actions=["cloudformation:SignalResource"],
                resources=[Aws.STACK_ID],
            ),
            iam.PolicyStatement(
                sid="OpenTunnel",
                actions=[
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                resources=["*"],
            ),
            iam.PolicyStatement(
                sid="WriteLogs",
                actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                resources=self.list_log_arns(self.install_log, self.service_log),
            ),
            # Not the service's: the stack makes that one, and an agent that found it gone while
            # the stack is removed would leave one behind that the next stack trips over.
            iam.PolicyStatement(
                sid="MakeInstallLog",
                actions=["logs:CreateLogGroup", "logs:PutRetentionPolicy"],
                resources=self.list_log_arns(self.install_log),
            ),
            iam.PolicyStatement(
                sid="SendMetrics",
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": "LlavaChat"}},
            ),
            iam.PolicyStatement(
                sid="ClaimVolume",
                actions=["ec2:AttachVolume", "ec2:DetachVolume"],
                resources=[self.name_arn("ec2", f"volume/{self.volume.volume_id}")],
            ),
            iam.PolicyStatement(
                sid="ClaimFromMachine",
                actions=[
                    "ec2:AttachVolume",
                    "ec2:DetachVolume",
                    "ec2:StartInstances",
                    "ec2:StopInstances",
                ],
                resources=[self.name_arn("ec2", "instance/*")],
                conditions={"StringEquals": {f"ec2:{tag}": self.name}},
            ),
            iam.PolicyStatement(
                sid="LookAround",
                actions=["ec2:DescribeInstances", "ec2:DescribeVolumes"],
                resources=["*"],
            ),
            # A spot machine cannot be stopped: not by itself, and not by the one that follows it,
            # which need not be a spot machine.
            iam.PolicyStatement(
                sid="GoIdle",
                actions=["autoscaling:SetDesiredCapacity"],
                resources=[self.name_arn("autoscaling", GROUPS)],
                conditions={"StringEquals": {f"autoscaling:{tag}": self.name}},
            ),
        ]

    def list_key_statements(self, key: str) -> list[iam.PolicyStatement]:
        """What EC2 asks of who attaches a volume, or starts a machine, under a key of one's own.

        Source: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
        """
        by_ec2 = {"kms:ViaService": f"ec2.{Aws.REGION}.amazonaws.com"}
        return [
            iam.PolicyStatement(
                sid="UseVolumesKey",
                actions=["kms:Decrypt", "kms:DescribeKey"],
                resources=[key],
                conditions={"StringEquals": by_ec2},
            ),
            iam.PolicyStatement(
                sid="LendVolumesKey",
                actions=["kms:CreateGrant"],
                resources=[key],
                conditions={
                    "StringEquals": by_ec2,
                    "Bool": {"kms:GrantIsForAWSResource": "true"},
                },
            ),
        ]

    def write_user_data(self, options: Options, service: Service, resource: str) -> str:
        """The stub that fetches the release and hands over to it."""
        deployment = {
            "name": self.name,
            "stack": Aws.STACK_NAME,
            "resource": resource,
            "region": Aws.REGION,
            "release": f"s3://{service.release.s3_bucket_name}/{service.release.s3_object_key}",
            "volume": self.volume.volume_id,
            # Of the deployment's beginning: an option that is left out later changes nothing.
            "snapshot": self.snapshot,
            "weights": f"s3://{service.weights.bucket_name}",
            "api_key": service.api_key.secret_arn,
            "certificate": service.certificate.secret_arn,
            "install_log": self.install_log,
            "service_log": self.service_log,
            "retention_days": options.retention_days,
            "install_minutes": options.install_minutes,
            "domain": options.private_name,
            "port": PORT,
            # Nobody there reads these two. This makes another type another machine, which has to
            # be healthy: CloudFormation would stop the one that stands, change its type and ask
            # nobody.
            "instance_type": options.instance_type,
            # And one that went behind CloudFormation's back is made again by another number.
            "generation": options.generation,
            "profile": options.profile,
            "quantization": options.quantization,
            "idle_minutes": options.idle_minutes,
            "stop_command": self.write_stop_command() if options.spot else "",
        }
        text = Stack.of(self).to_json_string(deployment, 1)
        return STUB.read_text().replace("@DEPLOYMENT@", text)

    def write_stop_command(self) -> str:
        """How a spot machine goes idle: it cannot be stopped, so its group ends it."""
        return (
            f"aws autoscaling set-desired-capacity --region {Aws.REGION} "
            f"--auto-scaling-group-name {self.name} --desired-capacity 0"
        )

    @property
    def image_id(self) -> str:
        """The image in use, a token."""
        assert self.instance is not None
        return str(self.instance.instance.image_id)

    @property
    def target(self) -> str:
        """The machine's id, or the command substitution that finds it."""
        if self.instance:
            return self.instance.instance_id
        return (
            f"$(aws ec2 describe-instances --region {Stack.of(self).region} --output text --query "
            "'Reservations[].Instances[].InstanceId' --filters "
            f"Name=tag:{DEPLOYMENT_TAG},Values={self.name} Name=instance-state-name,Values=running)"
        )
