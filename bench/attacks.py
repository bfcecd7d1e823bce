"""What attacks on the wire cost a server and its neighbour: the table of docs/security.md.

    python bench/attacks.py [ATTACK ...]

For each attack a server process of its own on the embedded model, ten seconds of attack from
another process, and a neighbour with a connection of its own who asks for the server's
description without a pause and the model for four tokens every second.
"""

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

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from attacker import ATTACKS  # noqa: E402
from server_process import run_server  # noqa: E402

ATTACK_SECONDS = 10.0
ATTACKER_ADDRESS = "127.0.0.2"
"""Not the neighbour's 127.0.0.1, which is exempt from what is done against floods."""
MIB = 1024 * 1024


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
                print(error.code(), error.details(), file=sys.stderr)  # type: ignore[attr-defined]
            self.times.append(time.perf_counter() - began)


def read_memory(process_id: int, name: str) -> int:
    """A process's VmRSS or VmHWM in bytes."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


def measure(name: str) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder, run_server(Path(folder)) as server:
        process_id = server.process.pid
        stub = server.stub()
        stub.GetServerInfo(pb.GetServerInfoRequest())
        chatter = Chatter(server.address)
        before = read_memory(process_id, "VmRSS")
        chatter.start()
        command = [sys.executable, str(TESTS / "attacker.py"), name]
        command += [server.address, str(ATTACK_SECONDS), ATTACKER_ADDRESS]
        times, failures = [], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
            while attack.poll() is None:
                began = time.perf_counter()
                try:
                    stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
                except grpc.RpcError as error:
                    failures += 1
                    print(name, error.code(), error.details(), file=sys.stderr)  # type: ignore[attr-defined]
                times.append(time.perf_counter() - began)
            blows = int(attack.stdout.read()) if attack.stdout else 0
        chatter.ended.set()
        chatter.join()
        high = read_memory(process_id, "VmHWM") - before
        time.sleep(1.0)
        after = read_memory(process_id, "VmRSS") - before
        failures += chatter.num_failed
        code = server.stop()
    p99 = quantiles(times, n=100)[98]
    return (
        f"| {name} | {blows:,} | {median(times) * 1000:.1f} | {p99 * 1000:.1f} | "
        f"{max(times) * 1000:.0f} | {max(chatter.times) * 1000:.0f} | {failures} | "
        f"{high / MIB:.0f} | {after / MIB:.0f} | {code} |"
    )


def main() -> None:
    """Measure what was named, or everything."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    print("| attack | blows | p50 ms | p99 ms | max ms | answer max ms | failed | peak MiB | ...")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or ATTACKS:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main()
