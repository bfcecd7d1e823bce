"""The certificate that clients find in the secret is the one that is served."""

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest
from boots import main, make_boot, make_release, refuse_all, say_nothing
from cloud import Cloud
from llavachat_cdk import read_context

from firstboot import account, credentials, sessions  # isort: skip

BRING, TRY_AGAIN = credentials.bring, sessions.try_again
"""Themselves: a first boot without a machine leaves them out."""


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Secrets Manager, as CloudFormation has made it."""
    kept = {"key": "abc", "certificate": json.dumps({"unused": "x"})}
    monkeypatch.setattr(credentials, "read_secret", kept.__getitem__)
    monkeypatch.setattr(credentials, "write_secret", kept.__setitem__)
    return kept


class Clock:
    """A clock that nobody waits for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """What it shows."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Put it forward."""
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the first boot."""
    clock = Clock()
    for module in (account, credentials):
        monkeypatch.setattr(module, "time", clock)
    return clock


def make_program(folder: Path, name: str, script: str) -> None:
    """A program of that name that runs this script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("refused", "succeeds"), [(20, True), (100, False)])
def test_rights_that_come_late_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock, refused: int, succeeds: bool
) -> None:
    """The role's policy was made moments before the machine; in the end, a refusal is one."""
    answer = json.dumps({"SecretString": "abc"})
    make_program(
        tmp_path / "bin",
        "aws",
        f"echo >>{tmp_path}/tries\n"
        f"test $(wc -l <{tmp_path}/tries) -gt {refused} || {{ echo AccessDenied >&2; exit 254; }}\n"
        f"echo '{answer}'",
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    if succeeds:
        assert "abc" == credentials.read_secret("key")
    else:
        with pytest.raises(account.CallFailed, match="AccessDenied"):
            credentials.read_secret("key")


def test_calls_that_do_not_come_through_are_told_soon(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """As in a network that has no way to AWS: by what fails, and not when the whole time is up."""

    def hang(*_: object, timeout: float, **__: object) -> NoReturn:
        clock.sleep(timeout)
        raise subprocess.TimeoutExpired("aws", timeout)

    monkeypatch.setattr(account.subprocess, "run", hang)
    with pytest.raises(account.CallFailed, match="get-secret-value: no end after 60 s"):
        credentials.read_secret("key")
    assert clock.seconds < 5 * 60


def test_session_manager_is_tried_again_once_the_rights_are_in_force(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its agent would wait for half an hour after a refusal; without one, nothing fails."""
    make_program(tmp_path / "bin", "systemctl", f'echo "$@" >>{tmp_path}/told; exit 5')
    boot = make_boot(monkeypatch, tmp_path, Cloud().call, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(sessions, "try_again", TRY_AGAIN)
    monkeypatch.setattr(main, "prepare", lambda *_: None)
    monkeypatch.setattr(credentials, "bring", refuse_all)
    with pytest.raises(account.CallFailed):
        boot.prepare()
    assert not (tmp_path / "told").exists()
    monkeypatch.setattr(credentials, "bring", lambda *_: None)
    boot.prepare()
    expected = [f"try-restart --no-block {unit}" for unit in sessions.UNITS]
    assert expected == (tmp_path / "told").read_text().splitlines()


def boot_with(
    patch: pytest.MonkeyPatch, folder: Path, domain: str, code: int
) -> tuple[bool, str, list[str]]:
    """A first boot with a domain, whose installer ends with `code`: whether it succeeded, what its
    machine serves, and what it said."""
    release = make_release(folder / "release", f"raise SystemExit({code})")
    chats = folder / "chats"
    chats.mkdir()
    boot = make_boot(patch, release, Cloud(holder="").call, chats)
    patch.setattr(account, "POLL_SECONDS", 0)
    patch.setattr(credentials, "bring", BRING)
    patch.setattr(main, "CREDENTIALS", folder / "credentials")
    patch.setattr(main, "check_health", lambda *_: None)
    boot.deployment["domain"] = domain
    succeeded = boot.run()
    served = (folder / "credentials" / "tls.crt").read_text()
    return succeeded, served, boot.journal.written  # type: ignore[attr-defined]


def test_an_update_to_another_domain_that_fails_leaves_the_old_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets: dict[str, str]
) -> None:
    """The old machine goes on serving it; one that succeeds brings its own to the clients."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    succeeded, served, _ = boot_with(monkeypatch, first, "llavachat.internal", 0)
    assert (True, served) == (succeeded, json.loads(secrets["certificate"])["certificate"])
    succeeded, other, _ = boot_with(monkeypatch, second, "chat.example.internal", 1)
    assert not succeeded
    assert served != other
    assert served == json.loads(secrets["certificate"])["certificate"]
    succeeded, other, said = boot_with(monkeypatch, third, "chat.example.internal", 0)
    assert (True, other) == (succeeded, json.loads(secrets["certificate"])["certificate"])
    assert "certificate: kept for clients and later machines" in said


def test_a_certificate_that_is_kept_is_not_written_again(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    """Most machines make none."""
    made = BRING(tmp_path, "key", "certificate", "llavachat.internal", say_nothing)
    assert made is not None
    secrets["certificate"] = json.dumps(made)
    assert None is BRING(tmp_path, "key", "certificate", "llavachat.internal", say_nothing)
    assert made["certificate"] == (tmp_path / "tls.crt").read_text()
    assert "abc\n" == (tmp_path / "api-key").read_text()


LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "example"])


def test_the_longest_domain_that_is_allowed_gets_its_certificate(tmp_path: Path) -> None:
    """A certificate's common name has room for 64 characters; 200 are allowed."""
    assert LONGEST == read_context({"domain": LONGEST}).domain
    assert len(LONGEST) == 199
    made = credentials.make_certificate(LONGEST)
    assert credentials.is_good(made, LONGEST)
    file = tmp_path / "certificate"
    file.write_text(made["certificate"])
    decoded = ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined]
    assert ((("commonName", "llavachat"),),) == decoded["subject"]


def test_why_openssl_refuses_can_be_read() -> None:
    """In the first boot's one line, by openssl's own words."""
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        credentials.make_certificate("a,b:c")
    told = main.describe(refusal.value)
    assert told.startswith("openssl ended with 1. ")
    assert "b'" not in told
