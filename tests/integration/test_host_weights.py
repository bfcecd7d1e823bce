"""A model's weights in the hub's layout, and the server that reads them there. How they come is
tried by `tests/system/test_7_weights.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llavachat_server.profiles import SHAPES_FOLDER

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cdk" / "assets"))

from llavachat_host import layout, model
from llavachat_host.options import Options
from llavachat_host.steps import HostError, Steps

OPTIONS = Options(profile="llava-1.5-7b")
FIND = """
import sys
from llavachat_server.engine.checkpoint import find_checkpoint, read_facts
print(read_facts(find_checkpoint(sys.argv[1], sys.argv[2]).folder) is not None)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty machine with one large disk."""
    monkeypatch.setattr(layout, "CACHE", tmp_path)
    monkeypatch.setattr(layout, "HUB", tmp_path / "hub")
    monkeypatch.setattr(model, "find_instance_disk", lambda: None)
    monkeypatch.setattr(model, "free_gib", lambda _: 100.0)


def fetch_shapes(need: object, python: Path) -> None:
    """The embedded checkpoint in the place of the hub's."""
    shutil.copytree(SHAPES_FOLDER, model.find_snapshot(OPTIONS.need), dirs_exist_ok=True)


def test_server_finds_the_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout is the one that the server's library reads when it may ask nobody."""
    monkeypatch.setattr(model, "fetch_from_hub", fetch_shapes)
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())
    need = OPTIONS.need
    done = subprocess.run(
        [sys.executable, "-c", FIND, need.model, need.revision],
        env={**os.environ, "HF_HUB_CACHE": str(layout.HUB), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "True\n" == done.stdout, done.stderr


def test_full_disk_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free and what is needed, in one sentence."""
    monkeypatch.setattr(model, "free_gib", lambda _: 3.0)
    with pytest.raises(HostError, match=r"disk: 3\.0 GiB free for .*needs 14\.2 GiB"):
        model.prepare_model(OPTIONS, Path(sys.executable), Steps())
