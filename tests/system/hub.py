"""A hub that Hugging Face's own library fetches a model from: over HTTP, as huggingface.co
answers, with one model in it. It can break off in mid-file."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """What it has, and what it was asked.

    Args:
        model: such as ``owner/name``.
        revision: its commit.
        folder: the model's files.
        broken: name of a file of which only half is sent.
        downloads: names of the weights' files that were asked for from their beginning.
    """

    model: str
    revision: str
    folder: Path
    address: str = ""
    broken: str = ""
    downloads: list[str] = field(default_factory=list)


@contextmanager
def run_hub(hub: Hub) -> Iterator[Hub]:
    """Serve it on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send_file(with_body=False)

        def do_GET(self) -> None:
            if self.path.startswith(f"/api/models/{hub.model}/"):
                self._send_listing()
            else:
                self._send_file(with_body=True)

        def log_message(self, *_: object) -> None:
            """Not on the tests' output."""

        def _send_listing(self) -> None:
            files = sorted(hub.folder.iterdir())
            body: object = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in files
            ]
            if "/tree/" not in self.path:
                siblings = [{"rfilename": path.name} for path in files]
                body = {"id": hub.model, "sha": hub.revision, "siblings": siblings}
            text = json.dumps(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def _send_file(self, *, with_body: bool) -> None:
            place, _, name = self.path.partition(f"/resolve/{hub.revision}/")
            path = hub.folder / name
            if place != f"/{hub.model}" or not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.revision)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not with_body:
                return
            if name.endswith(".safetensors") and not begin:
                hub.downloads.append(name)
            if name == hub.broken:
                data = data[: begin + (len(data) - begin) // 2]
            self.wfile.write(data[begin:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
