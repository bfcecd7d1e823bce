"""The server's end of one decoder process: starts it, hands it files, ends it.

Contract: a call blocks, so it belongs into a thread, one at a time for each worker. Whatever the
decoder does, and whether it still lives, a call ends in bounded time with pixels, a refusal or
`DecoderBroken`. What the decoder says is checked like a caller's word. It must not know asyncio.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from llavachat_server.images.decoder import CPU_SECONDS, WALL_SECONDS
from llavachat_server.images.picture import (
    HEIC_MEDIA_TYPE,
    MEDIA_TYPES,
    BadImage,
    ImageLimits,
    kept_size,
)

log = logging.getLogger("llavachat.images")

START_SECONDS = 60.0
"""Far above what Python and Pillow take to start, for machines that do other things as well."""

MARGIN_SECONDS = 2.0
"""On top of the decoder's own clock, which ends it first."""

PARTING_SECONDS = 0.5
"""For a child to end after it has answered; it has nothing left to do."""

KEPT_MEMORY_BYTES = 16 * 1024**2
"""Shared memory beyond this is given back after a picture; 5 megapixels stay within."""

_ENVIRONMENT = ("LD_LIBRARY_PATH", "HOME", "TMPDIR")
_MAX_LINE_BYTES = 4096
_MAX_REFUSAL_CHARS = 400


class DecoderBroken(Exception):
    """The decoder can not be started, or found no time to decode; the picture may be good."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """What came of a file: its RGB bytes as they are kept, and the upright size as it was sent."""

    rgb: bytes
    kept: tuple[int, int]
    size: tuple[int, int]
    media_type: str


DECODER = (sys.executable, "-IB", "-m", "llavachat_server.images.decoder")
"""Isolated: no variable of the environment and no folder of the user has a say in it."""


class Worker:
    """One decoder, started when it is first needed and again whenever it has ended.

    Args:
        command: the decoder's program; the shared memory's number is added.
    """

    def __init__(self, command: Sequence[str] = DECODER) -> None:
        self._command = command
        self._memory = _Memory()
        self._decoder: _Decoder | None = None
        self._finalizer: weakref.finalize[[_Decoder], Worker] | None = None
        self._is_ended = False

    @property
    def process_id(self) -> int | None:
        """The process that keeps the decoder ready; None while there is none."""
        return None if self._decoder is None else self._decoder.process.pid

    def start(self) -> bool:
        """Start the decoder, unless it runs.

        Returns:
            Whether it reads HEIC.

        Raises:
            DecoderBroken: it can not be started.
        """
        decoder = self._decoder
        if decoder is not None and decoder.process.poll() is None and decoder.settle():
            return decoder.has_heic
        self._stop()
        if not self._is_ended:
            decoder = self._decoder = _start(self._command, self._memory.fd)
            self._finalizer = weakref.finalize(self, _end, decoder)
            if not self._is_ended:
                return decoder.has_heic
        raise DecoderBroken

    def kill(self) -> None:
        """End the decoder for good; a call that is under way in another thread fails soon."""
        self._is_ended = True
        if self._decoder is not None:
            _kill(self._decoder.process)

    def end(self) -> None:
        """End the decoder for good, and give back what it held."""
        self._is_ended = True
        self._stop()

    def check(self, data: bytes, limits: ImageLimits) -> None:
        """Check a file as far as its header shows.

        Raises:
            BadImage: it can not be taken.
            DecoderBroken: nothing can be said about it.
        """
        self._ask(data, limits, is_check=True)

    def decode(self, data: bytes, limits: ImageLimits) -> Pixels:
        """Decode a file.

        Raises:
            BadImage: it can not be taken.
            DecoderBroken: nothing can be said about it.
        """
        answer = self._ask(data, limits, is_check=False)
        try:
            size, kept = _size(answer["size"], limits), _size(answer["kept"], limits)
            media_type = answer["media_type"]
            if kept != kept_size(*size):
                raise ValueError
            if media_type not in (*MEDIA_TYPES.values(), HEIC_MEDIA_TYPE):
                raise ValueError
            rgb = self._memory.read(kept[0] * kept[1] * 3)
        except (KeyError, TypeError, ValueError):
            self._stop()
            refuse_odd("answered nonsense")
        self._memory.trim()
        return Pixels(rgb, kept, size, media_type)

    def _ask(self, data: bytes, limits: ImageLimits, *, is_check: bool) -> dict[str, Any]:
        self.start()
        decoder = self._decoder
        assert decoder is not None
        request = {"num_bytes": len(data), "limits": asdict(limits), "is_check": is_check}
        try:
            self._memory.write(data)
            answer = decoder.ask(request)
        except (DecoderBroken, OSError, ValueError) as error:
            self._stop()
            raise DecoderBroken from error
        except BadImage:
            self._memory.trim()
            if not decoder.is_sound:
                self._stop()
            raise
        refusal = answer.get("refusal")
        if refusal is None:
            return answer
        self._memory.trim()
        if not isinstance(refusal, str) or not refusal.isprintable():
            self._stop()
            refuse_odd("answered nonsense")
        raise BadImage(refusal[:_MAX_REFUSAL_CHARS])

    def _stop(self) -> None:
        finalizer, self._finalizer, self._decoder = self._finalizer, None, None
        if finalizer is not None:
            finalizer()


class _Memory:
    """Memory that the server and the decoder share. Read and written, never mapped: a decoder
    that cut it short would kill whoever has it mapped."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("llavachat-picture")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.fd)

    def write(self, data: bytes) -> None:
        view, position = memoryview(data), 0
        while position < len(data):
            position += os.pwrite(self.fd, view[position:], position)

    def read(self, num_bytes: int) -> bytes:
        """Read from the beginning; ValueError when there are fewer."""
        data = os.pread(self.fd, num_bytes, 0)
        if len(data) != num_bytes:
            raise ValueError
        return data

    def trim(self) -> None:
        """Give back what only a large picture needed."""
        if os.fstat(self.fd).st_size > KEPT_MEMORY_BYTES:
            os.ftruncate(self.fd, 0)


@dataclass(slots=True)
class _Decoder:
    """A running decoder process.

    Attributes:
        is_sound: its two lines are where they should be, so that it can be asked again.
        is_parting: a child has answered, and its end was not told yet.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    notes: int
    has_heic: bool = False
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
                if not part or len(line) > _MAX_LINE_BYTES:
                    break
            elif self.notes in ready:
                self.is_sound = not line
                _refuse_end(self.read_note(deadline))
            else:
                break
        self.is_parting = True
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.is_sound = False
            refuse_odd("gave no answer")
        return answer


def refuse_odd(what: str) -> NoReturn:
    """Refuse a picture whose decoder did what ours does not do."""
    log.warning("a picture's decoder was ended", extra={"fields": {"why": what}})
    raise BadImage("the picture can not be decoded; save it anew")


def _refuse_end(note: dict[str, Any]) -> NoReturn:
    """Tell why a child ended without an answer."""
    code, cpu_seconds = int(note["code"]), float(note["cpu_seconds"])
    name = signal.Signals(-code).name if code < 0 else str(code)
    fields = {"end": name, "cpu_seconds": round(cpu_seconds, 2)}
    log.warning("a picture's decoder ended early", extra={"fields": fields})
    if name == "SIGALRM" and cpu_seconds < CPU_SECONDS / 2:
        raise DecoderBroken
    # The kernel counts in ticks when it ends a process, and finer when it tells.
    if name in ("SIGXCPU", "SIGALRM") or cpu_seconds >= 0.9 * CPU_SECONDS:
        raise BadImage(
            f"decoding the picture takes more than {CPU_SECONDS} s; scale it down or save it anew"
        )
    raise BadImage("the picture is damaged so that it can not be decoded; save it anew")


def _start(command: Sequence[str], memory: int) -> _Decoder:
    ours, theirs = socket.socketpair()
    notes, their_notes = os.pipe()
    # Nothing of the server's environment is the decoder's business but where its libraries are.
    environment = {
        name: os.environ[name]
        for name in ("LD_LIBRARY_PATH", "HOME", "TMPDIR")
        if name in os.environ
    }
    try:
        process = subprocess.Popen(  # noqa: S603
            (*command, str(memory)),
            stdin=theirs.fileno(),
            stdout=their_notes,
            pass_fds=(memory,),
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        os.close(notes)
        raise DecoderBroken from error
    finally:
        theirs.close()
        os.close(their_notes)
    decoder = _Decoder(process, ours, notes)
    try:
        note = decoder.read_note(time.monotonic() + START_SECONDS)
        decoder.has_heic = bool(note["has_heic"])
    except (DecoderBroken, KeyError, ValueError) as error:
        _end(decoder)
        raise DecoderBroken from error
    if not note["is_confined"]:
        log.warning("pictures are decoded with limits, but without a filter of system calls")
    return decoder


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The keeper leads a session of its own: its children go with it.
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _end(decoder: _Decoder) -> None:
    _kill(decoder.process)
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


def _size(value: Any, limits: ImageLimits) -> tuple[int, int]:
    width, height = value
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError
    if max(width, height) > limits.max_side_pixels or width * height > limits.max_pixels:
        raise ValueError
    return width, height
