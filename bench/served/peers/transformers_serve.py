"""``transformers serve``: the server that comes with transformers."""

from bench.served.clients.openai import OpenAiClient
from bench.served.clients.talk import Interface
from bench.served.peers.peer import OFFLINE, Command, Peer, Place


class TransformersServe(Peer):
    """Started as its documentation has it, in float32 on the CPU."""

    name = "transformers-serve"
    environment = "transformers"
    packages = ("transformers", "torch", "fastapi", "uvicorn")

    def command(self, place: Place, port: int) -> Command:
        """One model, loaded at the start."""
        program = self.python(place).with_name("transformers")
        words = [str(program), "serve", str(place.checkpoint), "--host", "127.0.0.1"]
        words += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
        return Command(words, OFFLINE)

    def connect(self, place: Place, port: int) -> Interface:
        """Chat completions."""
        return OpenAiClient(port, str(place.checkpoint))
