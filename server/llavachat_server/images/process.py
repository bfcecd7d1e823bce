"""A running decoder process, as the server sees it: started, asked, and ended.

Contract: nothing that the process says or leaves out makes a call last for ever. It knows the two
lines of the protocol in `decoder`; it must not know what the answers mean.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from llavachat_server.images.decoder import WALL_SECONDS
from llavachat_server.images.picture import BadImage

log = logging.getLogger("llavachat.images")

START_SECONDS = 60.0
"""Far above what Python and Pillow take to start, for machines that do other things as well."""

MARGIN_SECONDS = 2.0
"""On top of the decoder's own clock, which ends it first."""

PARTING_SECONDS = 0.5
"""For a child to end after it has answered; it has nothing left to do."""

_ENVIRONMENT = ("LD_LIBRARY_PATH", "HOME", "TMPDIR")
"""Nothing else of the server's environment is the decoder's business: where its libraries are."""

_LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Memory comes in pages of 2 MB where the system has them for who asks: a picture's first writing
takes a seventh of the time then. Other C libraries than glibc do not read it."""

_MAX_LINE_BYTES = 4096


class DecoderBroken(Exception):
    """The decoder can not be started, or found no time to decode; the picture may be good."""


@dataclass(slots=True)
class DecoderProcess:
    """A running decoder process.

    Attributes:
        is_ready: it has told that it can be asked, see `await_ready`.
        is_sound: its two lines are where they should be, so that it can be asked again.
        is_parting: a child has answered, and its end was not told yet.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    notes: int
    has_heic: bool = False
    is_ready: bool = False
    is_sound: bool = True
    is_parting: bool = False
    _unread: bytes = field(default=b"")

    def read_note(self, deadline: float) -> dict[str, Any]:
        """Read what the keeper tells next.

        Raises:
            DecoderBroken: it has ended, or tells nothing in time.
        """
        while b"\n" not in self._unread:
            part = os.read(self.notes, _MAX_LINE_BYTES) if _wait([self.notes], deadline) else b""
            if not part:
                raise DecoderBroken
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        note: dict[str, Any] = json.loads(line)
        return note

    def settle(self) -> bool:
        """Wait until the child that answered last has ended, which it does at once.

        Returns:
            Whether it has, and left nothing on the socket for the next one's answer.
        """
        try:
            if self.is_parting:
                self.read_note(time.monotonic() + PARTING_SECONDS)
                self.is_parting = False
            while _wait([self.notes], 0.0):  # of a child that ended unasked
                self.read_note(time.monotonic())
        except DecoderBroken:
            return False
        return self.is_sound and not _wait([self.channel.fileno()], 0.0)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hand the next child its request and read its answer.

        Raises:
            BadImage: the child broke on the picture.
            DecoderBroken, OSError: the decoder is gone, or the child found no time to compute.
        """
        deadline = time.monotonic() + WALL_SECONDS + MARGIN_SECONDS
        self.channel.sendall(json.dumps(request).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            ready = _wait([self.channel.fileno(), self.notes], deadline)
            if self.channel.fileno() in ready:
                part = self.channel.recv(_MAX_LINE_BYTES)
                line += part
                if not part:
                    self._check_keeper()
                if not part or len(line) > _MAX_LINE_BYTES:
                    break
            elif self.notes in ready:
                note = self.read_note(deadline)
                self.is_sound = not line
                if note.get("was_asked", True) or line:
                    _refuse_end(note, request["limits"]["max_cpu_seconds"])
                # It ended before it had the request, which the next one finds on the socket.
            else:
                break
        self.is_parting = True
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self.is_sound = False
            refuse_odd("gave no answer")
        return answer

    def _check_keeper(self) -> None:
        """Find out who has closed the socket: the keeper holds it open as long as it lives, so that
        a picture is to blame only if the keeper tells of its child's end.

        Raises:
            DecoderBroken: the keeper is gone.
        """
        if _wait([self.notes], time.monotonic() + PARTING_SECONDS):
            self.read_note(time.monotonic())


def refuse_odd(what: str) -> NoReturn:
    """Refuse a picture whose decoder did what ours does not do."""
    log.warning("a picture's decoder was ended", extra={"fields": {"why": what}})
    raise BadImage("the picture can not be decoded; save it anew")


def _refuse_end(note: dict[str, Any], max_cpu_seconds: int) -> NoReturn:
    """Tell why a child ended without an answer."""
    code, cpu_seconds = int(note["code"]), float(note["cpu_seconds"])
    name = signal.Signals(-code).name if code < 0 else str(code)
    fields = {"end": name, "cpu_seconds": round(cpu_seconds, 2)}
    log.warning("a picture's decoder ended early", extra={"fields": fields})
    if name == "SIGALRM" and cpu_seconds < max_cpu_seconds / 2:
        raise DecoderBroken
    # The kernel counts in ticks when it ends a process, and finer when it tells.
    if name in ("SIGXCPU", "SIGALRM") or cpu_seconds >= 0.9 * max_cpu_seconds:
        raise BadImage(
            f"decoding the picture takes more than {max_cpu_seconds} s; "
            "scale it down or save it anew"
        )
    raise BadImage("the picture is damaged so that it can not be decoded; save it anew")


def begin(command: Sequence[str], memory: int) -> DecoderProcess:
    """Begin a decoder; `await_ready` comes after it.

    Args:
        command: its program; the shared memory's number is added.
        memory: the number of the open file.

    Raises:
        DecoderBroken: there is no such program, or no room for another process.
    """
    ours, theirs = socket.socketpair()
    notes, their_notes = os.pipe()
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        process = subprocess.Popen(  # noqa: S603
            (*command, str(memory)),
            stdin=theirs.fileno(),
            stdout=their_notes,
            pass_fds=(memory,),
            env=kept | _LARGE_PAGES,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        os.close(notes)
        raise DecoderBroken from error
    finally:
        theirs.close()
        os.close(their_notes)
    return DecoderProcess(process, ours, notes)


def await_ready(decoder: DecoderProcess) -> None:
    """Wait until a decoder can be asked.

    Raises:
        DecoderBroken: it does not become ready.
    """
    try:
        note = decoder.read_note(time.monotonic() + START_SECONDS)
        decoder.has_heic = bool(note["has_heic"])
    except (KeyError, ValueError) as error:
        raise DecoderBroken from error
    if not note["is_confined"]:
        log.warning("pictures are decoded with limits, but without a filter of system calls")
    decoder.is_ready = True


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a decoder's process and its children, without waiting for it."""
    # The keeper leads a session of its own: its children go with it.
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def end(decoder: DecoderProcess) -> None:
    """End a decoder and give back what it held."""
    kill(decoder.process)
    decoder.process.wait()
    decoder.channel.close()
    os.close(decoder.notes)


def _wait(sources: list[int], deadline: float) -> list[int]:
    """Those of some open files that can be read or have ended; none when the time is over."""
    poll = select.poll()  # select() fails above 1,024 open files
    for source in sources:
        poll.register(source, select.POLLIN)
    remaining = max(0.0, deadline - time.monotonic())
    return [source for source, _ in poll.poll(remaining * 1000)]
