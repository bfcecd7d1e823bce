"""Fetch a picture over http(s), within bounds of size and time. Knows no gRPC.

The address is the caller's own wish: unlike the server, the client may reach its private
network. Redirects stay within http(s).
"""

import io
import re
import socket
import string
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, cast

from llavachat._deadline import Deadline, connect
from llavachat.errors import ImageError

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024
"""The largest file that is read, from anywhere."""

MAX_DOWNLOAD_SECONDS = 30.0
"""The longest that a whole fetch may take: connections, headers, redirects and the file."""

_CHUNK_BYTES = 64 * 1024


def download(
    url: str,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    max_seconds: float = MAX_DOWNLOAD_SECONDS,
) -> bytes:
    """Fetch a file.

    Args:
        url: an http or https address. Proxies are taken from the environment.
        max_bytes: the largest file.
        max_seconds: the longest that it may take.

    Raises:
        ImageError: it can not be fetched, is too large or takes too long.
    """
    try:
        request = urllib.request.Request(_spell(url), headers=_HEADERS)  # noqa: S310 - scheme is checked
        with _build_opener(Deadline(max_seconds)).open(request) as response:
            return _read_body(url, response, max_bytes)
    except ImageError:
        raise
    except urllib.error.HTTPError as error:
        with error:
            raise ImageError(f"{url} answered {error.code} {error.reason}.") from None
    except TimeoutError:
        raise ImageError(_refuse_time(url, max_seconds)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise ImageError(_refuse_time(url, max_seconds)) from None
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise ImageError(f"{url} can not be fetched: {reason}.") from None
    except (HTTPException, OSError, ValueError) as error:
        raise ImageError(f"{url} can not be fetched: {error}.") from None


def _spell(url: str) -> str:
    """An address as browsers show it, in the characters that http has; what is spelt so already
    stays as it is.

    Source: RFC 3987, 3.1.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        raise ImageError(f"{url} can not be fetched: it is no address of http.")
    scheme, host, rest = parts.groups()
    try:
        host = host if host.isascii() else host.encode("idna").decode()
        # Bytes of a command line that are no UTF-8 are still the server's.
        rest = urllib.parse.quote(rest, string.punctuation, errors="surrogateescape")
    except UnicodeError:
        raise ImageError(f"{url} can not be fetched: it is no address of http.") from None
    return f"{scheme}{host}{rest}"


_PARTS = re.compile(r"(https?://)([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

# Some hosts refuse urllib's own name.
_HEADERS = {"User-Agent": "llavachat", "Accept": "image/*"}


def _build_opener(deadline: Deadline) -> urllib.request.OpenerDirector:
    """An opener for http and https alone: the usual one also follows to file: and ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(deadline),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https, each connection until one deadline.

    urllib's own timeout is for each single wait: a server that sends a byte now and then would
    outlast it, in the head of its answer at any rate.
    """

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """See urllib."""
        return self.do_open(self._build(HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        """See urllib."""
        return self.do_open(self._build(HTTPSConnection), request)

    def _build(self, kind: type[HTTPConnection]) -> Callable[..., HTTPConnection]:
        def build(host: str, **options: Any) -> HTTPConnection:
            connection: Any = kind(host, **options)
            connection._create_connection = lambda address, *_: connect(
                address[0], address[1], self._deadline.left_seconds
            )
            connection.response_class = self._read
            return cast(HTTPConnection, connection)

        return build

    def _read(self, sock: socket.socket, **options: Any) -> HTTPResponse:
        timed: Any = _TimedSocket(sock, self._deadline)
        return HTTPResponse(timed, **options)


class _TimedSocket(io.RawIOBase):
    """What of a socket an `HTTPResponse` wants: a file, here one that can be read until a
    deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._file = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """See `socket.socket`."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See `io.RawIOBase`.

        Raises:
            TimeoutError: the deadline is over, even where there is more to read.
        """
        if self._deadline.is_over:
            raise TimeoutError
        self._socket.settimeout(self._deadline.left_seconds)
        return self._file.readinto(buffer)

    def close(self) -> None:
        """See `io.RawIOBase`."""
        self._file.close()
        super().close()


def _read_body(url: str, response: HTTPResponse, max_bytes: int) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise ImageError(f"{url} is larger than {max_bytes >> 20} MiB.")
    length = response.getheader("Content-Length")
    if length and length.isdigit() and len(body) < int(length):
        raise ImageError(f"{url} was cut short on the way.")
    return bytes(body)


def _refuse_time(url: str, max_seconds: float) -> str:
    return f"{url} took longer than {max_seconds:g} seconds."
