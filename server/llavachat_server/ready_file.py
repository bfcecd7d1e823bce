"""The file that says where the server answers, for whoever waits until it does.

Contract: readers see the whole file or none; it is there while this server serves, and no longer.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llavachat_server.endings import StartError


class ReadyFile:
    """The file, or nothing where none was asked for.

    Args:
        path: None where nobody waits for one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def check(self) -> None:
        """Who waits for the file would wait in vain, and the model would be loaded for nothing.

        Raises:
            StartError: it can not be written.
        """
        with self._telling() as path:
            if path is not None:
                if path.is_dir():
                    raise IsADirectoryError(None, "it is a folder")
                draft = _draft_of(path)
                draft.touch()
                draft.unlink()

    def clear(self) -> None:
        """One that a killed server left behind would say that this one serves, and where it did.

        With the port open, and no sooner: where it is taken, the file may be the other server's.

        Raises:
            StartError: it can not be removed.
        """
        with self._telling() as path:
            if path is not None:
                path.unlink(missing_ok=True)

    def write(self, address: str) -> None:
        """The server serves.

        Raises:
            StartError: it can not be written.
        """
        with self._telling() as path:
            if path is not None:
                draft = _draft_of(path)
                draft.write_text(address + "\n")
                draft.replace(path)

    def remove(self) -> None:
        """The server serves no longer; a file that can not be removed keeps nobody."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    @contextmanager
    def _telling(self) -> Iterator[Path | None]:
        try:
            yield self._path
        except OSError as error:
            raise StartError(
                f"ready_file: {str(self._path)!r} can not be written: {error.strerror}"
            ) from error


def _draft_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")
