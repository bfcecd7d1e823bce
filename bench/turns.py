"""What keeping chats costs a turn, and whether a server's memory stays flat.

    python -m bench.turns share [--turns 200]
    python -m bench.turns memory [--turns 10000] [--counting]

`share` starts two servers on the embedded model, one that keeps its chats in memory and one in
SQLite with an audit record, and asks them the same questions in turns. The store's share is what
a turn takes longer outside the engine on the second, by what it takes in all; the server's own
figures for the engine are taken off first, so that its noise is not the store's.

`memory` asks one server (SQLite, audit record) several questions at once, some with pictures, in
chats of up to eight turns, erases every tenth chat, and prints the server's resident memory as it
goes. `--counting` takes an engine without a model, which is faster; all else is the same.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from llavachat import Client
from PIL import Image

from tests.server_process import run_server

TESTS = Path(__file__).resolve().parent.parent / "tests"
ANSWER_TOKENS = 64
NUM_TALKERS = 4
CHAT_TURNS = 8
MAX_SEEDS = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.turns", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("share", "memory"))
    parser.add_argument("--turns", type=int)
    parser.add_argument("--counting", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        if options.what == "share":
            measure_share(Path(folder), options.turns or 200)
        else:
            measure_memory(Path(folder), options.turns or 10_000, is_counting=options.counting)


def measure_share(folder: Path, num_turns: int) -> None:
    """The same questions to both servers, one after the other, by turns."""
    keeping = ("--store", "sqlite", "--state-folder", str(folder / "state"))
    with ExitStack() as stack:
        clients = {}
        for name, flags in (("memory", ()), ("sqlite", keeping)):
            own = folder / name
            own.mkdir()
            server = stack.enter_context(run_server(own, *flags))
            clients[name] = stack.enter_context(Client(server.address, timeout_seconds=120.0))
        totals: dict[str, list[float]] = {name: [] for name in clients}
        outsides: dict[str, list[float]] = {name: [] for name in clients}
        seeds = find_seeds(clients["memory"])
        for number in range(num_turns):
            for name in sorted(clients, reverse=bool(number % 2)):
                total, inside, _ = ask_one(clients[name], seeds[number % len(seeds)])
                totals[name].append(total)
                outsides[name].append(total - inside)
    for name in clients:
        print(
            f"{name:8} turn p50 {1000 * statistics.median(totals[name]):7.1f} ms; outside the "
            f"engine p50 {1000 * statistics.median(outsides[name]):5.2f} ms, "
            f"n {len(totals[name])}"
        )
    share = statistics.median(outsides["sqlite"]) - statistics.median(outsides["memory"])
    total = statistics.median(totals["sqlite"])
    print(f"the store's share: {1000 * share:.2f} ms, {100 * share / total:.2f} % of a turn")


def find_seeds(client: Client) -> list[int]:
    """Seeds whose answers are as long as they may be: most are not."""
    seeds = [seed for seed in range(MAX_SEEDS) if ask_one(client, seed)[2] == ANSWER_TOKENS]
    if not seeds:
        raise SystemExit(f"no answer has {ANSWER_TOKENS} tokens; ask otherwise")
    return seeds


def ask_one(client: Client, seed: int) -> tuple[float, float, int]:
    """Seconds of a turn, those of them in the engine, and the answer's tokens."""
    began = time.perf_counter()
    reply = client.start(
        None,
        "1 2 3 4 5 6 7 8 9 10 red green blue",
        max_tokens=ANSWER_TOKENS,
        temperature=2.0,
        repetition_penalty=2.0,
        seed=seed,
    )
    reply.read()
    total = time.perf_counter() - began
    timings = reply.timings
    inside = timings.first_token_seconds + timings.decode_seconds
    return total, inside, reply.usage.completion_tokens


def measure_memory(folder: Path, num_turns: int, *, is_counting: bool) -> None:
    """Talk, and look at the server's memory every now and then."""
    flags = ("--store", "sqlite", "--state-folder", str(folder / "state"))
    paths = [str(TESTS), str(TESTS / "system"), os.environ.get("PYTHONPATH", "")]
    counting = {
        "program": ("-c", COUNTING_PROGRAM),
        "environment": {"PYTHONPATH": os.pathsep.join(paths)},
    }
    with run_server(folder, *flags, **(counting if is_counting else {})) as server:
        numbers = count(1)
        began = time.perf_counter()
        samples: list[tuple[int, int]] = []

        def talk(seed: int) -> None:
            chance = random.Random(seed)
            with Client(server.address, timeout_seconds=120.0) as client:
                while (number := next(numbers)) <= num_turns:
                    number = talk_once(client, chance, number)

        def talk_once(client: Client, chance: random.Random, number: int) -> int:
            picture = None
            if chance.random() < 0.3:
                picture = Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 0))
            reply = client.start(picture, f"Count on from {number}.", max_tokens=4)
            reply.read()
            chat = reply.chat
            for _ in range(chance.randrange(CHAT_TURNS)):
                number = next(numbers)
                if number > num_turns:
                    break
                chat.ask(f"Count on from {number}.", max_tokens=4).read()
                if number % (num_turns // 10) == 0:
                    samples.append((number, server.count_resident_bytes()))
            if chance.random() < 0.1:
                client.delete_chat(chat.id)
            return number

        with ThreadPoolExecutor(NUM_TALKERS) as pool:
            list(pool.map(talk, range(NUM_TALKERS)))
        samples.append((num_turns, server.count_resident_bytes()))
        seconds = time.perf_counter() - began
    for number, num_bytes in sorted(samples):
        print(f"after {number:6} turns: {num_bytes / 2**20:7.1f} MiB")
    print(f"{num_turns / seconds:.0f} turns per second")


COUNTING_PROGRAM = """
import sys
import killed_server
killed_server.PACE_SECONDS = 0.0
sys.exit(killed_server.serve(killed_server.Start(sys.argv[1:], "")))
"""


if __name__ == "__main__":
    main()
