"""The kernels compiled in processes of their own, for this start and the next."""

import subprocess
import sys
from pathlib import Path

import pytest
from llavachat_server.engine import native
from llavachat_server.engine.native import apart

READ = """
import sys
from llavachat_server.engine import native
assert native.keep_compiled(sys.argv[1])
from llavachat_server.engine.native import steps, tower
from llavachat_server.engine.native.encoding import run_tower
from llavachat_server.engine.native.kernels import run_step
steps.compile_kernels()
tower.compile_tower()
for kernel in (run_step, run_tower):
    print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_what_was_compiled_apart_is_read_here_and_not_compiled_again(kernels: Path) -> None:
    """Both parts, once; and where a mark is another machine's, only what it speaks of, again.

    The fixture has had both compiled apart.
    """
    folder = str(kernels)
    assert [] == apart.compile_apart(folder)
    done = subprocess.run(
        [sys.executable, "-c", READ, folder], capture_output=True, text=True, check=False
    )
    assert "1 0\n1 0\n" == done.stdout, done.stderr

    (native.find_folder(folder) / "tower.kept").write_text("another machine's")
    assert ["tower"] == apart.compile_apart(folder)


@pytest.mark.parametrize("folder", [None, "/proc/kept"])
def test_what_can_not_be_kept_is_not_compiled_apart(folder: str | None) -> None:
    """Its work would be lost; the server compiles by itself."""
    assert [] == apart.compile_apart(folder)
