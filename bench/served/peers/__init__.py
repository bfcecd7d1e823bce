"""The contenders, in the order of the tables. Each is one file."""

from bench.served.peers.ours import Ours
from bench.served.peers.peer import Peer
from bench.served.peers.transformers_serve import TransformersServe
from bench.served.peers.tutorial import Tutorial

PEERS: dict[str, Peer] = {peer.name: peer for peer in (Ours(), Tutorial(), TransformersServe())}
