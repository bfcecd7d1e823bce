"""What the server around the engine costs: the same chats in process and over gRPC, by turns.

    python -m bench.layer [--rounds 9] [--chats 1,4,8,16,32]

Both take the benchmark's checkpoint and ask new chats about new pictures, all at once; see
`bench.served.rows`. It is measured twice. With "all on the same cores" the client takes its
computing from the server's cores; with "the client apart" the engine, in process or in its server,
has the first core alone, and the client another, as it has where it runs on another machine.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.served.figures import summarise
from bench.served.machine import describe_machine, read_date, read_load
from bench.served.peers.ours import Ours
from bench.served.peers.peer import Place
from bench.served.processes import ServerProcess, find_free_port
from bench.served.rows import Measured, Scale, measure_chats, warm_up
from bench.served.run import default_folder, make_checkpoint
from bench.served.workload import WORDS_NAME, Workload

START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cores compute the answers, and which ask."""

    title: str
    computing: frozenset[int]
    asking: frozenset[int]


def list_layouts() -> list[Layout]:
    """Those that this machine has cores for."""
    cores = sorted(os.sched_getaffinity(0))
    layouts = [Layout("all on the same cores", frozenset(cores), frozenset(cores))]
    if len(cores) > 1:
        apart = Layout("the client apart", frozenset(cores[:1]), frozenset(cores[1:]))
        layouts.append(apart)
    return layouts


class Asker:
    """A process that asks bursts of chats, and stays between them."""

    def __init__(self, arguments: Sequence[str], cores: frozenset[int]) -> None:
        self._process = subprocess.Popen(
            [*pin(cores), sys.executable, "-m", "bench.layer", "ask", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, num_chats: int, seed: str) -> float:
        """Tokens a second of all chats together."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"chats": num_chats, "seed": seed}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError("who asks has ended")
        return float(line)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def pin(cores: frozenset[int]) -> list[str]:
    """Words that keep a command on these cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cores)))]


def measure(
    chats: Sequence[int], num_rounds: int, layout: Layout
) -> dict[int, list[tuple[float, float]]]:
    """(in process, over gRPC) tokens a second of each round, by the number of chats."""
    rates: dict[int, list[tuple[float, float]]] = {number: [] for number in chats}
    checkpoint = make_checkpoint(default_folder())
    with ExitStack() as stack:
        port = stack.enter_context(serve(checkpoint, max(chats), layout.computing))
        askers = [
            Asker([str(checkpoint), str(max(chats))], layout.computing),
            Asker([str(checkpoint), str(max(chats)), str(port)], layout.asking),
        ]
        for asker in askers:
            stack.callback(asker.close)
            asker.ask(0, "warm-up")
        for number in range(num_rounds):
            for num_chats in chats:
                seed = f"layer {number}"
                # Who is first alternates, since a machine's speed drifts.
                order = (0, 1) if number % 2 == 0 else (1, 0)
                found = {index: askers[index].ask(num_chats, seed) for index in order}
                rates[num_chats].append((found[0], found[1]))
    return rates


@contextmanager
def serve(checkpoint: Path, max_chats: int, cores: frozenset[int]) -> Iterator[int]:
    """Start the server as the benchmark does; its port."""
    with tempfile.TemporaryDirectory() as name:
        folder, port, ours = Path(name), find_free_port(), Ours()
        place = Place(folder, checkpoint, max_chats)
        command = ours.command(place, port)
        server = ServerProcess(
            [*pin(cores), *command.words], command.environment, folder / "server.log"
        )
        try:
            ready_file = ours.ready_file(place)
            assert ready_file is not None
            while not ready_file.exists():
                server.check()
                if time.perf_counter() - server.began_seconds > START_SECONDS:
                    raise RuntimeError(f"not ready within {START_SECONDS:.0f} s")
                time.sleep(0.05)
            yield port
        finally:
            server.stop()


async def answer_orders(checkpoint: Path, max_chats: int, port: int | None) -> None:
    """Ask a burst for each line of standard input; with a port over gRPC, else in process."""
    words = json.loads((checkpoint / WORDS_NAME).read_text())
    if port is None:
        from bench.served.local.engine import InProcess, make_engine

        engine = make_engine(str(checkpoint), max_chats)
        await engine.start()
        interface = InProcess(engine)
    else:
        from bench.served.clients.ours import LlavachatClient

        interface = LlavachatClient(port)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        workload = Workload(words, order["seed"] + f" of {order['chats']}")
        measured = Measured()
        if order["chats"]:
            openings = [workload.draw_opening() for _ in range(order["chats"])]
            await measure_chats(interface, openings, Scale(), measured)
        else:
            await warm_up(interface, workload)
        print(measured.figures.get(f"total_{order['chats']}", 0.0), flush=True)
    await interface.close()
    if port is None:
        await engine.stop()


def write_table(rates: Mapping[int, Sequence[tuple[float, float]]]) -> str:
    """Medians of the rates, and of the rounds' shares that the server takes."""
    lines = [
        "| chats at once | in process, tok/s | over gRPC | the server's share |",
        "|---|---|---|---|",
    ]
    for num_chats, rounds in rates.items():
        own, served = (summarise(values).median for values in zip(*rounds, strict=True))
        share = summarise([100 * (1 - b / a) for a, b in rounds])
        lines.append(
            f"| {num_chats} | {own:,.0f} | {served:,.0f} | "
            f"{share.median:.1f} % ({share.low:.1f} to {share.high:.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or ask."""
    if sys.argv[1:2] == ["ask"]:
        folder, max_chats, *port = sys.argv[2:]
        asyncio.run(answer_orders(Path(folder), int(max_chats), int(port[0]) if port else None))
        return
    parser = argparse.ArgumentParser(
        prog="python -m bench.layer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chats", default="1,4,8,16,32")
    options = parser.parse_args()
    chats = [int(number) for number in options.chats.split(",")]
    print(f"{read_date()}, load {read_load():.1f}, {json.dumps(describe_machine())}")
    for layout in list_layouts():
        rates = measure(chats, options.rounds, layout)
        print(f"\n{layout.title}, {options.rounds} rounds:\n\n{write_table(rates)}", flush=True)


if __name__ == "__main__":
    main()
