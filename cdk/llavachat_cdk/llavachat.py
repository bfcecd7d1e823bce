"""`LlavaChat`: the whole service as one construct, for a stack of ours or of others."""

from aws_cdk import Duration, Stack, Tags
from aws_cdk import aws_route53 as route53
from constructs import Construct

from llavachat_cdk.configuration import Options
from llavachat_cdk.host import Host
from llavachat_cdk.network import Network
from llavachat_cdk.observability import Observability
from llavachat_cdk.release import Release
from llavachat_cdk.savings import Budget, Snapshots
from llavachat_cdk.service import Service


class LlavaChat(Construct):
    """A private visual chat service on one machine.

    Args:
        options: what may be chosen; the defaults if left out.
        release: what to install; built from llavachat's source tree if left out.
        name: the deployment's name, unique in its account and region, 1 to 64 letters, digits
            and hyphens; the stack's name and this construct's if left out.

    Attributes:
        network, host, service, observability: its parts.
        options: as given.
        name: as given or made.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        options: Options | None = None,
        release: Release | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(scope, id)
        self.options = options or Options()
        self.name = name or f"{Stack.of(self).stack_name}-{id}"
        self.network = Network(self, "Network", options=self.options)
        self.service = Service(self, "Service", release=release or Release.build())
        self.host = Host(
            self,
            "Host",
            name=self.name,
            options=self.options,
            network=self.network,
            service=self.service,
        )
        self.observability = Observability(
            self, "Observability", options=self.options, host=self.host
        )
        if self.options.private_name and self.host.instance:
            self.name_host(self.options.private_name, self.host.instance.instance_private_ip)
        if self.options.snapshots_kept:
            Snapshots(self, "Snapshots", name=self.name, options=self.options)
        if self.options.budget_usd:
            Budget(self, "Budget", options=self.options, topic=self.observability.topic)
        Tags.of(self).add("llavachat", self.name)

    def name_host(self, domain: str, address: str) -> None:
        """The machine's name inside its network."""
        zone = route53.PrivateHostedZone(self, "Zone", zone_name=domain, vpc=self.network.vpc)
        route53.ARecord(
            self,
            "Address",
            zone=zone,
            target=route53.RecordTarget.from_ip_addresses(address),
            # An update replaces the machine; callers are to find the new one within a minute.
            ttl=Duration.minutes(1),
        )
