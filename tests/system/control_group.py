"""A control group of a container's own: two that were booted side by side would share one, and
the systemd of each would take the other's services for its own."""

import time
from pathlib import Path

REMOVAL_SECONDS = 10.0


def find_own_group() -> Path:
    """The folder of this process's group in the hierarchy of version 2. Source: cgroups(7)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    (root, *_) = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (path,) = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    return root / path.lstrip("/")


class ControlGroup:
    """A group below this process's.

    Args:
        name: of its folder.
    """

    def __init__(self, name: str) -> None:
        self.folder = find_own_group() / name
        self.folder.mkdir()

    def words(self, *command: str) -> list[str]:
        """The command that runs a command as the group's member."""
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder), *command]

    def kill(self) -> None:
        """End all of its processes at once."""
        (self.folder / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """With all groups below; its processes have ended."""
        deadline = time.monotonic() + REMOVAL_SECONDS
        while self.folder.exists():
            groups = sorted(self.folder.rglob("*/"), reverse=True)
            try:
                for group in [*groups, self.folder]:
                    group.rmdir()
            except OSError:
                # The kernel has not yet let the last of them go, and tells nobody when it has.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
