"""The chats' volume: claimed from the machine before this one, and given back if this one fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from firstboot.account import call, wait_until

DEVICE = "/dev/sdf"
DEVICE_SECONDS = 60
LABEL = "llavachat"


def find_holder(volume: str) -> str | None:
    """Id of the machine that a volume is attached to."""
    answer = call("ec2", "describe-volumes", "--volume-ids", volume)
    for attachment in answer["Volumes"][0].get("Attachments", []):
        if attachment.get("State", "attached") in ("attached", "attaching"):
            return str(attachment["InstanceId"])
    return None


def claim(volume: str, instance: str, say: Callable[[str], None]) -> str | None:
    """Attach the volume to this machine.

    The machine that holds it is stopped first, as an orderly shutdown is what ends its turns and
    closes its files.

    Returns:
        The id of that machine, None if none held the volume.
    """
    holder = find_holder(volume)
    if holder == instance:
        return None
    if holder:
        say(f"stopping {holder}, which holds the chats")
        call("ec2", "stop-instances", "--instance-ids", holder)
        wait_until("ec2", "instance-stopped", "--instance-ids", holder)
        detach(volume, holder)
    attach(volume, instance)
    return holder


def detach(volume: str, holder: str) -> None:
    """Detach the volume and wait until it is free."""
    call("ec2", "detach-volume", "--volume-id", volume, "--instance-id", holder)
    wait_until("ec2", "volume-available", "--volume-ids", volume)


def attach(volume: str, instance: str) -> None:
    """Attach a free volume and wait until it is."""
    placed = ("--volume-id", volume, "--instance-id", instance, "--device", DEVICE)
    call("ec2", "attach-volume", *placed)
    wait_until("ec2", "volume-in-use", "--volume-ids", volume)


def give_back(
    volume: str, instance: str, holder: str, folder: Path, say: Callable[[str], None]
) -> None:
    """Undo `claim`: the machine before this one gets the chats again and is started."""
    say(f"giving the chats back to {holder}")
    subprocess.run(["umount", str(folder)], check=False)
    detach(volume, instance)
    attach(volume, holder)
    call("ec2", "start-instances", "--instance-ids", holder)


def find_device(volume: str) -> Path:
    """The volume's device file, once the system has it.

    Raises:
        TimeoutError: it did not appear.
    """
    serial = volume.replace("-", "")
    names = (
        f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}",
        DEVICE,
        DEVICE.replace("/sd", "/xvd"),
    )
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline:
        for name in names:
            if Path(name).exists():
                return Path(name)
        time.sleep(0.5)
    raise TimeoutError(f"{volume} is attached, but none of {', '.join(names)} appeared")


def mount(device: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Mount the volume, now and at every boot; a blank one gets a file system first."""
    probe = ["blkid", "--output", "value", "--match-tag", "TYPE", str(device)]
    found = subprocess.run(probe, capture_output=True, text=True, check=False).stdout.strip()
    if found:
        say(f"the volume holds chats already ({found})")
        subprocess.run(["e2fsck", "-f", "-p", str(device)], check=False, capture_output=True)
        subprocess.run(["resize2fs", str(device)], check=True, capture_output=True)
    else:
        say("the volume is blank: making a file system")
        subprocess.run(["mkfs.ext4", "-q", "-L", LABEL, str(device)], check=True)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o755, exist_ok=True)
    table = Path("/etc/fstab")
    line = f"LABEL={LABEL} {folder} ext4 nofail,nodev,nosuid,x-systemd.device-timeout=60 0 2"
    if line not in table.read_text().splitlines():
        with table.open("a") as file:
            file.write(line + "\n")
    wait_at_boot(folder)
    subprocess.run(["mount", str(device), str(folder)], check=True)


def wait_at_boot(folder: Path) -> None:
    """Have the service start only on the mounted volume, never on the empty folder under it.

    The line in fstab says nofail, so that a machine without the volume can be looked at; without
    this the service would not wait for it either.
    """
    settings = Path("/etc/systemd/system/llavachat.service.d/chats.conf")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"[Unit]\nRequiresMountsFor={folder}\n")
    settings.chmod(0o644)
    settings.parent.chmod(0o755)
