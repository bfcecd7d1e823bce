"""The hash of a checkpoint's weights, by which an answer says what gave it.

Reading and hashing takes a core as long as packing takes the other, so it begins as early as the
folder is known. It imports next to nothing.
"""

import threading
from concurrent.futures import Future
from pathlib import Path

from llavachat_server.engine.hashing import hash_files
from llavachat_server.engine.shelf import Copy


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weights' files, one after another in the order of their names.

    For a single file it is the file's own.

    Raises:
        OSError: one can not be read.
    """
    return hash_files(sorted(folder.glob("*.safetensors")))


class Fingerprint:
    """Hashes from now on, on a thread that does not keep the process alive.

    Args:
        folder: of the checkpoint.
        copy: of its weights, which is to be used. Then its bytes are hashed, and the checkpoint's
            only if they are not what was written.
    """

    def __init__(self, folder: Path, copy: Copy | None = None) -> None:
        self.copy = copy
        self._folder = folder
        self._future: Future[tuple[str, bool]] = Future()
        if copy is not None:
            # From here on it is read, and where a processor computes mapped for good.
            copy.hold()
        threading.Thread(target=self._hash, name="fingerprint", daemon=True).start()

    def result(self) -> str:
        """The checkpoint's hash, see `hash_weights`; waits for it.

        Raises:
            OSError: a file can not be read.
        """
        return self._future.result()[0]

    def has_whole_copy(self) -> bool:
        """Whether there is a copy and its bytes are what was written; waits as `result` does."""
        return self._future.result()[1]

    def _hash(self) -> None:
        try:
            if self.copy is not None and self.copy.is_whole():
                self._future.set_result((self.copy.weights_sha256, True))
            else:
                self._future.set_result((hash_weights(self._folder), False))
        except BaseException as error:
            self._future.set_exception(error)
