"""The operating guide explains whatever the server says: each event of its log, each status.
Each setting is on a page of the documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from llavachat_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "llavachat_server"
GUIDE = (ROOT / "docs" / "operating.md").read_text()
PAGES = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def find_events() -> Iterator[tuple[str, str]]:
    """Each text that is logged, and the file that logs it."""
    for path in sorted(SERVER.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            speaker = ast.unparse(call.func.value).lower()
            is_log = call.func.attr in LEVELS and re.search(r"\b(_|get)?log(ger)?\b", speaker)
            # The application's own way of saying how far it has come.
            is_tell = path.name == "app.py" and call.func.attr == "_tell"
            if (is_log or is_tell) and isinstance(call.args[0], ast.Constant):
                yield str(call.args[0].value), path.name


EVENTS = dict(find_events())


def test_events_are_found() -> None:
    """Those of different modules, or the next test would say nothing."""
    assert {"turn", "serving", "keys changed", "turn cut", "the server failed"} <= EVENTS.keys()


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_explained(event: str) -> None:
    """By a row of the table, or of the guide to what is measured."""
    words = re.sub(r":? ?%[sd].*", "", event)
    assert f"`{words}" in GUIDE, EVENTS[event]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_on_a_page(name: str) -> None:
    """By its name in a file of settings, or by its flag."""
    flag = name.replace("_", "-")
    assert re.search(rf"(?<![\w-])(--{flag}|{name})(?![\w-])", PAGES)


def test_every_status_is_explained() -> None:
    """What `systemctl status` can read: the words that begin each are in the guide's table."""
    said = set()
    for path in SERVER.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and re.search(r"\.say_\w+$", ast.unparse(call.func)):
                text = ast.unparse(call.args[0])
                if match := re.match(r"""f?['"]([^'"{]+)""", text):
                    said.add(match.group(1).strip())
    assert {"The engine has not made a step for", "loading the model ("} <= said
    for text in said:
        assert text in GUIDE, text
