"""The installer's command line.

Exit codes: 0 done, 1 not done (the message says why), 2 wrong words on the command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

from llavachat_host import alert, idleness, installation, layout, model
from llavachat_host.options import Options, load_options
from llavachat_host.steps import HostError, Steps, warn

HERE = Path(__file__).resolve().parents[2]
"""The folder of the release that this installer came with."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; exits with 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="install", description="Install llavachat on this machine, update it, or step back."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    run = verbs.add_parser("run", help="install or update, and wait for the first answer (default)")
    prepare = verbs.add_parser("prepare", help="bring all that run needs, and let nothing run")
    check = verbs.add_parser("check", help="say what this machine lacks, and change nothing")
    for verb in (run, prepare, check):
        verb.add_argument(
            "--release",
            type=absolute,
            default=HERE,
            metavar="FOLDER",
            help="holds the wheel, constraints.txt and assets (default: this one)",
        )
        add_options(verb)
    verbs.add_parser("rollback", help="return to the release before this one")
    verbs.add_parser("status", help="what is installed, and what it is doing")
    verbs.add_parser("prepare-model", help="(by systemd) bring the model's weights")
    verbs.add_parser("idle", help="(by systemd) stop the machine if nobody needs it")
    verbs.add_parser("alert", help="(by systemd) tell of a failed unit").add_argument("unit")
    if not arguments or arguments[0] not in (*verbs.choices, "-h", "--help"):
        arguments = ["run", *arguments]
    return parser.parse_args(arguments)


def absolute(text: str) -> Path:
    """A path that holds wherever this process goes."""
    return Path(text).absolute()


def add_options(parser: argparse.ArgumentParser) -> None:
    """A flag for each option; what is not given stays as it was."""
    texts = {
        "profile": "what to serve: shapes, llava-1.5-7b or llava-1.5-13b",
        "quantization": "form of the weights: none, int8 or nf4 (default: the profile's)",
        "listen": "HOST:PORT; beyond 127.0.0.1 the credentials folder must hold keys and TLS",
        "metrics_listen": "HOST:PORT to answer Prometheus on, by the same rules; or off",
        "weights": "s3://BUCKET/PREFIX that mirrors published weights",
        "idle_minutes": "stop the machine after so long without a call; 0: never",
        "stop_command": "what stops the machine",
    }
    for field in fields(Options):
        kind = float if field.name == "idle_minutes" else str
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default=None,
            metavar="VALUE",
            help=texts[field.name],
        )


def resolve_options(given: argparse.Namespace) -> Options:
    """The options kept from before, with what is given now."""
    names = [field.name for field in fields(Options)]
    changed = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    options = replace(load_options(), **changed)
    options.check()
    return options


def act(given: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if given.verb == "status":
        sys.stdout.write("\n".join(installation.list_status()) + "\n")
        return
    if given.verb == "check":
        from llavachat_host.release import Source

        source = Source.find(given.release)
        installation.check_machine(source, resolve_options(given), Steps())
        return
    if os.geteuid() != 0:
        raise HostError("root is needed; use sudo")
    if given.verb == "alert":
        alert.tell(given.unit)
    elif given.verb == "idle":
        idleness.stop_if_idle(load_options(), Steps())
    elif given.verb == "prepare-model":
        python = layout.CURRENT / "venv" / "bin" / "python"
        model.prepare_model(load_options(), python, Steps(), model.BOOT_PAUSES)
    elif given.verb == "prepare":
        installation.prepare(given.release, resolve_options(given), Steps(layout.LOG))
    elif given.verb == "rollback":
        installation.roll_back(Steps(layout.LOG))
    else:
        installation.install(given.release, resolve_options(given), Steps(layout.LOG))


def main(arguments: list[str] | None = None) -> int:
    """Run the installer; the exit code."""
    os.umask(0o022)
    given = parse(sys.argv[1:] if arguments is None else arguments)
    # Whoever calls may stand in a folder that goes away.
    os.chdir("/")
    try:
        act(given)
    except HostError as error:
        warn(f"install: {error}")
        return 1
    return 0
