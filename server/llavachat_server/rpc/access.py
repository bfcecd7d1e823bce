"""Which key opens which method: the one table, and what is not in it is closed to everybody.

Pure. A test walks the contract, and a method without a row here fails it.
"""

from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor
from llavachat.v1 import chat_pb2 as pb

from llavachat_server.rpc.auth import Scope
from llavachat_server.values import MAX_TURNS_PER_CHAT

_SERVICE = "/llavachat.v1.ChatService/"
_HEALTH = "/grpc.health.v1.Health/"
_CHAT = frozenset({Scope.CHAT})

IMPORT_CHAT = f"{_SERVICE}ImportChat"

SMALL_REQUEST_SECONDS = 10.0
"""For a request of ids and numbers: a round trip and patience."""
NO_KEY_REQUEST_SECONDS = 5.0
"""For the few bytes of a health check, which anybody may send."""
LARGE_REQUEST_SECONDS = 120.0
"""For a request with pictures: 10 MiB over 1 Mbit/s take 84 s."""

SMALL_REQUEST_BYTES = 64 * 1024
"""For a request of ids and numbers: 16 labels, the most of any, take 8 KiB."""
NO_KEY_REQUEST_BYTES = 4 * 1024
"""For the name of a service."""
QUESTION_UNPACKED_BYTES = 64 * 1024
"""16 pictures, 16 labels and 8 stop texts take 7 KiB."""
_TURN_UNPACKED_BYTES = 4 * 1024
_IMAGE_UNPACKED_BYTES = 400
"""A turn with every field takes 3 KiB, and 350 bytes for each of its pictures."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a large request may take in memory.

    Args:
        kind: the message that it is.
        max_bytes: beyond its own length, as `unpacked.walk` counts.
    """

    kind: Descriptor
    max_bytes: int = QUESTION_UNPACKED_BYTES


@dataclass(frozen=True, slots=True)
class Rule:
    """How a method is guarded.

    Args:
        scopes: any of them opens it. None: no key is needed.
        generates: it makes the model answer, so tokens are counted.
        max_request_seconds: the first message must be there by then.
        drains: it begins nothing, and a server that stops lets it in while its turns run on: it is
            how their readers come back, or end them.
        max_request_bytes: of each message. None: as long as gRPC takes, which knows one limit for
            all methods.
        unpacked: what one of more than `SMALL_REQUEST_BYTES` may hold, where there may be such.
    """

    scopes: frozenset[Scope] | None
    generates: bool = False
    max_request_seconds: float = SMALL_REQUEST_SECONDS
    max_request_bytes: int | None = SMALL_REQUEST_BYTES
    unpacked: Unpacked | None = None
    drains: bool = False


def limit_import(max_turns: int, max_images: int) -> Rule:
    """The rule of ImportChat, whose first message holds a chat.

    Args:
        max_turns: of the chat. As many as any server lets one have, not as this one: an honest chat
            of another server is told of its turns once it is read.
        max_images: of a question; one that opens its chat anew has the opening's besides.
    """
    of_turn = _TURN_UNPACKED_BYTES + 2 * max_images * _IMAGE_UNPACKED_BYTES
    kind = pb.ImportChatRequest.DESCRIPTOR
    return _large(Unpacked(kind, QUESTION_UNPACKED_BYTES + max_turns * of_turn))


def _large(unpacked: Unpacked, *, generates: bool = False) -> Rule:
    return Rule(_CHAT, generates, LARGE_REQUEST_SECONDS, None, unpacked)


_HEALTH_RULE = Rule(None, False, NO_KEY_REQUEST_SECONDS, NO_KEY_REQUEST_BYTES)

RULES: dict[str, Rule] = {
    f"{_SERVICE}StartChat": _large(Unpacked(pb.StartChatRequest.DESCRIPTOR), generates=True),
    f"{_SERVICE}ContinueChat": _large(Unpacked(pb.ContinueChatRequest.DESCRIPTOR), generates=True),
    f"{_SERVICE}ResumeTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}ReplayTurn": Rule(_CHAT, True),
    f"{_SERVICE}GetChat": Rule(_CHAT),
    f"{_SERVICE}GetTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}ListChats": Rule(_CHAT),
    f"{_SERVICE}CancelTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}GetImage": Rule(_CHAT),
    IMPORT_CHAT: limit_import(MAX_TURNS_PER_CHAT, max_images=4),
    f"{_SERVICE}DeleteChat": Rule(_CHAT),
    f"{_SERVICE}CountTokens": _large(Unpacked(pb.CountTokensRequest.DESCRIPTOR)),
    # Any key may learn what answers here: a monitor needs the release, an operator the device.
    f"{_SERVICE}GetServerInfo": Rule(frozenset(Scope)),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(
        frozenset({Scope.ADMIN})
    ),
    # Load balancers and service managers have no key.
    f"{_HEALTH}Check": _HEALTH_RULE,
    f"{_HEALTH}Watch": _HEALTH_RULE,
    f"{_HEALTH}List": _HEALTH_RULE,
}

HEALTH_WATCH = f"{_HEALTH}Watch"


def is_health(method: str) -> bool:
    """Whether a method tells of the server's health alone."""
    return method.startswith(_HEALTH)
