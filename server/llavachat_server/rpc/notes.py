"""What is noted of one call while it is answered, for its report at the end.

The gate makes the notes of a call, and whoever ends it writes into them. It must not know what a
call asks.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from grpc import StatusCode

from llavachat_server.observation import CallReport, TraceContext
from llavachat_server.rpc.status import Refusal


@dataclass(slots=True)
class CallNotes:
    """One call.

    Args:
        method: as gRPC names it; "" for one that this server does not have.
        trace: the caller's.
        is_stream: its answer is a stream.
        refusal: what it was ended with, if it was.
        code: what a servicer that is not ours ended it with, which knows no refusals.
        is_left: the caller had gone before the end.
    """

    method: str = ""
    trace: TraceContext | None = None
    is_stream: bool = False
    refusal: Refusal | None = None
    code: StatusCode = StatusCode.OK
    is_left: bool = False
    began_seconds: float = field(default_factory=time.perf_counter)

    def report(self) -> CallReport:
        """The call has ended."""
        code, reason = self.code.name, ""
        if self.is_left:
            code = "CANCELLED"
        elif self.refusal is not None:
            code, reason = self.refusal.code.name, self.refusal.reason
        return CallReport(
            method=self.method.lstrip("/"),
            code=code,
            reason=reason,
            is_stream=self.is_stream,
            seconds=time.perf_counter() - self.began_seconds,
            trace=self.trace,
        )


NOTES: ContextVar[CallNotes] = ContextVar("notes", default=CallNotes())  # noqa: B039 - see below
"""Of the call that the present task answers. Outside of any call, notes that nobody reads."""
