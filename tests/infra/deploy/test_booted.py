"""The whole way: the real command line, real cloud-init, the real install script and service.

The model is the embedded one, so that machines without a GPU can answer. The tests are one story,
in order: each goes on where the one before it left off.
"""

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import CACHE, ROOT, Run, Synthesise
from emulated.account import Account, run_account

SYSTEM = ROOT / "tests" / "system"
OPTIONS: dict[str, object] = {
    "profile": "shapes",
    "quantization": "none",
    "instance_type": "t3.large",
    "chats_on_delete": "delete",
}
ROOM_BYTES = 9 * 2**30
"""For four machines, each with its libraries."""

INSTALL_LOG = "/llavachat/llavachat/install"
MARK = "/var/lib/private/llavachat/mark"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account whose machines really boot, in a network of its own."""
    if os.geteuid() != 0 or not (CACHE / "bookworm-cloud" / "complete").exists():
        pytest.fail("run `make test-deploy`: root and tests/infra/deploy/prepare are needed")
    sys.path.insert(0, str(SYSTEM))
    from container import enter_own_network
    from machines import Machines
    from memory_disk import memory_disk

    enter_own_network()
    folder = CACHE / f"deploy-{os.getpid()}"
    with memory_disk(folder, ROOM_BYTES) as disk, run_account() as account:
        machines = Machines(account, CACHE, disk)
        account.machines = machines  # type: ignore[attr-defined]
        try:
            yield account
        finally:
            machines.remove()


def find_machine(account: Account) -> str:
    """The id of the machine that runs."""
    (machine,) = (
        machine for machine in account.list_running() if machine["State"]["Name"] == "running"
    )
    return str(machine["InstanceId"])


def run_inside(account: Account, *words: str) -> str:
    """Run a program in the machine that runs; what it wrote."""
    machine = account.machines.running[find_machine(account)]  # type: ignore[attr-defined]
    return str(machine.run(*words))


def read_log(account: Account, instance: str) -> str:
    """What a machine's first boot wrote to CloudWatch."""
    answer = account.client("logs").get_log_events(
        logGroupName=INSTALL_LOG, logStreamName=instance, startFromHead=True
    )
    return "\n".join(event["message"] for event in answer["events"])


def read_newest_log(account: Account) -> str:
    """What the newest machine's first boot wrote, whether the machine still stands or not."""
    streams = account.client("logs").describe_log_streams(logGroupName=INSTALL_LOG)["logStreams"]
    newest = max(streams, key=lambda stream: stream["creationTime"])["logStreamName"]
    return read_log(account, newest)


def ask(account: Account, folder: Path) -> str:
    """A question about a picture, by the real client with what the outputs' commands give."""
    deployment = account.read_deployment(find_machine(account))
    secrets = account.client("secretsmanager")
    key = secrets.get_secret_value(SecretId=deployment["api_key"])["SecretString"]
    kept = secrets.get_secret_value(SecretId=deployment["certificate"])["SecretString"]
    certificate = folder / "llavachat.pem"
    certificate.write_text(json.loads(kept)["certificate"])
    picture = ROOT / "client" / "llavachat" / "cli" / "demo.png"
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "llavachat"), "ask", str(picture), "What is this?"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LLAVACHAT_ADDRESS": "localhost:50051",
            "LLAVACHAT_API_KEY": key,
            "LLAVACHAT_TLS_CA_FILE": str(certificate),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_deploy_ends_with_a_service_that_answers(
    account: Account, deploy: Run, tmp_path: Path
) -> None:
    """About a picture, over TLS, with the key that Secrets Manager made."""
    done = deploy(**OPTIONS)
    log = read_newest_log(account)
    assert 0 == done.returncode, f"{done.stdout}\n{log}"
    assert "the health service says SERVING" in log
    assert ask(account, tmp_path)
    run_inside(account, "touch", MARK)


def test_chats_lie_on_their_own_volume(account: Account) -> None:
    """And not on the machine's; the service never starts on what lies under it."""
    folder = Path(MARK).parent.as_posix()
    assert "/dev/sdf" in run_inside(account, "findmnt", "--noheadings", folder)
    shown = run_inside(account, "systemctl", "show", "llavachat.service", "-pRequiresMountsFor")
    assert folder in shown.removeprefix("RequiresMountsFor=").split()


def test_an_update_keeps_the_chats_and_the_certificate(
    account: Account, deploy: Run, tmp_path: Path
) -> None:
    """The new machine takes over the volume from the old one, which it stops first."""
    before = find_machine(account)
    done = deploy(**OPTIONS, idle_minutes=9)
    log = read_newest_log(account)
    assert 0 == done.returncode, f"{done.stdout}\n{log}"
    assert f"stopping {before}, which holds the chats" in log
    assert "certificate: the one kept" in log
    assert ask(account, tmp_path)
    run_inside(account, "test", "-e", MARK)


def read_run(account: Account) -> tuple[str, str]:
    """The machine that runs, and the one run of its server: another after every start."""
    show = ("systemctl", "show", "--value", "--property=InvocationID", "llavachat.service")
    return find_machine(account), run_inside(account, *show).strip()


def test_a_machine_that_is_not_fit_disturbs_nobody(
    account: Account, deploy: Run, tmp_path: Path
) -> None:
    """Without a GPU, where the profile needs one: the old machine's server has not been stopped."""
    before = read_run(account)
    unfit = {"profile": "llava-1.5-7b", "quantization": "int8", "instance_type": "g5.xlarge"}
    done = deploy(**OPTIONS | unfit)
    log = read_newest_log(account)
    assert 1 == done.returncode
    assert "Received FAILURE signal" in done.stdout
    assert "GPU: none is plugged in; llava-1.5-7b needs one" in log
    assert "FAILED: the install script failed at 'prepare'; see above" in log
    assert "stopping" not in log
    assert before == read_run(account)
    assert ask(account, tmp_path)


def test_a_failing_machine_gives_the_chats_back(
    account: Account, deploy: Run, tmp_path: Path
) -> None:
    """The reason is in the log that outlives it, and the old machine answers again."""
    before = find_machine(account)
    secret = account.read_deployment(before)["api_key"]
    secrets = account.client("secretsmanager")
    key = secrets.get_secret_value(SecretId=secret)["SecretString"]
    secrets.put_secret_value(SecretId=secret, SecretString=" ")
    done = deploy(**OPTIONS, idle_minutes=10)
    secrets.put_secret_value(SecretId=secret, SecretString=key)
    assert 1 == done.returncode
    assert "Received FAILURE signal" in done.stdout
    assert before == find_machine(account)
    log = read_newest_log(account)
    assert "FAILED: the install script failed at 'run'; see above" in log
    assert f"giving the chats back to {before}" in log
    account.machines.running[before].wait_until_up()  # type: ignore[attr-defined]
    run_inside(account, "test", "-e", MARK)
    assert ask(account, tmp_path)


def begin_update(account: Account, volume: str, folder: Path) -> None:
    """What a new machine has done to a volume when it is taken away amid its first boot: its
    release knows one form of the database more, and its server has brought the chats to it."""
    sys.path.insert(0, str(ROOT / "cdk" / "llavachat_cdk" / "machine"))
    from firstboot import safekeeping

    versions = "llavachat_server/chats/sql/migrations/versions"
    with zipfile.ZipFile(folder / "llavachat-9.9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{versions}/9999_later.py", "")
    chats = folder / "chats"
    chats.mkdir()
    disk = account.machines.find_disk(volume)  # type: ignore[attr-defined]
    subprocess.run(["mount", disk, str(chats)], check=True)
    try:
        safekeeping.keep(chats, folder, "i-gone", print)
        assert safekeeping.is_kept(chats)
        with closing(sqlite3.connect(chats / "chats.db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
    finally:
        subprocess.run(["umount", str(chats)], check=True)


def test_a_machine_that_is_started_after_an_update_was_broken_off_has_its_chats(
    account: Account, tmp_path: Path
) -> None:
    """CloudFormation took the new machine away: the volume is with nobody, the database changed."""
    instance = find_machine(account)
    (volume,) = (name for name, holder in account.holders.items() if holder == instance)
    ec2 = account.client("ec2")
    ec2.stop_instances(InstanceIds=[instance])
    ec2.detach_volume(VolumeId=volume, InstanceId=instance)
    begin_update(account, volume, tmp_path)
    ec2.start_instances(InstanceIds=[instance])
    machine = account.machines.running[instance]  # type: ignore[attr-defined]
    machine.wait_until_up()
    told = run_inside(
        account, "journalctl", "-b", "-ocat", "-ullavachat-attach", "-ullavachat-settle"
    )
    assert "nobody has the chats: attaching their volume" in told
    assert "putting the chats back in the form that they had before the update" in told
    assert {volume: instance} == account.holders
    run_inside(account, "test", "-e", MARK)
    assert ask(account, tmp_path)


def test_destroy_leaves_the_install_log_alone(
    account: Account, cdk: Run, synthesise: Synthesise
) -> None:
    """It expires by itself."""
    done = cdk("destroy", "--force", "--app", str(synthesise(**OPTIONS, idle_minutes=9)))
    assert 0 == done.returncode, done.stdout
    assert {"logs": [INSTALL_LOG]} == account.list_left()
