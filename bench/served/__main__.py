"""The command line of the comparison; ``make bench`` calls it.

python -m bench.served run --quick --contenders ours,tutorial
python -m bench.served report docs/benchmark.json
"""

import argparse
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from bench.served.peers import PEERS
from bench.served.peers.peer import ROOT_FOLDER
from bench.served.publish import publish
from bench.served.report import write_report
from bench.served.rows import Scale
from bench.served.run import LOCAL, Plan, carry_out, default_folder, draw_charts, say

QUICK = Scale(chats=(1, 4), answer_tokens=16, repeats=1)


def main() -> None:
    """Run, or report what a run has written."""
    parser = argparse.ArgumentParser(prog="python -m bench.served", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="measure, then report")
    add_run_flags(runner)
    reporter = commands.add_parser("report", help="the tables of a run, as Markdown")
    reporter.add_argument("run", type=Path, help="the JSON file of a run")
    painter = commands.add_parser("charts", help="the charts of a run, as PNG files")
    painter.add_argument("run", type=Path, help="the JSON file of a run")
    painter.add_argument("folder", type=Path, help="where the charts go")
    publisher = commands.add_parser("publish", help="put a run into README.md and docs")
    publisher.add_argument("run", type=Path, help="the JSON file of a run")
    arguments = parser.parse_args()
    if arguments.command == "report":
        print(write_report(json.loads(arguments.run.read_text())))
        return
    if arguments.command == "charts":
        draw_charts(arguments.run, arguments.folder)
        return
    if arguments.command == "publish":
        publish(arguments.run, ROOT_FOLDER)
        return
    # So that a server that is being measured ends with a run that is told to.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    print(write_report(carry_out(make_plan(arguments))))
    say(f"the whole run is in {arguments.output}")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """What can be left out of a run."""
    names = (*PEERS, *LOCAL)
    groups = sorted(Scale().rows)
    folder = default_folder()
    parser.add_argument(
        "--contenders",
        type=lambda text: choose(text, names),
        default=list(names),
        help=f"some of {', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--rows",
        type=lambda text: choose(text, groups),
        default=groups,
        help=f"some of {', '.join(groups)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument(
        "--chats",
        type=lambda text: [int(number) for number in text.split(",")],
        help="how many side by side (default: 1,4,8,16,32)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short answers and few chats: a check, no figures"
    )
    parser.add_argument("--folder", type=Path, default=folder, help="environments and checkpoints")
    parser.add_argument("--output", type=Path, default=folder / "run.json", help="the run's JSON")


def choose(text: str, names: list[str] | tuple[str, ...]) -> list[str]:
    """Names of a list, in the list's order.

    Raises:
        argparse.ArgumentTypeError: one of them is not in it.
    """
    wanted = [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} given; allowed: {', '.join(names)}")
    return [name for name in names if name in wanted]


def make_plan(arguments: argparse.Namespace) -> Plan:
    """A run's plan from its flags."""
    scale = QUICK if arguments.quick else Scale()
    scale = replace(scale, rows=frozenset(arguments.rows))
    if arguments.chats:
        scale = replace(scale, chats=tuple(arguments.chats))
    return Plan(
        arguments.contenders, arguments.rounds, scale, arguments.folder.resolve(), arguments.output
    )


if __name__ == "__main__":
    main()
