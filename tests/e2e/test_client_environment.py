"""What `pip install llavachat` brings into a fresh environment, and that it works there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_service import ScriptedServer

ROOT = Path(__file__).parent.parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python")
_OFFLINE = ("Temporary failure in name resolution", "Failed to establish a new connection")


def run(*command, **options):
    """Run a program; without a package index there is nothing to test."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if done.returncode and any(sign in done.stderr for sign in _OFFLINE):
        pytest.skip("the package index can not be reached")
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment, after pip built the wheel and installed it."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / "bin" / "python")
    run(*PIP, python, "install", "--quiet", str(ROOT))
    return python


def test_it_holds_grpcio_protobuf_and_pillow(python):
    """And what grpcio itself asks for; nothing else, and no torch."""
    listed = run(*PIP, python, "list", "--format", "json")
    brought = {package["name"].lower() for package in json.loads(listed)}
    # grpcio >= 1.76 declares typing-extensions; the client itself does not use it.
    assert {"llavachat", "grpcio", "protobuf", "pillow"} == brought - {"typing_extensions"}


def test_it_asks_from_there(python, tmp_path):
    """The library and its types are whole: a question is asked, no heavy module is loaded."""
    server = ScriptedServer()
    code = f"""
import sys
from importlib.resources import files
from llavachat import AsyncClient, Client
with Client({server.address!r}) as client, client.start(None, "What?") as reply:
    print("".join(reply))
print((files("llavachat") / "py.typed").is_file())
heavy = {{"torch", "transformers", "numpy", "typer", "rich", "llavachat_server"}}
print(sorted(heavy & set(sys.modules)))
"""
    try:
        assert "A red circle.\nTrue\n[]\n" == run(python, "-c", code, cwd=tmp_path)
    finally:
        server.stop()


def test_its_command_says_what_it_needs(python, tmp_path):
    """Without the extra, `llavachat` is one sentence."""
    command = Path(python).with_name("llavachat")
    done = subprocess.run([command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (1, "") == (done.returncode, done.stdout)
    assert "pip install -c constraints.txt '.[cli]'" in done.stderr
    assert 1 == done.stderr.count("\n")
