"""A real Prometheus for tests, with the configurations that the documentation shows."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

DOCS = Path(__file__).parents[2] / "docs" / "observability"
PATIENCE_SECONDS = 600.0
SCRAPE_SECONDS = 1


class Prometheus:
    """One that runs.

    Args:
        address: of its HTTP interface.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """Its answer to a call of its interface.

        Raises:
            AssertionError: it refuses, such as a query that it can not parse; with its words.
        """
        url = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression as they are now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def names(self) -> set[str]:
        """The name of every series that it holds."""
        return set(self.ask("label/__name__/values"))

    def until(self, read: Callable[[], T], is_so: Callable[[T], bool]) -> T:
        """Read again and again until it is so; scrapes come when they come."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_so(value := read()):
            assert time.monotonic() < end, value
            time.sleep(0.2)
        return value


@contextmanager
def run_prometheus(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """Start one and wait until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    subprocess.run(["promtool", "check", "config", file], check=True, capture_output=True)
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        prometheus.until(is_ready, bool)
        yield prometheus
    finally:
        process.terminate()
        process.wait()


def read_configuration(name: str, **targets: str) -> dict[str, Any]:
    """A configuration as it is documented, with what a test must change in it.

    Args:
        name: of the file.
        targets: for each job, "-" written as "_", the address to scrape in place of the one
            that stands there.
    """
    configuration: dict[str, Any] = yaml.safe_load((DOCS / name).read_text())
    configuration["global"]["scrape_interval"] = f"{SCRAPE_SECONDS}s"
    configuration["global"]["evaluation_interval"] = f"{SCRAPE_SECONDS}s"
    configuration["rule_files"] = [str(DOCS / file) for file in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        address = targets[job["job_name"].replace("-", "_")]
        job["static_configs"] = [{"targets": [address]}]
    return configuration
