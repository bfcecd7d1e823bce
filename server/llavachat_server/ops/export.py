"""Where measurements go: to whoever scrapes, and to whom OpenTelemetry's environment names.

Contract: nothing is sent anywhere unless an ``OTEL_*`` variable asks for it; how, is then said by
the standard's own variables, which the SDK reads. It must not know what is measured.

Source: OpenTelemetry's "Environment Variable Specification" and "OTLP Exporter Configuration".
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llavachat_server import __version__

Signal = Literal["metrics", "traces"]
Protocol = Literal["grpc", "http/protobuf"]

_PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")
_DEFAULT_PROTOCOL: Protocol = "http/protobuf"


class BadExport(Exception):
    """A variable can not be followed; one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Exports:
    """What is sent by OTLP, and by which protocol; None: not at all."""

    metrics: Protocol | None = None
    traces: Protocol | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Exports":
        """What the standard's variables ask for.

        Raises:
            BadExport: one of them asks for what this server can not do.
        """
        if is_switched_off(environment):
            return cls()
        return cls(_read(environment, "metrics"), _read(environment, "traces"))


def is_switched_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the SDK measures nothing at all, not even for who scrapes; as it reads it itself."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _read(environment: Mapping[str, str], signal: Signal) -> Protocol | None:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    wish = environment.get(variable, "").strip().lower()
    if wish not in ("", "otlp", "none"):
        hint = "; for Prometheus set metrics_listen" if wish == "prometheus" else ""
        raise BadExport(f"{variable}: {wish!r} given; allowed: otlp or none{hint}")
    prefix = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    has_endpoint = any(
        environment.get(name) for name in (f"{prefix}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )
    if wish == "none" or not (wish or has_endpoint):
        return None
    for name in (f"{prefix}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if given := environment.get(name):
            for protocol in _PROTOCOLS:
                if protocol == given:
                    return protocol
            raise BadExport(f"{name}: {given!r} given; allowed: {' or '.join(_PROTOCOLS)}")
    return _DEFAULT_PROTOCOL


def make_resource() -> Any:
    """Whose measurements they are; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win."""
    from opentelemetry.sdk.resources import Resource

    class HashedOnce(Resource):
        """The exporter asks for the hash with every span, and the SDK makes it from a JSON text:
        about a third of what packing a span took."""

        @cached_property
        def _hash(self) -> int:
            return super().__hash__()

        def __hash__(self) -> int:
            return self._hash

    own = Resource({"service.name": "llavachat", "service.version": __version__})
    given = Resource.create()
    # The SDK puts a name of its own where nobody has given one.
    if str(given.attributes.get("service.name", "")).startswith("unknown_service"):
        given = Resource({k: v for k, v in given.attributes.items() if k != "service.name"})
    whole = own.merge(given)
    return HashedOnce(dict(whole.attributes), whole.schema_url)


def make_metric_exporter(protocol: Protocol) -> Any:
    """Sends metrics; endpoint, headers, TLS and times come from the environment."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
        OTLPMetricExporter as HttpMetricExporter,
    )

    return HttpMetricExporter()


def make_span_exporter(protocol: Protocol) -> Any:
    """Sends spans; likewise."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpSpanExporter,
    )

    return HttpSpanExporter()
