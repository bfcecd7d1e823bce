"""The chats' volume on this machine: found, given a file system, mounted now and at every boot."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from firstboot.handover import DEVICE

DEVICE_SECONDS = 60
UMOUNT_SECONDS = 15
LABEL = "llavachat"
NOTHING_FOUND = 2
"""How blkid ends where it knows nothing of what it sees. Source: blkid(8)."""

BLANK_BYTES = 2**20
"""What is read of a volume before it counts as blank; EC2 hands out zeros."""

HERE = Path(__file__).resolve().parent.parent
UNITS = ("llavachat-attach.service", "llavachat-settle.service", "llavachat-grow.service")
TIMER = "llavachat-grow.timer"
UNIT_FOLDER = Path("/etc/systemd/system")


REMEDY_SNAPSHOT = (
    "Remove this deployment, and begin it again: with restore_snapshot_id as the snapshot of a "
    "chats' volume, or without it"
)
REMEDY_VOLUME = (
    "If it held chats, mend it by e2fsck on another machine, or begin a deployment from a daily "
    "snapshot; if nothing on it is wanted, clear it there (wipefs --all, zeros over its first MiB)"
)


def list_names(volume: str) -> tuple[str, ...]:
    """The names that the volume's device file may have."""
    serial = volume.replace("-", "")
    return (
        f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}",
        DEVICE,
        DEVICE.replace("/sd", "/xvd"),
    )


def is_here(volume: str) -> bool:
    """Whether the system has the volume's device file now."""
    return any(Path(name).exists() for name in list_names(volume))


def find_device(volume: str) -> Path:
    """The volume's device file, once the system has it.

    Raises:
        TimeoutError: it did not appear.
    """
    names = list_names(volume)
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline:
        for name in names:
            if Path(name).exists():
                return Path(name)
        time.sleep(0.5)
    raise TimeoutError(f"{volume} is attached, but none of {', '.join(names)} appeared")


def look(device: Path) -> dict[str, str]:
    """What is on a device, in blkid's words; nothing where it recognises nothing.

    Raises:
        RuntimeError: it can not tell.
    """
    # The device itself, never the cache of an earlier look.
    probe = ["blkid", "--probe", "--output", "export", str(device)]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    pairs = (line.partition("=") for line in done.stdout.splitlines() if "=" in line)
    found = {name: value for name, _, value in pairs if name != "DEVNAME"}
    is_told = done.returncode == 0 and found
    is_unknown = done.returncode == NOTHING_FOUND and not done.stdout.strip()
    if not is_told and not is_unknown:
        raise RuntimeError(
            f"blkid can not tell what is on {device} and ended with {done.returncode}: "
            f"{done.stderr.strip() or 'it does not say why'}; nothing was changed on it"
        )
    return found


def is_zero(device: Path) -> bool:
    """Whether a device begins with nothing but zeros."""
    with device.open("rb") as file:
        return not any(file.read(BLANK_BYTES))


def make_ready(device: Path, snapshot: str, say: Callable[[str], None]) -> None:
    """Have the chats' file system on a device, as large as the device.

    It is made only where there is nothing, and nothing was to be: on any doubt the volume stays as
    it is.

    Args:
        snapshot: what the volume was made from; empty for none.

    Raises:
        RuntimeError: it holds something else; says what to do.
    """
    found = look(device)
    if (found.get("TYPE"), found.get("LABEL")) == ("ext4", LABEL):
        say("the volume holds chats already (ext4)")
        subprocess.run(["e2fsck", "-f", "-p", str(device)], check=False, capture_output=True)
        subprocess.run(["resize2fs", str(device)], check=True, capture_output=True)
        return
    is_blank = not found and is_zero(device)
    if snapshot or not is_blank:
        content = "nothing" if is_blank else name_content(found)
        origin = f", made from {snapshot}," if snapshot else ""
        remedy = REMEDY_SNAPSHOT if snapshot else REMEDY_VOLUME
        raise RuntimeError(
            f"the chats' volume{origin} holds {content}, and not llavachat's chats (ext4, labelled "
            f"{LABEL}); nothing was changed on it. {remedy}"
        )
    say("the volume is blank: making a file system")
    subprocess.run(["mkfs.ext4", "-q", "-L", LABEL, str(device)], check=True, capture_output=True)


def name_content(found: dict[str, str]) -> str:
    """What a volume holds, in words."""
    if "TYPE" in found:
        label = f" labelled {found['LABEL']}" if found.get("LABEL") else ""
        return f"{found['TYPE']}{label}"
    if "PTTYPE" in found:
        return f"a partition table ({found['PTTYPE']})"
    return "what blkid does not recognise"


def mount(device: Path, folder: Path, snapshot: str, say: Callable[[str], None]) -> None:
    """Mount the volume, now and at every boot; a blank one gets a file system first.

    Args:
        snapshot: what it was made from; empty for none.
    """
    make_ready(device, snapshot, say)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o755, exist_ok=True)
    table = Path("/etc/fstab")
    # The time is for a boot that has to attach the volume first, see the unit.
    line = f"LABEL={LABEL} {folder} ext4 nofail,nodev,nosuid,x-systemd.device-timeout=600 0 2"
    if line not in table.read_text().splitlines():
        with table.open("a") as file:
            file.write(line + "\n")
    subprocess.run(["mount", str(device), str(folder)], check=True)
    install_units(folder)


def unmount(folder: Path, say: Callable[[str], None]) -> None:
    """Unmount the volume, so that it leaves this machine with all that was written."""
    deadline = time.monotonic() + UMOUNT_SECONDS
    while folder.is_mount():
        done = subprocess.run(["umount", str(folder)], check=False, capture_output=True, text=True)
        if done.returncode and time.monotonic() >= deadline:
            say(f"the chats' volume cannot be unmounted: {done.stderr.strip()}")
            subprocess.run(["sync"], check=False)
            return
        time.sleep(0.5 if done.returncode else 0)


def install_units(folder: Path) -> None:
    """Have the service start only on the mounted volume, never on the empty folder under it.

    The line in fstab says nofail, so that a machine without the volume can be looked at; without
    this the service would not wait for it either. And have later boots see to the volume, see
    `firstboot.wake`, and the file system follow the volume's size, which may change at any time.
    """
    settings = UNIT_FOLDER / "llavachat.service.d" / "chats.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(
        f"[Unit]\nRequiresMountsFor={folder}\n"
        "Wants=llavachat-settle.service\nAfter=llavachat-settle.service\n"
    )
    settings.chmod(0o644)
    settings.parent.chmod(0o755)
    for unit in (*UNITS, TIMER):
        shutil.copy(HERE / unit, UNIT_FOLDER)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--quiet", *UNITS[:2]], check=True)
    subprocess.run(["systemctl", "enable", "--quiet", "--now", TIMER], check=True)
