"""Who calls: API keys, kept as hashes in a file, compared in constant time.

It must not know what a caller asks for. A key is never logged and never kept.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path

TENANT: ContextVar[str] = ContextVar("tenant")
"""Whose call it is that the present task answers; set by the gate before any handler runs."""

OPEN_TENANT = ""
"""The tenant of everybody on a server without keys."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = "bearer "


class BadKeyFile(Exception):
    """The file of keys can not be used. The message names the line, never its content."""


class KeyRing:
    """The keys that are let in.

    Args:
        hashes: SHA-256 of each key in lower-case hexadecimal, and the tenant it belongs to.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._entries = [(bytes.fromhex(digest), tenant) for digest, tenant in hashes.items()]

    @classmethod
    def from_file(cls, path: Path) -> "KeyRing":
        """Read lines of ``NAME SHA256``; blank lines and lines that begin with # are skipped.

        Several lines may carry one name: a tenant with several keys, or a key on its way out.

        Raises:
            BadKeyFile: a line is wrong, or there is no key at all.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadKeyFile(f"the key file {path} can not be read as text") from error
        hashes: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]):
                raise BadKeyFile(f"line {number} of the key file: expected NAME SHA256")
            name, digest = words[0], words[1].lower()
            if not _SHA256.fullmatch(digest):
                raise BadKeyFile(
                    f"line {number} of the key file: the SHA-256 of the key in 64 hexadecimal "
                    "digits is expected, not the key"
                )
            if hashes.setdefault(digest, name) != name:
                raise BadKeyFile(f"line {number} of the key file: this key has another name above")
        if not hashes:
            raise BadKeyFile("the key file holds no key; write one NAME SHA256 a line")
        return cls(hashes)

    def tenant(self, authorization: str) -> str | None:
        """The tenant of an ``authorization`` header's value; None when it opens nothing."""
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        key = authorization[len(_SCHEME) :].strip()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        # Every entry is compared, so that the time tells nothing about which one matched.
        for known, tenant in self._entries:
            if hmac.compare_digest(known, digest):
                found = tenant
        return found
