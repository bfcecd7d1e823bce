"""Scripts of bench/ that are run by hand: they say what they are, and refuse what can not be."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ["attacks", "fairness", "intake", "long_chat", "observability", "turns"]


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script to its end."""
    return run_python("-m", f"bench.{script}", *words)


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    """A program to its end, where the scripts are modules."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_given_and_nothing_measured(script: str) -> None:
    """In the script's own words."""
    done = run(script, "--help")
    first = (ROOT / "bench" / f"{script}.py").read_text().splitlines()[0].strip('"')
    assert (0, True) == (done.returncode, first[:40] in " ".join(done.stdout.split()))
    assert f"usage: python -m bench.{script}" in done.stdout


def test_too_few_rounds_are_refused_before_the_work() -> None:
    """Quartiles need two."""
    done = run("observability", "--rounds", "1")
    assert (2, True) == (done.returncode, "--rounds must be 2 or more" in done.stderr)


@pytest.mark.parametrize(
    ("script", "module"), [("attacks", "hpack"), ("observability", "opentelemetry")]
)
def test_what_make_demo_does_not_install_is_told(script: str, module: str) -> None:
    """In a sentence, in an environment that lacks a module."""
    code = (
        f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = [{script!r}, '--help']; "
        f"runpy.run_module('bench.{script}', run_name='__main__')"
    )
    done = run_python("-c", code)
    said, _, advice = done.stderr.strip().partition(" is not installed; ")
    expected = (1, module, "run this in the environment of `make test`")
    assert expected == (done.returncode, said.partition(".")[0], advice)
