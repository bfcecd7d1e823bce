"""First boots without a machine: the code under test on the path, and what stands around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

MACHINE = ROOT / "cdk" / "llavachat_cdk" / "machine"
sys.path.insert(0, str(MACHINE))

from firstboot import __main__ as main  # noqa: E402
from firstboot import account, credentials, handover, limit, sessions, telemetry  # noqa: E402

ARNS = ("key", "certificate")
DEPLOYMENT = {
    "name": "llavachat",
    "stack": "llavachat",
    "resource": "Instance",
    "region": "us-east-1",
    "volume": "vol-1",
    "snapshot": "",
    "weights": "s3://weights",
    "api_key": ARNS[0],
    "certificate": ARNS[1],
    "install_log": "/llavachat/llavachat/install",
    "service_log": "/llavachat/llavachat/service",
    "retention_days": 30,
    "install_minutes": 30,
    "domain": "",
    "port": 50051,
    "profile": "shapes",
    "quantization": "none",
    "idle_minutes": 30,
    "stop_command": "",
}


class Words:
    """A first boot's log that goes nowhere else."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.on_line: Callable[[str], None] = lambda _: None

    def write(self, line: str) -> None:
        """A line."""
        self.written.append(line)
        self.on_line(line)

    def enter(self, stage: str) -> None:
        """A stage."""
        self.write(f"== {stage}")

    def flush(self) -> None:
        """Nothing is left to send."""

    def close(self) -> None:
        """Nor now."""


def put_in_place(patch: pytest.MonkeyPatch, call: Callable[..., Any], *modules: Any) -> None:
    """Let a function answer for the AWS command line."""
    for module in (account, handover, limit, main, *modules):
        patch.setattr(module, "call", call)


def make_boot(
    patch: pytest.MonkeyPatch,
    release: Path,
    call: Callable[..., Any],
    chats: Path = Path("/nonexistent"),
) -> main.FirstBoot:
    """A first boot of machine "i-new" in an account that `call` answers for.

    What would change this machine is left out: its services, its mounts and its credentials.
    """
    patch.setattr(main, "Journal", lambda *_: Words())
    put_in_place(patch, call)
    patch.setattr(credentials, "bring", lambda *_: None)
    patch.setattr(sessions, "try_again", lambda: None)
    patch.setattr(telemetry, "set_up", lambda *_: None)
    patch.setattr(main.volume, "find_device", lambda *_: Path("/dev/none"))
    patch.setattr(main.volume, "mount", lambda *_: None)
    patch.setattr(main.volume, "unmount", lambda *_: None)
    patch.setattr(main.FirstBoot, "explain", lambda _: None)
    patch.setattr(main, "stop", lambda: None)
    patch.setattr(main, "CHATS", chats)
    return main.FirstBoot(release, dict(DEPLOYMENT), "i-new")


def make_release(folder: Path, installer: str) -> Path:
    """A release whose install script is this text, in Python."""
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "install").write_text(installer)
    return folder


def refuse_all(service: str, operation: str, *_: str, **__: Any) -> Any:
    """An account that says no to everything."""
    raise account.CallFailed(f"aws {service} {operation}: AccessDenied")


def say_nothing(_: str) -> None:
    """For whoever wants to be told."""
