"""`scripts/smoke-aws` itself against the emulated account: what a real account will see of it."""

import re
import subprocess
import threading
from collections.abc import Callable

from conftest import ROOT
from emulated.account import Account
from service import Service

SMOKE = ROOT / "scripts" / "smoke-aws"
CONSENT = "--yes-spend-money"
REHEARSAL = ("-o", "profile=shapes", "-o", "quantization=none", "--type", "t3.large")


def smoke(
    user: dict[str, str],
    *words: str,
    step: str = "",
    act: Callable[[subprocess.Popen[str]], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """One run of the script; where wanted, something is done as soon as a step begins."""
    told = []
    with subprocess.Popen(
        [str(SMOKE), *words],
        cwd=user["HOME"],
        env=user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        patience = threading.Timer(900, process.kill)
        patience.start()
        assert process.stderr is not None
        for line in process.stderr:
            told.append(line)
            if act is not None and line == f"== {step}\n":
                act(process)
        report, _ = process.communicate()
        patience.cancel()
    return subprocess.CompletedProcess(words, process.returncode, report, "".join(told))


def list_steps(report: str) -> list[list[str]]:
    """Name and outcome of each step of a report."""
    lines = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    return [[name.removeprefix("| "), outcome.removesuffix(" |")] for name, _, outcome in lines[2:]]


def test_nothing_starts_without_consent(account: Account, user: dict[str, str]) -> None:
    """What it would cost is said, and nothing is made."""
    done = smoke(user, *REHEARSAL)
    assert (2, "") == (done.returncode, done.stdout)
    assert "some USD 1 to 2" in done.stderr
    assert {} == account.list_left()


def test_every_step_is_done_and_nothing_is_left(account: Account, user: dict[str, str]) -> None:
    """From doctor to down; new code serves after the update, and the chat goes on to its end."""
    done = smoke(user, CONSENT, *REHEARSAL)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert [
        ["doctor", "ok"],
        ["up", "ok"],
        ["ask", "ok"],
        ["continue", "ok"],
        ["update", "ok"],
        ["ask after the update (chat kept)", "ok"],
        ["stop", "ok"],
        ["start", "ok"],
        ["ask again (chat kept)", "ok"],
        ["down", "ok"],
    ] == list_steps(done.stdout)
    assert "versions: 0.1.0, after the update 0.1.0+smoke" in done.stdout
    assert "doctor: ok    quota L-1216C47A: 32 vCPUs, t3.large needs 2" in done.stdout
    assert "cost: at most USD 0.0" in done.stdout
    assert {"logs": ["/llavachat/llavachat-smoke/install"]} == account.list_left()


def test_a_machine_that_fails_is_told_and_removed(
    account: Account, service: Service, user: dict[str, str]
) -> None:
    """The report has the step, the reason and the log's last line; nothing is left."""
    service.trouble = "no room on /dev/xvda"
    done = smoke(user, CONSENT, *REHEARSAL)
    service.trouble = ""
    assert 1 == done.returncode
    assert "FAILED: up ended with 1" in done.stdout
    assert "no room on /dev/xvda" in done.stdout.split("--- logs --install")[1]
    assert "\nRemoved. What stays:\n" in done.stdout
    assert {"logs": ["/llavachat/llavachat-smoke/install"]} == account.list_left()


def test_an_interruption_removes_what_stands(account: Account, user: dict[str, str]) -> None:
    """SIGTERM in the middle of a step: the report says in which, and nothing is left."""
    interrupt = subprocess.Popen.terminate
    done = smoke(user, CONSENT, *REHEARSAL, step="continue", act=interrupt)
    assert 1 == done.returncode
    outcomes = [["doctor", "ok"], ["up", "ok"], ["ask", "ok"], ["continue", "interrupted"]]
    assert [*outcomes, ["down", "ok"]] == list_steps(done.stdout)
    assert "\nRemoved. What stays:\n" in done.stdout
    assert {"logs": ["/llavachat/llavachat-smoke/install"]} == account.list_left()


def test_what_failed_is_kept_where_asked(
    account: Account, service: Service, user: dict[str, str]
) -> None:
    """With --keep it stands; the report's last line is the command that removes it."""

    def fail(_: subprocess.Popen[str]) -> None:
        service.trouble = "no room on /dev/xvda"

    done = smoke(user, CONSENT, "--keep", *REHEARSAL, step="update", act=fail)
    service.trouble = ""
    assert 1 == done.returncode
    name, outcome = list_steps(done.stdout)[-1]
    assert "update" == name
    assert outcome.startswith("FAILED: up ended with 1")
    assert "machines" in account.list_left()
    last = done.stdout.splitlines()[-1]
    told = re.fullmatch(
        r"KEPT, and costs on: LLAVACHAT_STATE_DIR=(\S+) llavachat (down --name llavachat-smoke)",
        last,
    )
    assert told, last
    # Who types it is asked first; here is no terminal to be asked at.
    down = subprocess.run(
        ["llavachat", *told[2].split(), "--yes"],
        env=user | {"LLAVACHAT_STATE_DIR": told[1]},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert 0 == down.returncode, down.stderr
    assert {"logs": ["/llavachat/llavachat-smoke/install"]} == account.list_left()
