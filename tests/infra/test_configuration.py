"""Options: typed, checked together, refused by name."""

import gzip
import json
import re
import tarfile
from pathlib import Path

import aws_cdk
import moto.ec2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_cdk.configuration import (
    OWN_KEYS,
    ConfigurationError,
    Options,
    list_allowed,
    read_context,
)
from llavachat_cdk.costs import estimate_cost
from llavachat_cdk.machines import MACHINES, NEEDS, Machine


def test_defaults_are_allowed() -> None:
    """Nothing need be chosen."""
    assert Options() == read_context({})


def test_text_from_the_command_line_is_typed() -> None:
    """`-c` gives text only."""
    options = read_context(
        {
            "idle_minutes": "45",
            "spot": "true",
            "allowed_cidrs": "10.1.0.0/16, 192.168.7.0/24",
        }
    )
    expected = (45, True, ["10.1.0.0/16", "192.168.7.0/24"])
    assert expected == (options.idle_minutes, options.spot, options.allowed_cidrs)


def test_typed_values_of_cdk_json_are_taken() -> None:
    """cdk.json has lists and numbers."""
    options = read_context({"allowed_cidrs": ["10.1.0.0/16"], "chats_gib": 50})
    assert (["10.1.0.0/16"], 50) == (options.allowed_cidrs, options.chats_gib)


def test_others_context_is_left_alone() -> None:
    """CDK's own keys and those of other libraries are no options."""
    context = {
        "aws:cdk:version-reporting": True,
        "@aws-cdk/core:flag": True,
        "@aws-cdk/core.slowSynthThreshold": 9,
        "hosted-zone:account=123456789012:region=us-east-1": {},
        "acknowledged-issue-numbers": [30717],
        "cdk-migrate": True,
        "cli-telemetry": False,
    }
    assert Options() == read_context(context)


def list_keys(source: str) -> set[str]:
    """Every key of the context that a piece of CDK's JavaScript names."""
    constants = dict(
        re.findall(r"\b([A-Z][A-Z_]+(?:CONTEXT|CONTEXT_KEY|CTX)) ?= ?\"([^\"]+)\"", source)
    )
    named = re.findall(r"context\.(?:get|set|unset)\(\"([^\"]+)\"", source)
    named += re.findall(r"etContext\(\"([^\"]+)\"", source)
    named += re.findall(r"CDK_CONTEXT_JSON\)\[\"([^\"]+)\"\]", source)
    return {*named, *constants.values()}


def test_the_keys_that_cdks_library_reads_are_told_from_options() -> None:
    """A release of it that reads another one without a sign of its own fails here, not users."""
    (library,) = (Path(aws_cdk.__file__).parent / "_jsii").glob("*.tgz")
    found = set()
    with tarfile.open(library) as archive:
        for member in archive:
            if re.fullmatch(r"package/(core|cx-api)/lib/.+\.js", member.name):
                file = archive.extractfile(member)
                assert file is not None
                found |= list_keys(file.read().decode())
    assert "@aws-cdk/core:bootstrapQualifier" in found
    assert set() == {key for key in found if not re.search("[:/@]", key)} - OWN_KEYS


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("idle-minutes", "idle_minutes"),
        ("chats-on-delete", "chats_on_delete"),
        ("stack.name", "stack_name"),
        ("Zone", "zone"),
        ("chats-gb", "chats_gib"),
    ],
)
def test_an_option_that_is_written_as_elsewhere_is_refused_with_ours(key: str, near: str) -> None:
    """A hyphen or a dot does not make a wish another library's key."""
    with pytest.raises(ConfigurationError, match=f"^{key}: no such option; did you mean {near}"):
        read_context({key: "5"})


WRONG = {
    "instance_type": ["p2.xlarge", "g5", ""],
    "profile": ["llava-7b", "shape"],
    "quantization": ["int4", "8bit"],
    "spot": ["maybe"],
    "zone": ["us-east-1", "A"],
    "idle_minutes": [4, -1, 1441, "soon", 7.5],
    "allowed_cidrs": ["0.0.0.0/0", "8.8.8.0/24", "10.0.0.1/8", "10.0.0.0/7", "fd00::/8", "x"],
    "vpc_id": ["vpc-xyz", "my-vpc"],
    "subnet_id": ["subnet-"],
    "dns_servers": ["10.0.0.0/24", "ns.example.org", "fd00::2", "10.0.0.1,10.0.0.256"],
    "egress": ["none"],
    "domain": ["internal", "Chat.internal", "-a.b", "a..b"],
    "ami_id": ["latest"],
    "ami_parameter": ["/my/own"],
    "alarm_email": ["me", "a@b"],
    "retention_days": [2, 0, 4000],
    "chats_gib": [0, 1001],
    "chats_on_delete": ["keep"],
    "restore_snapshot_id": ["yesterday"],
    "snapshots_kept": [-1, 366],
    "system_gib": [8],
    "ebs_key_arn": ["alias/mine", "arn:aws:kms:us-east-1:123456789012:alias/mine"],
    "budget_usd": [-5],
    "generation": [-1, "next"],
    "install_minutes": [14, 61],
    "dashboard": ["perhaps"],
    "stack_name": ["1st", "Llava", "a" * 41],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_name_and_with_what_is_allowed(
    name: str, value: object
) -> None:
    """The refusal can be acted on without reading code."""
    with pytest.raises(ConfigurationError) as refusal:
        read_context({name: value})
    assert f"{name}=" in str(refusal.value)
    assert list_allowed(name) in str(refusal.value)


def test_every_option_has_a_wrong_value_here() -> None:
    """A new option without its refusals does not pass."""
    assert set(Options.model_fields) == set(WRONG)


def test_every_wrong_option_is_named_at_once() -> None:
    """Nobody repairs one option a try."""
    with pytest.raises(ConfigurationError) as refusal:
        read_context({"egress": "none", "spot": "maybe"})
    assert 2 == len(str(refusal.value).splitlines())


def test_a_misspelt_option_is_refused_with_the_nearest() -> None:
    """A typing error does not silently give a default."""
    with pytest.raises(ConfigurationError, match="idle_minute: no such option; did you mean idle"):
        read_context({"idle_minute": 5})


@pytest.mark.parametrize(
    ("together", "said"),
    [
        ({"profile": "llava-1.5-13b", "quantization": "none"}, "needs 29.5 GiB"),
        ({"profile": "llava-1.5-13b", "instance_type": "g4dn.xlarge"}, "instance_type g4dn"),
        ({"instance_type": "t3.large"}, "has 0"),
        ({"vpc_id": "vpc-12345678"}, "subnet_id and zone go together"),
        (
            {
                "vpc_id": "vpc-12345678",
                "subnet_id": "subnet-12345678",
                "zone": "us-east-1a",
                "egress": "nat",
            },
            "leave egress out",
        ),
        ({"spot": "true", "domain": "chat.example.internal"}, "leave domain out"),
        ({"dns_servers": "10.0.0.2"}, "leave dns_servers out"),
    ],
)
def test_what_does_not_go_together_is_refused(together: dict[str, str], said: str) -> None:
    """Each value is right by itself."""
    with pytest.raises(ConfigurationError, match=said):
        read_context(together)


@given(
    st.sampled_from(sorted(MACHINES)),
    st.sampled_from(sorted({profile for profile, _ in NEEDS})),
    st.sampled_from(["none", "int8", "nf4"]),
)
def test_a_machine_is_accepted_exactly_if_the_model_fits(
    machine: str, profile: str, quantization: str
) -> None:
    """No other rule stands between the three."""
    need, offered = NEEDS[profile, quantization], MACHINES[machine]
    fits = need.gpu_gib <= offered.gpu_gib and need.host_gib <= offered.host_gib
    try:
        read_context({"instance_type": machine, "profile": profile, "quantization": quantization})
    except ConfigurationError:
        assert not fits
    else:
        assert fits


def test_a_machine_of_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it boots: the installer there would refuse it as well, minutes later."""
    monkeypatch.setitem(MACHINES, "g5.small", Machine("A10G", 22.4, 8, 0.5))
    with pytest.raises(
        ConfigurationError, match=r"needs .* and 12 of .*g5\.small has 22\.4 and 8;"
    ):
        read_context({"instance_type": "g5.small"})


def test_the_cost_of_the_defaults() -> None:
    """By the hour: an A10G, its address, metrics; by the month: what also stands while stopped."""
    hourly = 1.006 + 0.005 + 16 * 0.30 / 730
    expected = (hourly, 120 * 0.08 + 2 * 0.40 + 7 * 0.10 + 13.2 * 0.023 + 0.50)
    assert pytest.approx(expected) == estimate_cost(Options())


def test_nat_costs_while_standing_and_spot_less_while_running() -> None:
    """The estimate follows the options."""
    plain, nat, spot = (
        estimate_cost(read_context(options)) for options in ({}, {"egress": "nat"}, {"spot": True})
    )
    # The gateway and its address, each by the hour.
    assert pytest.approx(730 * (0.045 + 0.005)) == nat[1] - plain[1]
    assert spot[0] < plain[0] / 2
    # The system's volume comes and goes with the machine, and there is no private name.
    assert pytest.approx(100 * 0.08 + 0.50) == plain[1] - spot[1]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "llavachat.internal"),
        ({"domain": ""}, ""),
        ({"spot": True}, ""),
        ({"spot": True, "domain": ""}, ""),
    ],
)
def test_spare_capacity_has_no_private_name(options: dict[str, object], name: str) -> None:
    """The default name is dropped with it; one that was asked for is refused, see above."""
    assert name == read_context(options).private_name


INSTANCE_TYPES = Path(moto.ec2.__file__).parent / "resources" / "instance_types.json.gz"
"""What EC2's DescribeInstanceTypes answered, as moto ships it."""


def test_machines_have_the_memory_that_ec2_says() -> None:
    """In GiB, of the GPU rounded to a tenth; and the GPU's name."""
    known = json.loads(gzip.decompress(INSTANCE_TYPES.read_bytes()))
    none = {"Gpus": [{"Name": "none", "MemoryInfo": {"SizeInMiB": 0}}]}
    said = {}
    for name in MACHINES:
        (gpu,) = known[name].get("GpuInfo", none)["Gpus"]
        said[name] = (
            gpu["Name"],
            round(gpu["MemoryInfo"]["SizeInMiB"] / 1024, 1),
            known[name]["MemoryInfo"]["SizeInMiB"] / 1024,
        )
    expected = {name: (each.gpu, each.gpu_gib, each.host_gib) for name, each in MACHINES.items()}
    assert expected == said
