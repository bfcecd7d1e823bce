"""Machine code that another process has compiled: its file, and calling it.

A file has a line that says for which machine it is, and behind that line an object file, which
LLVM links into this process. A broken file is no file. What lies there is run: its folder must be
the service's alone.
"""

import ctypes
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavachat_server.engine.native.calls import Words, find_address


@dataclass(frozen=True, slots=True)
class Code:
    """One kernel.

    Args:
        symbol: the name of its function.
        data: the object file.
    """

    symbol: str
    data: bytes


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


def write_code(path: Path, code: Code, machine: str) -> None:
    """Keep code; readers see the whole file or none.

    Args:
        path: of the file.
        code: what is kept.
        machine: which it was compiled for.

    Raises:
        OSError: it can not be written.
    """
    head = {
        "machine": machine,
        "symbol": code.symbol,
        "sha256": hashlib.sha256(code.data).hexdigest(),
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.write_bytes(json.dumps(head).encode() + b"\n" + code.data)
    draft.replace(path)


def read_code(path: Path, machine: str) -> Code | None:
    """Code that was kept; None where there is none, or it is another machine's or broken.

    Args:
        path: of the file.
        machine: this one.
    """
    try:
        head, _, data = path.read_bytes().partition(b"\n")
        content: Any = json.loads(head)
        is_whole = content["sha256"] == hashlib.sha256(data).hexdigest()
        return (
            Code(str(content["symbol"]), data)
            if is_whole and content["machine"] == machine
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def link(code: Code) -> Kernel:
    """Make code callable.

    Args:
        code: whole, see `read_code`: of what is none, LLVM would end the process.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    # numba's books for arrays that it has made itself, of which the kernels have none.
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    binding.add_symbol("NRT_MemInfo_call_dtor", abort)
    target = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target)
    engine.add_object_file(binding.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    return Kernel(engine.get_function_address(code.symbol), engine)
