"""A whole run: set-up, rounds in which the contenders take turns, and all of it as JSON.

The file is written after every contender, so that a run that is cut short has told what it saw.
"""

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.served.contest import Failed, compete
from bench.served.machine import describe_machine, read_date, read_load
from bench.served.peers import PEERS
from bench.served.peers.peer import OFFLINE, ROOT_FOLDER, NotInstalled, Peer, Place, run
from bench.served.rows import Scale
from bench.served.workload import WORDS_NAME

BANDWIDTH, BARE_LOOP, ENGINE = "bandwidth", "bare-loop", "engine"
LOCAL = (BANDWIDTH, BARE_LOOP, ENGINE)
"""Measured without a server, beside the contenders; see `local`."""
CHECKPOINT_SOURCES = ("checkpoint.py", "workload.py")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    Args:
        contenders: names of `PEERS` and `LOCAL`.
        num_rounds: how often each is measured.
        scale: how much is asked of it.
        folder: for environments, checkpoints and logs.
        output: the run's JSON.
    """

    contenders: Sequence[str]
    num_rounds: int
    scale: Scale
    folder: Path
    output: Path


def carry_out(plan: Plan) -> dict[str, Any]:
    """Set up, measure, and return what `plan.output` holds."""
    began = time.perf_counter()
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    place = Place(plan.folder, make_checkpoint(plan.folder), max(plan.scale.chats))
    report: dict[str, Any] = {
        "date": read_date(),
        "machine": describe_machine(),
        "scale": {**asdict(plan.scale), "rows": sorted(plan.scale.rows)},
        "versions": {},
        "absent": {},
        "rounds": [],
    }
    present = [name for name in plan.contenders if set_up(name, place, report)]
    say(f"set-up took {time.perf_counter() - began:.0f} s; {plan.num_rounds} rounds begin")
    words = json.loads((place.checkpoint / WORDS_NAME).read_text())
    began = time.perf_counter()
    for number in range(plan.num_rounds):
        # Each round begins with another contender, so that none is always the first.
        turn = number % max(len(present), 1)
        order = [*present[turn:], *present[:turn]]
        contenders: dict[str, Any] = {}
        entry = {"load": round(read_load(), 2), "order": order, "contenders": contenders}
        report["rounds"].append(entry)
        for name in order:
            start = time.perf_counter()
            contenders[name] = measure_one(name, place, words, f"round {number}", plan.scale)
            failure = contenders[name].get("failed")
            say(
                f"round {number + 1} of {plan.num_rounds}: {name}, "
                f"{time.perf_counter() - start:.0f} s{f'; failed: {failure}' if failure else ''}"
            )
            report["seconds"] = round(time.perf_counter() - began)
            plan.output.write_text(json.dumps(report, indent=1) + "\n")
        left = report["seconds"] / (number + 1) * (plan.num_rounds - number - 1)
        if left:
            say(f"{left / 60:.0f} minutes more, if the other rounds take as long")
    return report


def make_checkpoint(folder: Path) -> Path:
    """The checkpoint's folder; made anew when what makes it has changed."""
    checkpoint, here = folder / "checkpoint", Path(__file__).parent
    stamp = folder / "checkpoint.made"
    digest = hashlib.sha256()
    for name in CHECKPOINT_SOURCES:
        digest.update((here / name).read_bytes())
    if not stamp.is_file() or stamp.read_text() != digest.hexdigest():
        say("making the checkpoint")
        stamp.unlink(missing_ok=True)
        words = [sys.executable, "-m", "bench.served.checkpoint", str(checkpoint)]
        run(words, folder / "logs" / "checkpoint.log")
        stamp.write_text(digest.hexdigest())
    return checkpoint


def set_up(name: str, place: Place, report: dict[str, Any]) -> bool:
    """Install one contender; note its versions, or why it can not take part."""
    if name in LOCAL:
        return True
    peer = PEERS[name]
    try:
        say(f"installing {name}")
        peer.install(place)
        peer.prepare(place)
        report["versions"][name] = peer.list_versions(place)
    except (NotInstalled, subprocess.CalledProcessError) as error:
        report["absent"][name] = str(error)
        say(f"{name} can not take part: {error}")
        return False
    return True


def measure_one(
    name: str, place: Place, words: list[str], seed: str, scale: Scale
) -> dict[str, Any]:
    """One contender's part of a round: its figures, or why there are none."""
    log = place.folder / "logs" / f"{name}.log"
    try:
        if name in LOCAL:
            return measure_locally(name, place, seed, scale, log)
        measured = asdict(asyncio.run(compete(PEERS[name], place, words, seed, scale, log)))
    except (Failed, NotInstalled) as error:
        return {"failed": str(error)}
    except Exception as error:  # whatever it is, the others have their turn
        return {"failed": f"{type(error).__name__}: {error}"}
    return measured


def measure_locally(name: str, place: Place, seed: str, scale: Scale, log: Path) -> dict[str, Any]:
    """Run one module of `local` and read what it wrote."""
    output = place.folder / f"{name}.json"
    output.unlink(missing_ok=True)
    checkpoint = str(place.checkpoint)
    fields = json.dumps({**asdict(scale), "rows": sorted(scale.rows)})
    module, arguments = {
        BANDWIDTH: ("bandwidth", [str(output)]),
        BARE_LOOP: ("bare_loop", [checkpoint, str(output), ",".join(map(str, scale.chats))]),
        ENGINE: (
            "engine",
            [checkpoint, str(output), str(place.checkpoint / WORDS_NAME), seed, fields],
        ),
    }[name]
    words = [sys.executable, "-m", f"bench.served.local.{module}", *arguments]
    log.unlink(missing_ok=True)
    run(words, log, OFFLINE)
    measured: dict[str, Any] = json.loads(output.read_text())
    return measured


def draw_charts(run_file: Path, folder: Path) -> None:
    """Draw a run in an environment with matplotlib.

    Raises:
        NotInstalled: that can not be had, or failed; with its last line.
    """
    place = Place(default_folder(), default_folder() / "checkpoint", 1)
    painter = Peer()
    painter.environment = "charts"
    painter.install(place)
    words = [str(painter.python(place)), "-m", "bench.served.charts"]
    run([*words, str(run_file), str(folder)], place.folder / "logs" / "charts.log")


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def default_folder() -> Path:
    """Where runs keep their things."""
    return ROOT_FOLDER / "build" / "bench"
