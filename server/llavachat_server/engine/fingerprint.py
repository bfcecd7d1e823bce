"""The hash of a checkpoint's weights, by which an answer says what gave it.

Reading and hashing takes a core as long as packing takes the other, so it begins as early as the
folder is known. It imports next to nothing.
"""

import hashlib
import threading
from concurrent.futures import Future
from pathlib import Path

_READ_BYTES = 16 * 1024**2
"""At a time: between two reads the thread takes Python's lock from who imports modules."""


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weights' files, one after another in the order of their names.

    For a single file it is the file's own.
    """
    digest, block = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(block):
                digest.update(block[:num_bytes])
    return digest.hexdigest()


class Fingerprint:
    """Hashes from now on, on a thread that does not keep the process alive.

    Args:
        folder: of the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._future: Future[str] = Future()
        threading.Thread(target=self._hash, name="fingerprint", daemon=True).start()

    def result(self) -> str:
        """The hash, see `hash_weights`; waits for it.

        Raises:
            OSError: a file can not be read.
        """
        return self._future.result()

    def _hash(self) -> None:
        try:
            self._future.set_result(hash_weights(self._folder))
        except BaseException as error:
            self._future.set_exception(error)
