"""Fixtures that tests of the engine share, and those of the store on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine_reference import run_lively_engine
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native.apart import Kernels
from postgres import Postgres, find_programs, run_postgres


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
