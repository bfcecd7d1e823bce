"""Machine code that another process has compiled: its file, and calling it.

A file has a line that says for which machine it is and where addresses belong, and behind that line
the code, which is copied into memory as it is: neither a compiler nor a linker is needed. A broken
file is no file. What lies there is run: its folder must be the service's alone.
"""

import ctypes
import hashlib
import json
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llavachat_server.drafts import draft_of
from llavachat_server.engine.native.calls import Words, find_address

_REPLACED = {"NRT_MemInfo_call_dtor": "abort"}
"""numba's books for arrays that it has made itself, of which the kernels have none."""


@dataclass(frozen=True, slots=True)
class Image:
    """Code and constants as they lie in memory; x86-64.

    Args:
        data: from the first byte on.
        entry: where in it the function begins that is called.
        addresses: pairs: a place, and where in the image lies that whose address belongs there.
        outside: by the name of a C library's function, pairs: a place for its address, and what is
            added to it.
    """

    data: bytes
    entry: int
    addresses: tuple[tuple[int, int], ...]
    outside: Mapping[str, list[tuple[int, int]]]


class KernelFailed(Exception):
    """A kernel has told an error, which none does that is called as it must be."""


class Kernel:
    """A kernel in this process; while it runs, Python's lock is free.

    Args:
        address: of its function.
        owner: keeps the code in memory.
    """

    def __init__(self, address: int, owner: object) -> None:
        # As numba calls its functions: where the result goes, where an error goes, arguments.
        prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)
        self._function = prototype(address)
        self._owner = owner
        # Nothing is ever read from them.
        self._result, self._error = ctypes.c_void_p(), ctypes.c_void_p()
        self._places = (ctypes.addressof(self._result), ctypes.addressof(self._error))

    def __call__(self, words: Words, *_kept: object) -> None:
        """Run it.

        Args:
            words: see `calls`.
            _kept: what the words point to; it lives until this call is over.

        Raises:
            KernelFailed: it told an error.
        """
        if self._function(*self._places, find_address(words)):
            raise KernelFailed


def keep_content(path: Path, content: bytes) -> None:
    """Write a file; readers see the whole of it or none.

    Args:
        path: of the file.
        content: see `format_image`.

    Raises:
        OSError: it can not be written.
    """
    with draft_of(path, 0o644, is_lasting=False) as draft:
        draft.write(content)


def read_image(path: Path, machine: str) -> Image | None:
    """An image that was kept; None where there is none, or it is another machine's or broken.

    Args:
        path: of the file.
        machine: this one.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return parse_image(content, machine)


def format_image(image: Image, machine: str) -> bytes:
    """A file's content.

    Args:
        image: what is kept.
        machine: which it was compiled for.
    """
    about = {name: value for name, value in asdict(image).items() if name != "data"}
    body = json.dumps(about).encode() + b"\n" + image.data
    head = {"machine": machine, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(head).encode() + b"\n" + body


def parse_image(content: bytes, machine: str) -> Image | None:
    """The image in a file's content; see `read_image`."""
    try:
        line, _, body = content.partition(b"\n")
        head: Any = json.loads(line)
        is_own = head["machine"] == machine
        if not is_own or head["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        line, _, data = body.partition(b"\n")
        return Image(data=data, **json.loads(line))
    except (ValueError, KeyError, TypeError):
        return None


def load(image: Image) -> Kernel:
    """Make an image callable.

    Args:
        image: whole, see `read_image`: its bytes are run.

    Raises:
        OSError: this process may not make memory executable.
    """
    # Written first, and executable afterwards, never both.
    memory = mmap.mmap(-1, len(image.data), mmap.MAP_PRIVATE)
    memory.write(image.data)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for place, target in image.addresses:
        struct.pack_into("<Q", memory, place, start + target)
    library = ctypes.CDLL(None)
    for name, places in image.outside.items():
        function = getattr(library, _REPLACED.get(name, name))
        address = ctypes.cast(function, ctypes.c_void_p).value or 0
        for place, addend in places:
            struct.pack_into("<Q", memory, place, address + addend)
    make_executable(start, len(image.data))
    return Kernel(start + image.entry, memory)


def make_executable(address: int, num_bytes: int) -> None:
    """Let pages be run, and no longer be written to.

    Args:
        address: of the first one.
        num_bytes: of them.

    Raises:
        OSError: this process may not, see systemd's ``MemoryDenyWriteExecute``.
    """
    library = ctypes.CDLL(None, use_errno=True)
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    if library.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(num_bytes), protection):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
