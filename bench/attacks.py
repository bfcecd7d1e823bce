"""What attacks on the wire cost a server and its neighbour: the table of docs/security.md.

    python -m bench.attacks [ROW ...]     # all: 20 to 45 s a row

It needs the environment of `make test`, which has the attacker's HTTP/2.

For each attack a server process of its own on the embedded model, ten seconds of attack from
another process, and a neighbour with a connection of its own who asks for the server's
description without a pause and the model for four tokens every second. stdout has the rows as the
page shows them; stderr tells of each the slowest answer of the model, the neighbour's calls that
failed, and how the server ended.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread

import grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc

from tests.server_process import run_server

try:
    from tests.attacker import ATTACKS
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed; run this in the environment of `make test`")

ATTACK_SECONDS = 10.0
ATTACKER_ADDRESS = "127.0.0.2"
"""Not the neighbour's 127.0.0.1, which is exempt from what is done against floods."""
MIB = 1024 * 1024

UNGUARDED = "oversize_messages_unguarded"
ROWS = {
    "nothing": "none, to compare with",
    "rapid_reset": "streams opened and reset at once",
    "ping_flood": "pings",
    "settings_flood": "settings",
    "empty_data": "empty DATA frames",
    "window_updates": "window updates of a byte",
    "continuations": "headers without an end (CONTINUATION)",
    "large_metadata": "64 KiB of metadata",
    "header_bombs": "large headers referred to again (HPACK)",
    UNGUARDED: "messages that claim 4 GiB, without what is done against floods",
    "oversize_messages": "the same with it",
    "malformed_messages": "messages that are no protobuf",
    "random_bytes": "random bytes",
    "wrong_protocol": "HTTP/1.1 and TLS to the wrong port",
    "idle_connections": "3,000 idle connections",
    "silent_connections": "1,000 connections that say nothing",
    "unfinished_streams": "2,000 calls without a request",
    "health_watches": "2,000 watches of health",
}
"""The table's rows by the names of the attacks."""


class Chatter(Thread):
    """Asks the model something every second; the seconds until each answer's end."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._stub = chat_pb2_grpc.ChatServiceStub(grpc.insecure_channel(address))
        self.times: list[float] = []
        self.num_failed = 0
        self.ended = Event()

    def run(self) -> None:
        """Until `ended`."""
        request = pb.StartChatRequest(prompt="What is this?")
        request.params.max_tokens = 4
        while not self.ended.wait(1.0):
            began = time.perf_counter()
            try:
                list(self._stub.StartChat(request, timeout=30))
            except grpc.RpcError as error:
                self.num_failed += 1
                print(error.code(), error.details(), file=sys.stderr)
            self.times.append(time.perf_counter() - began)


def measure(name: str) -> str:
    """One row of the table."""
    load = os.getloadavg()[0]
    flags = ("--flood-exempt", "127.0.0.0/8") if name == UNGUARDED else ()
    attacker = name.removesuffix("_unguarded")
    with tempfile.TemporaryDirectory() as folder, run_server(Path(folder), *flags) as server:
        stub = server.stub()
        stub.GetServerInfo(pb.GetServerInfoRequest())
        chatter = Chatter(server.address)
        before = server.count_resident_bytes()
        chatter.start()
        command = [sys.executable, "-m", "tests.attacker", attacker]
        command += [server.address, str(ATTACK_SECONDS), ATTACKER_ADDRESS]
        times, failures = [], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
            while attack.poll() is None:
                began = time.perf_counter()
                try:
                    stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
                except grpc.RpcError as error:
                    failures += 1
                    print(name, error.code(), error.details(), file=sys.stderr)
                times.append(time.perf_counter() - began)
            blows = int(attack.stdout.read()) if attack.stdout else 0
        chatter.ended.set()
        chatter.join()
        high = server.count_peak_bytes() - before
        time.sleep(1.0)
        after = server.count_resident_bytes() - before
        failures += chatter.num_failed
        code = server.stop()
    p99 = quantiles(times, n=100)[98]
    slowest = max(chatter.times, default=0.0)
    print(f"{name}: answer {slowest:.2f} s, {failures} failed, ended {code}", file=sys.stderr)
    shown = f"{blows:,}" if name != "nothing" else ""
    return (
        f"| {ROWS[name]} | {shown} | {median(times) * 1000:.1f} | {p99 * 1000:,.0f} | "
        f"{max(times) * 1000:,.0f} | {high / MIB:.0f} | {after / MIB:.0f} | {load:.0f} |"
    )


def main() -> None:
    """Measure what was named, or everything."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    assert {UNGUARDED, *ATTACKS} == set(ROWS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.attacks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all of them")
    wanted = parser.parse_args().rows or list(ROWS)
    if unknown := set(wanted) - set(ROWS):
        parser.error(f"{', '.join(sorted(unknown))}: no such row; there are {', '.join(ROWS)}")
    print("| attack | blows | p50 ms | p99 ms | max ms | MiB peak | MiB after | load |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in wanted:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main()
