"""What a contender is made of: an environment, a form of the checkpoint, a command, a client."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.served.clients.talk import Interface

ROOT_FOLDER = Path(__file__).resolve().parents[3]
REQUIREMENTS_FOLDER = Path(__file__).resolve().parents[1] / "requirements"
INSTALL_SECONDS = 3600.0

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class NotInstalled(Exception):
    """A contender can not take part; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its things.

    Args:
        folder: of the run, ``build/bench``; environments and converted checkpoints are in it.
        checkpoint: its folder; see `checkpoint`.
        max_chats: the most that are asked side by side.
    """

    folder: Path
    checkpoint: Path
    max_chats: int


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is started."""

    words: Sequence[str]
    environment: Mapping[str, str]


class Peer:
    """A contender. The subclasses fill in what differs.

    `name` is that of flags and files; see `titles`. `environment` names the folder in
    which its Python is and the file of requirements that it is made from, and `packages` are the
    distributions whose versions are told.
    """

    name = ""
    environment = ""
    packages: Sequence[str] = ()
    unneeded: Sequence[str] = ()
    """Packages that are removed where they can not be imported. torchvision's wheels fit one build
    of torch, and not always the one that is there; nothing that is measured needs it."""

    def python(self, place: Place) -> Path:
        """The interpreter of its environment."""
        return place.folder / "environments" / self.environment / "bin" / "python"

    def install(self, place: Place) -> None:
        """Make the environment, once for each state of its requirements.

        Raises:
            NotInstalled: it can not be had here.
        """
        requirements = REQUIREMENTS_FOLDER / f"{self.environment}.txt"
        python = self.python(place)
        stamp = python.parent.parent / "installed"
        state = hashlib.sha256(requirements.read_bytes()).hexdigest()
        if stamp.is_file() and stamp.read_text() == state:
            return
        log = place.folder / "logs" / f"install-{self.environment}.log"
        if not python.is_file():
            run([sys.executable, "-m", "venv", str(python.parent.parent)], log)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        pins = requirements.read_text().splitlines()
        # torch first and by itself, so that no other package can draw in another build of it
        for first in [pin for pin in pins if pin.startswith("torch==")]:
            run([*pip, first], log)
        run([*pip, "-r", str(requirements)], log)
        for package in self.unneeded:
            check = subprocess.run(
                [str(python), "-c", f"import {package}"], capture_output=True, check=False
            )
            if check.returncode:
                run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", package], log)
        stamp.write_text(state)

    def prepare(self, place: Place) -> None:
        """Bring the checkpoint into the form that it reads, once.

        Raises:
            NotInstalled: that failed.
        """

    def command(self, place: Place, port: int) -> Command:
        """How its server is started on a port of this machine."""
        raise NotImplementedError

    def connect(self, place: Place, port: int) -> Interface:
        """A client of its server."""
        raise NotImplementedError

    def ready_file(self, place: Place) -> Path | None:
        """What it writes once it serves. None: nothing, and its port says as much."""
        return None

    def list_versions(self, place: Place) -> dict[str, str]:
        """What is measured: versions of `packages` in its environment."""
        code = (
            "import importlib.metadata, json, sys; "
            "print(json.dumps({n: importlib.metadata.version(n) for n in sys.argv[1:]}))"
        )
        words = [str(self.python(place)), "-c", code, *self.packages]
        output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        versions: dict[str, str] = json.loads(output)
        return versions


def run(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command of the set-up to its end.

    Args:
        words: program and arguments.
        log: its output goes to the end of this file.
        environment: variables besides this process's own.

    Raises:
        NotInstalled: it failed; with its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            code = subprocess.run(
                words,
                cwd=ROOT_FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                timeout=INSTALL_SECONDS,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalled(f"{Path(words[0]).name}: {type(error).__name__}") from error
    if code != 0:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise NotInstalled(f"{' '.join(words)[-120:]} ended with {code}: {lines[-1][:300]}")
