"""The chats' volume on its machine: what later boots and later sizes are served by."""

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from boots import MACHINE, say_nothing

from firstboot import volume  # isort: skip
from firstboot.service import CHATS  # isort: skip


@pytest.fixture(autouse=True)
def with_the_systems_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root has them; those who run tests may not."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")


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


def make_disk(folder: Path, *command: str, at: int = 0, data: bytes = b"") -> Path:
    """A disk of 32 MiB as a file, with what a program or these bytes put on it."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(32 * 2**20)
        file.seek(at)
        file.write(data)
    if command:
        subprocess.run([*command, str(disk)], check=True, capture_output=True)
    return disk


def read_label(disk: Path) -> str:
    """The label of the file system on a disk."""
    words = ["blkid", "--probe", "--output", "value", "--match-tag", "LABEL", str(disk)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def test_a_blank_volume_gets_the_chats_file_system(tmp_path: Path) -> None:
    """Once: what was written on it is there for the next machine, also if the volume has grown."""
    said: list[str] = []
    disk = make_disk(tmp_path)
    volume.make_ready(disk, "", said.append)
    assert "llavachat" == read_label(disk)
    subprocess.run(["debugfs", "-w", "-R", "mkdir chats", str(disk)], check=True)
    os.truncate(disk, 64 * 2**20)
    for snapshot in ("", "snap-1"):
        volume.make_ready(disk, snapshot, said.append)
    held = "the volume holds chats already (ext4)"
    assert ["the volume is blank: making a file system", held, held] == said
    listed = subprocess.run(
        ["debugfs", "-R", "ls -p", str(disk)], check=True, capture_output=True, text=True
    ).stdout
    assert "/chats/" in listed
    shown = subprocess.run(
        ["dumpe2fs", "-h", str(disk)], check=True, capture_output=True, text=True
    ).stdout
    count, size = (re.search(rf"Block {name}: +(\d+)", shown) for name in ("count", "size"))
    assert count is not None
    assert size is not None
    assert 64 * 2**20 == int(count[1]) * int(size[1])


MBR = (b"\0\0\2\0\x83\0\0\0\0\x08\0\0\0\x40\0\0".ljust(64, b"\0")) + b"\x55\xaa"
"""The end of a disk's first sector: a table of one partition."""


@pytest.mark.parametrize(
    ("command", "at", "data", "snapshot", "expected"),
    [
        ((), 446, MBR, "snap-1", "made from snap-1, holds a partition table (dos), and not"),
        ((), 446, MBR, "", "volume holds a partition table (dos), and not"),
        ((), 2**19, b"x", "", "volume holds what blkid does not recognise, and not"),
        ((), 0, b"", "snap-1", "made from snap-1, holds nothing, and not"),
        (("mkswap",), 0, b"", "", "volume holds swap, and not"),
        (("mkfs.ext4", "-q", "-L", "root"), 0, b"", "snap-1", "holds ext4 labelled root, and not"),
    ],
    ids=["wrong snapshot", "partitions", "data", "blank snapshot", "swap", "system's snapshot"],
)
def test_a_volume_that_holds_something_else_stays_as_it_is(
    tmp_path: Path,
    command: tuple[str, ...],
    at: int,
    data: bytes,
    snapshot: str,
    expected: str,
) -> None:
    """A wrong snapshot above all: formatted, it would be a success without any chats."""
    disk = make_disk(tmp_path, *command, at=at, data=data)
    before = disk.read_bytes()
    with pytest.raises(RuntimeError, match=re.escape(expected)) as refused:
        volume.make_ready(disk, snapshot, say_nothing)
    assert ("restore_snapshot_id" in str(refused.value)) == bool(snapshot)
    assert before == disk.read_bytes()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("echo cannot open >&2; exit 8", "ended with 8: cannot open; nothing was changed"),
        ("exit 0", "ended with 0: it does not say why; nothing was changed"),
    ],
)
def test_a_look_that_fails_is_no_blank_volume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, expected: str
) -> None:
    """The chats may be there all the same."""
    disk = make_disk(tmp_path, "mkfs.ext4", "-q", "-L", "llavachat")
    before = disk.read_bytes()
    (tmp_path / "blkid").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "blkid").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=expected):
        volume.make_ready(disk, "", say_nothing)
    assert before == disk.read_bytes()


def test_a_volume_that_can_not_be_read_is_not_blank(tmp_path: Path) -> None:
    """blkid ends as it does for a blank one."""
    with pytest.raises(FileNotFoundError):
        volume.make_ready(tmp_path / "none", "", say_nothing)
    assert [] == list(tmp_path.iterdir())


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
