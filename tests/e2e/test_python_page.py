"""docs/python.md: its code runs against a real server, and its tree is the real one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from llavachat import errors
from pictures import red_circle

PAGE = (Path(__file__).parent.parent.parent / "docs" / "python.md").read_text()
PIECES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
ADDRESS = "localhost:50051"


@pytest.mark.parametrize("code", PIECES, ids=lambda code: code.strip().splitlines()[-1].strip())
def test_a_piece_of_the_page_runs(code, server_address, tmp_path):
    """As a program of its own, which leans on no other piece but for the import of `Client`."""
    assert ADDRESS in code
    (tmp_path / "shapes.png").write_bytes(red_circle())
    program = tmp_path / "piece.py"
    program.write_text(f"from llavachat import Client\n{code.replace(ADDRESS, server_address)}")
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_the_page_has_the_code_that_it_should():
    """None of it was lost to a fence that is spelt otherwise."""
    assert 6 == len(PIECES)


def test_the_tree_of_the_page_is_the_librarys():
    """Line by line, as the module of errors draws it."""
    drawn = re.search(r"^    LlavaChatError\n.*?\n\n", errors.__doc__, re.M | re.S)[0]
    expected = [line.removeprefix("    ") for line in drawn.rstrip().splitlines()]
    assert "\n".join(expected) in PAGE
