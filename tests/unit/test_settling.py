"""What a start does to Python's collector and to freed memory, in a process of its own."""

import subprocess
import sys

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
