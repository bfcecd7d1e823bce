"""Takes from this process all that decoding does not need: files, network, programs, memory, time.

Contract: after `Filter.confine` only the files already open can be used, and nothing can be
started; it can not be undone. It knows Linux; it must not know pictures.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
"""Source: linux/prctl.h, linux/seccomp.h. By prctl, not by seccomp(2): systemd's group of system
calls for services, which our unit allows, knows only the former."""

_LOAD_WORD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
"""Instructions of the classic BPF. Source: linux/bpf_common.h."""

_KILL_PROCESS, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_REFUSE, _UNKNOWN = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
"""Source: linux/seccomp.h."""

_NUMBER_OFFSET, _MACHINE_OFFSET, _FIRST_ARGUMENT_OFFSET, _THIRD_ARGUMENT_OFFSET = 0, 4, 16, 32
"""Of struct seccomp_data; low halves of arguments on little-endian machines."""

_PROT_EXEC = 4

# Numbers of read, write, close, fstat, lseek, pread64, pwrite64, sendto; munmap, mremap, madvise,
# brk; futex, sched_yield, clock_gettime, getrandom; rt_sigreturn, restart_syscall, exit,
# exit_group. Signals' actions and masks are not among them: the clock's must keep ending us.
# Source: asm/unistd_64.h and asm-generic/unistd.h.
# fmt: off
_ALLOWED = {
    "x86_64": (
        0, 1, 3, 5, 8, 17, 18, 44, 11, 25, 28, 12, 202, 24, 228, 318, 15, 219, 60, 231,
    ),
    "aarch64": (
        63, 64, 57, 80, 62, 67, 68, 206, 215, 216, 233, 214, 98, 124, 113, 278, 139, 128, 93, 94,
    ),
}
# fmt: on

_ALLOWED_WITHOUT_EXEC = {"x86_64": (9, 10), "aarch64": (222, 226)}
"""mmap and mprotect: memory, but none that could be run."""

_THREAD_CALLS = {"x86_64": (273, 334), "aarch64": (99, 293)}
"""set_robust_list and rseq: every new thread calls them, and glibc aborts without the latter."""

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_CLONE_THREAD = 0x10000
"""Source: linux/sched.h. What clone3 would start is not in its arguments but in memory, which a
filter can not read; where it is unknown, the C library takes clone."""

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Source: AUDIT_ARCH_* in linux/audit.h."""


def limit(*, memory_bytes: int, file_bytes: int) -> None:
    """Set limits for this process and those that it starts; past them their calls fail.

    Args:
        memory_bytes: of addresses, on top of what is in use now.
        file_bytes: the size up to which files may be written.
    """
    address_bytes = used_address_bytes() + memory_bytes
    _lower(resource.RLIMIT_AS, address_bytes, address_bytes)
    _lower(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    _lower(resource.RLIMIT_CORE, 0, 0)


def limit_cpu(seconds: int) -> None:
    """End this process when it has computed for so long since its beginning: SIGXCPU, and a
    second later SIGKILL."""
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)


def _lower(kind: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


class Filter:
    """What a process that decodes may still ask of the kernel.

    Made beforehand, by the process that starts the others: nothing is left for them to compute.

    Args:
        may_start_threads: threads within the process, under its limits; never processes.
    """

    def __init__(self, *, may_start_threads: bool = False) -> None:
        self._may_start_threads = may_start_threads
        machine = os.uname().machine
        self._program: Any = None
        if sys.platform == "linux" and machine in _MACHINES:
            self._code = _make_code(machine, may_start_threads)
            address = ctypes.cast(self._code, ctypes.c_void_p)
            self._program = ctypes.byref(_Program(len(self._code) // 8, address))

    def confine(self) -> bool:
        """Let the kernel refuse this process every other call, from now on.

        Returns:
            Whether it does: only Linux on x86-64 and ARM64 can.
        """
        if not self._may_start_threads:
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        return (
            self._program is not None
            and _prctl(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) == 0
            and _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._program, 0, 0) == 0
        )


def end_with(parent: int) -> bool:
    """Have the kernel kill this process when the one that started it ends.

    Returns:
        Whether that one, whose process id is given, has not ended before.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, None, 0, 0)
    return os.getppid() == parent


def used_address_bytes() -> int:
    """How many bytes of addresses this process has in use; 0 where nobody tells."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


if sys.platform == "linux":
    _prctl = ctypes.CDLL(None).prctl
    _prctl.argtypes = (
        ctypes.c_int,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    )


def _make_code(machine: str, may_start_threads: bool) -> "ctypes.Array[ctypes.c_char]":
    """The filter's instructions: the call's number is compared with one after the other."""
    code = [
        _instruction(_LOAD_WORD, _MACHINE_OFFSET),
        _instruction(_JUMP_EQUAL, _MACHINES[machine], skip_if_so=1),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD_WORD, _NUMBER_OFFSET),
    ]
    for number in _ALLOWED[machine] + (_THREAD_CALLS[machine] if may_start_threads else ()):
        code += [
            _instruction(_JUMP_EQUAL, number, skip_if_not=1),
            _instruction(_RETURN, _ALLOW),
        ]
    for number in _ALLOWED_WITHOUT_EXEC[machine]:
        code += [
            _instruction(_JUMP_EQUAL, number, skip_if_not=4),
            _instruction(_LOAD_WORD, _THIRD_ARGUMENT_OFFSET),
            _instruction(_JUMP_SET, _PROT_EXEC, skip_if_so=1),
            _instruction(_RETURN, _ALLOW),
            _instruction(_RETURN, _REFUSE),
        ]
    if may_start_threads:
        code += [
            _instruction(_JUMP_EQUAL, _CLONE3, skip_if_not=1),
            _instruction(_RETURN, _UNKNOWN),
            _instruction(_JUMP_EQUAL, _CLONE[machine], skip_if_not=3),
            _instruction(_LOAD_WORD, _FIRST_ARGUMENT_OFFSET),
            _instruction(_JUMP_SET, _CLONE_THREAD, skip_if_not=1),
            _instruction(_RETURN, _ALLOW),
        ]
    data = b"".join([*code, _instruction(_RETURN, _REFUSE)])
    return ctypes.create_string_buffer(data, len(data))


def _instruction(kind: int, word: int, *, skip_if_so: int = 0, skip_if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", kind, skip_if_so, skip_if_not, word)
