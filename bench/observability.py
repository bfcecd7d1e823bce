"""What it costs a server to be watched, as a ratio to one that nobody watches.

    python -m bench.observability [--rounds 30] [--talkers 8]

It needs the environment of `make test`: what measures, and the tests' receiver.

Three servers on the embedded model are asked the same about a picture, one server at a time:
`plain`; `scraped`, whose figures are read every second, fifteen times as often as is usual; and
`traced`, which is scraped likewise and sends every span and its metrics by OTLP to a receiver in
this process. In a round each server answers `--talkers` questions at once, in an order that
changes. Printed are the tokens per second and the computing time of the server's process for each
token, which other programs on the machine do not disturb as much; the ratios are of one round's
servers to each other, so that a machine that grows slower or faster harms no comparison.

Before that, what one report of a turn costs in this process, by `time.process_time`: for the log
alone, with metrics, and with traces as well.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llavachat import Client
from llavachat_server.ops import logs
from llavachat_server.ops.export import Exports

from tests.pictures import red_circle
from tests.reports import make_report
from tests.server_process import run_server

try:
    from llavachat_server.ops.telemetry import Telemetry

    from tests.otlp_receiver import receive_by_grpc
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed; run this in the environment of `make test`")

ANSWER_TOKENS = 64
SCRAPE_SECONDS = 1.0
NUM_REPORTS, NUM_TRIES = 200, 5
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Arm:
    """One of the servers.

    Args:
        client: asks it.
        process: its process id.
        rates: tokens per second, of each round.
        costs: seconds of computing for each token, of each round.
    """

    client: Client
    process: int
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def run(self, talkers: int, pool: ThreadPoolExecutor) -> None:
        """One round."""
        began, computed = time.perf_counter(), read_computing(self.process)
        tokens = sum(pool.map(lambda _: ask(self.client), range(talkers)))
        self.rates.append(tokens / (time.perf_counter() - began))
        self.costs.append((read_computing(self.process) - computed) / tokens)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.observability", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=30, help="2 or more (default: 30)")
    parser.add_argument("--talkers", type=int, default=8)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more: quartiles are printed")
    for name, microseconds in measure_reports():
        print(f"a report: {microseconds:6.1f} us of computing for {name}")
    with (
        tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder,
        receive_by_grpc() as received,
        ThreadPoolExecutor(options.talkers) as pool,
        ExitStack() as stack,
    ):
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        arms: dict[str, Arm] = {}
        for name, environment in (("plain", {}), ("scraped", {}), ("traced", traced)):
            flags = [] if name == "plain" else ["--metrics-listen", "127.0.0.1:0"]
            own = Path(folder) / name
            own.mkdir()
            server = stack.enter_context(run_server(own, *flags, environment=environment))
            client = stack.enter_context(Client(server.address, timeout_seconds=600.0))
            arms[name] = Arm(client, server.process.pid)
            if name != "plain":
                stack.enter_context(scraping(server.log.read_text()))
        names = list(arms)
        for number in range(options.rounds + 1):
            for name in (*names[number % 3 :], *names[: number % 3]):
                arms[name].run(options.talkers, pool)
        num_spans = len(received.spans)
    # The first round warms up.
    report({name: (arm.rates[1:], arm.costs[1:]) for name, arm in arms.items()})
    print(f"{num_spans} spans received; {os.getloadavg()[1]:.1f} load over the last 5 minutes")


def ask(client: Client) -> int:
    """One turn about a picture; the tokens of its answer, which are as many as may be: a penalty
    far below 1 makes the model say again what was said."""
    reply = client.start(
        red_circle(),
        "Describe the picture.",
        max_tokens=ANSWER_TOKENS,
        temperature=0.0,
        repetition_penalty=0.1,
    )
    reply.read()
    assert reply.usage is not None
    return reply.usage.completion_tokens


def measure_reports() -> Iterator[tuple[str, float]]:
    """Microseconds of computing for each report of a turn."""
    report = make_report()
    with receive_by_grpc() as received, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        logs.set_up("json", "info", nowhere)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = received.address
        for name, exports, is_scraped in (
            ("the log", Exports(), False),
            ("log and metrics", Exports(), True),
            ("log, metrics and traces", Exports(traces="grpc"), True),
        ):
            telemetry = Telemetry([], exports, is_scraped=is_scraped)
            best = float("inf")
            for _ in range(NUM_TRIES):
                began = time.process_time()
                for _ in range(NUM_REPORTS):
                    telemetry.note_turn(report)
                best = min(best, (time.process_time() - began) / NUM_REPORTS)
            asyncio.run(telemetry.close())
            yield name, 1e6 * best
        del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]


def report(results: dict[str, tuple[list[float], list[float]]]) -> None:
    """Print what each has done, and the ratios to the one that nobody watches."""
    for name, (rates, costs) in results.items():
        print(
            f"{name:8} {statistics.median(rates):7.1f} tokens/s, "
            f"{1e6 * statistics.median(costs):7.1f} us of computing a token, n {len(rates)}"
        )
    plain_rates, plain_costs = results["plain"]
    for name, (rates, costs) in results.items():
        if name != "plain":
            speed = [100 * (a / b - 1) for a, b in zip(rates, plain_rates, strict=True)]
            cost = [100 * (a / b - 1) for a, b in zip(costs, plain_costs, strict=True)]
            print(f"{name:8} tokens/s {describe(speed)}; computing a token {describe(cost)}")


def describe(changes: list[float]) -> str:
    """Median and quartiles of changes in percent."""
    low, middle, high = statistics.quantiles(changes, n=4)
    return f"{middle:+.2f} % (quartiles {low:+.2f}, {high:+.2f})"


def read_computing(process: int) -> float:
    """Seconds that a process has computed, in all its threads. Source: proc(5)."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


@contextmanager
def scraping(log: str) -> Iterator[None]:
    """Read a server's figures, as its log names them, again and again."""
    match = re.search(r'"event": "metrics".*?"address": "([^"]+)"', log)
    assert match is not None
    address, is_enough = match.group(1), threading.Event()

    def scrape() -> None:
        while not is_enough.wait(SCRAPE_SECONDS):
            urllib.request.urlopen(address, timeout=60).read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_enough.set()
        thread.join()


if __name__ == "__main__":
    main()
