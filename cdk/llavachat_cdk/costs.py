"""What a deployment costs, by its options. Plain values, no CDK.

Beside the machines' own prices (`machines`), and of the same kind: list prices of us-east-1 in US
dollars as known in June 2026, for estimates.
Source: https://aws.amazon.com/ec2/pricing/on-demand/, https://aws.amazon.com/ebs/pricing/
"""

from llavachat_cdk.configuration import Options
from llavachat_cdk.machines import MACHINES, NEEDS

HOURS_PER_MONTH = 730
GP3_USD_PER_GIB_MONTH = 0.08
PUBLIC_ADDRESS_USD_PER_HOUR = 0.005
"""Of whatever has one, a machine or a gateway. Source: https://aws.amazon.com/vpc/pricing/"""
NAT_GATEWAY_USD_PER_HOUR = 0.045
HOSTED_ZONE_USD_PER_MONTH = 0.50
SECRET_USD_PER_MONTH = 0.40
ALARM_USD_PER_MONTH = 0.10
METRIC_USD_PER_MONTH = 0.30
METRICS = 16
"""What the agent and the log filters send, each dimension set counted, only while running."""
ALARMS = 7
S3_USD_PER_GIB_MONTH = 0.023
SPOT_SHARE = 0.45
"""A usual spot price as a share of the on-demand price; it changes by the hour and the zone."""


def estimate_cost(options: Options) -> tuple[float, float]:
    """US dollars per running hour, and per month while everything stands still."""
    hourly = MACHINES[options.instance_type].usd_per_hour * (SPOT_SHARE if options.spot else 1)
    if not options.vpc_id:
        hourly += PUBLIC_ADDRESS_USD_PER_HOUR if options.egress == "address" else 0
    hourly += METRICS * METRIC_USD_PER_MONTH / HOURS_PER_MONTH
    volumes_gib = options.chats_gib + (0 if options.spot else options.system_gib)
    monthly = volumes_gib * GP3_USD_PER_GIB_MONTH
    monthly += 2 * SECRET_USD_PER_MONTH
    monthly += ALARMS * ALARM_USD_PER_MONTH
    monthly += NEEDS[options.profile, options.quantization].mirror_gib * S3_USD_PER_GIB_MONTH
    if options.private_name:
        monthly += HOSTED_ZONE_USD_PER_MONTH
    if options.egress == "nat" and not options.vpc_id:
        # Its public address is billed like any other, and stands as long as the gateway.
        nat = NAT_GATEWAY_USD_PER_HOUR + PUBLIC_ADDRESS_USD_PER_HOUR
        monthly += nat * HOURS_PER_MONTH
    return hourly, monthly
