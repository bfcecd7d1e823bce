"""The chats' volume on its machine: what later boots and later sizes are served by."""

import configparser
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from boots import MACHINE, say_nothing

from firstboot import volume  # isort: skip
from firstboot.service import CHATS  # isort: skip


def read_unit(name: str) -> configparser.ConfigParser:
    """A unit's sections; names keep their letters' size."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(MACHINE / name)
    return unit


def test_the_first_boot_installs_what_sees_to_the_volume_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Units for the next boots, and the timer at once; the service waits for the mount."""
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> None:
        asked.append(words)

    monkeypatch.setattr(volume.subprocess, "run", run)
    monkeypatch.setattr(volume, "UNIT_FOLDER", tmp_path)
    volume.install_units(CHATS)
    assert {
        "llavachat-attach.service",
        "llavachat-settle.service",
        "llavachat-grow.service",
        "llavachat-grow.timer",
        "llavachat.service.d",
    } == {path.name for path in tmp_path.iterdir()}
    assert [
        ["systemctl", "daemon-reload"],
        [*("systemctl", "enable", "--quiet"), *volume.UNITS[:2]],
        ["systemctl", "enable", "--quiet", "--now", "llavachat-grow.timer"],
    ] == asked
    drop_in = (tmp_path / "llavachat.service.d" / "chats.conf").read_text()
    assert f"RequiresMountsFor={CHATS}\n" in drop_in
    assert "After=llavachat-settle.service\n" in drop_in


def test_the_file_system_is_grown_where_the_chats_are_mounted(tmp_path: Path) -> None:
    """The unit's own command, with programs that tell how they were called."""
    for name, answer in (("findmnt", "echo /dev/nvme7n1"), ("resize2fs", "true")):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n{answer}\n')
        program.chmod(0o755)
    command = read_unit("llavachat-grow.service")["Service"]["ExecStart"].replace("$$", "$")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(shlex.split(command), env=environment, check=True)
    assert [
        f"findmnt --noheadings --output SOURCE --mountpoint {CHATS}",
        "resize2fs /dev/nvme7n1",
    ] == (tmp_path / "calls").read_text().splitlines()


def test_a_volume_that_grows_while_it_is_used_is_noticed() -> None:
    """EC2 does it without a reboot, and a deployment may never have one."""
    timer = read_unit("llavachat-grow.timer")
    assert ("1min", "10min") == (timer["Timer"]["OnBootSec"], timer["Timer"]["OnUnitActiveSec"])
    assert "timers.target" == timer["Install"]["WantedBy"]


def test_what_is_not_mounted_is_not_unmounted(tmp_path: Path) -> None:
    """A first boot may fail before."""
    volume.unmount(tmp_path, say_nothing)
    volume.unmount(tmp_path / "missing", say_nothing)


def test_a_volume_that_stays_in_use_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what was written is on it all the same."""
    said: list[str] = []
    asked: list[str] = []

    def run(words: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(words[0])
        return subprocess.CompletedProcess(words, 32, stderr="umount: target is busy.\n")

    monkeypatch.setattr(volume.subprocess, "run", run)
    monkeypatch.setattr(volume, "UMOUNT_SECONDS", 0)
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    volume.unmount(tmp_path, said.append)
    assert ["the chats' volume cannot be unmounted: umount: target is busy."] == said
    assert ["umount", "sync"] == asked
