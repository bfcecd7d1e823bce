"""The programs beside us: CDK's command line, our CDK app, the Session Manager plugin."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from llavachat.cli.failure import Failure, wrong_use

CDK_RELEASE = "2.1148.1"
"""3.0.0 was published by accident and can not read the app."""

PLUGIN_REMEDY = (
    "install it: https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)


@dataclass(frozen=True, slots=True)
class App:
    """Our CDK app: the checkout that it lies in, and the interpreter that has its libraries."""

    folder: Path
    python: Path


def find_app() -> App:
    """The CDK app of LLAVACHAT_CHECKOUT, of the folder we are in, or beside this very source.

    Raises:
        Failure: it is not here, or its libraries are not.
    """
    named = os.environ.get("LLAVACHAT_CHECKOUT")
    here = Path.cwd()
    places = [Path(named)] if named else [here, *here.parents, Path(__file__).resolve().parents[4]]
    folder = next((place for place in places if (place / "cdk" / "app.py").is_file()), None)
    if folder is None:
        raise wrong_use(
            "llavachat's CDK app is not here: it comes with the source and not with the package. "
            "Run this in a checkout of llavachat, or name one in LLAVACHAT_CHECKOUT."
        )
    given = os.environ.get("LLAVACHAT_CDK_PYTHON")
    python = Path(given) if given else folder / ".venv-cdk" / "bin" / "python"
    if shutil.which(str(python)) is None:
        raise wrong_use(_describe_installation(folder))
    return App(folder, python)


def read_library(app: App) -> str:
    """The release of CDK's library that the app would run with.

    Raises:
        Failure: it is not installed.
    """
    code = "from importlib.metadata import version; print(version('aws-cdk-lib'))"
    done = subprocess.run(  # noqa: S603 - the app's own interpreter
        [str(app.python), "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise wrong_use(_describe_installation(app.folder))
    return done.stdout.strip()


def _describe_installation(folder: Path) -> str:
    return (
        f"The CDK app's libraries are not installed in {folder}: python3 -m venv .venv-cdk && "
        ".venv-cdk/bin/pip install --upgrade pip && "
        ".venv-cdk/bin/pip install -c cdk/constraints.txt --group cdk"
    )


def find_cdk() -> list[str]:
    """How to start CDK's command line: what is installed, or else by npx.

    Raises:
        Failure: neither is there, or what is there can not read our app.
    """
    if command := shutil.which("cdk"):
        done = subprocess.run(  # noqa: S603 - the user's own
            [command, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
        version = done.stdout.split()[0] if done.stdout.split() else "unknown"
        if version.startswith("2."):
            return [command]
        raise wrong_use(
            f"CDK {version} can not read this app: npm install -g aws-cdk@{CDK_RELEASE}"
        )
    if npx := shutil.which("npx"):
        return [npx, "--yes", f"aws-cdk@{CDK_RELEASE}"]
    raise wrong_use(f"CDK is not installed: npm install -g aws-cdk@{CDK_RELEASE}")


def find_plugin() -> str:
    """The Session Manager plugin.

    Raises:
        Failure: it is not installed.
    """
    command = shutil.which("session-manager-plugin")
    if command is None:
        raise Failure(f"The tunnel needs the Session Manager plugin; {PLUGIN_REMEDY}")
    return command
