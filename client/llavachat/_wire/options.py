"""How a channel is opened: gRPC's arguments, service config, metadata and credentials.

Retries are gRPC's own, by service config: a call that ends UNAVAILABLE before the server's first
word is tried again; once an answer has begun (its headers have come) gRPC commits to it, so that
no text is ever told twice.
"""

import json
import ssl
from collections.abc import Mapping
from typing import Any

import grpc

from llavachat._wire.files import load_own_certificate, read_pem
from llavachat._wire.pin import PinnedServer
from llavachat.connection import Connection, find_metadata_fault, is_loopback
from llavachat.errors import (
    NOT_SENT,
    ConfigurationError,
    FieldViolation,
    InvalidRequest,
    StatusDetails,
)

_RETRIED = (
    "StartChat",  # safe to repeat: every request carries a request_id
    "ContinueChat",
    "ResumeTurn",
    "GetChat",
    "GetTurn",
    "CancelTurn",
    "ListChats",
    "GetImage",
    "CountTokens",
    "GetServerInfo",
)
"""Not DeleteChat: a second try after a lost answer would say NOT_FOUND of a chat that was there.
Not ImportChat: it would bring the chat twice."""

_LONGEST_SECONDS = 1e9
"""Some thirty years. gRPC counts nanoseconds since 1970 in 64 bits: a deadline past the year 2262
is over at once."""

SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": "llavachat.v1.ChatService", "method": method} for method in _RETRIED
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2.5,
                # CANCELLED comes from a server that is flooded with calls: its gRPC drops some of
                # those that wait, unseen. A call that is cancelled here is not tried again.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
"""Without gRPC's throttle, which has a client's next calls go without retries after an outage: so a
restart of a second would fail them. Four tries that are further and further apart are no stampede.

Source: gRPC A6, "gRPC Retry Design"."""


def build_options(
    connection: Connection, server: PinnedServer | None = None
) -> list[tuple[str, Any]]:
    """The channel's arguments; see grpc_types.h of gRPC core.

    Args:
        connection: how to connect.
        server: whom its pin was found to be, where it has one.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", "llavachat"),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.max_send_message_length", connection.max_message_bytes),
        ("grpc.max_receive_message_length", connection.max_message_bytes),
        # gRPC keeps a request for a retry only up to this size; its default, 256 KiB, is less
        # than one picture, and larger requests would silently never be retried.
        ("grpc.per_rpc_retry_buffer_size", connection.max_message_bytes),
        ("grpc.keepalive_time_ms", int(min(connection.keepalive_seconds * 1000, 2**31 - 1))),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that restarts is found again within seconds, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if is_loopback(connection.address):
        # http_proxy in the environment is no way to this very machine.
        options.append(("grpc.enable_http_proxy", 0))
    name = connection.tls_server_name if server is None else server.name
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return options


def build_metadata(
    connection: Connection, metadata: Mapping[str, str | bytes] | None = None
) -> Any:
    """What goes with a call: the key, the connection's metadata and the call's own.

    Raises:
        InvalidRequest: the call's own can not be sent.
    """
    if metadata is not None and (fault := find_metadata_fault(metadata)):
        violation = FieldViolation("metadata", fault, NOT_SENT)
        raise InvalidRequest(f"{fault}.", StatusDetails(f"{fault}.", violations=(violation,)))
    merged = {**connection.metadata, **(metadata or {})}
    pairs = [(key.lower(), value) for key, value in merged.items()]
    if connection.api_key:
        pairs.append(("authorization", f"Bearer {connection.api_key}"))
    return tuple(pairs)


def build_credentials(
    connection: Connection, server: PinnedServer | None = None
) -> grpc.ChannelCredentials | None:
    """TLS credentials; None for clear text.

    Args:
        connection: how to connect.
        server: whom its pin was found to be, where it has one.

    Raises:
        ConfigurationError: a certificate's file can not be read or used.
    """
    if not connection.tls:
        return None
    authority = read_pem("tls_ca_file", connection.tls_ca_file)
    certificate = read_pem("tls_cert_file", connection.tls_cert_file)
    key = read_pem("tls_key_file", connection.tls_key_file)
    # gRPC would tell of files that it can not use in its log alone, at the first call.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authority is not None:
            context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError):
        name = connection.tls_ca_file
        raise ConfigurationError(f"tls_ca_file {name} holds no PEM certificate.") from None
    load_own_certificate(context, connection)
    if server is not None:
        authority = server.certificate
    return grpc.ssl_channel_credentials(
        root_certificates=authority, private_key=key, certificate_chain=certificate
    )


def build_timeout(timeout_seconds: float) -> float | None:
    """A deadline as gRPC wants it: None for none, and for one that nobody lives to see."""
    return None if timeout_seconds > _LONGEST_SECONDS else timeout_seconds
