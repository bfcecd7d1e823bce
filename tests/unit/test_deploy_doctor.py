"""`llavachat doctor` where AWS is not to be asked: no region, no credentials."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REGION = "give --region, or set AWS_REGION, or run `aws configure`"
LOGIN = "run `aws configure`, or set AWS_PROFILE"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-nobody"}


def run(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of somebody who never configured AWS."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "llavachat", *words],
        env={**ours, "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [f"FAIL  region: none; {REGION}", f"FAIL  credentials: none; {LOGIN}"]),
        (
            KEYS,
            [
                f"FAIL  region: none; {REGION}",
                "ok    credentials: found, not tried without a region",
            ],
        ),
        (
            {"AWS_REGION": "eu-west-1"},
            ["ok    region: eu-west-1", f"FAIL  credentials: none; {LOGIN}"],
        ),
    ],
    ids=["nothing", "no region", "no credentials"],
)
def test_a_missing_region_is_a_line_of_the_list(
    tmp_path: Path, environment: dict[str, str], expected: list[str]
) -> None:
    """All that can be looked at is, before and after it, and something is to be mended."""
    done = run(tmp_path, "doctor", **environment)
    lines = done.stdout.splitlines()
    assert (1, expected) == (done.returncode, lines[-2:]), done.stderr
    assert ["Node.js", "CDK", "CDK app", "Session Manager plugin"] == [
        line[6:].partition(":")[0] for line in lines[:-2]
    ]


def test_other_commands_need_a_region(tmp_path: Path) -> None:
    """Wrong use, in a sentence."""
    done = run(tmp_path, "status")
    assert (2, True) == (done.returncode, f"No AWS region is named; {REGION}." in done.stderr)
