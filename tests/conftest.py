"""Fixtures that tests of all kinds share."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from kept_kernels import share_kernels
from llavachat import Client
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.images.worker import Worker
from llavachat_server.ops import logs
from PIL import Image
from scripted_service import ScriptedServer, ScriptedService
from server_process import ServerProcess, run_server

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")

# No test's server keeps its chats in the home of who runs the tests.
os.environ.setdefault("LLAVACHAT_STORE", "memory")

# Nor does each compile its kernels anew; the tests that are about them say so.
os.environ.setdefault("LLAVACHAT_COMPILED", "off")

# Before torch is imported: threads of its that wait for each other sleep, where they would else
# keep a core busy that another process's test needs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server on the embedded model for the whole session; it must end well."""
    with run_server(tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="session")
def server_address(server: ServerProcess) -> str:
    """Where the session's server is."""
    return server.address


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A scripted service on a port of its own."""
    running = ScriptedServer()
    yield running
    running.stop()


@pytest.fixture
def service(scripted: ScriptedServer) -> ScriptedService:
    """What the scripted service answers, and what it was asked."""
    return scripted.service


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    """A client of the scripted service."""
    with Client(scripted.address, timeout_seconds=20) as client:
        yield client


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """The path of a small picture."""
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return str(path)


@pytest.fixture(scope="session")
def intake() -> Iterator[Intake]:
    """The intake with its processes, which are slow to start, for all tests that look at one."""
    running = Intake(ImageLimits())
    yield running
    running.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A decoder's worker of the test's own, which it may break."""
    running = Worker()
    running.start()
    yield running
    running.end()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in logs.OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled kernels are kept; they are there with `kernels`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "kernels"


@pytest.fixture(scope="session")
def kernels(kernels_folder: Path) -> Kernels:
    """The kernels, compiled once for all tests."""
    return share_kernels(kernels_folder)
