"""What one key's long chat costs another: the neighbour's latency alone, and beside its reading.

    python -m bench.long_chat [--turns 9000] [--crowd 8] [--questions 100] [--calls GetTurn,GetChat]

A server process on the embedded model with SQLite and two keys. The greedy one imports a chat of
so many turns, and asks for it by one call after another, so many side by side; the neighbour opens
one chat after another, with answers of three tokens. `GetServerInfo` reads nothing: what it costs
is that anybody calls at all, on these cores.
"""

import argparse
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import Any, NamedTuple

import grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc

from tests.server_process import run_server

MAX_BYTES = 128 * 1024**2
SETTLE_SECONDS = 2.0


class LongChat(NamedTuple):
    """What the greedy one calls about."""

    chat_id: str
    turn_id: str
    """Of its last turn."""
    spoilt: bytes
    """An ImportChatRequest of the chat once more, its last turn wrong: read to its end, and
    refused. As bytes, so that the callers' process does not write it anew for each call."""


Call = Callable[[Any, LongChat], object]


def header(key: str) -> tuple[tuple[str, str], ...]:
    """What opens the server."""
    return (("authorization", f"Bearer {key}"),)


GREEDY = header("greedy")

CALLS: dict[str, Call] = {
    "GetServerInfo": lambda stub, long: stub.GetServerInfo(
        pb.GetServerInfoRequest(), metadata=GREEDY
    ),
    "GetTurn": lambda stub, long: stub.GetTurn(
        pb.GetTurnRequest(chat_id=long.chat_id, turn_id=long.turn_id), metadata=GREEDY
    ),
    "ResumeTurn": lambda stub, long: list(
        stub.ResumeTurn(
            pb.ResumeTurnRequest(chat_id=long.chat_id, turn_id=long.turn_id), metadata=GREEDY
        )
    ),
    "GetChat": lambda stub, long: stub.GetChat(
        pb.GetChatRequest(chat_id=long.chat_id), metadata=GREEDY
    ),
    "ContinueChat": lambda stub, long: list(
        stub.ContinueChat(
            pb.ContinueChatRequest(chat_id=long.chat_id, prompt="And?"), metadata=GREEDY
        )
    ),
    "CountTokens": lambda stub, long: stub.CountTokens(
        pb.CountTokensRequest(chat_id=long.chat_id, prompt="And?"), metadata=GREEDY
    ),
    "ImportChat": lambda stub, long: stub.import_bytes(iter([long.spoilt]), metadata=GREEDY),
}


def connect(address: str) -> Any:
    """A connection of its own."""
    sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
    options = [(name, MAX_BYTES) for name in sizes]
    channel = grpc.insecure_channel(address, options=options)
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    stub.import_bytes = channel.stream_unary("/llavachat.v1.ChatService/ImportChat")
    return stub


def import_long_chat(stub: Any, num_turns: int) -> LongChat:
    """A chat that the greedy one brings, each turn going on from the one before."""
    request = pb.StartChatRequest(prompt="Hello", params=pb.GenerationParams(max_tokens=3))
    *_, started = (
        reply.event.started
        for reply in stub.StartChat(request, metadata=GREEDY)
        if reply.event.HasField("started")
    )
    chat = stub.GetChat(pb.GetChatRequest(chat_id=started.chat_id), metadata=GREEDY).chat
    one = pb.Turn()
    one.CopyFrom(chat.turns[0])
    del chat.turns[:]
    for number in range(num_turns):
        turn = chat.turns.add()
        turn.CopyFrom(one)
        turn.id, turn.prompt = f"t{number}", f"Question {number}" + " words" * 30
        turn.answer = "an answer of some words " * 12
        if number:
            turn.parent_turn_id = f"t{number - 1}"
    taken = stub.ImportChat(iter([pb.ImportChatRequest(chat=chat)]), metadata=GREEDY).chat
    chat.turns[-1].state = pb.TURN_STATE_UNSPECIFIED
    spoilt = pb.ImportChatRequest(chat=chat)
    return LongChat(taken.id, taken.turns[-1].id, spoilt.SerializeToString())


def be_greedy(
    call: Callable[[Any], object], address: str, ended: Event, results: Counter[str]
) -> None:
    """Call until `ended`."""
    stub = connect(address)
    while not ended.is_set():
        try:
            call(stub)
            results["answered"] += 1
        except grpc.RpcError as error:
            results[error.code().name] += 1
            time.sleep(0.2)


def ask(stub: Any, num_questions: int) -> tuple[list[float], Counter[str]]:
    """The neighbour's questions: the seconds that each took, and what was refused."""
    times, refused = [], Counter[str]()
    request = pb.StartChatRequest(prompt="Hello", params=pb.GenerationParams(max_tokens=3))
    for _ in range(num_questions):
        # As the client library does; that it is new is looked up.
        request.request_id = secrets.token_hex(8)
        began = time.perf_counter()
        try:
            list(stub.StartChat(request, metadata=header("neighbour")))
        except grpc.RpcError as error:
            refused[error.code().name] += 1
        times.append(time.perf_counter() - began)
    return times, refused


def tell(name: str, times: list[float], refused: Counter[str]) -> None:
    """One line."""
    p99 = quantiles(times, n=100)[98]
    print(
        f"{name}: p50 {median(times):.3f} s, p99 {p99:.3f} s, n {len(times)}, {dict(refused)}",
        flush=True,
    )


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(prog="python -m bench.long_chat", description=__doc__)
    parser.add_argument("--turns", type=int, default=9000)
    parser.add_argument("--crowd", type=int, default=8)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--calls", default=",".join(CALLS))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        names = ("neighbour", "greedy")
        keys.write_text("".join(f"{n} {sha256(n.encode()).hexdigest()}\n" for n in names))
        flags = ("--store", "sqlite", "--keys-file", str(keys), "--state-folder", folder)
        with run_server(Path(folder), *flags) as server:
            stub = connect(server.address)
            long = import_long_chat(stub, words.turns)
            ask(stub, 5)
            tell("alone", *ask(stub, words.questions))
            for name in words.calls.split(","):
                ended, results = Event(), Counter[str]()
                call = partial(CALLS[name], long=long)
                crowd = [
                    Thread(target=be_greedy, args=(call, server.address, ended, results))
                    for _ in range(words.crowd)
                ]
                for each in crowd:
                    each.start()
                time.sleep(SETTLE_SECONDS)
                tell(f"{words.crowd} {name}", *ask(stub, words.questions))
                ended.set()
                print(f"    of these came {dict(results)}", flush=True)
                for each in crowd:
                    each.join()
            server.stop()


if __name__ == "__main__":
    main()
