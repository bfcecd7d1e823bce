"""What the rooms tell whoever watches them: one plain value for each turn and each call.

Contract: a room fills a report in and hands it to a callable; it neither knows nor waits for what
becomes of it. No report holds a prompt, an answer, a stop text, a picture or a key. Nothing here
may import gRPC, torch, or a library of measurements.
"""

import re
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

from llavachat_server.values import FinishReason, ModelInfo, Phase, Sampling, Timings, Usage

MAX_TRACESTATE_CHARS = 512
"""Source: W3C Trace Context, section 3.3.1.5: so much at least is to be passed on."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FORBIDDEN_VERSION = "ff"
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a caller's call belongs to. Source: W3C Trace Context, level 1.

    Args:
        trace_id: 32 hexadecimal digits, not all zero.
        span_id: the caller's span, 16 hexadecimal digits, not all zero.
        is_sampled: the caller keeps this trace.
        tracestate: passed on as it is, never looked at.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    tracestate: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> "TraceContext | None":
        """Read the headers; None where they are not what the standard asks for."""
        match = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        if version == _FORBIDDEN_VERSION or (version == "00" and rest is not None):
            return None
        if not int(trace_id, 16) or not int(span_id, 16):
            return None
        state = tracestate if len(tracestate) <= MAX_TRACESTATE_CHARS else ""
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state)


TRACE: ContextVar[TraceContext | None] = ContextVar("trace", default=None)
"""Of the call that the present task works for; set by the gate before any handler runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReport:
    """One question, from its arrival to its end.

    Args:
        tenant: who asked.
        request_id: the caller's; "" where there was none.
        chat_id, turn_id: "" where it was refused before there was any.
        model: which model was asked.
        sampling: resolved parameters; None where it was refused before.
        num_images: pictures that the question brought.
        finish_reason: None where it was refused.
        error: what it failed with or was refused for, see `name_error`; "" for neither.
        usage, timings: None where the engine did not come to its end.
        phases: what was done when; they may overlap, and a kind may come twice.
        began_seconds, ended_seconds: of the whole, by ``time.perf_counter``.
        trace: the caller's.
    """

    tenant: str
    request_id: str
    chat_id: str
    turn_id: str
    model: ModelInfo
    sampling: Sampling | None
    num_images: int
    finish_reason: FinishReason | None
    error: str
    usage: Usage | None
    timings: Timings | None
    phases: tuple[Phase, ...]
    began_seconds: float
    ended_seconds: float
    trace: TraceContext | None


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call that has ended.

    Args:
        method: its full name without the leading slash, as in "llavachat.v1.ChatService/GetChat";
            "" for one that this server does not have.
        code: the status' name, such as "OK"; "CANCELLED" also where the caller went silently.
        reason: what it was refused for, see `name_error`; "" where it was not.
        is_stream: its answer is a stream.
        seconds: from its arrival to its status.
        trace: the caller's.
    """

    method: str
    code: str
    reason: str
    is_stream: bool
    seconds: float
    trace: TraceContext | None


class FloodAction(Enum):
    """What was done against a flood of calls that come to nothing."""

    CLOSED = "closed"
    """A connection was closed."""
    BLOCKED = "blocked"
    """An address could not connect for a while."""


def name_error(error: BaseException | type[BaseException]) -> str:
    """A short name of an error's kind, such as "queue_full": there are few, and none tells more."""
    kind = error if isinstance(error, type) else type(error)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
