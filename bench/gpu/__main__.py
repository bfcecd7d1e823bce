"""Measures the engine at full size on a GPU, and prints the tables.

    python -m bench.gpu --sizes 7b,13b --output run.json
    python -m bench.gpu --sizes tiny --device cpu --chats 1,2 --answer-tokens 8

Writes each size's checkpoint (14 and 27 GB) into a folder that is removed afterwards, loads it by
the server's own code in each form, and asks our engine and `generate()`, each in a process of its
own, in turns. The run's file is written after each, so that a run that is cut short has told what
it saw; beside it lies a log of each process, named after it. What fails, or can not be measured on
this machine, is told, and the rest is measured all the same.
"""

import argparse
import itertools
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from bench.gpu.calls import call
from bench.gpu.fitting import find_obstacle
from bench.gpu.report import ENGINE, GENERATE, write_report
from bench.gpu.sizes import FORMS, SIZES
from bench.gpu.task import Task
from bench.served.machine import read_date
from bench.served.peers.peer import ROOT_FOLDER


def main() -> None:
    """Run, or report what a run has written."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--sizes", type=names, default=["7b"], help=", ".join(SIZES))
    parser.add_argument("--forms", type=names, default=list(FORMS), help=", ".join(FORMS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--chats", type=names, default=["1", "8", "32"])
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for checkpoints; a temporary one if not given")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT_FOLDER / "build/bench/gpu.json",
        help="the run's file; logs lie beside it, so a folder of its own has all that is left",
    )
    parser.add_argument("--call-seconds", type=float, default=600, help="for each process at most")
    parser.add_argument("--report", type=Path, help="print the tables of this run, and do nothing")
    arguments = parser.parse_args()
    if arguments.report:
        print(write_report(json.loads(arguments.report.read_text())))
        return
    for given, known in ((arguments.sizes, SIZES), (arguments.forms, FORMS)):
        if unknown := set(given) - set(known):
            parser.error(f"no such: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    # The default would end this process at once: a checkpoint of 27 GB stayed on the disk.
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        Bench(arguments, Path(folder)).carry_out()


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


class Bench:
    """One run.

    Args:
        arguments: of the command line.
        folder: for checkpoints.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._checkpoint = folder / "checkpoint"
        self._begun: set[Path] = set()

    def carry_out(self) -> None:
        """Measure everything, and print the tables of what was measured, whatever ends it."""
        arguments = self._arguments
        _say("measuring the device")
        found = self._ask("device", "bench.gpu.bandwidth", "{}", arguments.device)
        if "failed" in found:
            raise SystemExit(f"the device can not be measured: {found['failed']}")
        run: dict[str, Any] = {
            "date": read_date(),
            **found,
            "num_rounds": arguments.rounds,
            "chats": tuple(int(number) for number in arguments.chats),
            "answer_tokens": arguments.answer_tokens,
            "models": {},
            "left_out": {},
        }
        try:
            for size in arguments.sizes:
                self._measure_size(size, run)
        finally:
            self._write(run)
            print(write_report(run))

    def _measure_size(self, size: str, run: dict[str, Any]) -> None:
        forms = []
        for form in self._arguments.forms:
            if obstacle := find_obstacle(size, form, run["device"]):
                self._leave_out(run, f"{size}, {form}", obstacle)
            else:
                forms.append(form)
        if not forms:
            return
        _say(f"{size}: writing the checkpoint")
        words = ("bench.gpu.checkpoint", str(self._checkpoint), size, self._arguments.device)
        if failure := self._call(f"{size}-checkpoint", *words):
            self._leave_out(run, size, f"no checkpoint: {failure}")
        else:
            self._measure_forms(size, forms, run)
        # Two of them may not fit on the disk.
        shutil.rmtree(self._checkpoint, ignore_errors=True)

    def _measure_forms(self, size: str, forms: list[str], run: dict[str, Any]) -> None:
        arguments = self._arguments
        turns = itertools.product(range(arguments.rounds), forms, (ENGINE, GENERATE))
        for number, form, contender in turns:
            task = Task(
                size=size,
                form=form,
                device=arguments.device,
                seed=f"round {number}",
                # One after the other: its rate does not depend on how many wait.
                chats=run["chats"] if contender == ENGINE else (1,),
                answer_tokens=arguments.answer_tokens,
                repeats=arguments.repeats,
            )
            words = (contender, str(self._checkpoint), "{}", task.write())
            began = time.perf_counter()
            name = f"{size}-{form}-{contender}"
            told = self._ask(name, "bench.gpu.contenders", *words)
            failure = f"; failed: {told['failed']}" if "failed" in told else ""
            _say(f"{size}, {form}, {contender}: {time.perf_counter() - began:.0f} s{failure}")
            model = run["models"].setdefault(f"{size}/{form}", {ENGINE: [], GENERATE: []})
            model[contender].append(told)
            self._write(run)

    def _leave_out(self, run: dict[str, Any], name: str, why: str) -> None:
        _say(f"{name} is left out: {why}")
        run["left_out"][name] = why
        self._write(run)

    def _write(self, run: dict[str, Any]) -> None:
        self._arguments.output.parent.mkdir(parents=True, exist_ok=True)
        self._arguments.output.write_text(json.dumps(run, indent=1) + "\n")

    def _ask(self, name: str, module: str, *words: str) -> dict[str, Any]:
        """Run a module that writes JSON where "{}" stands; "failed" says why there is none."""
        output = self._folder / "output.json"
        output.unlink(missing_ok=True)
        words = tuple(str(output) if word == "{}" else word for word in words)
        if failure := self._call(name, module, *words):
            return {"failed": failure}
        content: dict[str, Any] = json.loads(output.read_text())
        return content

    def _call(self, name: str, module: str, *words: str) -> str:
        output = self._arguments.output
        log = output.with_name(f"{output.stem}.{name}.log")
        if log not in self._begun:
            # An earlier run's would be taken for this one's.
            log.unlink(missing_ok=True)
            self._begun.add(log)
        return call(log, self._arguments.call_seconds, module, *words)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
