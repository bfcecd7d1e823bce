"""The account's machines, really booted: a Debian container each, in which real cloud-init runs the
stack's own user data.

All share one network with the account, apart from this machine's; what differs from EC2 is that a
machine's metadata service answers for whichever machine was started last, and that two
machines cannot listen on one port at once. Neither matters here: a machine takes the chats over,
and with them the port, only when the one before it is down.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from container import Container
from emulated.account import Account

DEVICE = "/dev/sdf"
LIBRARIES = "opt/llavachat/environments"
METADATA = "169.254.169.254"
POWER_OFF_SECONDS = 55


class Machine(Container):
    """A container that is not waited for: its first boot is what the deployment waits for."""

    instance = ""

    def _wait_for_boot(self) -> None:
        """Do not."""

    def inside(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program inside; its exit status and what it wrote."""
        return self.run_raw(*words, seconds=seconds)

    def is_up(self) -> bool:
        """Whether it has been booted and is not down."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def wait_until_up(self) -> None:
        """Wait for the end of a boot."""
        super()._wait_for_boot()

    def mount_at_boot(self) -> None:
        """Have the volume mounted where the machine's own fstab says.

        A systemd in a container passes over fstab's devices, as no udev tells it of them; this is
        the unit that it would make of the line otherwise.
        """
        for line in (self.root / "etc/fstab").read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            _, place, kind, options, *_ = line.split()
            words = ["systemd-escape", "--path", "--suffix=mount", place]
            name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
            unit = self.root / "etc/systemd/system" / name
            unit.write_text(
                f"[Mount]\nWhat={DEVICE}\nWhere={place}\nType={kind}\nOptions={options}\n"
            )
            wanted = unit.parent / "local-fs.target.wants" / name
            wanted.parent.mkdir(exist_ok=True)
            wanted.unlink(missing_ok=True)
            wanted.symlink_to(f"../{name}")

    def power_off(self) -> None:
        """In order, as EC2 does: services stop, file systems are unmounted."""
        if self._nspawn is not None and self.is_up():
            self._nspawn.terminate()
            try:
                self._nspawn.wait(POWER_OFF_SECONDS)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()


class Metadata(ThreadingHTTPServer):
    """The metadata service, version 2 alone: without a token it answers 401."""

    def __init__(self) -> None:
        subprocess.run(["ip", "address", "add", f"{METADATA}/32", "dev", "lo"], check=True)
        super().__init__((METADATA, 80), MetadataHandler)
        self.instance = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()


class MetadataHandler(BaseHTTPRequestHandler):
    """Gives a token, and for it the machine's id."""

    server: Metadata

    def answer(self, status: int, text: str) -> None:
        """Write an answer."""
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        """A token."""
        self.answer(200, "token")

    def do_GET(self) -> None:
        """What is asked for, if the token is shown."""
        if self.headers.get("X-aws-ec2-metadata-token") != "token":
            self.answer(401, "")
        elif self.path == "/latest/meta-data/instance-id":
            self.answer(200, self.server.instance)
        else:
            self.answer(404, "")

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' output."""


class Machines:
    """Boots, stops and removes the account's machines, and carries volumes between them.

    Args:
        account: whose.
        cache: holds the base system and the wheels; see ``prepare``.
        folder: where the machines' own files go.
    """

    def __init__(self, account: Account, cache: Path, folder: Path) -> None:
        self.account = account
        self.cache = cache
        self.folder = folder
        self.running: dict[str, Machine] = {}
        self.disks: dict[str, str] = {}
        self.metadata = Metadata()
        account.on_launch = self.launch
        account.on_stop = self.stop
        account.on_attach = self.attach
        account.on_detach = self.detach

    def launch(self, account: Account, instance: str) -> None:
        """A machine is started, for the first time or again."""
        machine = self.running.get(instance)
        if machine is None:
            base = self.cache / "bookworm-cloud"
            machine = Machine(base, self.folder / instance, self.cache / "wheels")
            self.bake(machine)
            self.running[instance] = machine
            self.write_seed(machine, instance)
        self.metadata.instance = instance
        machine.mount_at_boot()
        machine.devices = {}
        held = [volume for volume, holder in self.account.holders.items() if holder == instance]
        if held:
            machine.devices = {DEVICE: self.find_disk(held[0])}
        machine.boot()

    def bake(self, machine: Machine) -> None:
        """Give a later machine the first one's libraries, as an image baked from it would have.

        The first one has shown how they are installed from nothing; again would show nothing new.
        """
        for other in self.running.values():
            if any((other.root / LIBRARIES).glob("*/complete")):
                target = machine.root / LIBRARIES
                target.parent.mkdir(parents=True)
                subprocess.run(["cp", "-a", other.root / LIBRARIES, target], check=True)
                return

    def write_seed(self, machine: Machine, instance: str) -> None:
        """What cloud-init and every service find: user data as it is, the account's address."""
        seed = machine.root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "user-data").write_text(self.account.read_user_data(instance))
        (seed / "meta-data").write_text(f"instance-id: {instance}\nlocal-hostname: machine\n")
        settings = machine.root / "etc/cloud/cloud.cfg.d/99-test.cfg"
        settings.write_text("datasource_list: [NoCloud]\nnetwork: {config: disabled}\n")
        variables = {
            key: value
            for key, value in self.account.environment.items()
            if key.startswith("AWS_") and "METADATA" not in key
        }
        variables |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_NO_CACHE_DIR": "1",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        words = " ".join(f'"{key}={value}"' for key, value in variables.items())
        folder = machine.root / "etc/systemd/system.conf.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(f"[Manager]\nDefaultEnvironment={words}\n")
        (machine.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (machine.root / "etc/fstab").touch()

    def stop(self, account: Account, instance: str) -> None:
        """A machine is stopped or terminated."""
        if machine := self.running.get(instance):
            machine.power_off()

    def attach(self, account: Account, volume: str, instance: str) -> None:
        """A volume appears in a running machine; one that is down shows it when it is booted."""
        machine = self.running[instance]
        if machine.is_up():
            self.show_disk(machine, volume)

    def detach(self, account: Account, volume: str) -> None:
        """A volume goes; the machine that had it is down, or has unmounted it."""
        for machine in self.running.values():
            if machine.is_up():
                machine.inside("rm", "-f", DEVICE)

    def find_disk(self, volume: str) -> str:
        """The block device that a volume is here, made when it is first asked for."""
        if volume not in self.disks:
            file = self.folder / f"{volume}.img"
            with file.open("wb") as image:
                image.truncate(1 << 30)
            done = subprocess.run(
                ["losetup", "--find", "--show", str(file)],
                check=True,
                capture_output=True,
                text=True,
            )
            self.disks[volume] = done.stdout.strip()
        return self.disks[volume]

    def show_disk(self, machine: Machine, volume: str) -> None:
        """Make the device file that a volume appears as in a machine that runs."""
        number = Path(self.find_disk(volume)).stat().st_rdev
        words = ("mknod", DEVICE, "b", str(os.major(number)), str(os.minor(number)))
        done = machine.inside(*words)
        assert done.returncode == 0, done.stdout

    def remove(self) -> None:
        """Leave nothing behind."""
        for machine in self.running.values():
            machine.remove()
        for device in self.disks.values():
            subprocess.run(["losetup", "--detach", device], check=False)
        self.metadata.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
