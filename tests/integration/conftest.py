"""Fixtures that tests of the engine share, of the command line, and of the store on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine_reference import run_lively_engine
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native.apart import Kernels
from postgres import Postgres, find_programs, run_postgres
from scripted_service import ScriptedServer


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[True, False], ids=["kernels", "torch"]
)
async def engine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kernels: Kernels,
    kernels_folder: Path,
) -> AsyncIterator[BatchingEngine]:
    """A small engine on lively weights, by the kernels and by torch: three run, four wait."""
    async with run_lively_engine(
        tmp_path_factory.mktemp("model"),
        max_running=3,
        compile_steps=request.param,
        compiled_folder=str(kernels_folder),
    ) as engine:
        yield engine


@pytest.fixture
def scripted_in_environment(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Commands of this process find the scripted service, and a state folder of the test's own."""
    monkeypatch.setenv("LLAVACHAT_ADDRESS", scripted.address)
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server for one file's tests."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with run_postgres(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A new database."""
    return postgres.make_database()


@pytest.fixture
def store(postgres_url: str) -> Iterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(postgres_url)
    yield opened
    opened.close()
