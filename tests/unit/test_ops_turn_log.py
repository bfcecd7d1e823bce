"""The line that the log has for a turn: its level, and each of its fields."""

import hashlib
import logging
from typing import Any

import pytest
from llavachat_server.observation import TurnReport
from llavachat_server.ops.turn_log import log_turn
from reports import SPAN_ID, TRACE_ID, make_report

ANSWERED: dict[str, Any] = {
    "request_id_sha256": hashlib.sha256(b"request-1").hexdigest(),
    "tenant": "a-tenant",
    "chat_id": "c" * 32,
    "turn_id": "d" * 32,
    "trace_id": TRACE_ID,
    "span_id": SPAN_ID,
    "model": "shapes",
    "finish_reason": "eos",
    "num_images": 1,
    "prompt_tokens": 104,
    "text_tokens": 40,
    "image_tokens": 64,
    "cached_tokens": 32,
    "completion_tokens": 5,
    "context_left_tokens": 3000,
    "queue_seconds": 0.15,
    "vision_seconds": 0.1,
    "prefill_seconds": 0.2,
    "first_token_seconds": 0.5,
    "decode_seconds": 0.8,
    "commit_seconds": 0.03,
    "total_seconds": 2.0,
    "intake_seconds": 0.1,
}
TRACED = (TRACE_ID, SPAN_ID)


def read_line(caplog: pytest.LogCaptureFixture, report: TurnReport, *trace: str) -> Any:
    """The level, the event and the fields of a turn's line."""
    with caplog.at_level(logging.DEBUG, "llavachat.turns"):
        log_turn(report, *trace)
    (record,) = caplog.records
    return record.levelno, record.getMessage(), record.__dict__["fields"]


def test_an_answered_turn_has_every_field(caplog: pytest.LogCaptureFixture) -> None:
    """At the level that a server has by itself."""
    expected = (logging.INFO, "turn", ANSWERED)
    assert expected == read_line(caplog, make_report(), *TRACED)


def test_a_turn_without_a_picture_or_a_trace_has_no_field_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor one of a request id that it did not have; a number of 0 is told."""
    absent = ("intake_seconds", "trace_id", "span_id", "request_id_sha256")
    fields = {name: value for name, value in ANSWERED.items() if name not in absent}
    expected = (logging.INFO, "turn", {**fields, "num_images": 0})
    assert expected == read_line(caplog, make_report(num_images=0, request_id=""), "", "")


def test_a_failed_turn_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It says with what; and has no numbers that the engine did not come to."""
    report = make_report(
        finish_reason=None, error="engine_failed", usage=None, timings=None, phases=()
    )
    names = ("request_id_sha256", "tenant", "chat_id", "turn_id", "trace_id", "span_id", "model")
    fields = {name: ANSWERED[name] for name in names} | {
        "error": "engine_failed",
        "num_images": 1,
        "commit_seconds": 0,
        "total_seconds": 2.0,
        "intake_seconds": 0,
    }
    assert (logging.WARNING, "turn", fields) == read_line(caplog, report, *TRACED)


def test_a_refused_question_is_told_to_who_looks_closely(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is refused may come again a thousand times: no line of it by default."""
    report = make_report(
        chat_id="",
        turn_id="",
        finish_reason=None,
        error="queue_full",
        usage=None,
        timings=None,
        phases=(),
    )
    names = (
        "request_id_sha256",
        "tenant",
        "trace_id",
        "span_id",
        "model",
        "num_images",
        "total_seconds",
    )
    fields = {name: ANSWERED[name] for name in names} | {
        "error": "queue_full",
        "commit_seconds": 0,
        "intake_seconds": 0,
    }
    assert (logging.DEBUG, "turn refused", fields) == read_line(caplog, report, *TRACED)
