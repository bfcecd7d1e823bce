"""Which key opens which method: the one table, and what is not in it is closed to everybody.

Pure. A test walks the contract, and a method without a row here fails it.
"""

from dataclasses import dataclass

from llavachat_server.rpc.auth import Scope

_SERVICE = "/llavachat.v1.ChatService/"
_HEALTH = "/grpc.health.v1.Health/"

SMALL_REQUEST_SECONDS = 10.0
"""For a request of ids and numbers: a round trip and patience."""
NO_KEY_REQUEST_SECONDS = 5.0
"""For the few bytes of a health check, which anybody may send."""
LARGE_REQUEST_SECONDS = 120.0
"""For a request with pictures: 10 MiB over 1 Mbit/s take 84 s."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a method is guarded.

    Args:
        scopes: any of them opens it. None: no key is needed.
        generates: it makes the model answer, so tokens are counted.
        max_request_seconds: the first message must be there by then.
        drains: it begins nothing, and a server that stops lets it in while its turns run on: it is
            how their readers come back, or end them.
    """

    scopes: frozenset[Scope] | None
    generates: bool = False
    max_request_seconds: float = SMALL_REQUEST_SECONDS
    drains: bool = False


_CHAT = frozenset({Scope.CHAT})

RULES: dict[str, Rule] = {
    f"{_SERVICE}StartChat": Rule(_CHAT, True, LARGE_REQUEST_SECONDS),
    f"{_SERVICE}ContinueChat": Rule(_CHAT, True, LARGE_REQUEST_SECONDS),
    f"{_SERVICE}ResumeTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}ReplayTurn": Rule(_CHAT, True),
    f"{_SERVICE}GetChat": Rule(_CHAT),
    f"{_SERVICE}GetTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}ListChats": Rule(_CHAT),
    f"{_SERVICE}CancelTurn": Rule(_CHAT, drains=True),
    f"{_SERVICE}GetImage": Rule(_CHAT),
    f"{_SERVICE}ImportChat": Rule(_CHAT, False, LARGE_REQUEST_SECONDS),
    f"{_SERVICE}DeleteChat": Rule(_CHAT),
    f"{_SERVICE}CountTokens": Rule(_CHAT, False, LARGE_REQUEST_SECONDS),
    # Any key may learn what answers here: a monitor needs the release, an operator the device.
    f"{_SERVICE}GetServerInfo": Rule(frozenset(Scope)),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(
        frozenset({Scope.ADMIN})
    ),
    # Load balancers and service managers have no key.
    f"{_HEALTH}Check": Rule(None, False, NO_KEY_REQUEST_SECONDS),
    f"{_HEALTH}Watch": Rule(None, False, NO_KEY_REQUEST_SECONDS),
    f"{_HEALTH}List": Rule(None, False, NO_KEY_REQUEST_SECONDS),
}

HEALTH_WATCH = f"{_HEALTH}Watch"


def is_health(method: str) -> bool:
    """Whether a method tells of the server's health alone."""
    return method.startswith(_HEALTH)
