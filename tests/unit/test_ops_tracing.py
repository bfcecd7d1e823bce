"""Spans of a turn, as the SDK would send them."""

from typing import Any

import pytest
from llavachat_server.observation import TraceContext, TurnReport
from llavachat_server.ops.tracing import SPAN_NAMES, trace_turn
from llavachat_server.values import hash_request_id
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from reports import SPAN_ID, TRACE, TRACE_ID, make_report


class Traced:
    """A tracer, and what it has kept."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        self._processor = SimpleSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer: Any = provider.get_tracer("test")

    def trace(self, report: TurnReport) -> tuple[str, str]:
        """Make the spans of a turn."""
        return trace_turn(self._tracer, self._processor, report)

    @property
    def spans(self) -> list[Any]:
        """In the order in which they began; the whole turn first."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    @property
    def whole(self) -> Any:
        """The turn's own span."""
        return next(span for span in self.spans if span.kind is SpanKind.SERVER)


@pytest.fixture
def traced() -> Traced:
    """Nothing has been traced."""
    return Traced()


def test_a_turn_and_its_phases(traced: Traced) -> None:
    """One span for the whole, one within it for each phase, with the times that were noted."""
    traced.trace(make_report())
    whole = traced.whole
    assert ("chat shapes", 2_000_000_000) == (whole.name, whole.end_time - whole.start_time)
    inner = [
        (
            span.name,
            round((span.start_time - whole.start_time) / 1e6),
            round((span.end_time - span.start_time) / 1e6),
        )
        for span in traced.spans
        if span is not whole
    ]
    expected = [
        ("intake", 0, 100),
        ("store commit", 100, 10),
        ("queue", 100, 100),
        ("vision", 200, 100),
        ("queue", 300, 50),
        ("prefill", 350, 200),
        ("decode", 550, 800),
        ("store commit", 1350, 20),
    ]
    assert sorted(expected) == sorted(inner)
    parents = {span.parent.span_id for span in traced.spans if span is not whole}
    assert {whole.context.span_id} == parents
    assert {whole.context.trace_id} == {span.context.trace_id for span in traced.spans}
    assert 9 == len({span.context.span_id for span in traced.spans})
    assert {whole.resource} == {span.resource for span in traced.spans}
    assert {whole.instrumentation_scope} == {span.instrumentation_scope for span in traced.spans}


def test_a_turn_is_part_of_its_caller_s_trace(traced: Traced) -> None:
    """Same trace, and the caller's span is the parent."""
    trace_id, span_id = traced.trace(make_report(trace=TRACE))
    whole = traced.whole
    assert (TRACE_ID, f"{whole.context.span_id:016x}") == (trace_id, span_id)
    assert (int(TRACE_ID, 16), int(SPAN_ID, 16)) == (whole.context.trace_id, whole.parent.span_id)
    assert whole.parent.is_remote


def test_the_state_of_a_trace_is_passed_on(traced: Traced) -> None:
    """As it came."""
    traced.trace(make_report(trace=TraceContext(TRACE_ID, SPAN_ID, True, "a=b,c=d")))
    assert {"a": "b", "c": "d"} == dict(traced.whole.context.trace_state)


def test_a_caller_who_does_not_keep_the_trace_decides(traced: Traced) -> None:
    """Nothing is kept, and the log still has the ids."""
    trace_id, span_id = traced.trace(make_report(trace=TraceContext(TRACE_ID, SPAN_ID, False)))
    assert [] == traced.spans
    assert (TRACE_ID, 16) == (trace_id, len(span_id))


def test_attributes_are_the_conventions_own(traced: Traced) -> None:
    """Numbers, ids and names from lists; and no stop text."""
    traced.trace(make_report())
    attributes = dict(traced.whole.attributes)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llavachat",
        "gen_ai.request.model": "shapes",
        "gen_ai.response.model": "shapes",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 16,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 0.0,
        "gen_ai.conversation.id": "c" * 32,
        "gen_ai.response.id": "d" * 32,
        "gen_ai.response.finish_reasons": ("eos",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 104,
        "gen_ai.usage.text.input_tokens": 40,
        "gen_ai.usage.image.input_tokens": 64,
        "gen_ai.usage.cache_read.input_tokens": 32,
        "gen_ai.usage.output_tokens": 5,
        "llavachat.images": 1,
        "llavachat.request.id_sha256": hash_request_id("request-1"),
        "llavachat.tenant": "a-tenant",
    } == attributes
    assert "a stop text" not in str([span.to_json() for span in traced.spans])


def test_a_failed_turn_is_an_error_without_words(traced: Traced) -> None:
    """Its kind, and no description."""
    traced.trace(make_report(error="engine_failed", usage=None, timings=None))
    status = traced.whole.status
    assert (StatusCode.ERROR, None) == (status.status_code, status.description)
    assert "engine_failed" == traced.whole.attributes["error.type"]


def test_every_phase_has_a_name() -> None:
    """Those that a report of a well answered turn has, at least."""
    assert {phase.name for phase in make_report().phases} == set(SPAN_NAMES)
