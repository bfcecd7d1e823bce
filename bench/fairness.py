"""What one greedy key costs another: the neighbour's latency alone, and beside forty questions.

    python -m bench.fairness [SERVER'S FLAGS]

A server process on the embedded model with two keys. The neighbour asks one question after
another, 32 tokens each; the greedy one has forty under way at any time, likewise.
"""

import argparse
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import Any

import grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc

from tests.pictures import red_circle
from tests.server_process import run_server

NUM_QUESTIONS = 100
NUM_GREEDY = 40


def ask(stub: Any, key: str) -> float:
    """One question and its whole answer; the seconds it took."""
    request = pb.StartChatRequest(prompt="What is this?", images=[pb.Image(data=red_circle())])
    request.params.max_tokens = 32
    began = time.perf_counter()
    list(stub.StartChat(request, metadata=(("authorization", f"Bearer {key}"),), timeout=120))
    return time.perf_counter() - began


def be_greedy(address: str, ended: Event, done: list[float]) -> None:
    """Ask until `ended`."""
    stub = chat_pb2_grpc.ChatServiceStub(grpc.insecure_channel(address))
    while not ended.is_set():
        try:
            done.append(ask(stub, "greedy"))
        except grpc.RpcError:
            time.sleep(0.2)


def tell(name: str, times: list[float]) -> None:
    """One line."""
    p99 = quantiles(times, n=100)[98]
    print(f"{name}: p50 {median(times):.3f} s, p99 {p99:.3f} s, {len(times)} answers", flush=True)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fairness",
        description=__doc__.splitlines()[0],
        epilog="All flags go to the server.",
    )
    flags_given = parser.parse_known_args()[1]
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        names = ("neighbour", "greedy")
        keys.write_text("".join(f"{n} {sha256(n.encode()).hexdigest()}\n" for n in names))
        flags = ("--keys-file", str(keys), "--state-folder", folder, *flags_given)
        with run_server(Path(folder), *flags) as server:
            stub = server.stub()
            for _ in range(5):
                ask(stub, "neighbour")
            tell("alone", [ask(stub, "neighbour") for _ in range(NUM_QUESTIONS)])
            ended, done = Event(), list[float]()
            crowd = [
                Thread(target=be_greedy, args=(server.address, ended, done))
                for _ in range(NUM_GREEDY)
            ]
            for each in crowd:
                each.start()
            time.sleep(3)
            tell("beside", [ask(stub, "neighbour") for _ in range(NUM_QUESTIONS)])
            ended.set()
            for each in crowd:
                each.join()
            tell("greedy", done)


if __name__ == "__main__":
    main()
