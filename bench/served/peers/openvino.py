"""OpenVINO GenAI, plain and with continuous batching, behind the benchmark's small server."""

import hashlib
import shutil
from pathlib import Path

from bench.served.clients.small import SmallClient
from bench.served.clients.talk import Interface
from bench.served.peers.peer import OFFLINE, Command, Peer, Place, run


class OpenVino(Peer):
    """See `servers.openvino`.

    Args:
        name: of flags and files.
        mode: "plain" or "batching".
    """

    environment = "openvino"
    packages = ("openvino-genai", "openvino", "optimum-intel", "torch", "transformers")
    unneeded = ("torchvision",)

    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self._mode = mode

    def prepare(self, place: Place) -> None:
        """OpenVINO's own form of the checkpoint, in float32; once for each checkpoint."""
        folder, stamp = self._model(place), self._model(place) / "made-from"
        weights = place.checkpoint / "model.safetensors"
        with weights.open("rb") as file:
            state = hashlib.file_digest(file, "sha256").hexdigest()
        if stamp.is_file() and stamp.read_text() == state:
            return
        shutil.rmtree(folder, ignore_errors=True)
        program = self.python(place).with_name("optimum-cli")
        words = [str(program), "export", "openvino", "--model", str(place.checkpoint)]
        words += ["--task", "image-text-to-text", "--weight-format", "fp32", str(folder)]
        run(words, place.folder / "logs" / "export-openvino.log", OFFLINE)
        # transformers 5 writes another file, which OpenVINO GenAI does not read.
        shutil.copy(place.checkpoint / "preprocessor_config.json", folder)
        stamp.write_text(state)

    def command(self, place: Place, port: int) -> Command:
        """The small server around a pipeline."""
        module = "bench.served.servers.openvino"
        words = [str(self.python(place)), "-m", module, str(self._model(place)), str(port)]
        return Command([*words, self._mode, str(place.max_chats)], OFFLINE)

    def connect(self, place: Place, port: int) -> Interface:
        """The small servers' client."""
        return SmallClient(port)

    def _model(self, place: Place) -> Path:
        return place.folder / "checkpoint-openvino"
