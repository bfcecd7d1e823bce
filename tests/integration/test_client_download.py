"""Pictures by http, from a small server that behaves and misbehaves."""

import asyncio
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from llavachat import ImageError, load_picture
from llavachat._download import download
from PIL import Image
from web_server import CERTIFICATES, ok, serve


def _png():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


SPELT = (
    "/%C3%9Cbersicht.png",
    "/%C3%9Cbersicht%20am%20Morgen.png?a=%C3%BC&b=%20",
    "/%E9.png",
    "http://xn--bcher-kva.example:8080/%C3%A4.png",
)
"""What comes over http for addresses as browsers show them; of the last, to a proxy."""


class _Handler(BaseHTTPRequestHandler):
    """One path for each behaviour."""

    def do_GET(self):
        """Answer by path."""
        if self.path in {"/red.png", *SPELT}:
            self._answer(PNG)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/red.png")
            self.end_headers()
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/page":
            self._answer(b"<!doctype html><title>no</title>", "image/png")
        elif self.path == "/short":
            self._answer(PNG[:40], length=len(PNG))
        elif self.path == "/large":
            self._answer(bytes(3000))
        elif self.path in {"/drip", "/drip-head"}:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.wfile.write(b"X-Long: " if self.path == "/drip-head" else b"\r\n")
            for _ in range(100):
                if self.server.stopping.wait(0.05):
                    return
                try:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                except OSError:
                    return
        elif self.path == "/silent":
            self.server.stopping.wait(10)
        else:
            self.send_error(404, "Not Found")

    def _answer(self, body, media_type="image/png", length=None):
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def web():
    """The address of the small server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.stopping = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stopping.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """A proxy of the machine that runs the tests is none of their business."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("path", ["/red.png", "/moved"])
def test_a_picture_is_fetched(web, path):
    """Byte for byte, redirects followed."""
    assert PNG == load_picture(web + path).data


async def test_a_picture_is_fetched_over_tls(monkeypatch):
    """From a server whose authority is among those that are trusted here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))
    async with serve() as server:
        server.pages["/a.png"] = ok(PNG)
        address = f"https://localhost:{server.port}/a.png"
        assert PNG == (await asyncio.to_thread(load_picture, address)).data


@pytest.mark.parametrize(
    "path",
    [
        "/Übersicht.png",
        "/%C3%9Cbersicht.png",
        "/Übersicht am Morgen.png?a=ü&b=%20#Ü",
        "/\udce9.png",
    ],
)
def test_an_address_may_be_as_browsers_show_it(web, path):
    """What http does not have is spelt out; what is spelt out already stays."""
    assert PNG == load_picture(web + path).data


def test_a_host_may_be_as_browsers_show_it(web, monkeypatch):
    """Its name in the letters of its own language, which DNS has in others."""
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", web)
    assert PNG == load_picture("http://bücher.example:8080/ä.png").data
    with pytest.raises(ImageError, match=r"bücher\.\.example can not be fetched: it is no address"):
        load_picture("http://bücher..example")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/nothing", "answered 404 Not Found."),
        ("/page", "is a web page; send JPEG, PNG, WebP or GIF."),
        ("/short", "was cut short on the way."),
        ("/to-file", "answered 302 Found"),
    ],
)
def test_what_is_fetched_in_vain_is_told(web, path, sentence):
    """The sentence names the address; a redirect out of http is not followed."""
    with pytest.raises(ImageError) as refusal:
        load_picture(web + path)
    assert f"{web}{path} " in str(refusal.value)
    assert sentence in str(refusal.value)


def test_a_file_too_large_is_given_up(web):
    """The cap holds while reading."""
    with pytest.raises(ImageError, match="is larger than 0 MiB"):
        download(f"{web}/large", max_bytes=1000)


@pytest.mark.parametrize("path", ["/drip", "/drip-head", "/silent"])
def test_a_slow_server_is_given_up(web, path):
    """Neither silence nor a byte now and then, in the file or before it, outlasts the cap on
    time."""
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"took longer than 0\.3 seconds"):
        download(web + path, max_seconds=0.3)
    assert time.monotonic() - began < 10


def test_a_closed_port_is_told():
    """No server, one sentence."""
    with pytest.raises(ImageError, match="can not be fetched: Connection refused"):
        load_picture("http://127.0.0.1:9/red.png")
