"""One machine for all system tests: booted once, installed once, well again before each test."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Container, enter_own_network
from figures import Figures
from host import Host, Releases
from memory_disk import memory_disk

CACHE = Path(os.environ.get("LLAVACHAT_TEST_CACHE", "/var/cache/llavachat-tests"))
BUILD = Path(__file__).resolve().parents[2] / "build"
FIGURES_FILE = BUILD / "system-figures.md"

ROOM_BYTES = 6 * 2**30
"""For two sets of libraries, which an update that fails needs for a moment."""

_FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the figures."""
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and leave it in ``build/system-figures.md``."""
    rows = terminalreporter.config.stash[_FIGURES]
    if not rows:
        return
    lines = ["| what | measured | bound |", "|---|---|---|"]
    lines += [f"| {what} | {value} | {limit} |" for what, value, limit in rows]
    terminalreporter.section("figures")
    terminalreporter.write_line("\n".join(lines))
    FIGURES_FILE.parent.mkdir(exist_ok=True)
    FIGURES_FILE.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """The table at the end."""
    return Figures(request.config.stash[_FIGURES])


@pytest.fixture(scope="session")
def machine(figures: Figures) -> Iterator[Container]:
    """A booted Debian 12 that knows nothing of llavachat."""
    if os.geteuid() != 0 or not (CACHE / "wheels").exists():
        pytest.fail("run `make test-system`: root and tests/system/prepare are needed")
    enter_own_network()
    with memory_disk(CACHE / f"run-{os.getpid()}", ROOM_BYTES) as folder:
        container = Container(CACHE / "bookworm", folder / "machine", CACHE / "wheels")
        try:
            figures.add("container boots", container.boot())
            yield container
        finally:
            container.remove()


@pytest.fixture(scope="session")
def releases(machine: Container) -> Releases:
    """This tree's release, and others made from it."""
    return Releases(machine, next((BUILD / "system-wheel").glob("llavachat-*.whl")))


@pytest.fixture(scope="session")
def installed(machine: Container, releases: Releases, figures: Figures) -> Host:
    """The machine with llavachat installed from nothing."""
    host = Host(machine)
    began = time.monotonic()
    host.first_output = host.install(releases.this)
    figures.add("install from nothing to the first answer", time.monotonic() - began)
    return host


@pytest.fixture
def host(installed: Host) -> Host:
    """The machine, with the service answering as it was installed."""
    installed.make_well()
    return installed
