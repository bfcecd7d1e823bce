"""`scripts/smoke-aws` where `llavachat` says what it did not expect; that command is played.

The whole way is walked in `tests/infra/deploy`, by the real one against an emulated account.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SMOKE = Path(__file__).resolve().parents[2] / "scripts" / "smoke-aws"

PLAYED = """#!{python}
import json, os, signal, sys, tomllib
from pathlib import Path

folder = Path({folder!r})
word, rest = sys.argv[1], sys.argv[2:]
said = json.loads((folder / "said.json").read_text())
with (folder / "calls").open("a") as calls:
    print(word, *rest, file=calls)
stands = folder / "stands"


def read_count(name):
    counter = folder / name
    count = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(count))
    return count


if word == "up":
    project = Path(os.environ["LLAVACHAT_CHECKOUT"]) / "pyproject.toml"
    stands.write_text(tomllib.loads(project.read_text())["project"]["version"])
elif word == "down":
    stands.unlink()
elif word == "stop":
    (folder / "stopped").touch()
elif word == "start":
    (folder / "stopped").unlink()
elif word == "ask":
    read_count("turns")
    print(json.dumps({{"chat_id": "chat", "answer": "A red circle."}}))
elif word == "chats":
    print(json.dumps({{"turns": [{{}}] * int((folder / "turns").read_text())}}))
elif word == "logs" and said["interrupts"]:
    os.kill(os.getppid(), signal.SIGTERM)
elif word == "status" and not stands.exists():
    print("Nothing is deployed as llavachat-smoke in us-east-1", file=sys.stderr)
    sys.exit(3)
elif word == "status" and (folder / "stopped").exists():
    print(json.dumps({{}}))
    sys.exit(3)
elif word == "status":
    told = {{
        "name": "llavachat-smoke",
        "machine_type": "t3.large",
        "zone": "us-east-1a",
        "usd_per_hour": 1.0,
        "service": {{"version": stands.read_text(), "model": {{"id": "shapes"}}, "device": "cpu"}},
    }}
    look = str(read_count("looks"))
    if look in said["silent"]:
        told["service"] = None
    print("{{" if look in said["garbled"] else json.dumps(told))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs the script beside a played `llavachat`."""
    program = tmp_path / "llavachat"
    program.write_text(PLAYED.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)

    def run(
        *words: str, silent: str = "", garbled: str = "", interrupts: bool = False
    ) -> subprocess.CompletedProcess[str]:
        said = {"silent": silent, "garbled": garbled, "interrupts": interrupts}
        (tmp_path / "said.json").write_text(json.dumps(said))
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, str(SMOKE), "--yes-spend-money", *words],
            env=os.environ | {"PATH": path, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def list_steps(report: str) -> dict[str, str]:
    """The outcome of each step of a report, by its name."""
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line[:2] == "| "]
    return {name: outcome for name, _, outcome in lines[2:]}


def test_every_step_is_well_beside_what_is_played(run: Run, tmp_path: Path) -> None:
    """So that the tests below see what they mean to see."""
    done = run()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert {"ok"} == set(list_steps(done.stdout).values())
    assert "shapes on cpu" in done.stdout
    assert not (tmp_path / "stands").exists()


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"silent": "2"}, "the service did not answer"),
        ({"garbled": "2"}, "JSONDecodeError: Expecting property name"),
    ],
    ids=str,
)
def test_what_nobody_foresaw_removes_the_machine_and_is_reported(
    run: Run, tmp_path: Path, trouble: dict[str, str], reason: str
) -> None:
    """A service that does not answer after the update, or a status that is no JSON."""
    done = run(**trouble)
    assert 1 == done.returncode
    assert not (tmp_path / "stands").exists()
    steps = list_steps(done.stdout)
    assert steps["update"].startswith(f"FAILED: {reason}")
    assert "ok" == steps["down"]
    assert "Traceback" not in done.stderr


def test_a_service_that_is_only_silent_to_status_does_not_spoil_the_report(run: Run) -> None:
    """Before the update and at the end nothing hangs on it."""
    done = run(silent="13")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "llavachat-smoke: t3.large in us-east-1a; ? on ?" in done.stdout
    assert "versions: -, after the update 0.1.0+smoke" in done.stdout
    assert "cost: at most USD 0.00" in done.stdout


def test_an_interruption_while_the_log_is_read_still_removes_the_machine(
    run: Run, tmp_path: Path
) -> None:
    """Who asks twice to end it is no more willing to pay on."""
    done = run(silent="2", interrupts=True)
    assert done.returncode != 0
    assert not (tmp_path / "stands").exists()
    assert "ok" == list_steps(done.stdout)["down"]


def test_an_option_without_a_value_is_refused_before_anything_is_made(
    run: Run, tmp_path: Path
) -> None:
    """As `llavachat up` refuses it."""
    done = run("-o", "spot")
    assert (2, "") == (done.returncode, done.stdout)
    assert "'spot' is not NAME=VALUE" in done.stderr
    assert not (tmp_path / "calls").exists()
