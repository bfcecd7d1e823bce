"""The release that a machine installs: wheel, constraints, units and install script in one folder.

The same sources give the same bytes, so that an unchanged release is an unchanged deployment.
"""

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llavachat_cdk.configuration import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
"""The source tree that this package stands in."""

MACHINE = Path(__file__).resolve().parent / "machine"
"""What runs on the machine around the install script: claims the chats' volume, signals."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is shipped.

    Attributes:
        wheel: the distribution, client and server.
        constraints: pinned versions of what it needs, for pip.
        assets: folder with the install script and the units.
    """

    wheel: Path
    constraints: Path
    assets: Path

    @classmethod
    def build(cls, root: Path = ROOT) -> "Release":
        """The release of a source tree; its wheel is built now, and goes when the process ends.

        Raises:
            ConfigurationError: `root` is not llavachat's source tree, or its wheel does not build.
        """
        folder = Path(tempfile.mkdtemp(prefix="llavachat-wheel-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            raise ConfigurationError(
                f"the wheel did not build in {root}; give LlavaChat a Release with a wheel, or "
                f"run from llavachat's source tree:\n{done.stderr.strip()}"
            )
        return cls(
            wheel=wheels[0], constraints=root / "constraints.txt", assets=root / "cdk" / "assets"
        )

    @contextmanager
    def staged(self, *, keep: bool = False) -> Iterator[Path]:
        """A folder that holds the whole release, as the machine will unpack it.

        Args:
            keep: leave it there afterwards, for whoever reads it later.
        """
        folder = Path(tempfile.mkdtemp(prefix="llavachat-release-"))
        try:
            shutil.copy(self.wheel, folder)
            shutil.copy(self.constraints, folder / "constraints.txt")
            ignore = shutil.ignore_patterns("__pycache__", ".*_cache")
            shutil.copytree(self.assets, folder / "assets", ignore=ignore)
            shutil.copytree(MACHINE, folder / "machine", ignore=ignore)
            yield folder
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
