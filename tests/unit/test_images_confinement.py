"""Confinement: what a decoder that was taken over can still do, tried by one."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux's system calls")

TRY = """
import ctypes, errno, mmap, os, resource, signal, socket, sys
from llavachat_server.images import confinement
libc = ctypes.CDLL(None, use_errno=True)
confinement.limit(memory_bytes=64 * 2**20, file_bytes=4096)
confinement.limit_cpu(1)
readable, writable = os.pipe()
def call(function, *words):
    if function(*words) == -1:
        raise OSError(ctypes.get_errno(), "")
if not confinement.Filter().confine():
    os._exit(77)
def act():
    {act}
try:
    act()
except MemoryError:
    os.write(1, b"MemoryError")
except OSError as error:
    os.write(1, errno.errorcode[error.errno].encode())
else:
    os.write(1, b"done")
"""


def attempt(act: str) -> "subprocess.CompletedProcess[str]":
    """What comes of an act inside a confined process."""
    script = TRY.replace("{act}", act)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("this machine has no filter of system calls")
    return run


@pytest.mark.parametrize(
    "act",
    [
        "os.open('/etc/passwd', os.O_RDONLY)",
        "os.open('/tmp/x', os.O_WRONLY | os.O_CREAT)",
        "os.listdir('/')",
        "os.stat('/')",
        "os.unlink('/tmp/x')",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), signal.SIGTERM)",
        "os.pipe()",
        "os.memfd_create('x')",
        "os.dup(0)",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "call(libc.setrlimit, resource.RLIMIT_AS, (ctypes.c_ulong * 2)(2**30, 2**30))",
        "signal.setitimer(signal.ITIMER_REAL, 0)",
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)",
        "call(libc.ptrace, 16, os.getppid(), 0, 0)",
        "call(libc.prctl, 38, 0, 0, 0, 0)",
    ],
)
def test_nothing_but_computing_is_allowed(act: str) -> None:
    """Files, sockets, processes, signals, runnable memory and the limits are out of reach."""
    assert "EPERM" == attempt(act).stdout


def test_decoding_is_allowed() -> None:
    """Computing, taking memory and writing to what is open still work."""
    assert (
        "done" == attempt("bytearray(2**20); os.write(writable, b'x'); os.read(readable, 1)").stdout
    )


def test_memory_ends_where_it_should() -> None:
    """More than the limit is refused, by an error that can be answered."""
    assert "MemoryError" == attempt("bytearray(128 * 2**20)").stdout


def test_computing_ends_when_it_should() -> None:
    """The processor's time is up after a second; nothing the process does can put that off."""
    assert -24 == attempt("while True: pass").returncode


def test_files_do_not_grow() -> None:
    """What is open can not be filled without end."""
    script = "import os; fd = os.memfd_create('x')\n" + TRY.replace(
        "{act}", "os.pwrite(fd, b'x' * 4096, 0); os.pwrite(fd, b'x', 4096)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "EFBIG" == run.stdout
