"""All that is told of a running server: the log's lines, metrics and traces, from one report each.

Contract: a report is noted within microseconds, and never fails whoever tells it. Without the
extra "otel" there is the log alone; what needs the extra is refused beforehand, with what to
install. It must not know gRPC, chats or torch.
"""

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llavachat_server import __version__
from llavachat_server.observation import CallReport, FloodAction, TurnReport
from llavachat_server.ops.export import (
    Exports,
    make_metric_exporter,
    make_resource,
    make_span_exporter,
)
from llavachat_server.ops.turn_log import log_call, log_turn

if TYPE_CHECKING:
    from llavachat_server.ops.gauges import Sources
    from llavachat_server.ops.metrics import Metrics

log = logging.getLogger("llavachat")

FLUSH_SECONDS = 3.0
"""For the last measurements to be sent when the server stops; who receives them may be gone."""

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.prometheus", "h11")
INSTALL = "pip install -c constraints.txt '.[server,otel]', in a checkout"


class TelemetryMissing(Exception):
    """Something that was asked for needs what is not installed; one sentence for the operator."""


class Telemetry:
    """Notes what rooms report.

    Args:
        reasons: every reason for which a call may be refused.
        exports: what is sent by OTLP.
        is_scraped: figures are rendered for who scrapes.

    Raises:
        Exception: of any kind; the SDK can not follow a variable that says how to send.
    """

    def __init__(self, reasons: Sequence[str], exports: Exports, *, is_scraped: bool) -> None:
        self._exports = exports
        self._metrics: Metrics | None = None
        self._trace_turn: Callable[[TurnReport], tuple[str, str]] | None = None
        self._meter: Any = None
        self._registry: Any = None
        self._providers: list[Any] = []
        try:
            if exports.traces:
                self._begin_traces(exports.traces)
            if exports.metrics or is_scraped:
                self._begin_metrics(reasons, is_scraped=is_scraped)
        except BaseException:
            # Nobody would ever end what has begun.
            for provider in self._providers:
                _begin_shut_down(provider)
            raise

    @property
    def is_measuring(self) -> bool:
        """Whether there are metrics."""
        return self._meter is not None

    def watch(self, sources: "Sources") -> None:
        """Look up what is read whenever somebody asks."""
        if self._meter is not None:
            from llavachat_server.ops.gauges import add_gauges

            add_gauges(self._meter, sources)

    def note_turn(self, report: TurnReport) -> None:
        """A question was answered or refused."""
        _guard(self._note_turn, report)

    def note_call(self, report: CallReport) -> None:
        """A call has ended."""
        log_call(report)
        if self._metrics is not None:
            _guard(self._metrics.note_call, report)

    def note_flood(self, action: FloodAction, number: int) -> None:
        """Somebody who floods the server was sent away, so many times."""
        if self._metrics is not None:
            metrics = self._metrics
            _guard(lambda each: metrics.note_flood(each, number), action)

    def note_drain(self, seconds: float) -> None:
        """The server has waited for its turns, and stops."""
        if self._metrics is not None:
            _guard(self._metrics.note_drain, seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The figures for who scrapes, in the form that the ``accept`` header asks for; in the
        plain one where that can not be understood."""
        from prometheus_client.exposition import choose_encoder

        try:
            encode, kind = choose_encoder(accept)
        except Exception:
            # The library compares whatever stands there for a version, and stumbles in many ways.
            encode, kind = choose_encoder("")
        return encode(self._registry), kind

    async def close(self) -> None:
        """Send what was not sent yet, as long as there is time."""
        threads = [_begin_shut_down(provider) for provider in self._providers]
        if threads:
            await asyncio.to_thread(_wait_for, threads, FLUSH_SECONDS)

    def _note_turn(self, report: TurnReport) -> None:
        trace_id, span_id = "", ""
        if self._trace_turn is not None:
            trace_id, span_id = self._trace_turn(report)
        elif report.trace is not None:
            trace_id = report.trace.trace_id
        log_turn(report, trace_id, span_id)
        if self._metrics is not None:
            self._metrics.note_turn(report)

    def _begin_metrics(self, reasons: Sequence[str], *, is_scraped: bool) -> None:
        from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

        from llavachat_server.ops.metrics import Metrics

        readers: list[MetricReader] = []
        if is_scraped:
            readers.append(self._make_registry())
        if self._exports.metrics:
            exporter = make_metric_exporter(self._exports.metrics)
            readers.append(PeriodicExportingMetricReader(exporter))
        # No span is current where something is measured, so no exemplar could name one.
        provider = MeterProvider(
            readers, make_resource(), AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        self._providers.append(provider)
        self._meter = provider.get_meter("llavachat", __version__)
        self._metrics = Metrics(self._meter, reasons)

    def _make_registry(self) -> Any:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        return PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)

    def _begin_traces(self, protocol: Any) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from llavachat_server.ops.tracing import trace_turn

        # It repeats, word for word, what a caller sends as a state of a trace and is none.
        logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
        provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
        processor = BatchSpanProcessor(make_span_exporter(protocol))
        provider.add_span_processor(processor)
        self._providers.append(provider)
        tracer: Any = provider.get_tracer("llavachat", __version__)
        self._trace_turn = partial(trace_turn, tracer, processor)


def check_installed(wish: str) -> None:
    """See whether the extra is there.

    Args:
        wish: what needs it, as the sentence begins.

    Raises:
        TelemetryMissing: it is not.
    """
    if not all(map(_is_there, _NEEDED)):
        raise TelemetryMissing(
            f"{wish} needs OpenTelemetry, which is not installed; install it by {INSTALL}"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _begin_shut_down(provider: Any) -> threading.Thread:
    """Have a provider send what it has left, on a thread that nobody need wait for.

    The SDK gives up after half a minute, and the event loop would wait, at its end, for any thread
    of its own executor.
    """
    thread = threading.Thread(
        target=_guard, args=(lambda one: one.shutdown(), provider), daemon=True
    )
    thread.start()
    return thread


def _wait_for(threads: Iterable[threading.Thread], seconds: float) -> None:
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _guard(note: Callable[[Any], None], report: Any) -> None:
    try:
        note(report)
    except Exception:
        # Whoever reports has more important things to do.
        log.exception("something could not be measured")
