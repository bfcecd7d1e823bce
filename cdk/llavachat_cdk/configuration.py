"""Everything that a deployment may choose: typed, checked together, refused by name.

An option is a field of `Options`. Its description, what is allowed and what it costs stand beside
it, and docs/deploy.md's table is written from them. Knows nothing of CDK but that context is a
mapping: values given by ``-c name=value`` arrive as text, those of cdk.json typed.
"""

import difflib
import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llavachat_cdk.machines import MACHINES, NEEDS

GPU_IMAGE_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/"
    "base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
)
"""Deep Learning Base AMI with the open NVIDIA driver, Amazon Linux 2023.

Source: https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
"""

RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545),
    *(731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch Logs accepts."""

CALLER_NETWORKS = tuple(
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
"""Where internal callers may live: never the public internet. Source: RFC 1918."""


OWN_KEYS = {
    "acknowledged-issue-numbers",
    "assets-ecr-repository-name",
    "cdk-migrate",
    "cli-telemetry",
}
"""CDK's keys that carry no sign of whose they are: what its command line writes into a project's
context, and what its library reads. A test looks through the library for more."""


class ConfigurationError(ValueError):
    """One or more options are wrong; the text names each and says what is allowed."""


def split_list(value: object) -> object:
    """A list given as text on the command line, at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def describe(default: Any, text: str, *, allowed: str, cost: str = "", **constraints: Any) -> Any:
    """A field with what its readers need: text, what is allowed, what it costs a month."""
    return Field(
        default,
        description=text,
        json_schema_extra={"allowed": allowed, "cost": cost},
        **constraints,
    )


class Options(BaseModel):
    """One deployment's choices, each checked, and all of them against each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    stack_name: str = describe(
        "llavachat",
        "The deployment's name, for more than one side by side.",
        allowed="a letter, then up to 39 lower-case letters, digits and hyphens",
        pattern=r"^[a-z][a-z0-9-]{0,39}$",
    )
    instance_type: str = describe(
        "g5.xlarge",
        "The machine.",
        allowed="one of " + ", ".join(MACHINES),
        cost="USD 38 to 1,637 always on; g5.xlarge 734, or about 40 at two hours a working day",
    )
    profile: Literal["llava-1.5-7b", "llava-1.5-13b", "shapes"] = describe(
        "llava-1.5-7b",
        "The model; `shapes` is the embedded one, for a rehearsal on a machine without a GPU.",
        allowed="llava-1.5-7b, llava-1.5-13b or shapes",
        cost="mirror of the weights: 0.30 (7b), 0.57 (13b), 0 (shapes)",
    )
    quantization: Literal["none", "int8", "nf4"] = describe(
        "int8",
        "The form of the language model's weights.",
        allowed="none, int8 or nf4, as far as the machine's GPU has room",
    )
    spot: bool = describe(
        False,
        "Spare capacity: cheaper, and taken back at two minutes' notice; a new machine then takes "
        "over the chats. Going idle ends the machine, and the next start is a first boot. It has "
        "no private name: each new machine has another address.",
        allowed="true or false",
        cost="about half off the machine",
    )
    zone: str = describe(
        "",
        "The availability zone. Chats live in one zone, so it stays what a deployment began with: "
        "name it from the first one on.",
        allowed='the name of a zone, such as us-east-1b; "" for the region\'s first',
        pattern=r"^$|^[a-z]{2}(-[a-z]+)+-\d[a-z]$",
    )
    idle_minutes: int = describe(
        30,
        "Stop the machine when no call has come for so long; 0 never stops it.",
        allowed="0, or 5 to 1440",
        cost="what makes the difference between 734 and 40",
        ge=0,
        le=1440,
    )
    allowed_cidrs: Annotated[list[str], BeforeValidator(split_list)] = describe(
        [],
        "Private networks that may call the service's port. None: only the tunnel reaches it. "
        "With `spot`, callers look the address up and pin the certificate.",
        allowed="IPv4 networks inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, separated "
        "by commas; at most 20",
        max_length=20,
    )
    vpc_id: str = describe(
        "",
        "An existing network to live in, together with `subnet_id` and `zone`. "
        "None: a small one of its own.",
        allowed='vpc-… or ""',
        pattern=r"^$|^vpc-[0-9a-f]{8,17}$",
    )
    subnet_id: str = describe(
        "",
        "The subnet of `vpc_id`; it must have a way out to the internet on port 443.",
        allowed='subnet-… or ""',
        pattern=r"^$|^subnet-[0-9a-f]{8,17}$",
    )
    dns_servers: Annotated[list[str], BeforeValidator(split_list)] = describe(
        [],
        "The DNS servers of `vpc_id`, where its DHCP options name others than AWS's own: nothing "
        "is let out to them else, and the machine finds no name.",
        allowed="IPv4 addresses, separated by commas; at most 4",
        max_length=4,
    )
    egress: Literal["address", "nat"] = describe(
        "address",
        "How the own network reaches out: the machine has a public address on which nothing may "
        "come in, or it has none and goes through a NAT gateway.",
        allowed="address or nat",
        cost="address 3.65 (only while running); nat 36.50, its own address included, and 0.045 "
        "per GB",
    )
    domain: str = describe(
        "llavachat.internal",
        "Private DNS name under which the network's callers find the service; each deployment in "
        "a network needs one of its own. With `spot` there is none.",
        allowed='a lower-case name with a dot, such as chat.example.internal; "" for none',
        cost="0.50; 0 with spot",
        pattern=r"^$|^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$",
        max_length=200,
    )
    ami_id: str = describe(
        "",
        "Pins the machine image. Unpinned, a newer image replaces the machine at the next deploy.",
        allowed='ami-… or ""',
        pattern=r"^$|^ami-[0-9a-f]{8,17}$",
    )
    ami_parameter: str = describe(
        GPU_IMAGE_PARAMETER,
        "Where the newest image's id is read, when none is pinned.",
        allowed="the name of a public SSM parameter under /aws/service/",
        pattern=r"^/aws/service/[A-Za-z0-9_./-]+$",
    )
    alarm_email: str = describe(
        "",
        "Who hears of alarms and of the budget; the address must confirm once.",
        allowed='an e-mail address or ""',
        pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$",
    )
    retention_days: int = describe(
        30,
        "How long logs are kept.",
        allowed="one of " + ", ".join(map(str, RETENTION_DAYS)),
        cost="logs 0.50 per GB in, 0.03 per GB kept",
    )
    chats_gib: int = describe(
        20,
        "Size of the chats' own volume; it may grow later, never shrink.",
        allowed="1 to 1000 GiB",
        cost="1.60, also while stopped (0.08 per GiB)",
        ge=1,
        le=1000,
    )
    chats_on_delete: Literal["snapshot", "retain", "delete"] = describe(
        "snapshot",
        "What becomes of the chats when the stack is deleted.",
        allowed="snapshot, retain or delete",
        cost="0.05 per GiB in use for a snapshot left behind",
    )
    restore_snapshot_id: str = describe(
        "",
        "A snapshot of an earlier deployment's chats to begin from; it may be left out later.",
        allowed='snap-… or ""',
        pattern=r"^$|^snap-[0-9a-f]{8,17}$",
    )
    snapshots_kept: int = describe(
        7,
        "Daily snapshots of the chats to keep; 0 makes none.",
        allowed="0 to 365",
        cost="0.05 per GiB changed",
        ge=0,
        le=365,
    )
    system_gib: int = describe(
        100,
        "Size of the system's volume; at least that of the image, which is 75 GiB for the default "
        "one as of September 2026.",
        allowed="30 to 1000 GiB",
        cost="8.00, also while stopped (0.08 per GiB)",
        ge=30,
        le=1000,
    )
    ebs_key_arn: str = describe(
        "",
        "The KMS key of yours that volumes are encrypted with, where it is the account's default "
        "for EBS, or that of `restore_snapshot_id`: the machine may then attach its volume and "
        "start another machine. It chooses no key.",
        allowed='the ARN of a key, arn:aws:kms:…:key/…, or ""',
        pattern=r"^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[a-zA-Z0-9-]+$",
    )
    budget_usd: int = describe(
        100,
        "A monthly budget that warns at 80 % and when 100 % is forecast; 0 makes none, for an "
        "account that its organization lets have no budgets. It counts the whole account.",
        allowed="0 to 100000",
        ge=0,
        le=100_000,
    )
    generation: int = describe(
        0,
        "Another number makes a new machine where nothing else would, as for one that was "
        "terminated by hand: CloudFormation takes it to be there. `llavachat up --update` then "
        "counts it up.",
        allowed="0 to 1000000",
        ge=0,
        le=1_000_000,
    )
    install_minutes: int = describe(
        30,
        "How long the first boot may take before the deployment is called failed; the last five "
        "minutes of it are kept for giving the chats back. A failure that the machine notices ends "
        "it at once.",
        allowed="15 to 60",
        ge=15,
        le=60,
    )
    dashboard: bool = describe(
        True,
        "A CloudWatch dashboard.",
        allowed="true or false",
        cost="3.00 beyond the account's first three",
    )

    @model_validator(mode="after")
    def check_values(self) -> Self:
        """What a type cannot say."""
        if self.instance_type not in MACHINES:
            raise refuse(self, "instance_type")
        if 0 < self.idle_minutes < 5:
            raise refuse(self, "idle_minutes")
        if self.retention_days not in RETENTION_DAYS:
            raise refuse(self, "retention_days")
        for text in self.allowed_cidrs:
            check_network(text)
        for text in self.dns_servers:
            check_address(text)
        return self

    @model_validator(mode="after")
    def check_together(self) -> Self:
        """What only two options together can get wrong."""
        machine = MACHINES.get(self.instance_type)
        if machine is None:
            return self
        need = NEEDS[self.profile, self.quantization]
        if not machine.has_room(need):
            fitting = [name for name, other in MACHINES.items() if other.has_room(need)]
            raise ValueError(
                f"profile {self.profile} with quantization {self.quantization} needs "
                f"{need.gpu_gib:.1f} GiB of GPU memory and {need.host_gib:g} of the machine's own, "
                f"and instance_type {self.instance_type} has {machine.gpu_gib:g} and "
                f"{machine.host_gib}; allowed for it: {', '.join(fitting)}; "
                "or a smaller quantization"
            )
        placed = [self.vpc_id, self.subnet_id]
        if any(placed) and not all([*placed, self.zone]):
            raise ValueError(
                "vpc_id, subnet_id and zone go together: give all three to live in an existing "
                "network, or neither vpc_id nor subnet_id for a network of its own"
            )
        if self.vpc_id and self.egress == "nat":
            raise ValueError(
                "egress nat builds a NAT gateway in a network of its own; with vpc_id the "
                "subnet's own routes are used: leave egress out"
            )
        if self.dns_servers and not self.vpc_id:
            raise ValueError(
                "dns_servers are those of an existing network, vpc_id; one of its own has AWS's: "
                "leave dns_servers out"
            )
        # The default is nobody's wish.
        if self.spot and self.domain and "domain" in self.model_fields_set:
            raise ValueError(
                "domain names one machine, and with spot each new one has another address: leave "
                'domain out, or give "" for it'
            )
        return self

    @property
    def private_name(self) -> str:
        """The DNS name that is made; "" for none."""
        return "" if self.spot else self.domain


def refuse(options: Options, name: str) -> ValueError:
    """The error for one option whose value is not allowed."""
    return ValueError(f"{name}={getattr(options, name)!r}: allowed is {list_allowed(name)}")


def list_allowed(name: str) -> str:
    """What an option may be, in words."""
    extra = Options.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


def check_network(text: str) -> None:
    """Refuse what is not an IPv4 network of private addresses."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        network = None
    if network is None or not any(network.subnet_of(outer) for outer in CALLER_NETWORKS):
        raise ValueError(
            f"allowed_cidrs={text!r}: allowed is {list_allowed('allowed_cidrs')}"
            + ("" if network else " (host bits must be zero)")
        )


def check_address(text: str) -> None:
    """Refuse what is not an IPv4 address."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(
            f"dns_servers={text!r}: allowed is {list_allowed('dns_servers')}"
        ) from None


def read_options(values: Mapping[str, object]) -> Options:
    """Options from plain values.

    Raises:
        ConfigurationError: naming every wrong option and what is allowed.
    """
    try:
        return Options.model_validate(dict(values))
    except ValidationError as error:
        lines = [explain(detail) for detail in error.errors()]
        raise ConfigurationError("\n".join(lines)) from None


def explain(detail: Mapping[str, Any]) -> str:
    """One refusal as a line a person can act on."""
    if not detail["loc"]:
        return str(detail["msg"]).removeprefix("Value error, ")
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        # As other tools write their options; it is how most of the misspelt ones come about.
        meant = name.lower().replace("-", "_").replace(".", "_")
        near = difflib.get_close_matches(meant, Options.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "see docs/deploy.md for those there are"
        return f"{name}: no such option; {hint}"
    return f"{name}={detail['input']!r}: allowed is {list_allowed(name)}"


def read_context(context: Mapping[str, object]) -> Options:
    """Options from a CDK app's context.

    Keys of CDK's own and of other libraries carry a colon, a slash or an at sign, but for a few;
    every other key must be an option, so that a misspelt one is refused rather than ignored.

    Raises:
        ConfigurationError: naming every wrong option and what is allowed.
    """
    others = re.compile("[:/@]")
    return read_options(
        {
            key: value
            for key, value in context.items()
            if key not in OWN_KEYS and not others.search(key)
        }
    )
