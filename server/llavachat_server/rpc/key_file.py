"""Keys in files: one a line, readable and written whole or not at all.

    NAME SHA256 [scopes=chat,metrics] [requests_per_minute=60] [tokens_per_minute=100000]
        [max_concurrent=4] [created=2026-12-31]

Blank lines and lines that begin with # are skipped, and stay when the file is changed. It must
not know gRPC.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llavachat_server.drafts import draft_of
from llavachat_server.rpc.auth import BadKey, Key, KeyRing, Scope
from llavachat_server.rpc.stamp import Stamp, read_stamp

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MAX_LIMIT = 10**9


class BadKeyFile(Exception):
    """The file of keys can not be used. The message names the line, never its content."""


class KeyFiles:
    """The keys of several files, read again when one of them changes.

    Once there were keys there are keys, and no accident opens a server or revokes one: of a file
    that vanishes the keys stay in force, and when one turns wrong, all keys of before.

    Args:
        paths: files that need not exist.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._stamps = self._look()
        self._found: dict[Path, list[Key]] = {}
        """By file; those that have vanished are the last."""
        self.ring: KeyRing | None = None
        """None: no file was there yet, and everybody may call."""

    def read(self) -> None:
        """Read the files for the first time.

        Raises:
            BadKeyFile: a line is wrong, a file can not be read, or the files that are there
                hold no key.
        """
        self._stamps = self._look()
        self._found = self._read()
        self.ring = _join(self._found) if self._found else None
        if self.ring is not None and not len(self.ring):
            raise BadKeyFile(
                "the key file holds no key; add one by `llavachat-server keys add NAME`, or "
                "remove the file"
            )

    def refresh(self) -> bool:
        """Read the files again if one of them has changed since they were read.

        Returns:
            Whether there are other keys than before.

        Raises:
            BadKeyFile: a line is wrong, a file can not be read, or one has vanished and the others
                have not changed; the keys of before stay, and the next call tries again.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return False
        found = self._read()
        gone = {path: keys for path, keys in self._found.items() if keys and path not in found}
        ring = _join(found | gone)
        # Not before: what kept the file from being read may pass and leave the file as it is.
        self._found = found | gone
        if not gone:
            self._stamps = stamps
        if self.ring is None and not found:
            return False
        is_changed = self.ring is None or set(ring) != set(self.ring)
        self.ring = ring
        if gone and not is_changed:
            raise BadKeyFile(
                f"the key file {next(iter(gone))} is gone, and its keys stay in force; put it "
                "back, or an empty file in its place if they are to be revoked"
            )
        return is_changed

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(read_stamp(path) for path in self._paths)

    def _read(self) -> dict[Path, list[Key]]:
        """The keys of each file that is there."""
        return {path: read_keys(path) for path in self._paths if _is_there(path)}


def _join(found: Mapping[Path, Sequence[Key]]) -> KeyRing:
    keys: dict[bytes, Key] = {}
    for path, ours in found.items():
        for key in ours:
            if keys.setdefault(key.sha256, key).tenant != key.tenant:
                raise BadKeyFile(f"the key file {path}: a key has another name elsewhere")
    return KeyRing(keys.values())


def read_keys(path: Path) -> list[Key]:
    """Read a file's keys.

    Raises:
        BadKeyFile: a line is wrong, or the file can not be read.
    """
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(_read_lines(path), 1):
        if not (words := _words(line)):
            continue
        try:
            key = parse(words)
        except BadKey as error:
            raise BadKeyFile(f"line {number} of the key file: {error}") from error
        if keys.setdefault(key.sha256, key).tenant != key.tenant:
            raise BadKeyFile(f"line {number} of the key file: this key has another name above")
    return list(keys.values())


def parse(words: Sequence[str]) -> Key:
    """A line's words as a key.

    Raises:
        BadKey: says what is expected.
    """
    if len(words) < 2:
        raise BadKey("expected NAME SHA256, then perhaps settings such as scopes=chat")
    if not _SHA256.fullmatch(words[1].lower()):
        raise BadKey(
            "the SHA-256 of the key in 64 hexadecimal digits is expected, not the key itself"
        )
    settings: dict[str, Any] = {}
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if not equals or name not in _SETTINGS or name in settings:
            raise BadKey(f"after the hash come {', '.join(f'{n}=...' for n in _SETTINGS)}, once")
        settings[name] = _SETTINGS[name](value)
    return Key(words[0], bytes.fromhex(words[1]), **settings)


def render(key: Key) -> str:
    """A key as a line."""
    words = [key.tenant, key.sha256.hex()]
    words += [f"scopes={','.join(sorted(scope.value for scope in key.scopes))}"]
    for name in ("requests_per_minute", "tokens_per_minute", "max_concurrent", "created"):
        if value := getattr(key, name):
            words.append(f"{name}={value}")
    return " ".join(words)


def parse_scopes(text: str) -> frozenset[Scope]:
    """Scopes in words, a comma between them.

    Raises:
        BadKey: says what is allowed.
    """
    try:
        return frozenset(Scope(word) for word in text.split(","))
    except ValueError:
        allowed = ", ".join(scope.value for scope in Scope)
        raise BadKey(f"scopes are one or more of {allowed}, a comma between them") from None


def parse_limit(text: str) -> int:
    """A limit.

    Raises:
        BadKey: says what is allowed.
    """
    # Python reads no number of thousands of digits.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_LIMIT))
    if not (is_number and 1 <= int(text) <= _MAX_LIMIT):
        raise BadKey(f"limits are whole numbers, 1 to {_MAX_LIMIT:,}")
    return int(text)


def add_key(path: Path, key: Key, tell: Callable[[], None] | None = None) -> None:
    """Add a key to a file, which is made if there is none.

    Args:
        path: the file.
        key: whose secret nobody knows yet.
        tell: tells the secret. It is called when the file needs no more room and nobody goes by it
            yet: what it raises leaves all as it was, so no key is in force that nobody was told.

    Raises:
        BadKeyFile: the file as it is can not be used.
        OSError: it can not be written.
    """
    with _changing(path, tell) as lines:
        lines.append(render(key))


def revoke_keys(path: Path, is_meant: Callable[[Key], bool]) -> None:
    """Take keys out of a file; all other lines stay as they are.

    Raises:
        BadKeyFile: the file as it is can not be used.
        OSError: it can not be written.
    """
    with _changing(path) as lines:
        lines[:] = [line for line in lines if not (w := _words(line)) or not is_meant(parse(w))]


def _parse_day(text: str) -> str:
    if not _DAY.fullmatch(text):
        raise BadKey("days are written as 2026-12-31")
    return text


_SETTINGS: dict[str, Callable[[str], Any]] = {
    "scopes": parse_scopes,
    "requests_per_minute": parse_limit,
    "tokens_per_minute": parse_limit,
    "max_concurrent": parse_limit,
    "created": _parse_day,
}


def _words(line: str) -> list[str]:
    words = line.split()
    return [] if words and words[0].startswith("#") else words


def _is_there(path: Path) -> bool:
    """Whether there is such a file; a folder that hides it is no sign that there is none.

    Raises:
        BadKeyFile: that can not be known.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BadKeyFile(f"the key file {path} can not be looked at: {error.strerror}") from error
    return True


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeyFile(f"the key file {path} can not be read as text") from error


@contextmanager
def _changing(path: Path, tell: Callable[[], None] | None = None) -> Iterator[list[str]]:
    """A file's lines to change; written back whole, one change at a time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines: list[str] = []
        if path.exists():
            read_keys(path)
            lines = _read_lines(path)
        yield lines
        with draft_of(path) as draft:
            if os.geteuid() == 0:
                # An administrator's command; who owns the folder is the server, and must read it.
                owner = path.parent.stat()
                os.fchown(draft.fileno(), owner.st_uid, owner.st_gid)
            draft.write("".join(f"{line}\n" for line in lines).encode())
            draft.flush()
            os.fsync(draft.fileno())
            # On the disk, and not in force yet: a key that could not be told is none.
            if tell is not None:
                tell()
        os.fsync(folder)
    finally:
        os.close(folder)
