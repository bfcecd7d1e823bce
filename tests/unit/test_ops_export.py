"""Which of OpenTelemetry's variables ask for what."""

import pytest
from llavachat_server.ops.export import BadExport, Exports, make_resource

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Exports()),
        (ENDPOINT, Exports("http/protobuf", "http/protobuf")),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Exports("grpc", "grpc")),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            Exports("http/protobuf", "grpc"),
        ),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, Exports("http/protobuf", None)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, Exports(None, "http/protobuf")),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, Exports("http/protobuf", None)),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, Exports()),
        ({"OTEL_SERVICE_NAME": "captions"}, Exports()),
    ],
)
def test_nothing_is_sent_unless_it_is_asked_for(
    environment: dict[str, str], expected: Exports
) -> None:
    """By an endpoint or an exporter, each signal for itself."""
    assert expected == Exports.from_environment(environment)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"OTEL_METRICS_EXPORTER": "prometheus"},
            "OTEL_METRICS_EXPORTER: 'prometheus' given; allowed: otlp or none; "
            "for Prometheus set metrics_listen",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin' given; allowed: otlp"),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' given; allowed: grpc or http/protobuf",
        ),
    ],
)
def test_what_can_not_be_done_is_said(environment: dict[str, str], says: str) -> None:
    """The variable, what was given, and what is allowed."""
    with pytest.raises(BadExport) as caught:
        Exports.from_environment(environment)
    assert str(caught.value).startswith(says)


def test_the_service_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the environment has another one."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    assert "llavachat" == make_resource().attributes["service.name"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    attributes = make_resource().attributes
    assert ("pictures", "test") == (
        attributes["service.name"],
        attributes["deployment.environment.name"],
    )
