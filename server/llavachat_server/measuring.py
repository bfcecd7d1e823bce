"""The wiring of what is measured: from settings and environment to telemetry and its port.

Beside `listener`: that opens the port for callers, this the one for scrapers, and by the same
rules. It must not know what is measured.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from grpc import StatusCode

from llavachat_server.interfaces import Engine
from llavachat_server.listener import ListenError
from llavachat_server.network import explain_refusal, is_loopback, split_address
from llavachat_server.ops.export import Exports, is_switched_off
from llavachat_server.ops.gpu import GpuReader
from llavachat_server.ops.telemetry import Telemetry, check_installed
from llavachat_server.rpc.gate import Gate, GateState
from llavachat_server.rpc.status import REASONS
from llavachat_server.rpc.tls import BadCertificate, Certificates
from llavachat_server.settings import Settings
from llavachat_server.values import (
    EngineLoad,
)

log = logging.getLogger("llavachat")

_STATUSES = {
    StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
}


def make_telemetry(settings: Settings) -> Telemetry:
    """What notes all reports of a server.

    Variables for OpenTelemetry are often set for all programs of a machine; those that can not be
    followed are told in the log, and keep nobody from serving.
    """
    reasons, is_scraped = sorted(REASONS), bool(settings.metrics_listen)
    if is_scraped and is_switched_off():
        log.warning("nothing is measured", extra={"fields": {"why": "OTEL_SDK_DISABLED is true"}})
    try:
        exports = Exports.from_environment(os.environ)
        if exports.metrics or exports.traces:
            check_installed("OTLP, as the OTEL_ variables ask for,")
            return Telemetry(reasons, exports, is_scraped=is_scraped)
    except Exception as error:
        # Of whatever kind: the SDK reads most of the variables, and has no one word for refusing.
        # Told once the rest is there: what ends that as well is no matter of what is sent.
        telemetry = Telemetry(reasons, Exports(), is_scraped=is_scraped)
        fields = {"why": str(error) or type(error).__name__}
        log.warning("nothing is sent by OTLP", extra={"fields": fields})
        return telemetry
    return Telemetry(reasons, Exports(), is_scraped=is_scraped)


def watch_server(
    telemetry: Telemetry,
    find_state: Callable[[], GateState],
    count_turns: Callable[[], int],
    find_engine: Callable[[], Engine | None],
) -> None:
    """Have the server looked at whenever somebody asks for figures.

    Args:
        telemetry: who asks.
        find_state: what the gate does with calls.
        count_turns: turns that run or wait.
        find_engine: the engine; None until it is loaded.
    """
    if not telemetry.is_measuring:
        return
    from llavachat_server.ops.gauges import Capacity, ServerState, Sources

    states = {
        GateState.STARTING: ServerState.STARTING,
        GateState.OPEN: ServerState.SERVING,
        GateState.STOPPING: ServerState.STOPPING,
    }

    def read_load() -> EngineLoad:
        engine = find_engine()
        return EngineLoad() if engine is None else engine.load

    def read_capacity() -> Capacity:
        engine = find_engine()
        if engine is None:
            return Capacity()
        return Capacity(engine.info.max_running, engine.info.max_queued)

    telemetry.watch(
        Sources(
            lambda: states[find_state()], count_turns, read_load, read_capacity, GpuReader.open()
        )
    )


class MetricsPort:
    """The port for scrapers.

    Args:
        settings: where it is, and its certificate.
        telemetry: has the figures.
        gate: knows who may read.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry, gate: Gate) -> None:
        # h11 comes with the extra.
        from llavachat_server.ops.exposition import Denial, Exposition

        @contextmanager
        def judge(authorization: str) -> Iterator[Denial | None]:
            with gate.reading_figures(authorization) as refusal:
                if refusal is None:
                    yield None
                    return
                status = _STATUSES[refusal.code]
                yield Denial(status, refusal.message, refusal.retry_after_seconds)

        self._settings = settings
        self._exposition = Exposition(telemetry.render, judge)

    async def open(self) -> str:
        """Listen, with TLS where others than this machine can connect and there is a certificate.

        Returns:
            The address that was bound, as http or https.

        Raises:
            ListenError: the address is taken, or the certificate can not be used.
        """
        settings, listen = self._settings, self._settings.metrics_listen
        host, port = split_address(listen)
        tls = None
        try:
            if not is_loopback(listen) and settings.tls_cert_file and settings.tls_key_file:
                tls = Certificates(
                    settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
                ).make_context()
            port = await self._exposition.open(host, port, tls)
        except BadCertificate as error:
            raise ListenError(str(error)) from error
        except OSError as error:
            why = explain_refusal(listen)
            raise ListenError(f"metrics_listen: {listen!r} can not be opened; {why}") from error
        return f"{'https' if tls else 'http'}://{listen.rpartition(':')[0]}:{port}/metrics"

    async def close(self) -> None:
        """Answer no scraper any more."""
        await self._exposition.close()
