"""Errors to gRPC statuses with google.rpc details: the contract's table, and nothing else.

Every error class of the rooms below has a row; a test walks the classes. What has no row is a
defect of the server: the caller learns no more than that, and the log says the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from llavachat_server import values
from llavachat_server.chats import errors as chats
from llavachat_server.images import addresses, intake, picture
from llavachat_server.observation import name_error
from llavachat_server.rpc.messages import duration

DETAILS_KEY = "grpc-status-details-bin"
"""Source: gRPC's richer error model, https://grpc.io/docs/guides/error/."""

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""When to retry; below 0: not at all. Source: gRPC A6, "gRPC Retry Design", "Pushback"."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ends: a status, a sentence for the caller, and details for programs.

    `reason` is for the operator: one of a few short names, the same for all refusals of a kind.
    `is_waited` where the server has waited before it refused, for longer than a client's gRPC goes
    on trying: at each further try it would wait as long again.
    """

    code: StatusCode
    message: str
    details: tuple[Message, ...] = ()
    reason: str = ""
    is_waited: bool = False

    @property
    def retry_after_seconds(self) -> float | None:
        """When to try again; None where that would not help."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return float(detail.retry_delay.ToTimedelta().total_seconds())
        return None

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The trailers: the details, where there are any, and that gRPC is not to try again."""
        pushback = ((_PUSHBACK_KEY, "-1"),) if self.is_waited else ()
        return (*self._details_trailer(), *pushback)

    def _details_trailer(self) -> tuple[tuple[str, bytes], ...]:
        if not self.details:
            return ()
        boxes = []
        for detail in self.details:
            box = any_pb2.Any()
            box.Pack(detail)
            boxes.append(box)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=boxes)
        return ((DETAILS_KEY, status.SerializeToString()),)


_RUNNING_RETRY_SECONDS = 1.0
"""When to ask a chat again that is answering: about a short answer's time."""

_UNREAD_RETRY_SECONDS = 2.0
"""When to ask again for what was not read: whoever reads again may come at once."""

INTERNAL = Refusal(StatusCode.INTERNAL, "the server failed on this call", reason="internal")
"""For errors without a row."""

UNKNOWN_METHOD = Refusal(
    StatusCode.UNIMPLEMENTED, "this server does not have this method", reason="unknown_method"
)
"""For what the table of access does not name, whether there is such a method or not."""


def invalid(field: str, expected: str) -> Refusal:
    """INVALID_ARGUMENT: a field is wrong."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=expected)
    return Refusal(
        StatusCode.INVALID_ARGUMENT,
        f"{field}: {expected}",
        (error_details_pb2.BadRequest(field_violations=[violation]),),
        "invalid_field",
    )


def _unauthenticated() -> Refusal:
    expected = "send the header `authorization: Bearer KEY` with a valid key"
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="authorization", description="Bearer KEY, once, with a key that is valid here"
    )
    return Refusal(
        StatusCode.UNAUTHENTICATED,
        expected,
        (error_details_pb2.BadRequest(field_violations=[violation]),),
        "unauthenticated",
    )


UNAUTHENTICATED = _unauthenticated()
"""For calls without a key that opens this server, and for those whose key was revoked."""


def retry(code: StatusCode, message: str, after_seconds: float, reason: str = "") -> Refusal:
    """A refusal for now: try again after a while."""
    info = error_details_pb2.RetryInfo(retry_delay=duration(after_seconds))
    return Refusal(code, message, (info,), reason)


def over_limit(
    code: StatusCode, subject: str, limit: str, after_seconds: float, reason: str = ""
) -> Refusal:
    """A limit was reached: which, whose, and when to try again."""
    info = error_details_pb2.RetryInfo(retry_delay=duration(after_seconds))
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=limit)
    failure = error_details_pb2.QuotaFailure(violations=[violation])
    return Refusal(code, limit, (info, failure), reason)


TOO_MANY_WATCHES = over_limit(
    StatusCode.RESOURCE_EXHAUSTED,
    "health",
    "as many watch this server's health as may; ask by Check instead",
    10.0,
    "too_many_watches",
)
"""For watches of health above their number."""


def not_in_scope(method: str, scopes: Iterable[str]) -> Refusal:
    """PERMISSION_DENIED: the key is good, but not for this."""
    needed = " or ".join(sorted(scopes))
    resource = error_details_pb2.ResourceInfo(
        resource_type="method", resource_name=method, description=f"needs the scope {needed}"
    )
    return Refusal(
        StatusCode.PERMISSION_DENIED,
        f"this key lacks the scope {needed}",
        (resource,),
        "not_in_scope",
    )


def too_slow(max_seconds: float) -> Refusal:
    """DEADLINE_EXCEEDED: the request itself did not come."""
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="request", description=f"it must be here within {max_seconds:g} s"
    )
    return Refusal(
        StatusCode.DEADLINE_EXCEEDED,
        f"the request was not here within {max_seconds:g} s",
        (error_details_pb2.BadRequest(field_violations=[violation]),),
        "too_slow",
    )


def unread(max_seconds: float) -> Refusal:
    """DEADLINE_EXCEEDED: the caller does not take what it has asked for."""
    message = f"a part of the reply was not read within {max_seconds:g} s"
    return retry(StatusCode.DEADLINE_EXCEEDED, message, _UNREAD_RETRY_SECONDS, reason="unread")


def _retry_later(code: StatusCode) -> Callable[[Any], Refusal]:
    return lambda error: retry(code, str(error), error.retry_after_seconds)


def _limit(subject: str) -> Callable[[Any], Refusal]:
    return lambda error: over_limit(
        StatusCode.RESOURCE_EXHAUSTED, subject, str(error), error.retry_after_seconds
    )


def _plain(code: StatusCode) -> Callable[[Any], Refusal]:
    return lambda error: Refusal(code, str(error))


def _turn_running(error: chats.TurnRunning) -> Refusal:
    return retry(StatusCode.ABORTED, str(error), _RUNNING_RETRY_SECONDS)


def _request_reused(error: chats.RequestReused) -> Refusal:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="request_id", description="one that was not used before with another body"
    )
    return Refusal(
        StatusCode.ALREADY_EXISTS,
        str(error),
        (error_details_pb2.BadRequest(field_violations=[violation]),),
    )


def _not_found(error: chats.NotFound) -> Refusal:
    resource = error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.id)
    if not error.with_server:
        return Refusal(StatusCode.NOT_FOUND, str(error), (resource,))
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="SERVER_ENDED",
        subject=f"{error.kind}_id",
        description="the server that began the turn kept it in its memory alone, and has ended",
    )
    failure = error_details_pb2.PreconditionFailure(violations=[violation])
    return Refusal(StatusCode.NOT_FOUND, str(error), (resource, failure))


def _context_full(error: values.ContextFull) -> Refusal:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="CONTEXT_FULL", subject="context", description=str(error)
    )
    return Refusal(
        StatusCode.FAILED_PRECONDITION,
        f"{error}; {_advise(error)}",
        (error_details_pb2.PreconditionFailure(violations=[violation]),),
    )


def _advise(error: values.ContextFull) -> str:
    """What would help, and nothing that would not: a chat's pictures stay, whatever is done."""
    if error.can_drop:
        shorten = "shorten the question, " if error.can_keep_turns else ""
        return f"{shorten}allow OVERFLOW_POLICY_DROP_OLDEST_TURNS, or start a new chat"
    if error.can_shorten and error.can_leave_pictures:
        return "shorten the question, or start a new chat with fewer pictures"
    if error.can_shorten:
        return "shorten the question"
    if error.can_leave_pictures:
        return (
            f"the chat's pictures take {error.picture_tokens} of {error.context_tokens} tokens; "
            "start a new chat with fewer"
        )
    return "the chat's system prompt leaves no room; start a new chat with a shorter one"


def _precondition(kind: str, subject: str = "turn_id") -> Callable[[Any], Refusal]:
    def refuse(error: Exception) -> Refusal:
        violation = error_details_pb2.PreconditionFailure.Violation(
            type=kind, subject=subject, description=str(error)
        )
        return Refusal(
            StatusCode.FAILED_PRECONDITION,
            str(error),
            (error_details_pb2.PreconditionFailure(violations=[violation]),),
        )

    return refuse


ROWS: dict[type[Exception], Callable[[Any], Refusal]] = {
    values.InvalidField: lambda error: invalid(error.field, error.expected),
    picture.BadImage: lambda error: invalid("images", str(error)),
    addresses.BadAddress: lambda error: invalid("images", str(error)),
    intake.IntakeBusy: _limit("images"),
    intake.IntakeUnavailable: _retry_later(StatusCode.UNAVAILABLE),
    chats.NotFound: _not_found,
    chats.TurnRunning: _turn_running,
    chats.RequestReused: _request_reused,
    chats.TurnImported: _precondition("TURN_IMPORTED"),
    chats.OtherTokenizer: _precondition("TOKENIZER_CHANGED"),
    chats.PromptNeverSeen: _precondition("PROMPT_OVER_CONTEXT"),
    chats.ReplayOverLimit: _precondition("REPLAY_OVER_LIMIT"),
    chats.ReplayCut: _retry_later(StatusCode.UNAVAILABLE),
    chats.ImportStalled: _retry_later(StatusCode.DEADLINE_EXCEEDED),
    chats.TooManyAtOnce: lambda error: _limit(error.subject)(error),
    chats.ChatFull: _precondition("CHAT_FULL", "chat_id"),
    chats.StoreFull: _limit("store"),
    chats.StoreUnavailable: _retry_later(StatusCode.UNAVAILABLE),
    chats.StoreDamaged: _plain(StatusCode.DATA_LOSS),
    chats.ShuttingDown: _retry_later(StatusCode.UNAVAILABLE),
    values.ContextFull: _context_full,
    values.QueueFull: _limit("queue"),
    values.EngineUnavailable: _retry_later(StatusCode.UNAVAILABLE),
    values.EngineFailed: _plain(StatusCode.INTERNAL),
}


REASONS = frozenset(
    {
        *(name_error(kind) for kind in ROWS),
        "crowded_out",
        "internal",
        "max_concurrent",
        "not_in_scope",
        "requests_per_minute",
        "starting",
        "stopping",
        "tenant_calls",
        "tokens_per_minute",
        "too_many_watches",
        "too_slow",
        "unauthenticated",
        "unknown_method",
        "unread",
    }
)
"""Every reason that there is; a test walks the refusals."""


def refusal(error: Exception) -> Refusal | None:
    """The row of an error; None where there is none."""
    row = ROWS.get(type(error))
    return replace(row(error), reason=name_error(type(error))) if row else None
