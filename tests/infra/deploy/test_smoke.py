"""`scripts/smoke-aws` itself against the emulated account: what a real account will see of it."""

import subprocess

from conftest import ROOT
from emulated.account import Account
from service import Service

SMOKE = ROOT / "scripts" / "smoke-aws"
CONSENT = "--yes-spend-money"
REHEARSAL = ("-o", "profile=shapes", "-o", "quantization=none", "--type", "t3.large")


def smoke(user: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """One run of the script."""
    return subprocess.run(
        [str(SMOKE), *words],
        cwd=user["HOME"],
        env=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


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
    steps = [line.split(" | ")[::2] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [
        ["| doctor", "ok |"],
        ["| up", "ok |"],
        ["| ask", "ok |"],
        ["| continue", "ok |"],
        ["| update", "ok |"],
        ["| ask after the update (chat kept)", "ok |"],
        ["| stop", "ok |"],
        ["| start", "ok |"],
        ["| ask again (chat kept)", "ok |"],
        ["| down", "ok |"],
    ] == steps[2:]
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
    assert done.stdout.strip().endswith("until it expires.")
    assert {"logs": ["/llavachat/llavachat-smoke/install"]} == account.list_left()
