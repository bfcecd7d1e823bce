"""A Debian with a real systemd, booted from an untouched base: one machine for the tests.

It shares the network of the process that boots it, so that tests call its service on loopback;
`enter_own_network` gives that process a network of its own first, apart from the machine's.
"""

import ctypes
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from control_group import ControlGroup

CLONE_NEWNET = 0x40000000
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 900.0

REBOOTED = 133
"""How systemd-nspawn ends when the machine asked to be started again."""


def enter_own_network() -> None:
    """Move this process into a new network that holds loopback alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network of its own can be made; root is needed")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Container:
    """One booted machine.

    Args:
        base: folder of a Debian; it is not changed.
        folder: where the machine's own files go; removed by `remove`.
        wheels: folder shown read-only as /wheels.
    """

    def __init__(self, base: Path, folder: Path, wheels: Path) -> None:
        self.root = folder / "root"
        self._folder = folder
        self._wheels = wheels.resolve()
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        layers = f"lowerdir={base},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True
        )
        self._name = f"llavachat-{uuid.uuid4().hex[:8]}"
        self._group = ControlGroup(self._name)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.devices: dict[str, str] = {}
        """Device files that the machine has from its next boot on, by their names inside."""

    def boot(self) -> float:
        """Boot to multi-user; the seconds it took."""
        began = time.monotonic()
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"]
        command += ["--register=no", "--keep-unit", "--console=pipe", f"--machine={self._name}"]
        command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        # What the service's sandbox asks of the kernel, and nspawn does not pass on by itself.
        command += ["--capability=CAP_NET_ADMIN,CAP_BPF", "--system-call-filter=bpf"]
        command += [f"--bind-ro={self._wheels}:/wheels"]
        command += [f"--bind={outside}:{inside}" for inside, outside in self.devices.items()]
        log = (self._folder / "console").open("wb")
        self._nspawn = subprocess.Popen(
            self._group.words(*command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        self._wait_for_boot()
        return time.monotonic() - began

    def reboot(self) -> float:
        """Reboot; the seconds until multi-user is reached again."""
        began = time.monotonic()
        assert self._nspawn is not None
        self.run("systemctl", "--no-block", "reboot")
        # Kept in its own unit, nspawn leaves starting anew to whoever started it.
        assert self._nspawn.wait(BOOT_SECONDS) == REBOOTED
        self.boot()
        return time.monotonic() - began

    def run(self, *words: str, check: bool = True, seconds: float = COMMAND_SECONDS) -> str:
        """Run a program inside; what it wrote on both streams."""
        done = self.run_raw(*words, seconds=seconds)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    def run_raw(
        self, *words: str, seconds: float = COMMAND_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program inside; its exit code, and both streams as one text."""
        return subprocess.run(
            self.words_inside(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def words_inside(self, *words: str) -> list[str]:
        """The command that runs a command inside."""
        enter = ["nsenter", f"--target={self._find_leader()}", "--mount", "--uts", "--ipc"]
        enter += ["--pid", "--cgroup", "--root"]
        variables = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        variables += ["PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels", "PIP_NO_CACHE_DIR=1"]
        return [*enter, "env", "--chdir=/", "-i", *variables, *words]

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a shell script inside; what it wrote."""
        return self.run("sh", "-c", script, check=check)

    def read_property(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def read_journal(self, *words: str) -> str:
        """Messages of the journal, all or of what the words select."""
        self.sync_journal()
        return self.run("journalctl", "--quiet", "--no-pager", "--output=cat", *words)

    def sync_journal(self) -> None:
        """Have all that was written to the journal until now found there."""
        self.run("journalctl", "--sync")

    def remove(self) -> None:
        """Pull the plug and leave nothing behind."""
        self._group.kill()
        if self._nspawn is not None:
            self._nspawn.wait()
        self._group.remove()
        subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def find_process(self, number: int) -> int:
        """A process's number outside, by its number inside. Source: NSpid in proc(5)."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                words = status.read_text().partition("NSpid:")[2].partition("\n")[0].split()
                is_ours = len(words) > 1 and words[-1] == str(number)
                if is_ours and (status.parent / "ns/pid").readlink() == self._read_namespace():
                    return int(words[0])
            except OSError:
                continue  # it has just ended
        raise ProcessLookupError(number)

    def _read_namespace(self) -> Path:
        return Path(f"/proc/{self._find_leader()}/ns/pid").readlink()

    def _find_leader(self) -> int:
        """The process that is number 1 inside."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
        return int(children.split()[0])

    def _wait_for_boot(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.05)  # a machine that is not there yet can not be asked to tell
            try:
                state = self.run("systemctl", "is-system-running", "--wait", check=False)
            except (IndexError, OSError):
                continue
            if state.strip() in ("running", "degraded"):
                return
        console = (self._folder / "console").read_text(errors="replace")
        raise AssertionError(f"the machine did not boot within {BOOT_SECONDS:.0f} s:\n{console}")
