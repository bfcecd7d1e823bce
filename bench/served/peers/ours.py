"""llavachat's own server, as `llavachat-server` starts it."""

import sys
from pathlib import Path

from bench.served.clients.ours import LlavachatClient
from bench.served.clients.talk import Interface
from bench.served.peers.peer import OFFLINE, Command, Peer, Place


class Ours(Peer):
    """The server of this repository, in the environment that runs the benchmark."""

    name = "ours"
    packages = ("llavachat", "torch", "transformers", "grpcio")

    def python(self, place: Place) -> Path:
        """This very one."""
        return Path(sys.executable)

    def install(self, place: Place) -> None:
        """`make` has done it."""

    def command(self, place: Place, port: int) -> Command:
        """Chats in memory; as many turns side by side as are asked."""
        self._path(place).unlink(missing_ok=True)
        words = [sys.executable, "-m", "llavachat_server", "--model", str(place.checkpoint)]
        words += ["--listen", f"127.0.0.1:{port}", "--store", "memory"]
        words += ["--max-running-turns", str(place.max_chats)]
        words += ["--state-folder", str(place.folder / "state"), "--device", "cpu"]
        words += ["--ready-file", str(self._path(place))]
        return Command(words, OFFLINE)

    def connect(self, place: Place, port: int) -> Interface:
        """Its own client library."""
        return LlavachatClient(port)

    def ready_file(self, place: Place) -> Path | None:
        """Written when the model is loaded."""
        return self._path(place)

    def _path(self, place: Place) -> Path:
        return place.folder / "ours.ready"
