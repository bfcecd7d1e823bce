"""`llavachat up` and the like against the emulated account, by the real CDK command line.

The machine is a real server process with the account's own key and a certificate of its own; it
does not boot. The tests are one story, in order. Amazon's plugin is in no registry: what carries
the tunnel's bytes here takes the plugin's arguments and does not speak its protocol.
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT
from emulated.account import Account, find_port

CLIENT = ROOT / ".venv" / "bin" / "llavachat"
PICTURE = ROOT / "client" / "llavachat" / "cli" / "demo.png"
REHEARSAL = ("-o", "profile=shapes", "-o", "quantization=none", "--type", "t3.large")

Command = Callable[..., subprocess.CompletedProcess[str]]


class Service:
    """What runs on the machine, and its port on this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_port()
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, account: Account, instance: str) -> None:
        """Take the key, make and keep a certificate, serve, tell the log and the stack."""
        deployment = account.read_deployment(instance)
        secrets = account.client("secretsmanager")
        kept = json.loads(
            secrets.get_secret_value(SecretId=deployment["certificate"])["SecretString"]
        )
        if "certificate" not in kept:
            names = ["--name", "localhost", "--folder", str(self.folder)]
            server = str(CLIENT.with_name("llavachat-server"))
            subprocess.run(
                [server, "certs", "self-signed", *names], check=True, capture_output=True
            )
            kept = {"certificate": next(self.folder.glob("*.crt")).read_text()}
            secrets.put_secret_value(
                SecretId=deployment["certificate"], SecretString=json.dumps(kept)
            )
        self.serve(secrets.get_secret_value(SecretId=deployment["api_key"])["SecretString"])
        self.tell(account, deployment["install_log"], instance)
        if account.client("cloudformation").describe_stacks()["Stacks"]:
            account.client("cloudformation").signal_resource(
                StackName=deployment["stack"],
                LogicalResourceId=deployment["resource"],
                UniqueId=instance,
                Status="SUCCESS",
            )

    def serve(self, key: str) -> None:
        """Start the real server, and wait until it is ready."""
        keys = self.folder / "keys"
        keys.write_text(f"client {hashlib.sha256(key.encode()).hexdigest()}\n")
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        words = ["--listen", f"127.0.0.1:{self.port}", "--keys-file", keys, "--ready-file", ready]
        words += ["--tls-cert-file", next(self.folder.glob("*.crt"))]
        words += ["--tls-key-file", next(self.folder.glob("*.key"))]
        words += ["--state-folder", self.folder / "chats"]
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(CLIENT.with_name("llavachat-server")), *map(str, words)],
                stdout=log,
                stderr=log,
            )
        while not ready.exists():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def tell(self, account: Account, group: str, instance: str) -> None:
        """A line of the first boot's log."""
        logs = account.client("logs")
        groups = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        if not groups:
            logs.create_log_group(logGroupName=group)
        if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=instance)[
            "logStreams"
        ]:
            logs.create_log_stream(logGroupName=group, logStreamName=instance)
        line = {
            "timestamp": int(time.time() * 1000),
            "message": "    1.0 s  service: the health service says SERVING",
        }
        logs.put_log_events(logGroupName=group, logStreamName=instance, logEvents=[line])

    def stop(self, account: Account | None = None, instance: str = "") -> None:
        """The machine goes down."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


@pytest.fixture(scope="module")
def service(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The machine's service, started and stopped with it."""
    service = Service(tmp_path_factory.mktemp("service"))
    account.on_launch = service.launch
    account.on_stop = service.stop
    yield service
    service.stop()


@pytest.fixture(scope="module")
def command(
    account: Account, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Command:
    """The real command line, as a user with this account has it."""
    if not COMMAND.exists() or not CLIENT.exists():
        pytest.fail("run `make test-deploy`: it installs the CDK command line and the client")
    home = tmp_path_factory.mktemp("home")
    programs = home / "bin"
    programs.mkdir()
    (programs / "cdk").symlink_to(COMMAND)
    (programs / "session-manager-plugin").symlink_to(
        Path(__file__).with_name("session-manager-plugin")
    )
    environment = os.environ | account.environment
    environment |= {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LLAVACHAT_STATE_DIR": str(home / "state"),
        "LLAVACHAT_CHECKOUT": str(ROOT),
        "LLAVACHAT_CDK_PYTHON": str(ROOT / ".venv-cdk" / "bin" / "python"),
        "LLAVACHAT_TEST_SERVICE": str(service.port),
        "NODE_NO_WARNINGS": "1",
    }

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(CLIENT), *words],
            cwd=home,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run


def test_doctor_looks_before_anything_is_spent(command: Command) -> None:
    """Every line says what was seen; what is missing, what to do."""
    done = command("doctor", "--type", "t3.large")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "ok    credentials: arn:aws" in done.stdout
    assert "warn  bootstrap: not done; `llavachat up` does it" in done.stdout
    done = command("doctor", "--type", "t3.large", PATH="/usr/bin-of-nobody")
    assert 1 == done.returncode
    assert "FAIL  Node.js: not found; install Node.js 20" in done.stdout
    assert "FAIL  Session Manager plugin: not found; install it" in done.stdout


def test_what_does_not_stand_is_told(command: Command) -> None:
    """One sentence, exit code 3."""
    for word in ("status", "stop", "start", "tunnel", "down"):
        done = command(word)
        assert (3, "") == (done.returncode, done.stdout), word
        assert "Nothing is deployed as llavachat in us-east-1" in done.stderr


def test_up_finds_room_in_the_second_zone_and_ends_with_an_answer(
    account: Account, command: Command
) -> None:
    """Bootstraps, deploys, shows the first boot, asks through the tunnel."""
    account.full_zones = {"us-east-1a"}
    done = command("up", *REHEARSAL, "--zone", "us-east-1a", "--zone", "us-east-1b")
    assert 0 == done.returncode, done.stderr
    assert "no t3.large is free in us-east-1a" in done.stderr
    assert "service: the health service says SERVING" in done.stderr
    assert "red circle" in done.stdout
    (machine,) = account.list_running()
    assert "us-east-1b" == machine["Placement"]["AvailabilityZone"]


def test_ask_just_works_next(command: Command) -> None:
    """By the saved server: address, key and pin."""
    done = command("ask", str(PICTURE), "What is this?")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip()


def test_status_tells_health_model_and_cost(command: Command) -> None:
    """What AWS says, and what the service says through the open tunnel."""
    done = command("status", "--json")
    assert 0 == done.returncode, done.stderr
    seen = json.loads(done.stdout)
    assert ("running", "t3.large", True) == (
        seen["machine_state"],
        seen["machine_type"],
        seen["service"]["healthy"],
    )
    assert seen["usd_per_hour"] > 0
    assert "SERVING" in command("status").stdout


def test_up_reuses_what_stands(account: Account, command: Command) -> None:
    """The same machine, and another answer."""
    (before,) = account.list_running()
    done = command("up")
    assert 0 == done.returncode, done.stderr
    assert "llavachat stands; nothing is deployed" in done.stderr
    assert "red circle" in done.stdout
    (after,) = account.list_running()
    assert before["InstanceId"] == after["InstanceId"]


def test_logs_shows_the_first_boot(command: Command) -> None:
    """From CloudWatch, to stdout."""
    done = command("logs", "--install")
    assert 0 == done.returncode, done.stderr
    assert "the health service says SERVING" in done.stdout


def test_stop_and_start_keep_the_chats(account: Account, command: Command) -> None:
    """A chat goes on after both."""
    done = command("stop")
    assert 0 == done.returncode, done.stderr
    assert 3 == command("status").returncode
    assert 3 == command("tunnel").returncode
    done = command("start")
    assert 0 == done.returncode, done.stderr
    done = command("up")
    assert 0 == done.returncode, done.stderr
    done = command("ask", "-c", "What about the one on the right?")
    assert 0 == done.returncode, done.stderr


def test_down_asks_and_leaves_nothing_saved(account: Account, command: Command) -> None:
    """Without a terminal, only with --yes; what will be lost is said first."""
    done = command("down")
    assert 2 == done.returncode
    assert "a last snapshot of the chats is kept" in done.stderr
    assert account.list_running()
    done = command("down", "--yes")
    assert 0 == done.returncode, done.stderr
    assert [] == account.list_running()
    assert "[]\n" == command("profiles", "--json").stdout
