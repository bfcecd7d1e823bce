"""Reports of turns for tests of what becomes of them."""

from dataclasses import replace
from typing import Any

from llavachat_server.observation import TraceContext, TurnReport
from llavachat_server.values import (
    FinishReason,
    ModelInfo,
    Phase,
    Quantization,
    Sampling,
    Timings,
    Usage,
)

CHAT = "llavachat.v1.ChatService"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACE = TraceContext(TRACE_ID, SPAN_ID, True)
BEGAN = 100.0

_TIMINGS = Timings(0.15, 0.1, 0.2, 0.5, 0.8)
_REPORT = TurnReport(
    tenant="a-tenant",
    request_id="request-1",
    chat_id="c" * 32,
    turn_id="d" * 32,
    model=ModelInfo("shapes", "shapes", "", Quantization.NONE, "0" * 64),
    sampling=Sampling(max_tokens=16, temperature=0.5, seed=2**63, stop=("a stop text",)),
    num_images=1,
    finish_reason=FinishReason.EOS,
    error="",
    usage=Usage(40, 64, 32, 5, 3000),
    timings=_TIMINGS,
    phases=(
        Phase("intake", BEGAN, BEGAN + 0.1),
        Phase("commit_question", BEGAN + 0.1, BEGAN + 0.11),
        Phase("queue", BEGAN + 0.1, BEGAN + 0.2),
        Phase("vision", BEGAN + 0.2, BEGAN + 0.3),
        Phase("queue", BEGAN + 0.3, BEGAN + 0.35),
        Phase("prefill", BEGAN + 0.35, BEGAN + 0.55),
        Phase("decode", BEGAN + 0.55, BEGAN + 1.35),
        Phase("commit_answer", BEGAN + 1.35, BEGAN + 1.37),
    ),
    began_seconds=BEGAN,
    ended_seconds=BEGAN + 2.0,
    trace=None,
)


def make_report(first_token_seconds: float = 0.5, **changes: Any) -> TurnReport:
    """A turn that was answered well, but for the changes."""
    timings = replace(_TIMINGS, first_token_seconds=first_token_seconds)
    return replace(_REPORT, **{"timings": timings, **changes})
