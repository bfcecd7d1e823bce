"""What of a report goes into which instrument, read by the SDK's own reader."""

from typing import Any

import pytest
from llavachat_server.observation import CallReport
from llavachat_server.ops.gauges import Capacity, ServerState, Sources, add_gauges
from llavachat_server.ops.metrics import FIRST_TOKEN_SECONDS, Metrics
from llavachat_server.values import EngineLoad, FinishReason
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from reports import CHAT, make_report

MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "llavachat",
    "gen_ai.request.model": "shapes",
}


class Measured:
    """Metrics, and what they have come to."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meter = MeterProvider([self._reader], shutdown_on_exit=False).get_meter("test")
        self.metrics = Metrics(self.meter, ["queue_full", "starting"])

    def points(self, name: str) -> list[Any]:
        """The points of an instrument that are not zero."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str, by: str) -> dict[Any, float]:
        """The values of a counter or gauge, by an attribute, zeros left out."""
        return {point.attributes.get(by): point.value for point in self.points(name) if point.value}

    def sums(self, name: str, by: str) -> dict[Any, float]:
        """The sums of a histogram, by an attribute."""
        return {point.attributes.get(by): round(point.sum, 6) for point in self.points(name)}


@pytest.fixture
def measured() -> Measured:
    """Nothing has happened."""
    return Measured()


def test_a_turn_is_counted(measured: Measured) -> None:
    """Its end, its tokens by kind, what the prefix cache spared, and where its time went."""
    measured.metrics.note_turn(make_report())
    assert {"eos": 1} == measured.values("llavachat.turns", "finish_reason")
    tokens = measured.values("llavachat.tokens", "kind")
    assert {"text": 40, "image": 64, "completion": 5} == tokens
    prefix = measured.values("llavachat.prefix_cache.tokens", "result")
    assert {"hit": 32, "miss": 72} == prefix
    (duration,) = measured.points("gen_ai.server.request.duration")
    assert (2.0, MODEL) == (duration.sum, dict(duration.attributes))
    (first,) = measured.points("gen_ai.server.time_to_first_token")
    assert (0.5, MODEL) == (first.sum, dict(first.attributes))
    assert FIRST_TOKEN_SECONDS == tuple(first.explicit_bounds)
    (token,) = measured.points("gen_ai.server.time_per_output_token")
    # 0.8 s of decoding for the four tokens after the first.
    assert (0.2, MODEL) == (token.sum, dict(token.attributes))
    phases = measured.sums("llavachat.turn.phase.duration", "phase")
    assert {"intake": 0.1, "queue": 0.15, "vision": 0.1, "prefill": 0.2, "decode": 0.8} == phases
    commits = measured.sums("llavachat.store.commit.duration", "commit")
    assert {"question": 0.01, "answer": 0.02} == commits


def test_a_refused_question_has_its_reason_and_nothing_else(measured: Measured) -> None:
    """It is a request that ended in an error, and no turn."""
    measured.metrics.note_turn(
        make_report(finish_reason=None, usage=None, timings=None, phases=(), error="queue_full")
    )
    (duration,) = measured.points("gen_ai.server.request.duration")
    assert "queue_full" == duration.attributes["error.type"]
    assert {} == measured.values("llavachat.turns", "finish_reason")
    assert [] == measured.points("gen_ai.server.time_to_first_token")


def test_a_turn_that_was_cancelled_in_the_line_has_no_first_token(measured: Measured) -> None:
    """A time of zero would draw the median down."""
    report = make_report(first_token_seconds=0.0, finish_reason=FinishReason.CANCELLED)
    measured.metrics.note_turn(report)
    assert {"cancelled": 1} == measured.values("llavachat.turns", "finish_reason")
    assert [] == measured.points("gen_ai.server.time_to_first_token")
    assert {} == measured.values("llavachat.prefix_cache.tokens", "result")


def test_no_attribute_tells_who_asked(measured: Measured) -> None:
    """Tenants, ids and traces are for the log and the spans: they would make a series each."""
    measured.metrics.note_turn(make_report())
    measured.metrics.note_call(CallReport(f"{CHAT}/GetChat", "OK", "", False, 0.1, None))
    report = make_report()
    secrets = {report.tenant, report.request_id, report.chat_id, report.turn_id}
    data = measured._reader.get_metrics_data().to_json()
    assert [] == [secret for secret in secrets if secret in data]


def test_calls_are_counted_by_method_and_status(measured: Measured) -> None:
    """And refusals by reason; a method that is not ours has no name of its own."""
    note = measured.metrics.note_call
    note(CallReport(f"{CHAT}/StartChat", "RESOURCE_EXHAUSTED", "queue_full", True, 0.25, None))
    note(CallReport("", "UNIMPLEMENTED", "unknown_method", False, 0.01, None))
    by_method = measured.sums("rpc.server.call.duration", "rpc.method")
    assert {f"{CHAT}/StartChat": 0.25, "_OTHER": 0.01} == by_method
    by_code = measured.sums("rpc.server.call.duration", "rpc.response.status_code")
    assert {"RESOURCE_EXHAUSTED": 0.25, "UNIMPLEMENTED": 0.01} == by_code
    refusals = measured.values("llavachat.refusals", "reason")
    assert {"queue_full": 1, "unknown_method": 1} == refusals


@pytest.mark.parametrize(
    ("method", "code", "expected"),
    [
        ("StartChat", "CANCELLED", 1),
        ("ResumeTurn", "CANCELLED", 1),
        ("StartChat", "OK", 0),
        ("GetChat", "CANCELLED", 0),
    ],
)
def test_a_stream_whose_reader_went_is_dropped(
    measured: Measured, method: str, code: str, expected: int
) -> None:
    """An answer that nobody takes to its end."""
    measured.metrics.note_call(CallReport(f"{CHAT}/{method}", code, "", True, 0.1, None))
    (point,) = measured.points("llavachat.streams.dropped")
    assert expected == point.value


def test_what_may_be_counted_is_there_before_it_happens(measured: Measured) -> None:
    """As zero: Prometheus sees a first refusal only if there was a none before."""
    assert {"queue_full", "starting"} == {
        point.attributes["reason"] for point in measured.points("llavachat.refusals")
    }
    assert {reason.value for reason in FinishReason} == {
        point.attributes["finish_reason"] for point in measured.points("llavachat.turns")
    }


def test_a_drain_is_timed(measured: Measured) -> None:
    """How long running turns held the server up."""
    measured.metrics.note_drain(4.5)
    (point,) = measured.points("llavachat.drain.duration")
    assert (1, 4.5) == (point.count, point.sum)


def test_gauges_are_looked_up(measured: Measured) -> None:
    """State, turns, caches and limits as they are at the moment of asking."""
    load = EngineLoad(3, 2, 1000, 300, 200, 7, 4, 1)
    state = [ServerState.STARTING]
    sources = Sources(lambda: state[0], lambda: 5, lambda: load, lambda: Capacity(8, 64), None)
    add_gauges(measured.meter, sources)
    assert {"starting": 1} == measured.values("llavachat.server.state", "state")
    state[0] = ServerState.STOPPING
    assert {"stopping": 1} == measured.values("llavachat.server.state", "state")
    expected = {
        "llavachat.turns.running": 3,
        "llavachat.turns.queued": 2,
        "llavachat.turns.running.limit": 8,
        "llavachat.turns.queued.limit": 64,
        "llavachat.engine.restarts": 1,
    }
    assert expected == {name: measured.points(name)[0].value for name in expected}
    cache = measured.values("llavachat.kv_cache.tokens", "state")
    assert {"held": 300, "kept": 200, "free": 500} == cache
    images = measured.values("llavachat.image_cache.images", "result")
    assert {"hit": 7, "miss": 4} == images
    assert [] == measured.points("hw.gpu.utilization")
