"""A model's weights from the hub's layout into a bucket, from there to a second machine, and into
the server: with a stand-in for the `aws` program that keeps a bucket in a folder."""

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

OPTIONS = Options(profile="llava-1.5-7b", weights="s3://bucket/weights")
AWS = """#!/bin/sh
# aws s3 sync|cp --only-show-errors [--exclude NAME] FROM TO
verb=$2; shift 3
case $1 in --exclude) shift 2;; esac
from=$(echo "$1" | sed "s|^s3:/|$BUCKETS|"); to=$(echo "$2" | sed "s|^s3:/|$BUCKETS|")
test -e "$from" || exit 1
mkdir -p "$(dirname "$to")"
if test "$verb" = cp; then cp -L "$from" "$to"; else
    mkdir -p "$to" && cp -rL "$from"/. "$to" && rm -f "$to"/llavachat-manifest.json; fi
"""
FIND = """
import sys
from llavachat_server.engine.checkpoint import find_checkpoint, read_facts
print(read_facts(find_checkpoint(sys.argv[1], sys.argv[2]).folder) is not None)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine's cache, and an empty bucket behind `aws`."""
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(AWS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("BUCKETS", str(tmp_path))
    monkeypatch.setattr(model, "find_instance_disk", lambda: None)
    monkeypatch.setattr(model, "free_gib", lambda _: 100.0)
    use_cache(tmp_path / "first", monkeypatch)
    return tmp_path


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a machine whose cache is this folder."""
    monkeypatch.setattr(layout, "CACHE", folder)
    monkeypatch.setattr(layout, "HUB", folder / "hub")


def fetch_shapes(need: object, python: Path) -> None:
    """The embedded checkpoint in the place of the hub's."""
    shutil.copytree(SHAPES_FOLDER, model.find_snapshot(OPTIONS.need), dirs_exist_ok=True)


def test_second_machine_takes_the_mirror(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first machine asks the hub and fills the bucket; the second asks the bucket alone."""
    monkeypatch.setattr(model, "fetch_from_hub", fetch_shapes)
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())
    expected = model.list_sizes(model.find_snapshot(OPTIONS.need))

    def refuse(need: object, python: Path) -> None:
        raise HostError("the hub is not to be asked")

    monkeypatch.setattr(model, "fetch_from_hub", refuse)
    use_cache(cache / "second", monkeypatch)
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())
    snapshot = model.find_snapshot(OPTIONS.need)
    assert expected == model.list_sizes(snapshot)
    assert model.is_whole(snapshot)
    # Once there, nobody is asked.
    monkeypatch.setenv("PATH", "/nowhere")
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())


def test_broken_mirror_is_not_trusted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that came short: the hub is asked instead."""
    monkeypatch.setattr(model, "fetch_from_hub", fetch_shapes)
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())
    need = OPTIONS.need
    kept = cache / "bucket" / "weights" / need.model / need.revision / "model.safetensors"
    expected = kept.stat().st_size
    kept.write_bytes(b"short")
    use_cache(cache / "second", monkeypatch)
    model.prepare_model(OPTIONS, Path(sys.executable), Steps())
    snapshot = model.find_snapshot(need)
    assert expected == (snapshot / "model.safetensors").stat().st_size
    assert model.is_whole(snapshot)


def test_server_finds_the_weights_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_full_disk_is_told_before_anything_is_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free and what is needed, in one sentence."""
    monkeypatch.setattr(model, "free_gib", lambda _: 3.0)
    with pytest.raises(HostError, match=r"disk: 3\.0 GiB free for .*needs 15\.2 GiB"):
        model.prepare_model(OPTIONS, Path(sys.executable), Steps())
