"""Statuses: every error has its row, and what is told leaks nothing."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from llavachat_server import values
from llavachat_server.chats import errors as chats
from llavachat_server.images import addresses, intake, picture
from llavachat_server.rpc import gate, places, quota, status
from llavachat_server.rpc.auth import Key
from llavachat_server.rpc.status import DETAILS_KEY, INTERNAL, REASONS, ROWS, Refusal, refusal

BASES = {values.EngineError, chats.ChatError}
"""Classes that are never raised themselves."""


def error_classes(module: ModuleType) -> list[type[Exception]]:
    """The errors that a module defines."""
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == module.__name__
    ]


@pytest.mark.parametrize("module", [values, chats, picture, addresses, intake])
def test_every_error_has_a_row(module: ModuleType) -> None:
    """An error class without a row would reach callers as INTERNAL: none may be forgotten."""
    assert set() == set(error_classes(module)) - set(ROWS) - BASES
    assert error_classes(module)


ERRORS: list[tuple[Exception, StatusCode, type[Message] | None]] = [
    (
        values.InvalidField("params.top_k", "0 to 5"),
        StatusCode.INVALID_ARGUMENT,
        error_details_pb2.BadRequest,
    ),
    (picture.BadImage("odd"), StatusCode.INVALID_ARGUMENT, error_details_pb2.BadRequest),
    (addresses.BadAddress("odd"), StatusCode.INVALID_ARGUMENT, error_details_pb2.BadRequest),
    (intake.IntakeBusy(1.0), StatusCode.RESOURCE_EXHAUSTED, error_details_pb2.RetryInfo),
    (intake.IntakeUnavailable(1.0), StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
    (chats.NotFound("chat", "c"), StatusCode.NOT_FOUND, error_details_pb2.ResourceInfo),
    (
        chats.TurnImported(),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (
        chats.OtherTokenizer("a" * 64, "b" * 64),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (
        chats.PromptNeverSeen(5000, 4096),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (
        chats.ReplayOverLimit("the recorded answer", 65, 64),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (chats.ReplayCut(5.0), StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
    (chats.ImportStalled(5.0), StatusCode.DEADLINE_EXCEEDED, error_details_pb2.RetryInfo),
    (
        values.ContextFull(1, 2, 3, 4),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (chats.TurnRunning(), StatusCode.ABORTED, error_details_pb2.RetryInfo),
    (chats.RequestReused(), StatusCode.ALREADY_EXISTS, error_details_pb2.BadRequest),
    (chats.StoreUnavailable(1.0), StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
    (
        chats.TooManyAtOnce("imports", "one at a time", 1.5),
        StatusCode.RESOURCE_EXHAUSTED,
        error_details_pb2.RetryInfo,
    ),
    (
        chats.ChatFull(10_000),
        StatusCode.FAILED_PRECONDITION,
        error_details_pb2.PreconditionFailure,
    ),
    (chats.StoreDamaged(), StatusCode.DATA_LOSS, None),
    (chats.StoreFull(1.5), StatusCode.RESOURCE_EXHAUSTED, error_details_pb2.RetryInfo),
    (values.QueueFull(1.5), StatusCode.RESOURCE_EXHAUSTED, error_details_pb2.RetryInfo),
    (chats.ShuttingDown(1.5), StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
    (values.EngineUnavailable(1.5), StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
    (values.EngineFailed(), StatusCode.INTERNAL, None),
]


def detail(error: Exception) -> Any:
    """The error's detail as it crosses the wire."""
    answer = refusal(error)
    assert answer is not None
    trailer = answer.trailing_metadata()
    if not trailer:
        return None
    ((key, value),) = trailer
    status = status_pb2.Status.FromString(value)
    assert (DETAILS_KEY, answer.code.value[0], answer.message) == (key, status.code, status.message)
    box = status.details[0]
    kind = getattr(error_details_pb2, box.type_url.rpartition(".")[2])()
    assert box.Unpack(kind)
    return kind


def test_every_row_is_tried() -> None:
    """The table of this test is whole."""
    assert set(ROWS) == {type(error) for error, _, _ in ERRORS}


@pytest.mark.parametrize(("error", "code", "kind"), ERRORS, ids=lambda value: str(value)[:30])
def test_each_error_gets_its_code_and_detail(
    error: Exception, code: grpc.StatusCode, kind: type[Message] | None
) -> None:
    """The contract's table, row by row."""
    answer = refusal(error)
    assert answer is not None
    assert code is answer.code
    assert str(error).split(":")[-1].strip() in answer.message
    assert kind is (type(detail(error)) if kind else None)


def test_fields_are_named_by_their_path() -> None:
    """BadRequest carries the path in the request."""
    ((violation),) = detail(values.InvalidField("images[1].data", "odd")).field_violations
    assert ("images[1].data", "odd") == (violation.field, violation.description)


def test_retries_say_when() -> None:
    """RetryInfo carries the delay."""
    assert 1_500_000_000 == detail(values.QueueFull(1.5)).retry_delay.ToNanoseconds()


def test_no_retry_is_told_to_come_at_once() -> None:
    """Who comes back at once finds what it found before: every RetryInfo has a delay."""
    told = [answer for error, _, _ in ERRORS if (answer := refusal(error)) is not None]
    delays = {
        answer.message: seconds
        for answer in (*told, *fixed_refusals())
        if (seconds := answer.retry_after_seconds) is not None
    }
    assert len(delays) > 10
    assert [] == [message for message, seconds in delays.items() if not seconds > 0]


@pytest.mark.parametrize("error", [values.QueueFull(1.5), chats.StoreFull(1.5)])
def test_limits_are_named(error: Exception) -> None:
    """QuotaFailure says which limit it was, beside when to come back."""
    answer = refusal(error)
    assert answer is not None
    assert [error_details_pb2.RetryInfo, error_details_pb2.QuotaFailure] == [
        type(each) for each in answer.details
    ]
    assert {"queue", "store"} > {answer.details[1].violations[0].subject}  # type: ignore[attr-defined]


def test_a_full_context_tells_its_counts() -> None:
    """Text, pictures and history are told apart."""
    (violation,) = detail(values.ContextFull(10, 64, 80, 7)).violations
    assert "CONTEXT_FULL" == violation.type
    assert "81 tokens (10 text, 64 image, 7 history)" in violation.description
    assert "holds 80" in violation.description


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        (
            {"can_drop": True, "picture_tokens": 64},
            "shorten the question, allow OVERFLOW_POLICY_DROP_OLDEST_TURNS, or start a new chat",
        ),
        (
            {"can_drop": True, "can_keep_turns": False},
            "allow OVERFLOW_POLICY_DROP_OLDEST_TURNS, or start a new chat",
        ),
        (
            {"can_leave_pictures": True, "picture_tokens": 64},
            "shorten the question, or start a new chat with fewer pictures",
        ),
        ({"picture_tokens": 64}, "shorten the question"),
        ({}, "shorten the question"),
        (
            {"can_shorten": False, "can_leave_pictures": True, "picture_tokens": 64},
            "the chat's pictures take 64 of 80 tokens; start a new chat with fewer",
        ),
        (
            {"can_shorten": False, "picture_tokens": 64},
            "the chat's system prompt leaves no room; start a new chat with a shorter one",
        ),
    ],
)
def test_a_full_context_is_advised_what_would_help(told: dict[str, Any], advice: str) -> None:
    """And nothing that would not."""
    error = values.ContextFull(10, 64, 80, 7, **told)
    answer = refusal(error)
    assert answer is not None
    assert f"{error}; {advice}" == answer.message


def test_what_has_no_row_tells_nothing() -> None:
    """An unknown error is not ours to explain, and its text is not told."""
    assert None is refusal(RuntimeError("/secret/path"))
    assert "the server failed on this call" == INTERNAL.message


def fixed_refusals() -> list[Refusal]:
    """Those that are made beforehand, and one of each that is made when it is needed."""
    found = [
        value
        for module in (status, places, gate)
        for value in vars(module).values()
        if isinstance(value, Refusal)
    ]
    key = Key("anna", bytes(32), requests_per_minute=1, tokens_per_minute=1, max_concurrent=1)
    for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrent"):
        own = quota.Quotas(lambda: 0.0).of(Key("anna", bytes(32), **{limit: getattr(key, limit)}))
        own.admit(generates=True)
        own.charge(1)
        answer = own.admit(generates=True)
        assert answer is not None
        found.append(answer)
    crowded = places.Places(max_of_tenant=0).refuse("anna")
    assert crowded is not None
    others = [status.too_slow(1.0), status.not_in_scope("m", ["chat"]), status.invalid("f", "x")]
    return [*found, crowded, *others, status.unread(1.0)]


def test_every_refusal_has_a_reason() -> None:
    """One of a list that is known beforehand: an operator counts them, and none tells more."""
    answers = [refusal(error) for error, _, _ in ERRORS]
    reasons = {answer.reason for answer in (*answers, *fixed_refusals()) if answer is not None}
    # The gate's own are told when it starts and stops; a test of the gate sees them.
    assert reasons | {"starting", "stopping"} == REASONS


def test_every_reason_is_explained() -> None:
    """In the operator's guide."""
    guide = Path(__file__).parents[2] / "docs" / "observability" / "README.md"
    explained = guide.read_text().partition("## Every reason")[2]
    assert [] == sorted(reason for reason in REASONS if f"`{reason}`" not in explained)
