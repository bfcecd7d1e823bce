"""Fetch a picture over http(s), within bounds of size and time. Knows no gRPC.

The address is the caller's own wish: unlike the server, the client may reach its private
network. Redirects stay within http(s).
"""

import re
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse

from llavachat.errors import ImageError

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024
"""The largest file that is read, from anywhere."""

MAX_DOWNLOAD_SECONDS = 30.0
"""The longest that a whole fetch may take, and each wait in it."""

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
    deadline = time.monotonic() + max_seconds
    try:
        request = urllib.request.Request(_spell(url), headers=_HEADERS)  # noqa: S310 - scheme is checked
        with _build_opener().open(request, timeout=max_seconds) as response:
            return _read_body(url, response, max_bytes, max_seconds, deadline)
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


def _build_opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone: the usual one also follows to file: and ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _read_body(
    url: str, response: HTTPResponse, max_bytes: int, max_seconds: float, deadline: float
) -> bytes:
    body = bytearray()
    # read1 returns what has come: a server that drips bytes can not outlast the deadline.
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise ImageError(f"{url} is larger than {max_bytes >> 20} MiB.")
        if time.monotonic() > deadline:
            raise ImageError(_refuse_time(url, max_seconds))
    length = response.getheader("Content-Length")
    if length and length.isdigit() and len(body) < int(length):
        raise ImageError(f"{url} was cut short on the way.")
    return bytes(body)


def _refuse_time(url: str, max_seconds: float) -> str:
    return f"{url} took longer than {max_seconds:g} seconds."
