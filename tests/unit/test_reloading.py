"""Settings taken up while the server runs."""

import json
import logging
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from llavachat_server.ops import logs
from llavachat_server.reloading import reload_settings
from llavachat_server.settings import load

INSTALLED_FILE = "/etc/llavachat/server.toml"
GUIDE = (Path(__file__).parents[2] / "docs/observability/README.md").read_text()

pytestmark = pytest.mark.usefixtures("restored_logging")


class Server:
    """What a server does at a SIGHUP, and what it logs."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "server.toml"
        self.stream = StringIO()
        self.write("")
        logs.set_up("json", "info", self.stream)
        self.started_with = self.read()

    def read(self):
        """As at the start."""
        return load(["--config", str(self.file)])

    def write(self, text: str) -> None:
        """Edit the file."""
        self.file.write_text(text)

    def reload(self) -> dict[str, object]:
        """Be told to; the last line that it logs."""
        reload_settings(self.started_with, self.read)
        return json.loads(self.stream.getvalue().splitlines()[-1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with an empty file."""
    monkeypatch.delenv("LLAVACHAT_STORE")
    return Server(tmp_path)


def hears(level: int) -> bool:
    """Whether lines of this level come through, by subject and by module."""
    names = ("llavachat.turns", "llavachat_server.engine.engine")
    answers = {logging.getLogger(name).isEnabledFor(level) for name in names}
    assert 1 == len(answers)
    return answers.pop()


def test_a_level_is_taken_up(server: Server) -> None:
    """And back."""
    server.write('log_level = "debug"\n')
    told = server.reload()
    assert ("settings read again", "debug") == (told["event"], told["log_level"])
    assert hears(logging.DEBUG)
    server.write("")
    assert "info" == server.reload()["log_level"]
    assert not hears(logging.DEBUG)
    assert hears(logging.INFO)


def test_what_was_taken_up_is_told_whatever_the_level(server: Server) -> None:
    """Who turns the log down wants to know that it is down."""
    server.write('log_level = "error"\n')
    assert "error" == server.reload()["log_level"]
    assert not hears(logging.WARNING)
    assert "error" == server.reload()["log_level"]


def test_a_file_that_nests_without_end_is_told(server: Server) -> None:
    """It would end a parser, and must not end the server."""
    server.write("a = " + "[" * 100_000)
    told = server.reload()
    assert "the settings of before stay in force" == told["event"]
    assert f"config: {str(server.file)!r} is nested too deep" == told["why"]


def test_settings_that_need_a_restart_are_named(server: Server) -> None:
    """By their names alone: values may be secrets."""
    server.write('grace_seconds = 5\nstore = "postgresql://me:secret@db/chats"\n')
    assert "store, grace_seconds" == server.reload()["needs_restart"]
    assert "secret" not in server.stream.getvalue()


def test_a_wrong_address_of_a_database_is_told_without_its_password(server: Server) -> None:
    """The log is read by more people than the file is."""
    server.write('store = "postgres+psycopg://me:secret@db/chats"\n')
    told = server.reload()
    assert "the settings of before stay in force" == told["event"]
    assert "'postgres+psycopg://***@db/chats' given" in str(told["why"])
    assert "secret" not in server.stream.getvalue()


def test_a_wrong_file_changes_nothing(server: Server) -> None:
    """It is told what would be right."""
    server.write('log_level = "debug"\n')
    server.reload()
    server.write('log_level = "loud"\n')
    told = server.reload()
    assert "the settings of before stay in force" == told["event"]
    assert "'loud' given; allowed: 'debug', 'info'" in str(told["why"])
    assert hears(logging.DEBUG)


@pytest.mark.parametrize(
    "before", ["", 'log_level = "error"\n', "log_level='info'\ngrace_seconds = 5\n"]
)
def test_the_guide_s_way_to_a_level_works_with_any_file(server: Server, before: str) -> None:
    """Whether the file names a level already or not: twice would be an error."""
    server.write(before)
    lines = [line for line in GUIDE.splitlines() if INSTALLED_FILE in line]
    assert 2 == len(lines)
    script = "\n".join(lines).replace(INSTALLED_FILE, str(server.file))
    subprocess.run(["sh", "-ec", script], check=True)
    assert "debug" == server.reload()["log_level"]
