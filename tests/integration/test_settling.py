"""What a start does to Python's collector and to freed memory, in a process of its own."""

import subprocess
import sys
from pathlib import Path

SETTLE = """
import gc
from llavachat_server.settling import begin_start, end_start

def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

begin_start()
assert not gc.isenabled()
kept = [bytearray(100_000) for _ in range(600)][::30]
before = held()
end_start()
print(gc.isenabled(), gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
print(before - held() > 20_000)
"""


def test_what_is_there_is_permanent_and_what_is_free_is_given_back() -> None:
    """Later collections do not look at it, and freed pieces between others leave the process."""
    words = [sys.executable, "-c", SETTLE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "True True True\nTrue\n" == done.stdout, done.stderr


REPLY = """
import threading
from llavachat_server.settling import begin_start

def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

begin_start()
b"x" * 30_000_000
before, kept = held(), []

def reply():
    pieces = []
    for _ in range(10):
        pieces.append(b"x" * 6_000_000)
        kept.append(bytearray(1000))

thread = threading.Thread(target=reply)
thread.start()
thread.join()
print(held() - before < 20_000)
"""


def test_what_is_large_goes_back_when_it_is_free() -> None:
    """After a larger one, and with small pieces between that stay; by itself glibc keeps it."""
    words = [sys.executable, "-c", REPLY]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "True\n" == done.stdout, done.stderr


SERVE = """
import gc, os, signal, sys, threading, time
from llavachat_server.__main__ import main

def watch():
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    deadline = time.monotonic() + 10
    while gc.get_freeze_count() == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(gc.isenabled(), gc.get_freeze_count() > 10_000, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
sys.exit(main(["--listen", "127.0.0.1:0", "--ready-file", sys.argv[1]]))
"""


def test_a_server_settles_once_it_serves(tmp_path: Path) -> None:
    """The real one, which then collects again, and ends well."""
    words = [sys.executable, "-c", SERVE, str(tmp_path / "ready")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (0, "True True\n") == (done.returncode, done.stdout), done.stderr
