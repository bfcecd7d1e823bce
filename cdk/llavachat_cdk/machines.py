"""What the machines and models on offer are: memory and money. Plain values, no CDK.

Prices are on-demand Linux list prices of us-east-1 in US dollars as known in June 2026; other
regions differ by up to a half. They serve estimates and budgets, never bills: check before quoting.
Source: https://aws.amazon.com/ec2/pricing/on-demand/
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """What a model in one quantisation needs, in GiB.

    `gpu_gib` is weights, the keys and values of one full context, and 1.5 GiB of CUDA and work
    space; `host_gib` is the machine's own memory while it loads; `mirror_gib` is what its
    published weights take in the mirror.
    """

    gpu_gib: float
    host_gib: float
    mirror_gib: float


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance type: GPU and host memory in GiB, list price in US dollars per hour.

    Memory is what EC2's DescribeInstanceTypes says, which for a card sold as 24 GB is 22.4 GiB;
    `tests/infra` compares.
    """

    gpu: str
    gpu_gib: float
    host_gib: int
    usd_per_hour: float

    def has_room(self, need: Need) -> bool:
        """Whether a model fits, on its GPU and in its own memory."""
        return need.gpu_gib <= self.gpu_gib and need.host_gib <= self.host_gib


MACHINES = {
    "g4dn.xlarge": Machine("T4", 16, 16, 0.526),
    "g4dn.2xlarge": Machine("T4", 16, 32, 0.752),
    "g5.xlarge": Machine("A10G", 22.4, 16, 1.006),
    "g5.2xlarge": Machine("A10G", 22.4, 32, 1.212),
    "g5.4xlarge": Machine("A10G", 22.4, 64, 1.624),
    "g6.xlarge": Machine("L4", 22.4, 16, 0.805),
    "g6.2xlarge": Machine("L4", 22.4, 32, 0.978),
    "g6.4xlarge": Machine("L4", 22.4, 64, 1.323),
    "g6e.xlarge": Machine("L40S", 44.7, 32, 1.861),
    "g6e.2xlarge": Machine("L40S", 44.7, 64, 2.242),
    "t3.large": Machine("none", 0, 8, 0.0832),
    "m7i.large": Machine("none", 0, 8, 0.101),
}
"""The last two have no GPU: they serve the embedded model, for a rehearsal at a few cents."""

# Weights: LLaVA-1.5 in bytes per parameter of the form, vision tower and head unquantised; a test
# counts them from the models' shapes. One context of 4,096 tokens: 0.5 MiB a token for 7B, 0.78 MiB
# for 13B. The host's installer judges by a table of its own (`llavachat_host.options`), which the
# same test compares: it comes to machines that have none of this package.
NEEDS = {
    ("shapes", "none"): Need(0, 1.5, 0),
    ("shapes", "int8"): Need(0, 1.5, 0),
    ("shapes", "nf4"): Need(0, 1.5, 0),
    ("llava-1.5-7b", "none"): Need(13.2 + 2.0 + 1.5, 12, 13.2),
    ("llava-1.5-7b", "int8"): Need(7.2 + 2.0 + 1.5, 12, 13.2),
    ("llava-1.5-7b", "nf4"): Need(4.2 + 2.0 + 1.5, 12, 13.2),
    ("llava-1.5-13b", "none"): Need(24.9 + 3.1 + 1.5, 14, 24.9),
    ("llava-1.5-13b", "int8"): Need(13.1 + 3.1 + 1.5, 14, 24.9),
    ("llava-1.5-13b", "nf4"): Need(7.3 + 3.1 + 1.5, 14, 24.9),
}
