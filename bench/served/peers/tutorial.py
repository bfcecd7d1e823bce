"""The tutorial's way: `generate()` under a lock, all history again each turn."""

from bench.served.clients.small import SmallClient
from bench.served.clients.talk import Interface
from bench.served.peers.peer import OFFLINE, Command, Peer, Place


class Tutorial(Peer):
    """See `servers.tutorial`."""

    name = "tutorial"
    environment = "transformers"
    packages = ("transformers", "torch", "grpcio")

    def command(self, place: Place, port: int) -> Command:
        """The small server around the model."""
        module = "bench.served.servers.tutorial"
        words = [str(self.python(place)), "-m", module, str(place.checkpoint), str(port)]
        return Command(words, OFFLINE)

    def connect(self, place: Place, port: int) -> Interface:
        """The small servers' client."""
        return SmallClient(port)
