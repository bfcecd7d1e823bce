"""Fetches pictures from the few hosts that the operator allows.

Contract: https alone; each host's name is resolved once, every address that comes of it must be
public, and one of *those* is connected to, with the name in TLS and Host; redirects stay within
the list and are checked like the first address; bytes and time are bounded; no proxy, cookie,
password or setting of the environment has a say. What a caller is told is the same whatever the
inside of the network looks like. It must not know how pictures are decoded.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import httpcore2

from llavachat_server.images.addresses import Address, AllowedHosts, BadAddress, is_public
from llavachat_server.turnstile import Turnstile

log = logging.getLogger("llavachat.images")

# It logs addresses at debug level, which may hold what is nobody's business.
logging.getLogger("httpcore2").setLevel(logging.WARNING)

TOTAL_SECONDS = 10.0
"""For one picture, from its place in the line on: looking up, redirects and reading."""

CONNECT_SECONDS = 3.0
"""For one of a host's addresses; another is tried then."""

MAX_REDIRECTS = 3
MAX_TRIED_ADDRESSES = 3
NUM_PLACES = 8
MAX_WAITING = 64

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_READ_HEADERS = (
    (b"Accept", b"image/jpeg, image/png, image/webp, image/gif"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"llavachat-server"),
    (b"Connection", b"close"),
)

Resolver = Callable[[str, int], Awaitable[Iterable[str]]]
"""From a host's name and a port to its IP addresses; OSError when there are none."""


class Fetcher:
    """Fetches.

    Args:
        hosts: which may be asked.
        ssl_context: how certificates are checked; by the system's authorities when None.
        resolve: for tests; the system's resolver when None.
        is_allowed: for tests; which IP addresses may be connected to.
        total_seconds: for tests.
    """

    def __init__(
        self,
        hosts: AllowedHosts,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolver | None = None,
        is_allowed: Callable[[str], bool] = is_public,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self.hosts = hosts
        self._ssl_context = ssl_context or ssl.create_default_context()
        # Threads of our own: a name server that does not answer holds up nobody else.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="names")
        self._resolve = resolve or self._ask_system
        self._is_allowed = is_allowed
        self._total_seconds = total_seconds
        self._turnstile = Turnstile(
            NUM_PLACES,
            places_per_tenant=NUM_PLACES // 2,
            max_waiting=MAX_WAITING,
            max_waiting_per_tenant=MAX_WAITING // 2,
        )

    async def fetch(self, url: str, *, max_bytes: int, tenant: str = "") -> bytes:
        """Fetch what an address leads to.

        Args:
            url: the address.
            max_bytes: the largest body that is taken.
            tenant: who asks; tenants take turns.

        Raises:
            BadAddress: it may not be asked, or does not answer with a body of that size.
            LineFull: too many wait.
        """
        address = self.hosts.check(url)
        await self._turnstile.enter(tenant)
        try:
            async with asyncio.timeout(self._total_seconds):
                for _ in range(MAX_REDIRECTS + 1):
                    found = await self._get(address, max_bytes)
                    if isinstance(found, bytes):
                        return found
                    address = self._follow(address, found)
        except TimeoutError:
            raise BadAddress(f"did not answer within {self._total_seconds:g} s") from None
        finally:
            self._turnstile.leave(tenant)
        raise BadAddress(f"leads on more than {MAX_REDIRECTS} times")

    def close(self) -> None:
        """Look no names up any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _follow(self, address: Address, location: str) -> Address:
        try:
            return self.hosts.check(address.join(location))
        except (BadAddress, ValueError):
            raise BadAddress("leads on to where this server does not fetch from") from None

    async def _get(self, address: Address, max_bytes: int) -> bytes | str:
        """Ask once: the body, or where it leads on to."""
        async with self._answer(address) as response:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in headers:
                return headers[b"location"].decode("latin-1")
            if response.status != 200:
                raise BadAddress(f"answered with status {response.status}, not with a picture")
            if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise BadAddress("answered with a compressed body; pictures are sent as they are")
            too_large = BadAddress(f"has more than the {max_bytes:,} bytes that are taken")
            told = headers.get(b"content-length", b"0")
            if told.isdigit() and int(told[:20]) > max_bytes:
                raise too_large
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                if len(body) > max_bytes:
                    raise too_large
            return bytes(body)

    @asynccontextmanager
    async def _answer(self, address: Address) -> AsyncIterator[httpcore2.Response]:
        backend = _PinnedBackend(await self._look_up(address))
        url = httpcore2.URL(
            scheme=b"https",
            host=address.host.encode(),
            port=address.port,
            target=address.target.encode(),
        )
        try:
            async with (
                httpcore2.AsyncConnectionPool(
                    ssl_context=self._ssl_context,
                    max_connections=1,
                    http1=True,
                    http2=False,
                    retries=0,
                    network_backend=backend,
                ) as pool,
                pool.stream(
                    "GET",
                    url,
                    headers=_READ_HEADERS,
                    extensions={"timeout": {"connect": CONNECT_SECONDS}},
                ) as response,
            ):
                yield response
        except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            _say_why(address, error)
            raise _unreachable(error) from None
        except httpcore2.ProtocolError as error:
            _say_why(address, error)
            raise BadAddress("did not answer as web servers do") from None

    async def _look_up(self, address: Address) -> list[str]:
        try:
            found = list(dict.fromkeys(await self._resolve(address.host, address.port)))
        except OSError as error:
            _say_why(address, error)
            found = []
        if not found or not all(map(self._is_allowed, found)):
            if found:
                log.warning(
                    "a picture's host has an address inside",
                    extra={"fields": {"host": address.host}},
                )
            raise _unreachable(None)
        return found[:MAX_TRIED_ADDRESSES]

    async def _ask_system(self, host: str, port: int) -> Iterable[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _get_addresses, host, port)


class _PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever the name would resolve to by now."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first that answers; `host` has been resolved before."""
        for address in self._addresses[:-1]:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._backend.connect_tcp(address, port, timeout)
        return await self._backend.connect_tcp(self._addresses[-1], port, timeout)


def _get_addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _unreachable(error: Exception | None) -> BadAddress:
    """One sentence for a host that is unknown, inside, closed or silent: no caller can map us."""
    cause = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BadAddress("is on a host whose certificate can not be trusted")
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return BadAddress("is on a host that can not be reached")


def _say_why(address: Address, error: Exception) -> None:
    """For the operator, who wrote the host's name into the settings; never the path."""
    fields = {"host": address.host, "why": type(error).__name__}
    log.info("a picture's host did not answer", extra={"fields": fields})
