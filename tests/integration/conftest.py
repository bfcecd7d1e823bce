"""Fixtures that tests of the engine share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from engine_reference import run_lively_engine
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.native.apart import Kernels


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
