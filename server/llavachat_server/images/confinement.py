"""Takes from this process all that decoding does not need: files, network, programs, memory, time.

Contract: after `confine` only the files already open can be used, and nothing can be started; it
can not be undone. It knows Linux; it must not know pictures.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from pathlib import Path

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


def limit(*, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Set limits that end this process, or fail its calls, when it passes them.

    Args:
        memory_bytes: of addresses, on top of what is in use now.
        cpu_seconds: of computing from the process's beginning on; SIGXCPU, then SIGKILL.
        file_bytes: the size up to which files may be written.
    """
    address_bytes = used_address_bytes() + memory_bytes
    _lower(resource.RLIMIT_AS, address_bytes, address_bytes)
    _lower(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    _lower(resource.RLIMIT_CORE, 0, 0)
    limit_cpu(cpu_seconds)


def limit_cpu(seconds: int) -> None:
    """End this process when it has computed for so long since its beginning; see `limit`."""
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)


def _lower(kind: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def confine(*, may_start_threads: bool = False) -> bool:
    """Let the kernel refuse every call that decoding does not need, from now on.

    Args:
        may_start_threads: threads within this process, under its limits; never processes.

    Returns:
        Whether it does: only Linux on x86-64 and ARM64 can.
    """
    if not may_start_threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _MACHINES:
        return False
    code = _program(machine, may_start_threads)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    return (
        _prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0
        and _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)) == 0
    )


def end_with(parent: int) -> bool:
    """Have the kernel kill this process when the one that started it ends.

    Returns:
        Whether that one, whose process id is given, has not ended before.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
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


def _prctl(option: int, *arguments: object) -> int:
    words = [
        argument if not isinstance(argument, int) else ctypes.c_ulong(argument)
        for argument in (*arguments, 0, 0, 0, 0)[:4]
    ]
    result: int = ctypes.CDLL(None).prctl(ctypes.c_int(option), *words)
    return result


def _program(machine: str, may_start_threads: bool) -> bytes:
    """The filter: the call's number is compared with one after the other."""
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
    return b"".join([*code, _instruction(_RETURN, _REFUSE)])


def _instruction(kind: int, word: int, *, skip_if_so: int = 0, skip_if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", kind, skip_if_so, skip_if_not, word)
