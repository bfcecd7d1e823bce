"""Scripts of bench/ that are run by hand: they say what they are, and refuse what can not be."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "bench"


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script to its end."""
    command = [sys.executable, str(BENCH / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", ["attacks.py", "fairness.py", "intake.py", "observability.py"])
def test_help_is_given_and_nothing_measured(script: str) -> None:
    """In the script's own words."""
    done = run(script, "--help")
    first = (BENCH / script).read_text().splitlines()[0].strip('"')
    assert (0, True) == (done.returncode, first[:40] in " ".join(done.stdout.split()))
    assert f"usage: {script}" in done.stdout


def test_too_few_rounds_are_refused_before_the_work() -> None:
    """Quartiles need two."""
    done = run("observability.py", "--rounds", "1")
    assert (2, True) == (done.returncode, "--rounds must be 2 or more" in done.stderr)


@pytest.mark.parametrize(
    ("script", "module"), [("attacks.py", "hpack"), ("observability.py", "opentelemetry")]
)
def test_what_make_demo_does_not_install_is_told(script: str, module: str, tmp_path: Path) -> None:
    """In a sentence, in an environment that lacks a module."""
    code = (
        f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = [{script!r}, '--help']; "
        f"sys.path.insert(0, {str(BENCH)!r}); runpy.run_path({str(BENCH / script)!r}, "
        "run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    said, _, advice = done.stderr.strip().partition(" is not installed; ")
    expected = (1, module, "run this in the environment of `make test`")
    assert expected == (done.returncode, said.partition(".")[0], advice)
