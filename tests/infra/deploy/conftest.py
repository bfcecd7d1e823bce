"""One emulated account, and the real CDK command line pointed at it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from emulated.account import Account, run_account
from emulated.resources import ACCOUNT

if TYPE_CHECKING:
    from service import Service

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("LLAVACHAT_TEST_CACHE", "/var/cache/llavachat-tests"))
COMMAND = CACHE / "cdk-cli" / "node_modules" / ".bin" / "cdk"
CLIENT = ROOT / ".venv" / "bin" / "llavachat"
COMMAND_SECONDS = 1500

Run = Callable[..., subprocess.CompletedProcess[str]]
Synthesise = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]


def answer(status: str) -> Callable[[Account, str], None]:
    """A machine that does nothing but signal."""

    def signal(account: Account, instance: str) -> None:
        deployment = account.read_deployment(instance)
        account.client("cloudformation").signal_resource(
            StackName=deployment["stack"],
            LogicalResourceId=deployment["resource"],
            UniqueId=instance,
            Status=status,
        )

    return signal


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """A function from options to a folder that the command line can deploy."""
    made: dict[str, Path] = {}

    def synthesise(**options: object) -> Path:
        text = json.dumps(options, sort_keys=True)
        if text not in made:
            folder = tmp_path_factory.mktemp("cdk.out")
            variables = {"CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": text}
            app = [sys.executable, str(ROOT / "cdk" / "app.py")]
            subprocess.run(app, cwd=ROOT, env=os.environ | variables, check=True)
            made[text] = folder
        return made[text]

    return synthesise


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account in which nothing stands yet."""
    with run_account() as account:
        yield account


@pytest.fixture(scope="module")
def cdk(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The real command line, in a bootstrapped account; a function of its words."""
    if not COMMAND.exists():
        pytest.fail("run `make test-deploy`: it installs the CDK command line")
    home = tmp_path_factory.mktemp("home")
    variables = {"HOME": str(home), "CI": "true", "NODE_NO_WARNINGS": "1"}
    variables["CDK_DISABLE_CLI_TELEMETRY"] = "true"
    environment = os.environ | account.environment | variables

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(COMMAND), *words, "--no-notices", "--no-version-reporting"],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    done = run("bootstrap", f"aws://{ACCOUNT}/us-east-1")
    assert 0 == done.returncode, done.stdout
    return run


@pytest.fixture(scope="module")
def deploy(cdk: Run, synthesise: Synthesise) -> Run:
    """``cdk deploy`` with options."""

    def deploy(**options: object) -> subprocess.CompletedProcess[str]:
        app = str(synthesise(**options))
        return cdk("deploy", "--app", app, "--require-approval", "never")

    return deploy


@pytest.fixture(scope="module")
def service(account: Account, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Service]":
    """What runs on the account's machines, started and stopped with them."""
    from service import Service

    service = Service(tmp_path_factory.mktemp("service"))
    account.on_launch = service.launch
    account.on_stop = service.stop
    yield service
    service.stop()


@pytest.fixture(scope="module")
def user(
    account: Account, service: "Service", tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The variables of a user with this account, an empty home, and CDK and the plugin in it."""
    if not COMMAND.exists() or not CLIENT.exists():
        pytest.fail("run `make test-deploy`: it installs the CDK command line and the client")
    home = tmp_path_factory.mktemp("home")
    programs = home / "bin"
    programs.mkdir()
    (programs / "cdk").symlink_to(COMMAND)
    (programs / "llavachat").symlink_to(CLIENT)
    (programs / "session-manager-plugin").symlink_to(
        Path(__file__).with_name("session-manager-plugin")
    )
    own = {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LLAVACHAT_STATE_DIR": str(home / "state"),
        "LLAVACHAT_CHECKOUT": str(ROOT),
        "LLAVACHAT_CDK_PYTHON": str(ROOT / ".venv-cdk" / "bin" / "python"),
        "LLAVACHAT_TEST_SERVICE": str(service.port),
        "NODE_NO_WARNINGS": "1",
    }
    return os.environ | account.environment | own


@pytest.fixture(scope="module")
def command(user: dict[str, str]) -> Command:
    """The real command line, as that user has it."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(CLIENT), *words],
            cwd=user["HOME"],
            env=user | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run
