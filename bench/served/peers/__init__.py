"""The contenders, in the order of the tables. Each is one file."""

from bench.served.peers.llama_cpp import LlamaCpp
from bench.served.peers.openvino import OpenVino
from bench.served.peers.ours import Ours
from bench.served.peers.peer import Peer
from bench.served.peers.transformers_serve import TransformersServe
from bench.served.peers.tutorial import Tutorial
from bench.served.peers.vllm import Vllm

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Ours(),
        Tutorial(),
        TransformersServe(),
        Vllm(),
        OpenVino("openvino", "plain"),
        OpenVino("openvino-batching", "batching"),
        LlamaCpp(),
    )
}
