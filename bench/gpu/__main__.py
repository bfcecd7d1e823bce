"""Measures the engine at full size on a GPU, and prints the tables.

    python -m bench.gpu --sizes 7b,13b --output run.json
    python -m bench.gpu --sizes tiny --device cpu --chats 1,2 --answer-tokens 8

Writes each size's checkpoint (14 and 27 GB) into a folder that is removed afterwards, loads it by
the server's own code in each form, and asks our engine and `generate()`, each in a process of its
own, in turns. The run's file is written after each, so that a run that is cut short has told what
it saw.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("--output", type=Path, default=ROOT_FOLDER / "build/bench/gpu.json")
    parser.add_argument("--report", type=Path, help="print the tables of this run, and do nothing")
    arguments = parser.parse_args()
    if arguments.report:
        print(write_report(json.loads(arguments.report.read_text())))
        return
    for given, known in ((arguments.sizes, SIZES), (arguments.forms, FORMS)):
        if unknown := set(given) - set(known):
            parser.error(f"no such: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(write_report(carry_out(arguments, Path(folder))))


def carry_out(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything, and return what the output holds."""
    device, checkpoint = arguments.device, folder / "checkpoint"
    chats = tuple(int(number) for number in arguments.chats)
    found = _ask(folder, "bench.gpu.bandwidth", "{}", device)
    if "failed" in found:
        raise SystemExit(f"the device can not be measured: {found['failed']}")
    run: dict[str, Any] = {
        "date": read_date(),
        **found,
        "num_rounds": arguments.rounds,
        "chats": chats,
        "answer_tokens": arguments.answer_tokens,
        "models": {},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes:
        if failure := _call("bench.gpu.checkpoint", str(checkpoint), size, device):
            raise SystemExit(f"no checkpoint of {size}: {failure}")
        turns = itertools.product(range(arguments.rounds), arguments.forms, (ENGINE, GENERATE))
        for number, form, contender in turns:
            task = Task(
                size=size,
                form=form,
                device=device,
                seed=f"round {number}",
                # One after the other: its rate does not depend on how many wait.
                chats=chats if contender == ENGINE else (1,),
                answer_tokens=arguments.answer_tokens,
                repeats=arguments.repeats,
            )
            words = (contender, str(checkpoint), "{}", task.write())
            began = time.perf_counter()
            told = _ask(folder, "bench.gpu.contenders", *words)
            failure = f"; failed: {told['failed']}" if "failed" in told else ""
            _say(f"{size}, {form}, {contender}: {time.perf_counter() - began:.0f} s{failure}")
            model = run["models"].setdefault(f"{size}/{form}", {ENGINE: [], GENERATE: []})
            model[contender].append(told)
            arguments.output.write_text(json.dumps(run, indent=1) + "\n")
        shutil.rmtree(checkpoint)
    return run


def _ask(folder: Path, module: str, *words: str) -> dict[str, Any]:
    """Run a module that writes JSON where "{}" stands; "failed" says why there is none."""
    output = folder / "output.json"
    output.unlink(missing_ok=True)
    words = tuple(str(output) if word == "{}" else word for word in words)
    if failure := _call(module, *words):
        return {"failed": failure}
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def _call(module: str, *words: str) -> str:
    """Run a module to its end; the last line that it said where it failed, or ""."""
    command = [sys.executable, "-m", module, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT_FOLDER)
    if not ended.returncode:
        return ""
    last = (ended.stderr.strip().splitlines() or ["not a word"])[-1]
    return f"exit status {ended.returncode}: {last}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
