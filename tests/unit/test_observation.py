"""What the rooms report: trace contexts as the standard has them, and names of errors."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llavachat_server.chats.errors import TurnRunning
from llavachat_server.observation import MAX_TRACESTATE_CHARS, TraceContext, name_error
from llavachat_server.values import QueueFull
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

digits = st.text("0123456789abcdef", min_size=0, max_size=34)
headers = st.builds(
    "{}-{}-{}-{}{}".format,
    st.sampled_from(["00", "01", "cc", "ff", "0", "000", "0g"]),
    st.one_of(st.just(TRACE), st.just("0" * 32), st.just(TRACE.upper()), digits),
    st.one_of(st.just(SPAN), st.just("0" * 16), digits),
    st.sampled_from(["00", "01", "02", "ff", "1", "0x"]),
    st.sampled_from(["", "", "-", "-what-comes-later", "x"]),
)


def test_a_caller_s_trace_is_read() -> None:
    """Ids and the flag come out as they went in."""
    found = TraceContext.parse(f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert TraceContext(TRACE, SPAN, True, "vendor=1") == found
    unsampled = TraceContext.parse(f"00-{TRACE}-{SPAN}-00")
    assert unsampled is not None
    assert not unsampled.is_sampled


@given(headers)
@example(f"00-{TRACE}-{SPAN}-01-more")
@example(f"01-{TRACE}-{SPAN}-01-more")
@example(f"ff-{TRACE}-{SPAN}-01")
def test_headers_are_judged_as_opentelemetry_judges_them(header: str) -> None:
    """The reference: OpenTelemetry's own propagator takes the same headers and reads the same."""
    context = TraceContextTextMapPropagator().extract({"traceparent": header})
    theirs = get_current_span(context).get_span_context()
    ours = TraceContext.parse(header)
    assert theirs.is_valid is (ours is not None)
    if ours is not None:
        assert (theirs.trace_id, theirs.span_id) == (int(ours.trace_id, 16), int(ours.span_id, 16))
        assert theirs.trace_flags.sampled == ours.is_sampled


@given(st.text())
def test_any_text_is_a_trace_or_none(header: str) -> None:
    """Whatever a caller sends."""
    found = TraceContext.parse(header, header)
    assert found is None or int(found.trace_id, 16)


def test_an_overlong_state_is_dropped() -> None:
    """The trace itself goes on."""
    found = TraceContext.parse(f"00-{TRACE}-{SPAN}-01", "a=" + "x" * MAX_TRACESTATE_CHARS)
    assert TraceContext(TRACE, SPAN, True) == found


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (QueueFull(1.0), "queue_full"),
        (TurnRunning(), "turn_running"),
        (TurnRunning, "turn_running"),
        (ValueError("a secret"), "value_error"),
    ],
)
def test_an_error_is_named_by_its_kind(error: Exception, name: str) -> None:
    """Never by its text."""
    assert name == name_error(error)
