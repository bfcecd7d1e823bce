"""A trace of each turn: one span for the whole, and one for each phase.

Spans are made when a turn has ended, with the times that were noted, so that a turn itself pays
nothing. The whole is a span of the SDK's tracer, with its sampler and limits. Its phases are made
as what such a span becomes when it ends, which takes less than half of the computing.

Attributes are numbers, ids and names from lists; none holds a prompt, an answer, a stop text or a
picture's bytes. It must not know gRPC, chats or torch.

Source of names: OpenTelemetry's semantic conventions for generative AI, "Spans" (Development).
"""

import time

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, Tracer
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from llavachat_server.observation import TraceContext, TurnReport
from llavachat_server.ops.metrics import OPERATION, describe_model
from llavachat_server.values import Phase, hash_request_id

_MAX_INTEGER = 2**63 - 1
"""Attributes are signed; a seed need not be."""

SPAN_NAMES = {
    "intake": "intake",
    "queue": "queue",
    "vision": "vision",
    "prefill": "prefill",
    "decode": "decode",
    "commit_question": "store commit",
    "commit_answer": "store commit",
}

Value = str | bool | int | float | list[str]


def trace_turn(tracer: Tracer, processor: SpanProcessor, report: TurnReport) -> tuple[str, str]:
    """Make the spans of a turn.

    Args:
        tracer: makes the whole.
        processor: takes the phases; one that the tracer's spans go to as well.
        report: of the turn.

    Returns:
        The ids of the trace and of the turn's span, in hexadecimal, kept or not.
    """
    offset_ns = time.time_ns() - time.perf_counter_ns()

    def clock(seconds: float) -> int:
        return offset_ns + round(seconds * 1e9)

    whole = tracer.start_span(
        f"{OPERATION} {report.model.profile}",
        context=_find_parent(report.trace),
        kind=SpanKind.SERVER,
        attributes=describe_turn(report),
        start_time=clock(report.began_seconds),
    )
    own = whole.get_span_context()
    if isinstance(whole, Span):
        for phase in report.phases:
            span = ReadableSpan(
                SPAN_NAMES[phase.name],
                context=SpanContext(
                    own.trace_id,
                    tracer.id_generator.generate_span_id(),
                    is_remote=False,
                    trace_flags=own.trace_flags,
                    trace_state=own.trace_state,
                ),
                parent=own,
                resource=whole.resource,
                attributes=_describe_phase(phase),
                instrumentation_scope=whole.instrumentation_scope,
                start_time=clock(phase.began_seconds),
                end_time=clock(phase.ended_seconds),
            )
            processor.on_end(span)
        if report.error:
            # No description: an error's text is for the caller alone.
            whole.set_status(Status(StatusCode.ERROR))
    whole.end(clock(report.ended_seconds))
    return format_trace_id(own.trace_id), format_span_id(own.span_id)


def describe_turn(report: TurnReport) -> dict[str, Value]:
    """The attributes of a turn's span."""
    found: dict[str, Value] = {
        **describe_model(report.model),
        "gen_ai.response.model": report.model.profile,
        "gen_ai.request.stream": True,
        "llavachat.images": report.num_images,
    }
    ids = {
        "gen_ai.conversation.id": report.chat_id,
        "gen_ai.response.id": report.turn_id,
        "llavachat.request.id_sha256": hash_request_id(report.request_id),
        "llavachat.tenant": report.tenant,
        "error.type": report.error,
    }
    found |= {name: value for name, value in ids.items() if value}
    if (sampling := report.sampling) is not None:
        found |= {
            "gen_ai.request.max_tokens": sampling.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.top_k": float(sampling.top_k),
        }
        if sampling.seed <= _MAX_INTEGER:
            found["gen_ai.request.seed"] = sampling.seed
    if (usage := report.usage) is not None:
        found |= {
            "gen_ai.usage.input_tokens": usage.text_tokens + usage.image_tokens,
            "gen_ai.usage.text.input_tokens": usage.text_tokens,
            "gen_ai.usage.image.input_tokens": usage.image_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
        }
    if (timings := report.timings) is not None and timings.first_token_seconds:
        found["gen_ai.response.time_to_first_chunk"] = timings.first_token_seconds
    if report.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [report.finish_reason.value]
    return found


def _describe_phase(phase: Phase) -> dict[str, Value]:
    kind, _, what = phase.name.partition("_")
    return {"llavachat.commit": what} if kind == "commit" else {}


def _find_parent(trace: TraceContext | None) -> Context:
    if trace is None:
        return Context()
    parent = SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.is_sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([trace.tracestate]) if trace.tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())
