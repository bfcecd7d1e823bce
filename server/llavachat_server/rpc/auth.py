"""Who calls: API keys, known by their hashes alone, compared in constant time.

It must not know what a caller asks for, nor where the hashes are kept. A key is never logged and
never kept.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum

TENANT: ContextVar[str] = ContextVar("tenant")
"""Whose call it is that the present task answers; set by the gate before any handler runs."""

OPEN_TENANT = ""
"""The tenant of everybody on a server without keys."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEME = "bearer "
_ID_CHARS = 12


class Scope(Enum):
    """What a key opens."""

    CHAT = "chat"
    """Everything of ChatService, for the chats of the key's tenant."""
    ADMIN = "admin"
    """What tells of the server itself: reflection."""
    METRICS = "metrics"
    """The figures of the server, none of which tells what was said."""


class BadKey(Exception):
    """An entry can not be used. The message says what would be right, never what was there."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key.

    Args:
        tenant: whose chats it opens: the name that it was given. Several keys may share one.
        sha256: of the secret, 32 bytes. The secret itself has 256 random bits, so that there is
            nothing to guess: a slow hash, which a person's password would need, would only let
            strangers keep the server busy with hashing.
        scopes: what it opens.
        requests_per_minute: None: as many as come.
        tokens_per_minute: of prompts and answers together. None: as many as are asked for.
        max_concurrent: calls side by side. None: as many as the server takes.
        created: the day, as 2026-12-31; "" where it is not known.
    """

    tenant: str
    sha256: bytes = field(repr=False)
    scopes: frozenset[Scope] = frozenset({Scope.CHAT})
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    created: str = ""

    def __post_init__(self) -> None:
        """Refuse a tenant's name that can not stand in a file or a log.

        Raises:
            BadKey: says what is allowed.
        """
        if not _NAME.fullmatch(self.tenant):
            raise BadKey(
                "a name has 1 to 64 letters, digits, dots, dashes and underscores, and begins "
                "with a letter or digit"
            )

    @property
    def id(self) -> str:
        """What to call it by: the first 12 hexadecimal digits of its hash, which open nothing."""
        return self.sha256.hex()[:_ID_CHARS]


CALLER: ContextVar[Key | None] = ContextVar("caller", default=None)
"""The key of the call that the present task works for; None on a server without keys."""


class KeyRing:
    """The keys that are let in.

    Args:
        keys: each with another hash.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.sha256: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def find(self, authorization: str) -> Key | None:
        """The key of an ``authorization`` header's value; None when it opens nothing."""
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        digest = hash_secret(authorization[len(_SCHEME) :].strip())
        found = None
        # Every entry is compared, so that the time tells nothing about which one matched.
        for sha256, key in self._keys.items():
            if hmac.compare_digest(sha256, digest):
                found = key
        return found

    def get(self, sha256: bytes) -> Key | None:
        """The present entry of a hash; None when it was revoked."""
        return self._keys.get(sha256)


def hash_secret(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
