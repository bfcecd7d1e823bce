"""What the command lines say where the packages of an extra are not installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
INSTALL = "pip install -c constraints.txt"
WITHOUT = {"deploy": ("boto3", "botocore"), "cli": ("typer", "rich")}


def install_without(folder: Path, packages: tuple[str, ...]) -> Path:
    """A folder of everything that is installed here, but for some packages."""
    for package in ("llavachat", "llavachat_server", "grpc", "typer"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        site = Path(spec.submodule_search_locations[0]).parent
        for path in site.iterdir():
            link = folder / path.name
            if path.name not in packages and path.suffix != ".pth" and not link.is_symlink():
                link.symlink_to(path)
    return folder


@pytest.mark.parametrize(
    ("extra", "command", "sentence"),
    [
        ("deploy", "status", "This command needs some more packages"),
        ("cli", "ask", "The command line needs some more packages"),
    ],
)
def test_a_missing_extra_is_named(tmp_path: Path, extra: str, command: str, sentence: str) -> None:
    """One line, with what to type; no traceback."""
    site = install_without(tmp_path, WITHOUT[extra])
    code = f"import sys; sys.path[:0] = [{str(site)!r}]; from llavachat.cli import main; main()"
    # -S: no site-packages but ours.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, command, "--region", "eu-west-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"llavachat: {sentence}; in a checkout of llavachat: {INSTALL} '.[{extra}]'\n"
    assert (1, "", told) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("place", ["README.md", "docs", "examples", "client", "server"])
def test_nobody_is_sent_to_an_index_for_llavachat(place: str) -> None:
    """It is on none: whoever takes the name there would be installed."""
    path = ROOT / place
    files = [path] if path.is_file() else [*path.rglob("*.md"), *path.rglob("*.py")]
    by_name = re.compile(r"pip install [^\n`]*(?<![/\w.-])llavachat\b")
    assert files
    assert [] == [str(file) for file in files if by_name.search(file.read_text("utf-8"))]


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("pydantic", ()),
        ("platformdirs", ("keys", "list")),
        ("numpy", ("--listen", "127.0.0.1:0")),
        ("cryptography", ("certs", "self-signed", "--name", "localhost")),
    ],
)
def test_a_missing_server_is_named(tmp_path: Path, package: str, command: tuple[str, ...]) -> None:
    """By the server's own command too, where the package came without its extra."""
    site = install_without(tmp_path, (package,))
    code = (
        f"import sys; sys.path[:0] = [{str(site)!r}]; "
        "from llavachat_server.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    told = (
        f"llavachat-server: the server needs {package}, which the extra llavachat[server] brings; "
        f"in a checkout of llavachat: {INSTALL} '.[server]'\n"
    )
    assert (1, "", told) == (done.returncode, done.stdout, done.stderr)
