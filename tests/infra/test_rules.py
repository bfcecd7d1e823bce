"""Other people's rules: AwsSolutions with reasons, CloudFormation's own by cfn-lint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks
from cfnlint import lint_file
from conftest import Template
from llavachat_cdk import waivers

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "spot": {"spot": True},
    "nat": {"egress": "nat", "allowed_cidrs": ["10.0.0.0/8"], "alarm_email": "a@example.org"},
    "existing": {"vpc_id": "vpc-12345678", "subnet_id": "subnet-12345678", "zone": "us-east-1a"},
    "own": {
        "vpc_id": "vpc-12345678",
        "subnet_id": "subnet-12345678",
        "zone": "us-east-1a",
        "dns_servers": ["10.0.0.2"],
        "ebs_key_arn": "arn:aws:kms:us-east-1:123456789012:key/mrk-0a1b2c3d",
    },
    "rehearsal": {"profile": "shapes", "instance_type": "t3.large", "quantization": "none"},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_aws_solutions_has_no_objection_left(
    synthesise: Callable[..., Template], options: dict[str, Any]
) -> None:
    """Synthesis itself fails on one; its report then holds none, and no other warning either."""
    folder = Path(synthesise(**options)["Folder"])
    report = folder / "validation-report.json"
    found = json.loads(report.read_text()) if report.exists() else {}
    assert [] == [
        violation["ruleName"]
        for plugin in found.get("pluginReports", [])
        for violation in plugin.get("violations", [])
    ]


def test_aws_solutions_is_really_asked(tmp_path: Path) -> None:
    """A bucket open to all objections makes synthesis fail."""
    app = aws_cdk.App(outdir=str(tmp_path))
    s3.Bucket(aws_cdk.Stack(app, "careless"), "Bucket")
    aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="AwsSolutions-S1"):
        app.synth()


def test_a_wildcard_that_is_not_waived_is_found(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waivers are by resource: without them each wildcard is objected to."""
    from llavachat_cdk import LlavaChatStack, Options, host

    monkeypatch.setattr(host, "waive_wildcards", lambda *_: None)
    app = aws_cdk.App(outdir=str(tmp_path))
    LlavaChatStack(app, "llavachat", options=Options(), release=release)
    aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match=r"AwsSolutions-IAM5\[Resource::.*instance/\*\]"):
        app.synth()


def test_every_waiver_gives_a_reason(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sentence at least."""
    from llavachat_cdk import LlavaChatStack, Options

    given: dict[str, str] = {}
    acknowledgment = aws_cdk.Acknowledgment

    def record(*, id: str, reason: str) -> aws_cdk.Acknowledgment:
        given[id] = reason
        return acknowledgment(id=id, reason=reason)

    monkeypatch.setattr(waivers, "Acknowledgment", record)
    app = aws_cdk.App(outdir=str(tmp_path))
    LlavaChatStack(app, "llavachat", options=Options(), release=release)
    assert len(given) > 5
    assert [] == [rule for rule, reason in given.items() if len(reason) < 30 or reason[-1] != "."]


IGNORED = {
    "W3005",  # a dependency that a reference implies already: CDK writes them
    "W3010",  # the operator may choose a zone
    "W3045",  # not ours: an access control list that CDK does not write
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_cfn_lint_finds_nothing(
    synthesise: Callable[..., Template], options: dict[str, Any]
) -> None:
    """Errors and warnings alike."""
    template = synthesise(**options)
    file = Path(template["Folder"]) / "llavachat.template.json"
    assert [] == [str(match) for match in lint_file(file) if match.rule.id not in IGNORED]
