"""Releases: built beside the running one, switched to by one rename, and dropped when old.

Nothing here starts or stops anything. A release is named after its version and a hash of all its
files, so that the same files are the same release, and two builds of one version are two.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from llavachat_host import layout
from llavachat_host.options import write_whole
from llavachat_host.steps import HostError, Steps, run

COMPLETE = "complete"
"""A file in a folder that was built to its end; a folder without it is built again."""


@dataclass(frozen=True)
class Source:
    """The files that a release is made of, as they were shipped.

    Attributes:
        wheel: the distribution.
        constraints: pinned versions of the libraries, for pip.
        assets: this installer and the units.
    """

    wheel: Path
    constraints: Path
    assets: Path

    @classmethod
    def find(cls, folder: Path) -> Source:
        """The release in a folder: one wheel, ``constraints.txt`` and ``assets``.

        Raises:
            HostError: something is not there.
        """
        wheels = sorted(folder.glob("llavachat-*.whl"))
        source = cls(
            wheels[0] if wheels else folder / "llavachat-*.whl",
            folder / "constraints.txt",
            folder / "assets",
        )
        if len(wheels) != 1:
            raise HostError(f"{folder} must hold one llavachat wheel; it holds {len(wheels)}")
        for path in (source.constraints, source.assets / "install"):
            if not path.is_file():
                raise HostError(f"the release lacks {path}")
        return source

    @property
    def name(self) -> str:
        """The release's name, such as ``0.1.0-1f0c9a34``."""
        match = re.match(r"llavachat-([^-]+)-", self.wheel.name)
        version = match.group(1) if match else "unknown"
        files = [self.wheel, self.constraints]
        files += sorted(
            path
            for path in self.assets.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return f"{version}-{digest.hexdigest()[:8]}"


def environment_folder(source: Source, python: Path) -> Path:
    """Where the libraries for a release lie: one folder for each set of pins and interpreter."""
    version = run([python, "-c", "import sys; print(sys.version)"], failure="Python does not run")
    key = hashlib.sha256(version.encode() + source.constraints.read_bytes()).hexdigest()[:12]
    return layout.ENVIRONMENTS / key


def is_complete(folder: Path) -> bool:
    """Whether a folder was built to its end."""
    return (folder / COMPLETE).is_file()


def build_environment(source: Source, python: Path, steps: Steps) -> Path:
    """The libraries, downloaded and unpacked unless they are there already."""
    folder = environment_folder(source, python)
    if is_complete(folder):
        steps.say(f"libraries: {folder.name} is there already")
        return folder
    with steps.step("libraries"):
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", folder], failure="the virtual environment can not be made")
        pip: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--no-input",
            "--constraint",
            source.constraints,
        ]
        # torch first and by itself, so that no other package can draw in another build of it.
        run([*pip, "torch"], failure="torch can not be installed")
        steps.say("libraries: torch is there, the others follow")
        run([*pip, f"{source.wheel}[server,otel]"], failure="the libraries can not be installed")
        # The wheel came along to say what it needs; each release brings its own.
        run(
            [*pip[:3], "uninstall", "--quiet", "--yes", "llavachat"],
            failure="the libraries can not be tidied",
        )
        seal(folder, source.name)
    return folder


def open_assets(folder: Path) -> None:
    """Let everybody read the assets, and run the installer, as its unit does.

    How they came says nothing: a release that was unpacked from a zip has lost who may run what,
    and under a narrow umask who may read.
    """
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path == folder / "install" else 0o644)


def build_release(source: Source, environment: Path, steps: Steps) -> Path:
    """A release's own folder, complete and not yet in use."""
    folder = layout.RELEASES / source.name
    if is_complete(folder):
        steps.say(f"release: {folder.name} is there already")
        return folder
    with steps.step(f"release {folder.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        python = environment / "bin" / "python"
        venv = folder / "venv"
        run([python, "-m", "venv", "--without-pip", venv], failure="the release can not be made")
        own = find_packages(venv)
        # A path file's own path files are not read, so the folder is added as a site folder.
        line = f"import site; site.addsitedir({str(find_packages(environment))!r})\n"
        write_whole(own / "llavachat-libraries.pth", line)
        run(
            [
                python,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--quiet",
                "--python",
                venv / "bin" / "python",
                "install",
                "--no-deps",
                "--no-input",
                source.wheel,
            ],
            failure="the wheel can not be installed",
        )
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source.assets, folder / "assets", ignore=ignore)
        open_assets(folder / "assets")
        shutil.copy(source.wheel, folder)
        shutil.copy(source.constraints, folder / "constraints.txt")
        write_whole(folder / "environment", environment.name + "\n")
        server = venv / "bin" / "llavachat-server"
        said = run([server, "--version"], failure="the release does not start")
        steps.say(f"release: it says {said.strip()!r}")
        seal(folder, source.name)
    return folder


def find_packages(environment: Path) -> Path:
    """The site-packages folder of a virtual environment."""
    return next((environment / "lib").glob("python3.*/site-packages"))


def seal(folder: Path, text: str) -> None:
    """Mark a folder as complete, once it is on the disk."""
    os.sync()
    write_whole(folder / COMPLETE, text + "\n")


def point(link: Path, target: Path) -> None:
    """Let a link lead to a release; at no moment does it lead nowhere."""
    draft = link.with_name(link.name + ".new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target.relative_to(layout.ROOT))
    draft.replace(link)


def read_link(link: Path) -> Path | None:
    """The complete release that a link leads to."""
    if not link.is_symlink():
        return None
    folder = link.resolve()
    return folder if is_complete(folder) else None


def drop_old(keep: set[Path], steps: Steps) -> None:
    """Remove the releases but those to keep, and the libraries that none of them uses."""
    used = {(folder / "environment").read_text().strip() for folder in keep}
    for folder in list(layout.RELEASES.glob("*")):
        if folder not in keep:
            steps.say(f"dropping the old release {folder.name}")
            shutil.rmtree(folder, ignore_errors=True)
    for folder in list(layout.ENVIRONMENTS.glob("*")):
        if folder.name not in used:
            steps.say(f"dropping the old libraries {folder.name}")
            shutil.rmtree(folder, ignore_errors=True)
