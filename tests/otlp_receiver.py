"""Who receives what the server sends by OTLP: real endpoints, by gRPC and HTTP, that keep all."""

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

PATIENCE_SECONDS = 60.0


@dataclass
class Received:
    """All that has come.

    Args:
        address: where it is to be sent.
        traces, metrics: the requests, as they came.
    """

    address: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def keep(self, kept: list[Any], request: Any) -> None:
        """Something has come."""
        with self.news:
            kept.append(request)
            self.news.notify_all()

    @property
    def spans(self) -> list[Any]:
        """Every span so far."""
        return [
            span
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def names(self) -> set[str]:
        """The name of every metric so far."""
        return {
            metric.name
            for request in list(self.metrics)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def text(self) -> str:
        """All of it, to be searched."""
        return "\n".join(map(str, [*self.traces, *self.metrics]))


def read_attributes(span: Any) -> dict[str, Any]:
    """A span's attributes as Python's values."""
    found = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        if kind == "array_value":
            value = [item.string_value for item in value.values]
        found[attribute.key] = value
    return found


@contextmanager
def receive_by_grpc() -> Iterator[Received]:
    """An endpoint for ``grpc``."""
    received = Received()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.keep(received.traces, request)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.keep(received.metrics, request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    received.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def receive_by_http(may_answer: threading.Event | None = None) -> Iterator[Received]:
    """An endpoint for ``http/protobuf``, which keeps its answers back until it may give them."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                request: Any = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                received.keep(received.traces, request)
            else:
                request = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
                received.keep(received.metrics, request)
            if may_answer is not None:
                may_answer.wait(PATIENCE_SECONDS)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
