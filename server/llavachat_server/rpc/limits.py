"""Every channel argument of the server, each set on purpose: gRPC's defaults leak or hang.

One table, `ARGUMENTS`: the name, the value, and why it is so. docs/security.md shows it, and a
test compares the two. Pure.
"""

import resource
from dataclasses import dataclass

from llavachat_server.chats.importer import MAX_FILE_BYTES

_FRAME_BYTES = 64 * 1024
"""What a message may hold beside its pictures and its two texts: labels and the encoding."""

_NUM_TEXTS = 2
"""The prompt and the system prompt, either as long as a prompt may be."""

_MAX_CHAR_BYTES = 4
"""Of a character in UTF-8."""

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest reply is one long chat; `whole_chat` holds to it. A page of chats ends before."""

MAX_RUNNING_CALLS = 1024
"""In the whole server, health watches among them; the engine's own queue refuses long before."""

MAX_HEALTH_WATCHES = 64
"""Watches of health: they need no key and never end."""

MAX_WAITING_CALLS = 256
"""Calls whose requests have not come, in the whole server."""

MAX_TENANT_CALLS = MAX_RUNNING_CALLS // 4
"""Of one tenant on a server with keys, whatever its keys' own limits are."""

MAX_CONNECTIONS = 4096
"""TCP connections, where the process may open so many files."""

_SPARE_DESCRIPTORS = 256
"""Files, pipes and sockets that the process needs besides connections."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A channel argument.

    Args:
        name: gRPC's, of grpc_types.h or its transport.
        value: times in milliseconds, sizes in bytes.
        why: in one sentence.
    """

    name: str
    value: int
    why: str


# HPACK's table for what comes stays HTTP/2's own 4,096 bytes: HAProxy 2.6, for one, takes no notice
# of a smaller one, and gRPC ends the connection of whoever does not, at its second call.
ARGUMENTS: tuple[Argument, ...] = (
    Argument("grpc.so_reuseport", 0, "two servers on one port would each get some of the calls"),
    Argument(
        "grpc.max_send_message_length",
        MAX_REPLY_BYTES,
        "one long chat; no reply is larger",
    ),
    Argument(
        "grpc.max_concurrent_streams", 128, "calls of one connection; the default has no limit"
    ),
    Argument(
        "grpc.http2.bdp_probe",
        0,
        "nobody sends further ahead of what is read than 64 KiB a call, or 1 MiB once it is being "
        "read; the default lets that grow to megabytes for strangers, too",
    ),
    Argument("grpc.max_metadata_size", 8 * 1024, "above it calls are refused at random ..."),
    Argument("grpc.absolute_max_metadata_size", 16 * 1024, "... and above this always"),
    Argument(
        "grpc.server_handshake_timeout_ms",
        5_000,
        "who connects and says nothing is dropped; the default is 120 s",
    ),
    Argument("grpc.http2.settings_timeout", 5_000, "likewise for who never answers our settings"),
    Argument(
        "grpc.keepalive_time_ms",
        20_000,
        "a silent client is asked after 20 s; the default is two hours",
    ),
    Argument(
        "grpc.keepalive_timeout_ms",
        30_000,
        "and has 30 s to answer, then its turns end: a ping stands behind what the system has not "
        "sent yet, 700 KB before a tunnel, which 200 kbit/s take 28 s for",
    ),
    Argument(
        "grpc.http2.ping_timeout_ms",
        30_000,
        "the same for pings of other kinds; unset, a frozen client is noticed after 60 s",
    ),
    Argument("grpc.keepalive_permit_without_calls", 1, "connections without a call are asked, too"),
    Argument(
        "grpc.http2.min_ping_interval_without_data_ms",
        10_000,
        "clients may ask every 10 s; the default, five minutes, cuts off careful ones",
    ),
    Argument(
        "grpc.http2.max_ping_strikes",
        3,
        "and who asks more often than that is told ENHANCE_YOUR_CALM and dropped",
    ),
    Argument("grpc.http2.max_pings_without_data", 0, "our own questions are not rationed"),
    Argument(
        "grpc.http2.max_requests_per_read",
        32,
        "new calls of one connection that are taken in at a time; others come in between",
    ),
    Argument(
        "grpc.max_connection_idle_ms",
        30 * 60 * 1000,
        "connections without a call are given back after half an hour; the default is never",
    ),
    Argument(
        "grpc.server.max_pending_requests",
        MAX_RUNNING_CALLS,
        "calls that wait to be looked at; above it they are refused at random ...",
    ),
    Argument(
        "grpc.server.max_pending_requests_hard_limit",
        2 * MAX_RUNNING_CALLS,
        "... and above this always",
    ),
)


def channel_arguments(
    *, max_image_bytes: int, max_images: int, max_prompt_chars: int
) -> list[tuple[str, int]]:
    """The server's channel arguments.

    Args:
        max_image_bytes: the largest picture file of a question.
        max_images: the most pictures in one question.
        max_prompt_chars: the longest question, and the longest system prompt.
    """
    # A server that takes few small pictures gives large ones away all the same, as PNG, and takes
    # them in again. gRPC in Python knows no limit of one method alone.
    pictures = max(max_image_bytes * max_images, MAX_FILE_BYTES)
    texts = _NUM_TEXTS * _MAX_CHAR_BYTES * max_prompt_chars
    return [
        ("grpc.max_receive_message_length", pictures + texts + _FRAME_BYTES),
        ("grpc.max_allowed_incoming_connections", count_connections()),
        *((argument.name, argument.value) for argument in ARGUMENTS),
    ]


def count_connections() -> int:
    """How many connections fit into the descriptors that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(16, min(MAX_CONNECTIONS, soft - _SPARE_DESCRIPTORS))
