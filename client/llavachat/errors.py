"""Every error that llavachat's client raises of its own accord.

::

    LlavaChatError
    ├── ConfigurationError        a client that can not work: address, TLS, fork (ValueError)
    │   └── CertificateRefused    the server's certificate is not the pinned one, or unusable
    ├── ImageError                a picture that can not be read or sent         (ValueError)
    ├── ArchiveError              an exported chat that can not be read          (ValueError)
    ├── NotStartedYet             a reply was asked for what it does not know yet
    ├── IncompleteReply           a stream ended without its last event
    └── StatusError               the call ended with a gRPC status
        ├── InvalidRequest        INVALID_ARGUMENT     what was wrong is in `.violations`
        │   └── OutOfRange        OUT_OF_RANGE
        ├── AuthenticationFailed  UNAUTHENTICATED      no key, or a wrong one
        ├── PermissionDenied      PERMISSION_DENIED
        ├── NotFound              NOT_FOUND            an unknown chat or turn
        ├── RequestIdReused       ALREADY_EXISTS       the same request_id with another body
        ├── PreconditionFailed    FAILED_PRECONDITION
        │   └── ContextFull       FAILED_PRECONDITION  and the counts
        ├── TurnRunning           ABORTED              this chat is answering already
        ├── LimitReached          RESOURCE_EXHAUSTED   queue, rate or disk; `.retry_after_seconds`
        ├── ServerUnavailable     UNAVAILABLE          starting, stopping; `.retry_after_seconds`
        │   └── CannotConnect     UNAVAILABLE          nothing answers at that address
        ├── DeadlineExceeded      DEADLINE_EXCEEDED    `timeout_seconds` was over  (TimeoutError)
        ├── CallCancelled         CANCELLED
        ├── NotSupported          UNIMPLEMENTED        not in the server's release
        └── ServerFailed          INTERNAL
            ├── DataLost          DATA_LOSS
            └── UnknownFailure    UNKNOWN

Messages are sentences for people. Nothing here may know gRPC: a status is its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


class LlavaChatError(Exception):
    """The root of the tree. `str()` of any of them is a sentence."""


class ConfigurationError(LlavaChatError, ValueError):
    """The client can not work as configured, address, TLS, key or a size, or where it is used: in a
    process that was forked since, or in a second event loop."""


class CertificateRefused(ConfigurationError):
    """The server's certificate is not the one that `tls_pin` names, or is and can not be used. The
    pin may be of an earlier certificate; else somebody may stand between."""


class ImageError(LlavaChatError, ValueError):
    """A picture can not be read, fetched or sent."""


class ArchiveError(LlavaChatError, ValueError):
    """A file is no exported chat, or is damaged."""


class NotStartedYet(LlavaChatError):
    """A reply was asked for something that the server has not told yet."""


class IncompleteReply(LlavaChatError):
    """The stream ended in good order but without its last event; the text may be cut short."""


NOT_SENT = "NOT_SENT"
"""The reason of a violation that the client found itself; the server was not asked."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request.

    Args:
        field: its path, such as "params.top_p".
        description: what would be right.
        reason: the server's word for why, where it has one, as for pictures; `NOT_SENT` where the
            client found it.
    """

    field: str
    description: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What came with a gRPC status.

    Args:
        message: the server's sentence.
        violations: wrong fields of the request.
        preconditions: what did not hold, (type, subject, description) each.
        retry_after_seconds: how long the server asks to wait. None: it did not say.
        resource: what was not found, (kind, id).
        quotas: the limits that were reached, in words.
        quota_subjects: what they are limits of, such as "replies"; one for each.
    """

    message: str = ""
    violations: tuple[FieldViolation, ...] = ()
    preconditions: tuple[tuple[str, str, str], ...] = ()
    retry_after_seconds: float | None = None
    resource: tuple[str, str] | None = None
    quotas: tuple[str, ...] = ()
    quota_subjects: tuple[str, ...] = ()


class StatusError(LlavaChatError):
    """The call ended with a gRPC status.

    Attributes:
        status: the name of the status, such as "NOT_FOUND".
        details: what the server said of it.
    """

    status: ClassVar[str] = ""

    def __init__(self, message: str, details: StatusDetails | None = None) -> None:
        super().__init__(message)
        self.details = details or StatusDetails(message=message)

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the server asks to wait before another try. None: it did not say."""
        return self.details.retry_after_seconds


class InvalidRequest(StatusError):
    """INVALID_ARGUMENT: a bad picture, parameter, prompt or message."""

    status = "INVALID_ARGUMENT"

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The wrong field and what would be right. A request is judged until one is found: with
        several, each is told once the one before it is put right."""
        return self.details.violations


class OutOfRange(InvalidRequest):
    """OUT_OF_RANGE: a position beyond what exists."""

    status = "OUT_OF_RANGE"


class AuthenticationFailed(StatusError):
    """UNAUTHENTICATED: the key is missing or wrong."""

    status = "UNAUTHENTICATED"


class PermissionDenied(StatusError):
    """PERMISSION_DENIED: the key is good, but not for this."""

    status = "PERMISSION_DENIED"


class NotFound(StatusError):
    """NOT_FOUND: an unknown chat or turn, or another tenant's."""

    status = "NOT_FOUND"


class RequestIdReused(StatusError):
    """ALREADY_EXISTS: this request_id was used before with another body."""

    status = "ALREADY_EXISTS"


class PreconditionFailed(StatusError):
    """FAILED_PRECONDITION: something must change before the call can succeed."""

    status = "FAILED_PRECONDITION"


class ContextFull(PreconditionFailed):
    """FAILED_PRECONDITION: the prompt leaves no room for an answer in the model's context.

    Attributes:
        text_tokens, image_tokens: of the question. None: the server did not say.
        history_tokens: of the turns before it. None: the server did not say.
        context_tokens: what the model's context holds. None: the server did not say.
    """

    def __init__(
        self,
        message: str,
        details: StatusDetails | None = None,
        *,
        text_tokens: int | None = None,
        image_tokens: int | None = None,
        history_tokens: int | None = None,
        context_tokens: int | None = None,
    ) -> None:
        super().__init__(message, details)
        self.text_tokens = text_tokens
        self.image_tokens = image_tokens
        self.history_tokens = history_tokens
        self.context_tokens = context_tokens


class TurnRunning(StatusError):
    """ABORTED: a turn is already running in this chat."""

    status = "ABORTED"


class LimitReached(StatusError):
    """RESOURCE_EXHAUSTED: the queue, a rate, the message size or the disk is at its limit."""

    status = "RESOURCE_EXHAUSTED"


class ServerUnavailable(StatusError):
    """UNAVAILABLE: the server is starting, stopping or restarting, or the connection was lost."""

    status = "UNAVAILABLE"


class CannotConnect(ServerUnavailable):
    """UNAVAILABLE: no llavachat server answers at that address."""


class DeadlineExceeded(StatusError, TimeoutError):
    """DEADLINE_EXCEEDED: `timeout_seconds` was over. The server keeps the partial turn."""

    status = "DEADLINE_EXCEEDED"


class CallCancelled(StatusError):
    """CANCELLED: the call was cancelled by other means than closing the reply, or the client is
    closed."""

    status = "CANCELLED"


class NotSupported(StatusError):
    """UNIMPLEMENTED: the server's release does not have this call."""

    status = "UNIMPLEMENTED"


class ServerFailed(StatusError):
    """INTERNAL: the server failed on this call."""

    status = "INTERNAL"


class DataLost(ServerFailed):
    """DATA_LOSS: the server has lost data for good."""

    status = "DATA_LOSS"


class UnknownFailure(ServerFailed):
    """UNKNOWN: the call failed in a way that no status describes."""

    status = "UNKNOWN"


ERRORS_BY_STATUS: Mapping[str, type[StatusError]] = MappingProxyType(
    {
        error.status: error
        for error in (
            AuthenticationFailed,
            CallCancelled,
            DataLost,
            DeadlineExceeded,
            InvalidRequest,
            LimitReached,
            NotFound,
            NotSupported,
            OutOfRange,
            PermissionDenied,
            PreconditionFailed,
            RequestIdReused,
            ServerFailed,
            ServerUnavailable,
            TurnRunning,
            UnknownFailure,
        )
    }
)
"""The class of every gRPC status but OK, by the status's name."""
