"""The lock of what one server owns; the kernel frees it however the process ends.

Contract: another user who may enter the folder can not take it. To hold a lock the kernel asks for
no more than that the file can be opened, be it for reading.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO


def take_lock(path: Path) -> IO[bytes]:
    """Hold the lock as long as the file is open.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file can not be opened.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    file = os.fdopen(handle, "r+b")
    try:
        # Of earlier releases everybody may read it. Another user's file is that user's to close.
        with suppress(PermissionError):
            os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
