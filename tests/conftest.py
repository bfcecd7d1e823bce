"""Fixtures that tests of all kinds share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from llavachat_server.images.intake import ImageLimits, Intake
from server_process import ServerProcess, run_server

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")

# No test's server keeps its chats in the home of who runs the tests.
os.environ.setdefault("LLAVACHAT_STORE", "memory")

# Nor does each compile its kernels anew; the tests that are about them say so.
os.environ.setdefault("LLAVACHAT_COMPILED", "off")


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


@pytest.fixture(scope="session")
def intake() -> Iterator[Intake]:
    """The intake with its processes, which are slow to start, for all tests that look at one."""
    running = Intake(ImageLimits())
    yield running
    running.close()
