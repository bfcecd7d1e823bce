"""What is counted and measured: the instruments, and what of a report goes into which.

Names and attributes are OpenTelemetry's where it has some (generative AI, RPC, hardware); the
others begin with "llavachat.". No attribute tells who asked, or anything of what was said, so
that the number of series is bounded by the code. docs/observability/README.md has a row for each;
a test compares the two. It must not know gRPC, chats or torch.

Sources: OpenTelemetry's semantic conventions for generative AI (github.com/open-telemetry/
semantic-conventions-genai, "Metrics", Development), the buckets among them; for RPC and hardware
(semantic-conventions 1.42).
"""

from collections.abc import Sequence

from opentelemetry.metrics import Histogram, Meter

from llavachat_server.observation import CallReport, FloodAction, TurnReport
from llavachat_server.values import FinishReason, ModelInfo

PROVIDER = "llavachat"
"""``gen_ai.provider.name``: this server is its own provider."""

OPERATION = "chat"

CALL_SECONDS = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
"""Buckets of ``gen_ai.server.request.duration``, and of all that lasts as long."""
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""A flush to a disk takes about 4 ms; a full or distant one far more."""
DRAIN_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)

UNKNOWN_METHOD = "_OTHER"
"""``rpc.method`` of what this server does not have. Source: the conventions for RPC."""

_COMMITS = {"commit_question": "question", "commit_answer": "answer"}
_DROPPABLE = ("StartChat", "ContinueChat", "ResumeTurn", "ReplayTurn")


def describe_model(model: ModelInfo) -> dict[str, str]:
    """The attributes that say which model answers."""
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model.profile,
    }


class Metrics:
    """The instruments that reports are written into.

    Args:
        meter: makes them.
        reasons: every reason for which a call may be refused; each is there from the start, as
            zero, so that the first refusal is seen as a change.
    """

    def __init__(self, meter: Meter, reasons: Sequence[str]) -> None:
        self._request_seconds = _seconds(
            meter,
            "gen_ai.server.request.duration",
            "From a question's arrival to its last token, or to its refusal",
            CALL_SECONDS,
        )
        self._first_token_seconds = _seconds(
            meter,
            "gen_ai.server.time_to_first_token",
            "From a question's arrival in the engine to its first token",
            FIRST_TOKEN_SECONDS,
        )
        self._token_seconds = _seconds(
            meter,
            "gen_ai.server.time_per_output_token",
            "Mean time of each token of an answer after its first",
            TOKEN_SECONDS,
        )
        self._phase_seconds = _seconds(
            meter,
            "llavachat.turn.phase.duration",
            "Where the time of an answered turn went",
            CALL_SECONDS,
        )
        self._commit_seconds = _seconds(
            meter,
            "llavachat.store.commit.duration",
            "How long a turn waited until its question, or its answer, was on the disk",
            COMMIT_SECONDS,
        )
        self._drain_seconds = _seconds(
            meter,
            "llavachat.drain.duration",
            "How long a stopping server waited for its running turns",
            DRAIN_SECONDS,
        )
        self._call_seconds = _seconds(
            meter, "rpc.server.call.duration", "From a call's arrival to its status", CALL_SECONDS
        )
        self._turns = meter.create_counter("llavachat.turns", "{turn}", "Turns that have ended")
        self._tokens = meter.create_counter(
            "llavachat.tokens", "{token}", "Tokens of ended turns, by kind"
        )
        self._prefix_tokens = meter.create_counter(
            "llavachat.prefix_cache.tokens",
            "{token}",
            "Tokens of prompts that the prefix cache knew, or that were computed",
        )
        self._refusals = meter.create_counter(
            "llavachat.refusals", "{call}", "Calls that were refused or failed, by reason"
        )
        self._dropped = meter.create_counter(
            "llavachat.streams.dropped", "{call}", "Streams whose reader was gone before the end"
        )
        self._floods = meter.create_counter(
            "llavachat.floods",
            "{action}",
            "Connections closed, and addresses blocked, for calls that came to nothing",
        )
        self._begin(reasons)

    def _begin(self, reasons: Sequence[str]) -> None:
        for finish in FinishReason:
            self._turns.add(0, {"finish_reason": finish.value})
        for kind in ("text", "image", "completion"):
            self._tokens.add(0, {"kind": kind})
        for result in ("hit", "miss"):
            self._prefix_tokens.add(0, {"result": result})
        for reason in sorted(reasons):
            self._refusals.add(0, {"reason": reason})
        self._dropped.add(0)
        for action in FloodAction:
            self._floods.add(0, {"action": action.value})

    def note_turn(self, report: TurnReport) -> None:
        """A question was answered or refused."""
        model = describe_model(report.model)
        error = {"error.type": report.error} if report.error else {}
        self._request_seconds.record(report.ended_seconds - report.began_seconds, model | error)
        if report.finish_reason is not None:
            self._turns.add(1, {"finish_reason": report.finish_reason.value})
        for phase in report.phases:
            if (commit := _COMMITS.get(phase.name)) is not None:
                seconds = phase.ended_seconds - phase.began_seconds
                self._commit_seconds.record(seconds, {"commit": commit})
        usage, timings = report.usage, report.timings
        if usage is None or timings is None:
            return
        prompt_tokens = usage.text_tokens + usage.image_tokens
        self._tokens.add(usage.text_tokens, {"kind": "text"})
        self._tokens.add(usage.image_tokens, {"kind": "image"})
        self._tokens.add(usage.completion_tokens, {"kind": "completion"})
        if timings.first_token_seconds:
            self._prefix_tokens.add(usage.cached_tokens, {"result": "hit"})
            self._prefix_tokens.add(prompt_tokens - usage.cached_tokens, {"result": "miss"})
            self._first_token_seconds.record(timings.first_token_seconds, model)
            self._note_phases(report)
        if usage.completion_tokens > 1:
            mean = timings.decode_seconds / (usage.completion_tokens - 1)
            self._token_seconds.record(mean, model)

    def _note_phases(self, report: TurnReport) -> None:
        seconds: dict[str, float] = {}
        for phase in report.phases:
            if phase.name not in _COMMITS:
                took = phase.ended_seconds - phase.began_seconds
                seconds[phase.name] = seconds.get(phase.name, 0.0) + took
        for name, took in seconds.items():
            self._phase_seconds.record(took, {"phase": name})

    def note_call(self, report: CallReport) -> None:
        """A call has ended."""
        method = report.method or UNKNOWN_METHOD
        self._call_seconds.record(
            report.seconds,
            {
                "rpc.system.name": "grpc",
                "rpc.method": method,
                "rpc.response.status_code": report.code,
            },
        )
        if report.reason:
            self._refusals.add(1, {"reason": report.reason})
        if report.code == "CANCELLED" and method.rpartition("/")[2] in _DROPPABLE:
            self._dropped.add(1)

    def note_flood(self, action: FloodAction, number: int) -> None:
        """Somebody who floods the server was sent away."""
        self._floods.add(number, {"action": action.value})

    def note_drain(self, seconds: float) -> None:
        """The server has waited for its turns, and stops."""
        self._drain_seconds.record(seconds)


def _seconds(meter: Meter, name: str, what: str, buckets: Sequence[float]) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=what, explicit_bucket_boundaries_advisory=list(buckets)
    )
