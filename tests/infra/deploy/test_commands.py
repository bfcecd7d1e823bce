"""`llavachat up` and the like against the emulated account, by the real CDK command line.

The machine is a real server process, see `service`; it does not boot. The tests are one story, in
order. Amazon's plugin is in no registry: what carries the tunnel's bytes here takes the plugin's
arguments and does not speak its protocol.
"""

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import CLIENT, Command
from emulated.account import Account
from emulated.quotas import QUOTAS
from service import PICTURE, Service

REHEARSAL = ("-o", "profile=shapes", "-o", "quantization=none")
SMALL = (*REHEARSAL, "--type", "t3.large")


def put_line(account: Account, which: str, line: str) -> None:
    """A line in one of the deployment's logs, as the machine's agent writes it."""
    group = {"logGroupName": f"/llavachat/llavachat/{which}", "logStreamName": "agent"}
    logs = account.client("logs")
    streams = logs.describe_log_streams(logGroupName=group["logGroupName"])["logStreams"]
    if "agent" not in [stream["logStreamName"] for stream in streams]:
        logs.create_log_stream(**group)
    event = {"timestamp": int(time.time() * 1000), "message": line}
    logs.put_log_events(**group, logEvents=[event])


def type_at(user: dict[str, str], answer: str, *words: str) -> tuple[int, str]:
    """A command at a terminal at which something is typed; its exit code and all it wrote."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(CLIENT, [str(CLIENT), *words], user)
    os.write(terminal, answer.encode() + b"\n")
    written = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), written.decode()


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
    assert "FAIL  CDK: not usable; CDK is not installed: npm install -g aws-cdk@2." in done.stdout


def test_doctor_hears_a_program_that_tells_no_version(
    command: Command, user: dict[str, str], tmp_path: Path
) -> None:
    """Node.js that answers with an empty line is not one to rely on; doctor goes on."""
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho\n")
    node.chmod(0o755)
    done = command("doctor", "--type", "t3.large", PATH=f"{tmp_path}:{user['PATH']}")
    assert 1 == done.returncode
    assert "FAIL  Node.js: ?; install Node.js 20" in done.stdout
    assert "ok    credentials: arn:aws" in done.stdout


def test_doctor_tells_that_credentials_are_missing(command: Command) -> None:
    """None, or a profile that nobody has written: what to do, and AWS is asked nothing more."""
    none = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = command("doctor", "--type", "t3.large", **none)
    assert 1 == done.returncode
    last = "FAIL  credentials: none; run `aws configure`, or set AWS_PROFILE"
    assert last == done.stdout.splitlines()[-1]
    done = command("up", *SMALL, **none)
    assert 2 == done.returncode
    assert "no AWS credentials; run `aws configure`, or set AWS_PROFILE." in done.stderr
    done = command("doctor", AWS_PROFILE="nobody")
    assert 2 == done.returncode
    assert "The config profile (nobody) could not be found; see AWS_PROFILE." in done.stderr


def test_doctor_tells_versions_and_quota(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU machine needs four vCPUs of L-DB2E81BA; what is too little is said with what to do."""
    done = command("doctor")
    assert 0 == done.returncode, done.stdout
    assert "ok    quota L-DB2E81BA: 4 vCPUs, g5.xlarge needs 4" in done.stdout
    assert "ok    Node.js: v" in done.stdout
    assert "ok    CDK: 2." in done.stdout
    assert "aws-cdk-lib 2." in done.stdout
    assert "ok    region: us-east-1" in done.stdout
    monkeypatch.setitem(QUOTAS, "L-DB2E81BA", 0)
    done = command("doctor")
    assert 1 == done.returncode
    assert "FAIL  quota L-DB2E81BA: 0 vCPUs, g5.xlarge needs 4; ask for an increase" in done.stdout
    done = command("doctor", "--spot")
    assert "FAIL  quota L-3819A6DF: 0 vCPUs" in done.stdout
    done = command("doctor", "--type", "g5.huge")
    assert 1 == done.returncode
    assert "FAIL  machine type: g5.huge is none in us-east-1" in done.stdout


def test_up_spends_nothing_while_something_is_missing(
    account: Account, command: Command, user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node.js, CDK, the plugin or the quota: each is named, and nothing is made."""
    done = command("up", *SMALL, PATH="/usr/bin-of-nobody")
    assert 1 == done.returncode
    assert "first mend: Node.js, CDK, Session Manager plugin." in done.stderr
    monkeypatch.setitem(QUOTAS, "L-DB2E81BA", 3)
    done = command("up")
    assert 1 == done.returncode
    assert "Nothing was spent; first mend: quota L-DB2E81BA." in done.stderr
    done = command("up", *SMALL, AWS_REGION="", AWS_DEFAULT_REGION="")
    assert 2 == done.returncode
    assert "No AWS region is named; give --region" in done.stderr
    done = command("up", *SMALL, LLAVACHAT_CHECKOUT=user["HOME"])
    assert 2 == done.returncode
    assert "llavachat's CDK app is not here: it comes with the source" in done.stderr
    assert {} == account.list_left()


def test_what_does_not_stand_is_told(command: Command) -> None:
    """One sentence, exit code 3."""
    for word in ("status", "stop", "start", "tunnel", "down"):
        done = command(word)
        assert (3, "") == (done.returncode, done.stdout), word
        assert "Nothing is deployed as llavachat in us-east-1" in done.stderr


def test_up_finds_room_and_ends_with_an_answer(account: Account, command: Command) -> None:
    """Types by zones; bootstraps, deploys, shows the first boot, asks through the tunnel."""
    account.full_zones = {"us-east-1a"}
    account.full_places = {("m7i.large", "us-east-1b")}
    places = ("--type", "m7i.large", "--type", "t3.large", "--zone", "us-east-1b")
    done = command("up", *REHEARSAL, *places, "--zone", "us-east-1a")
    assert 0 == done.returncode, done.stderr
    told = [line for line in done.stderr.splitlines() if "deploying" in line or "is free" in line]
    assert [
        "deploying llavachat: m7i.large in us-east-1b",
        "no m7i.large is free in us-east-1b",
        "deploying llavachat: m7i.large in us-east-1a",
        "no m7i.large is free in us-east-1a",
        "deploying llavachat: t3.large in us-east-1b",
    ] == told
    (boot,) = [line for line in done.stderr.splitlines() if "service: the health" in line]
    assert boot.split()[1] == "s", boot
    assert "red circle" in done.stdout
    (machine,) = account.list_running()
    assert ("t3.large", "us-east-1b") == (
        machine["InstanceType"],
        machine["Placement"]["AvailabilityZone"],
    )


def test_ask_just_works_next(command: Command) -> None:
    """By the saved server: address, key and pin."""
    done = command("ask", str(PICTURE), "What is this?")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip()


def test_status_tells_health_model_uptime_idle_and_cost(account: Account, command: Command) -> None:
    """What AWS says, and what the service says through the open tunnel."""
    put_line(account, "service", '{"message": "turn ended", "first_token_seconds": 0.2}')
    done = command("status", "--json")
    assert 0 == done.returncode, done.stderr
    seen = json.loads(done.stdout)
    assert ("running", "t3.large", True) == (
        seen["machine_state"],
        seen["machine_type"],
        seen["service"]["healthy"],
    )
    assert 0 <= seen["idle_seconds"] < 60
    assert 0 < seen["uptime_seconds"] < 600
    assert seen["usd_per_hour"] > 0
    told = command("status").stdout
    for part in ("health      SERVING", "model       ", "uptime      ", "idle        0 min", "USD"):
        assert part in told


def test_up_reuses_what_stands(account: Account, command: Command) -> None:
    """The same machine, and another answer."""
    (before,) = account.list_running()
    done = command("up")
    assert 0 == done.returncode, done.stderr
    assert "llavachat stands; nothing is deployed" in done.stderr
    assert "red circle" in done.stdout
    (after,) = account.list_running()
    assert before["InstanceId"] == after["InstanceId"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--type", "g5.xlarge"), "llavachat stands on a t3.large; `llavachat up --update --type"),
        (("--zone", "us-east-1a"), "llavachat stands in us-east-1b, and its chats live there"),
        (("-o", "idle_minutes=9"), "llavachat stands, and not with idle_minutes=9"),
        (("-o", "stack_name=x"), "The deployment's name is given with --name."),
        (("-o", "idle_minutes"), "--option 'idle_minutes' is not NAME=VALUE."),
        (("--update", "--zone", "us-east-1a"), "its chats live there"),
        (("--update", "--type", "t3.large", "--type", "m7i.large"), "An update takes one --type"),
    ],
)
def test_up_does_not_quietly_leave_a_wish_out(
    command: Command, words: tuple[str, ...], sentence: str
) -> None:
    """What stands is reused as it is; another wish is refused, with what to type."""
    done = command("up", *words)
    assert (2, "") == (done.returncode, done.stdout)
    assert sentence in done.stderr


def test_an_update_with_an_option_that_there_is_none_of_says_so(
    account: Account, command: Command
) -> None:
    """In the app's words, not in CloudFormation's, which has heard nothing; the machine runs on."""
    (before,) = account.list_running()
    done = command("up", "--update", "-o", "idle-minutes=9")
    assert 1 == done.returncode
    assert "idle-minutes: no such option; did you mean idle_minutes?" in done.stderr
    (after,) = account.list_running()
    assert before["InstanceId"] == after["InstanceId"]


def test_an_update_without_room_for_two_that_fails_brings_the_old_machine_back(
    account: Account, service: Service, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is stopped first, and wakes with its chats; the reason is told."""
    (before,) = account.list_running()
    monkeypatch.setitem(QUOTAS, "L-1216C47A", 2)
    monkeypatch.setattr(service, "trouble", "install: no wheel for this Python")
    done = command("up", "--update", "-o", "idle_minutes=9")
    assert 1 == done.returncode
    assert "(2 vCPUs, 2 t3.large needs 4); the old one is stopped first" in done.stderr
    assert "The update failed and was rolled back" in done.stderr
    assert "last word: install: no wheel for this Python" in done.stderr
    monkeypatch.setattr(service, "trouble", "")
    done = command("up")
    assert 0 == done.returncode, done.stderr
    (after,) = account.list_running()
    assert before["InstanceId"] == after["InstanceId"]
    done = command("ask", "-c", "What about the one on the right?")
    assert 0 == done.returncode, done.stderr


def test_logs_shows_the_first_boot(command: Command) -> None:
    """From CloudWatch, to stdout."""
    done = command("logs", "--install")
    assert 0 == done.returncode, done.stderr
    assert "the health service says SERVING" in done.stdout


@pytest.fixture
def interruptible() -> None:
    """Programs that hear Ctrl-C: those that a shell's background job starts would not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("interruptible")
def test_logs_follows_until_ctrl_c(account: Account, user: dict[str, str]) -> None:
    """What comes later comes too, once; Ctrl-C ends it without a word."""
    with subprocess.Popen(
        [str(CLIENT), "logs", "-f"], env=user, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert b"first_token_seconds" in process.stdout.readline()
        for number in range(2):
            put_line(account, "service", f"line {number}")
            assert f"line {number}\n".encode() == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert b"" == process.stdout.read()
        assert b"" == process.stderr.read()
    assert 130 == process.returncode


@pytest.mark.usefixtures("interruptible")
def test_tunnel_brings_the_service_until_ctrl_c(command: Command, user: dict[str, str]) -> None:
    """A port of one's choice, and the saved server with it; the plugin ends with it."""
    missing = command("tunnel", PATH="/usr/bin-of-nobody")
    assert 1 == missing.returncode
    assert "The tunnel needs the Session Manager plugin; install it: https://" in missing.stderr
    with subprocess.Popen(
        [str(CLIENT), "tunnel"], env=user, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        address = process.stderr.readline().split()[0]
        done = command("ask", str(PICTURE), "What is this?")
        assert 0 == done.returncode, done.stderr
        process.send_signal(signal.SIGINT)
        assert "" == process.stderr.read()
    assert 0 == process.returncode
    gone = command("ask", "-a", address, "--no-tls", str(PICTURE), "What?", LLAVACHAT_API_KEY="")
    assert 3 == gone.returncode, gone.stderr


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


def test_an_update_that_replaces_no_machine_wakes_the_one_that_stopped(
    account: Account, command: Command
) -> None:
    """The same machine answers again, and what was updated is remembered."""
    (before,) = account.list_running()
    assert 0 == command("stop").returncode
    done = command("up", "--update", "-o", "budget_usd=7")
    assert 0 == done.returncode, done.stderr
    assert "its machine was stopped, and is started." in done.stderr
    assert "red circle" in done.stdout
    (after,) = account.list_running()
    assert before["InstanceId"] == after["InstanceId"]
    done = command("up", "-o", "budget_usd=7")
    assert 0 == done.returncode, done.stderr


def test_a_machine_that_was_terminated_by_hand_is_made_again(
    account: Account, command: Command
) -> None:
    """By what every command then says, though nothing else has changed; the chat goes on."""
    (before,) = account.list_running()
    account.client("ec2").terminate_instances(InstanceIds=[before["InstanceId"]])
    for word in ("stop", "start", "up"):
        done = command(word)
        assert 1 == done.returncode
        assert "llavachat has no machine; `llavachat up --update` makes one." in done.stderr
    done = command("up", "--update")
    assert 0 == done.returncode, done.stderr
    assert "was stopped" not in done.stderr
    (after,) = account.list_running()
    assert before["InstanceId"] != after["InstanceId"]
    done = command("ask", "-c", "What about the one on the right?")
    assert 0 == done.returncode, done.stderr


def test_down_asks_and_leaves_nothing_saved(
    account: Account, command: Command, user: dict[str, str]
) -> None:
    """What will be lost is said first; the name must be typed, or --yes given."""
    done = command("down")
    assert 2 == done.returncode
    loss = "the machine, its network, key, certificate, alarms and the mirror of the weights"
    assert loss in done.stderr
    assert "a last snapshot of the chats is kept" in done.stderr
    code, written = type_at(user, "yes", "down")
    assert 1 == code, written
    assert "Type llavachat to remove it: " in written
    assert "Nothing was removed." in written
    assert account.list_running()
    code, written = type_at(user, "llavachat", "down")
    assert 0 == code, written
    assert "llavachat is removed." in written
    assert "aws ec2 describe-snapshots --region us-east-1 --owner-ids self" in written
    assert {"logs", "snapshots"} == set(account.list_left())
    assert "[]\n" == command("profiles", "--json").stdout
