"""Logs: one event a line, for people or for programs."""

import io
import json
import logging

import pytest
from llavachat_server.ops import logs

pytestmark = pytest.mark.usefixtures("restored_logging")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def say(stream: io.StringIO, form: str = "auto", level: str = "info") -> str:
    """Log one event with fields; what was written."""
    logs.set_up(form, level, stream)  # type: ignore[arg-type]
    fields = {"fields": {"request_id": "r1", "completion_tokens": 3, "empty": ""}}
    logging.getLogger("llavachat.turns").info("turn", extra=fields)
    return stream.getvalue()


def test_programs_get_json_lines() -> None:
    """Away from a terminal each line is an object with the event's own fields."""
    (line,) = say(io.StringIO()).splitlines()
    event = json.loads(line)
    assert ("info", "llavachat.turns", "turn") == (event["level"], event["logger"], event["event"])
    assert ("r1", 3) == (event["request_id"], event["completion_tokens"])
    assert event["time"].endswith("+00:00")


def test_people_get_text() -> None:
    """On a terminal a line is the time, the event and what is known of it."""
    line = say(Terminal())
    assert line.endswith(" turn request_id=r1 completion_tokens=3\n")
    assert ":" == line[2] == line[5]


def test_an_event_may_bring_its_own_text() -> None:
    """People read the sentence, programs the event with its fields."""
    extra = {"fields": {"address": "a:1"}, "text": "It serves on a:1."}
    people, programs = Terminal(), io.StringIO()
    for stream in (people, programs):
        logs.set_up("auto", "info", stream)
        logging.getLogger("llavachat").info("serving", extra=extra)
    assert "It serves on a:1.\n" == people.getvalue()
    event = json.loads(programs.getvalue())
    assert ("serving", "a:1") == (event["event"], event["address"])


def test_the_form_can_be_chosen() -> None:
    """A setting wins over the guess."""
    assert "{" == say(Terminal(), "json")[0]
    assert "{" != say(io.StringIO(), "text")[0]


def test_a_traceback_stays_in_its_line() -> None:
    """In JSON an error with its traceback is still one line."""
    stream = io.StringIO()
    logs.set_up("json", "info", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("llavachat").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: odd" in json.loads(line)["traceback"]


def test_less_than_the_level_is_not_logged() -> None:
    """warning silences info."""
    assert "" == say(io.StringIO(), level="warning")
