"""Where the machine lives and who may reach it: nobody from the internet."""

from aws_cdk import Fn, RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from llavachat_cdk.configuration import Options

PORT = 50051
"""The service's port, as in the client's default address."""


class Network(Construct):
    """A network with one subnet in one zone, or an existing subnet, and the security group.

    Attributes:
        vpc: the network.
        subnets: selects the one subnet that the machine and the chats' volume share a zone with.
        way_out: what must stand before the machine can reach the internet.
        zone: its name; a token unless chosen.
        security_group: lets `allowed_cidrs` call the service, and the machine call out by HTTPS
            and ask `dns_servers`.
    """

    def __init__(self, scope: Construct, id: str, *, options: Options) -> None:
        super().__init__(scope, id)
        self.zone = options.zone or Fn.select(0, Fn.get_azs())
        if options.vpc_id:
            self.vpc, self.subnets = self.use_existing(options)
        else:
            self.vpc, self.subnets = self.build_own(options)
        self.way_out = self.vpc.select_subnets(
            subnets=self.subnets.subnets, subnet_type=self.subnets.subnet_type
        ).internet_connectivity_established
        self.security_group = self.build_security_group(options)

    def use_existing(self, options: Options) -> tuple[ec2.IVpc, ec2.SubnetSelection]:
        """An existing subnet, named by the options; nothing is looked up."""
        vpc = ec2.Vpc.from_vpc_attributes(
            self, "Vpc", vpc_id=options.vpc_id, availability_zones=[options.zone]
        )
        subnet = ec2.Subnet.from_subnet_attributes(
            self, "Subnet", subnet_id=options.subnet_id, availability_zone=options.zone
        )
        return vpc, ec2.SubnetSelection(subnets=[subnet])

    def build_own(self, options: Options) -> tuple[ec2.IVpc, ec2.SubnetSelection]:
        """A /24 with one subnet (two with NAT), S3 without the detour, refused calls logged."""
        nat = options.egress == "nat"
        public = ec2.SubnetConfiguration(
            name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26
        )
        private = ec2.SubnetConfiguration(
            name="Private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=26
        )
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.77.0.0/24"),
            availability_zones=[self.zone],
            nat_gateways=1 if nat else 0,
            subnet_configuration=[public, private] if nat else [public],
            restrict_default_security_group=False,
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        vpc.add_flow_log(
            "Refused",
            traffic_type=ec2.FlowLogTrafficType.REJECT,
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                logs.LogGroup(
                    self,
                    "RefusedLog",
                    retention=logs.RetentionDays.ONE_WEEK,
                    removal_policy=RemovalPolicy.DESTROY,
                )
            ),
        )
        kind = ec2.SubnetType.PRIVATE_WITH_EGRESS if nat else ec2.SubnetType.PUBLIC
        return vpc, ec2.SubnetSelection(subnet_type=kind)

    def build_security_group(self, options: Options) -> ec2.SecurityGroup:
        """In: named private networks, on the service's port. Out: HTTPS, and named DNS servers."""
        group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=self.vpc,
            description="llavachat: internal callers in, HTTPS out",
            allow_all_outbound=False,
        )
        for cidr in options.allowed_cidrs:
            group.add_ingress_rule(
                ec2.Peer.ipv4(cidr), ec2.Port.tcp(PORT), f"gRPC callers in {cidr}"
            )
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "packages, weights and AWS")
        # Security groups let everything through to AWS's own servers, and nothing to others.
        for server in options.dns_servers:
            for port in (ec2.Port.udp(53), ec2.Port.tcp(53)):
                group.add_egress_rule(ec2.Peer.ipv4(f"{server}/32"), port, f"DNS by {server}")
        if "ubuntu" in options.ami_parameter:
            # EC2 takes no apostrophe in these descriptions.
            group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(80), "packages of Ubuntu")
        return group
