"""Which process, and which event loop, a channel's calls are made in.

gRPC's threads do not come along in a fork, and its locks stay as they were: what was begun in the
parent ends a child by SIGABRT or SIGSEGV, or never ends. So a client refuses before gRPC is asked.
"""

import asyncio
import os

from llavachat.errors import ConfigurationError

_FORKED = (
    "This client was used in another process, before a fork, and gRPC does not outlive one; start "
    "processes that call by multiprocessing's spawn, or make the first call after the fork."
)
_OTHER_LOOP = (
    "This client was used in another event loop and belongs to it; make one client in each loop."
)


class Home:
    """Where a channel was opened. Until then it may be anywhere."""

    def __init__(self) -> None:
        self._process_id: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def settle(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Be at home in this process, and in this event loop where there is one."""
        self._process_id, self._loop = os.getpid(), loop

    @property
    def is_here(self) -> bool:
        """Whether this process may ask gRPC."""
        return self._process_id in (None, os.getpid())

    def check(self) -> None:
        """Let a call through that is made at home.

        Raises:
            ConfigurationError: it is made in a process forked since, or in another event loop.
        """
        if not self.is_here:
            raise ConfigurationError(_FORKED)
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError(_OTHER_LOOP)
