"""The decoder: a small process beside the server, in which pictures are decoded.

    llavachat-server --- a worker's keeper --- one child a picture

Contract: the keeper never touches a picture's bytes; it has a child ready, waits for its end,
tells of it, and makes the next. The child takes one request, gives away all rights that decoding
does not need, decodes, answers and ends: what an evil picture may do to it reaches neither the
next picture nor the server. It is started with `python -I`; it must not import numpy, torch,
asyncio or the server's other rooms, so that it stays small and starts fast.

Its files: 0, the socket of requests and answers, one JSON object a line; 1, the pipe on which the
keeper tells, likewise, and which a child closes; 2, where the server's log goes, for what the
keeper breaks on, and nowhere in a child, which could write lines of its own into that log; and the
shared memory, whose number is the argument: first it holds the file to decode, then the RGB pixels.
"""

import ctypes
import gc
import io
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from PIL import Image

from llavachat_server.images import confinement
from llavachat_server.images.decoding import check_header, load_heic, render
from llavachat_server.images.header import is_heic
from llavachat_server.images.picture import MAX_KEPT_SIDE_PIXELS, BadImage, ImageLimits

MEMORY_BYTES = 512 * 1024**2
"""For one picture, besides what Python and Pillow take. The largest take nearly that."""

WALL_SECONDS = 10.0
"""For one picture. There is nothing to wait for but a processor, so that more than the time of
computing means a busy machine, not an evil picture."""

NOBODY_ASKS = 7
"""A child's exit status when the server is gone."""

REST_SECONDS = 0.5
"""A child that is not asked for so long practises. That computes for some milliseconds, and right
after a picture the model computes somebody's first word: where pictures come one upon the other,
each child is asked before, and takes 1 ms longer."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_MMAP_THRESHOLD_BYTES = 32 * 1024**2
"""Source: glibc's malloc.h, and mallopt(3) for the largest threshold."""

_fork = ctypes.PyDLL(None).fork
"""Without what Python adds: its modules put their locks and random numbers in order in the child,
which takes 1 ms. The keeper has one thread, and no picture needs a random number."""

_REQUESTS, _NOTES, _ERRORS = 0, 1, 2
_READ_BYTES = 64 * 1024
_ROWS = 64
"""At a time: hundreds of kilobytes, which stay in a processor's cache."""


def main() -> None:
    """Keep a child ready until the server is gone."""
    memory = int(sys.argv[1])
    # Ctrl-C in a terminal reaches all its processes, and `systemctl kill --signal=HUP` all of a
    # unit; the server says when we are to end. Children have this from us.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    has_heic = load_heic()
    _keep_memory()
    samples = _samples()
    _practise(samples)
    is_confined = _try_confinement()
    desk = _Desk(memory)
    confinement.limit(memory_bytes=MEMORY_BYTES, file_bytes=MAX_KEPT_SIDE_PIXELS**2 * 3)
    # What lives now lives on: children shall not copy pages by counting and sweeping.
    gc.collect()
    gc.freeze()
    _tell({"is_confined": is_confined, "has_heic": has_heic})
    while True:
        desk.asked[0] = 0
        child = _fork()
        if child < 0:
            raise OSError("no process could be started for the next picture")
        if child == 0:
            _answer_once(desk, samples)
        _, status, usage = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == NOBODY_ASKS:
            return
        cpu_seconds = usage.ru_utime + usage.ru_stime
        _tell({"code": code, "cpu_seconds": cpu_seconds, "was_asked": bool(desk.asked[0])})


class _Desk:
    """What a child works with, made ready by the keeper.

    A child that made it for itself would take longer, and write to pages of memory that it has from
    the keeper: each of them is copied first, in 2 us.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.keeper = os.getpid()
        self.channel = socket.socket(fileno=_REQUESTS)
        self.asked = mmap.mmap(-1, 1)
        """Shared with the children: 1 when there is a request."""
        self.filter = confinement.Filter()
        # The library for HEIC can not do without a thread.
        self.heic_filter = confinement.Filter(may_start_threads=True)
        self.nowhere = os.open(os.devnull, os.O_WRONLY)


def _answer_once(desk: _Desk, samples: list[bytes]) -> None:
    """Serve one request and end this process."""
    code = 1
    try:
        if not confinement.end_with(desk.keeper):
            os._exit(NOBODY_ASKS)
        os.dup2(desk.nowhere, _ERRORS)
        os.close(desk.nowhere)
        os.close(_NOTES)
        confinement.limit_cpu(int(WALL_SECONDS))  # until the request says how much
        channel = desk.channel
        if not _is_asked_within(channel, REST_SECONDS):
            _practise(samples)
        # Not taken off the socket yet: should this process end now, the next one finds it there.
        desk.asked[0] = len(channel.recv(1, socket.MSG_PEEK))
        request = _read_request(channel)
        if request is None:
            code = NOBODY_ASKS
        else:
            data = os.pread(desk.memory, request["num_bytes"], 0)
            signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
            confinement.limit_cpu(request["limits"]["max_cpu_seconds"])
            (desk.heic_filter if is_heic(data) else desk.filter).confine()
            answer = _answer(request, data, desk.memory)
            channel.sendall(json.dumps(answer).encode() + b"\n")
            code = 0
    finally:
        os._exit(code)


def _answer(request: dict[str, Any], data: bytes, memory: int) -> dict[str, Any]:
    limits = ImageLimits(**request["limits"])
    try:
        if request["is_check"]:
            check_header(data, limits)
            return {}
        rendered = render(data, limits)
    except BadImage as error:
        return {"refusal": str(error)}
    _write_rgb(rendered.pixels, memory)
    return {
        "kept": rendered.pixels.size,
        "size": (rendered.width_pixels, rendered.height_pixels),
        "media_type": rendered.media_type,
        "num_frames": rendered.num_frames,
    }


def _write_rgb(picture: Image.Image, memory: int) -> None:
    """Write the pixels row by row, a few rows at a time: all at once would take them twice."""
    position = 0
    for top in range(0, picture.height, _ROWS):
        bottom = min(top + _ROWS, picture.height)
        rows = memoryview(picture.crop((0, top, picture.width, bottom)).tobytes())
        while rows:
            num_bytes = os.pwrite(memory, rows, position)
            position, rows = position + num_bytes, rows[num_bytes:]


def _read_request(channel: socket.socket) -> dict[str, Any] | None:
    line = b""
    while not line.endswith(b"\n"):
        part = channel.recv(_READ_BYTES)
        if not part:
            return None
        line += part
    request: dict[str, Any] = json.loads(line)
    return request


def _is_asked_within(channel: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _tell(note: dict[str, Any]) -> None:
    try:
        os.write(_NOTES, json.dumps(note).encode() + b"\n")
    except BrokenPipeError:
        # The server was killed, as it may be at any moment: that is no fault to show a stack of.
        os._exit(0)


def _keep_memory() -> None:
    """Have the C library keep what is freed for what comes next."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_TRIM_THRESHOLD, MEMORY_BYTES)
        library.mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD_BYTES)


def _samples() -> list[bytes]:
    """A small file of each kind."""
    files = []
    for image_format, mode in (
        ("JPEG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
    ):
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {} if image_format == "GIF" else {"exif": exif}
        file = io.BytesIO()
        Image.new(mode, (8, 8)).save(file, image_format, **options)
        files.append(file.getvalue())
    return files


def _practise(samples: list[bytes]) -> None:
    """Decode the samples.

    In the keeper, so that no child has to load a module, which it can not; in a child, so that
    what decoding writes to is its own before it is asked.
    """
    for data in samples:
        render(data, ImageLimits())


def _try_confinement() -> bool:
    """Whether children are really cut off from files."""
    child = os.fork()
    if child == 0:
        is_refused = False
        if confinement.Filter().confine():
            try:
                os.open("/", os.O_RDONLY)
            except PermissionError:
                is_refused = True
        os._exit(0 if is_refused else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
