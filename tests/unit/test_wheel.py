"""What is installed: the wheel holds every file that the code opens at run time."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling builds the wheel")

ROOT = Path(__file__).parent.parent.parent
PACKAGES = (ROOT / "client" / "llavachat", ROOT / "server" / "llavachat_server")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths in a wheel that was built just now."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True)
    (path,) = folder.glob("llavachat-*.whl")
    return set(zipfile.ZipFile(path).namelist())


def test_the_wheel_holds_both_packages_whole(wheel: set[str]) -> None:
    """Every file that is no by-product: migrations, weights, templates, pictures, types."""
    expected = {
        path.relative_to(package.parent).as_posix()
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".part"
    }
    assert set() == expected - wheel


@pytest.mark.parametrize(
    "path",
    [
        "llavachat/py.typed",
        "llavachat/v1/chat_pb2.pyi",
        "llavachat/cli/demo.png",
        "llavachat_server/chats/sql/migrations/env.py",
        "llavachat_server/chats/sql/migrations/script.py.mako",
        "llavachat_server/chats/sql/migrations/versions/0001_chats.py",
        "llavachat_server/models/shapes/model.safetensors",
    ],
)
def test_what_is_not_imported_is_in_it_too(wheel: set[str], path: str) -> None:
    """Files that only their readers would miss, and late."""
    assert path in wheel
