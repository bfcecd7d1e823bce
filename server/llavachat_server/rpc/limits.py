"""Every channel argument of the server, each set on purpose: gRPC's defaults leak or hang.

Pure: numbers and the names gRPC gives them.
"""

_FRAME_BYTES = 64 * 1024
"""What a message may hold beside its pictures: the prompt, labels and the encoding."""

_MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest reply is a page of a thousand chats, or one long chat."""

MAX_RUNNING_CALLS = 1024
"""In the whole server, health watches among them; the engine's own queue refuses long before."""


def channel_arguments(*, max_image_bytes: int, max_images: int) -> list[tuple[str, int]]:
    """The server's channel arguments.

    Args:
        max_image_bytes: the largest picture file.
        max_images: the most pictures in one request.
    """
    return [
        # Two servers on one port would each get some of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_image_bytes * max_images + _FRAME_BYTES),
        ("grpc.max_send_message_length", _MAX_REPLY_BYTES),
        ("grpc.max_concurrent_streams", 128),  # of one connection
        ("grpc.max_metadata_size", 8 * 1024),  # above it, calls are refused at random ...
        ("grpc.absolute_max_metadata_size", 16 * 1024),  # ... and above this always
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.http2.settings_timeout", 5_000),
        # A client that has vanished is noticed within 30 s, and its turn is cancelled.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may probe an idle connection every 10 s, and are told off after 3 more.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.http2.max_pings_without_data", 0),
        # Connections without a call are given back after half an hour.
        ("grpc.max_connection_idle_ms", 30 * 60 * 1000),
        ("grpc.server.max_pending_requests", MAX_RUNNING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_RUNNING_CALLS),
    ]
