"""The server's end of one decoder process: starts it, hands it files, ends it.

Contract: a call blocks, so it belongs into a thread; calls of one worker take turns. Whatever the
decoder does, and whether it still lives, a call ends in bounded time with pixels, a refusal or
`DecoderBroken`. What the decoder says is checked like a caller's word. It must not know asyncio.
"""

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from llavachat_server.images.picture import (
    HEIC_MEDIA_TYPE,
    MAX_FRAMES,
    MEDIA_TYPES,
    BadImage,
    ImageLimits,
    kept_size,
)
from llavachat_server.images.process import (
    DecoderBroken,
    DecoderProcess,
    await_ready,
    begin,
    end,
    kill,
    refuse_odd,
)

KEPT_MEMORY_BYTES = 16 * 1024**2
"""Shared memory beyond this is given back after a picture; 5 megapixels stay within."""

_OVERWRITTEN_RATIO = 16
"""Zeros are written over what an earlier picture has left, up to so many times the size of the file
that comes: a photograph's pixels take ten times what its file does, and pages that are got anew
take longer. What lies beyond is given back."""

_ZEROS = bytes(256 * 1024)

_MAX_REFUSAL_CHARS = 400


@dataclass(frozen=True, slots=True)
class Pixels:
    """What came of a file: its RGB bytes as they are kept, the upright size and the number of
    frames as it was sent."""

    rgb: bytes
    kept: tuple[int, int]
    size: tuple[int, int]
    media_type: str
    num_frames: int


NUM_WORKERS = 3
"""Decoders beside each other, 28 MiB each: one tenant's hard pictures keep at most two busy."""

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
        self._decoder: DecoderProcess | None = None
        self._finalizer: weakref.finalize[[DecoderProcess], Worker] | None = None
        self._is_ended = False
        self._turn = threading.RLock()

    @property
    def process_id(self) -> int | None:
        """The process that keeps the decoder ready; None while there is none."""
        return None if self._decoder is None else self._decoder.process.pid

    def begin(self) -> None:
        """Begin to start the decoder, and wait for nothing; `start` does the rest."""
        with suppress(DecoderBroken):
            self._begin()

    def start(self) -> bool:
        """Start the decoder, unless it runs.

        Returns:
            Whether it reads HEIC.

        Raises:
            DecoderBroken: it can not be started.
        """
        with self._turn:
            return self._start()

    def _start(self) -> bool:
        decoder = self._decoder
        if decoder is not None and decoder.process.poll() is None:
            if not decoder.is_ready:
                self._await_ready(decoder)
            if decoder.settle():
                return decoder.has_heic
        self._stop()
        if not self._is_ended:
            decoder = self._begin()
            self._await_ready(decoder)
            if not self._is_ended:
                return decoder.has_heic
        raise DecoderBroken

    def _await_ready(self, decoder: DecoderProcess) -> None:
        try:
            await_ready(decoder)
        except DecoderBroken:
            self._stop()
            raise

    def _begin(self) -> DecoderProcess:
        decoder = self._decoder = begin(self._command, self._memory.fd)
        self._finalizer = weakref.finalize(self, end, decoder)
        return decoder

    def kill(self) -> None:
        """End the decoder for good; a call that is under way in another thread fails soon."""
        self._is_ended = True
        if self._decoder is not None:
            kill(self._decoder.process)

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
        with self._turn:
            self._ask(data, limits, is_check=True)

    def decode(self, data: bytes, limits: ImageLimits) -> Pixels:
        """Decode a file.

        Raises:
            BadImage: it can not be taken.
            DecoderBroken: nothing can be said about it.
        """
        with self._turn:
            return self._decode(data, limits)

    def _decode(self, data: bytes, limits: ImageLimits) -> Pixels:
        answer = self._ask(data, limits, is_check=False)
        try:
            size, kept = _size(answer["size"], limits), _size(answer["kept"], limits)
            media_type, num_frames = answer["media_type"], answer["num_frames"]
            if kept != kept_size(*size):
                raise ValueError
            if media_type not in (*MEDIA_TYPES.values(), HEIC_MEDIA_TYPE):
                raise ValueError
            if type(num_frames) is not int or not 1 <= num_frames <= MAX_FRAMES:
                raise ValueError
            rgb = self._memory.read(kept[0] * kept[1] * 3)
        except (KeyError, TypeError, ValueError):
            self._stop()
            refuse_odd("answered nonsense")
        self._memory.trim()
        return Pixels(rgb, kept, size, media_type, num_frames)

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


def begin_workers() -> list[Worker]:
    """As many workers as a server has, the first of which begins to start its decoder."""
    workers = [Worker() for _ in range(NUM_WORKERS)]
    workers[0].begin()
    return workers


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
        """Put a file in the place of all that was there.

        Whoever takes the next child over shall find its own picture, and nothing of an earlier one.
        """
        num_before = os.fstat(self.fd).st_size
        num_left = min(num_before, KEPT_MEMORY_BYTES, _OVERWRITTEN_RATIO * len(data))
        if num_left < num_before:
            os.ftruncate(self.fd, num_left)
        self._overwrite(data, 0)
        for position in range(len(data), num_left, len(_ZEROS)):
            self._overwrite(_ZEROS[: num_left - position], position)

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

    def _overwrite(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            num_bytes = os.pwrite(self.fd, view, position)
            position, view = position + num_bytes, view[num_bytes:]


def _size(value: Any, limits: ImageLimits) -> tuple[int, int]:
    width, height = value
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError
    if max(width, height) > limits.max_side_pixels or width * height > limits.max_pixels:
        raise ValueError
    return width, height
