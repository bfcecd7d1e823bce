"""Fetching pictures: from real TLS servers on this machine, well-behaved and not."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable

import pytest
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.images.addresses import AllowedHosts, BadAddress
from llavachat_server.images.fetcher import Fetcher
from llavachat_server.images.intake import BadImage, ImageLimits, Intake
from pictures import red_circle
from web_server import CERTIFICATES, LOOPBACK, NAME, OTHER, Resolver, WebServer, lead_to, ok, serve


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    """A web server with a picture at /a.png."""
    async with serve() as running:
        running.pages["/a.png"] = ok(red_circle())
        yield running


def fetcher(web: WebServer, resolver: Resolver | None = None, **options: object) -> Fetcher:
    """A fetcher for which this machine's first address is public, and no other."""
    hosts = AllowedHosts.parse(f"{NAME}:{web.port} {OTHER}:{web.port}")
    return Fetcher(
        hosts,
        ssl_context=ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem")),
        resolve=resolver or Resolver(llavachat_test=[[LOOPBACK]], other_test=[[LOOPBACK]]),
        is_allowed=lambda address: address == LOOPBACK,
        **options,  # type: ignore[arg-type]
    )


async def refusal(fetching: Fetcher, url: str, max_bytes: int = 10**6) -> str:
    """The sentence that refuses an address."""
    with pytest.raises(BadAddress) as caught:
        await fetching.fetch(url, max_bytes=max_bytes)
    return str(caught.value)


async def test_a_picture_is_fetched(web: WebServer) -> None:
    """The body comes; the name is told in TLS and Host; nothing of ours is told."""
    assert red_circle() == await fetcher(web).fetch(web.url("/a.png"), max_bytes=10**6)
    assert [NAME] == web.names
    head = web.heard[0].lower()
    assert head.startswith("get /a.png http/1.1\r\n")
    assert f"\r\nhost: {NAME}:{web.port}\r\n" in head
    assert not any(word in head for word in ("cookie", "authorization", "referer", "python"))


async def test_environment_has_no_say(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert red_circle() == await fetcher(web).fetch(web.url(), max_bytes=10**6)


async def test_redirects_are_followed_within_the_list(web: WebServer) -> None:
    """Three times, and relative ones too; each is looked up anew; a fourth is one too many."""
    resolver = Resolver(llavachat_test=[[LOOPBACK]])
    web.pages |= {
        "/1": lead_to("/2", 301),
        "/2": lead_to(web.url("/3"), 307),
        "/3": lead_to("a.png", 308),
        "/0": lead_to("/1"),
    }
    assert red_circle() == await fetcher(web, resolver).fetch(web.url("/1"), max_bytes=10**6)
    assert [NAME] * 4 == resolver.asked
    assert "leads on more than 3 times" == await refusal(fetcher(web), web.url("/0"))


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.org/a.png",
        "http://llavachat.test/a.png",
        "https://llavachat.test/a.png",
        "https://127.0.0.1/a.png",
        "https://2130706433/",
        "https://[::1]/",
        "//169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "https://user:word@llavachat.test/",
        "https://[",
        "/a b",
    ],
)
async def test_redirects_do_not_leave_the_list(web: WebServer, location: str) -> None:
    """A redirect to anywhere else is refused, and not told."""
    web.pages["/1"] = lead_to(location)
    assert "leads on to where this server does not fetch from" == await refusal(
        fetcher(web), web.url("/1")
    )
    assert 1 == web.num_connections


async def test_a_name_is_looked_up_once(web: WebServer) -> None:
    """A resolver that answers otherwise the second time is not asked a second time."""
    async with serve("127.0.0.2", web.port) as trap:
        resolver = Resolver(llavachat_test=[[LOOPBACK], ["127.0.0.2"]])
        assert red_circle() == await fetcher(web, resolver).fetch(web.url(), max_bytes=10**6)
        assert ([NAME], 0) == (resolver.asked, trap.num_connections)


async def test_a_redirect_is_no_way_to_rebind(web: WebServer) -> None:
    """A host that leads on to itself and now resolves inside is refused."""
    async with serve("127.0.0.2", web.port) as trap:
        web.pages["/1"] = lead_to("/a.png")
        resolver = Resolver(llavachat_test=[[LOOPBACK], ["127.0.0.2"]])
        sentence = await refusal(fetcher(web, resolver), web.url("/1"))
        assert "is on a host that can not be reached" == sentence
        assert 0 == trap.num_connections


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.2"], [LOOPBACK, "127.0.0.2"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
async def test_a_host_inside_is_not_asked(web: WebServer, answers: list[str]) -> None:
    """One inside address among a host's is enough to refuse it; nothing is connected to."""
    sentence = await refusal(fetcher(web, Resolver(llavachat_test=[answers])), web.url())
    assert ("is on a host that can not be reached", 0) == (sentence, web.num_connections)


async def test_the_real_check_refuses_this_machine(web: WebServer) -> None:
    """Without the tests' seam, a name that resolves to this machine is refused."""
    hosts = AllowedHosts.parse(f"{NAME}:{web.port}")
    strict = Fetcher(hosts, resolve=Resolver(llavachat_test=[[LOOPBACK]]))
    assert "is on a host that can not be reached" == await refusal(strict, web.url())
    assert 0 == web.num_connections


async def test_what_is_told_does_not_map_the_inside(web: WebServer) -> None:
    """Unknown, inside, closed and silent hosts look alike."""
    async with serve() as closed:
        port = closed.port
    hosts = AllowedHosts.parse(f"{NAME}:{port}")
    sentences = {
        await refusal(fetcher(web, Resolver()), web.url()),
        await refusal(fetcher(web, Resolver(llavachat_test=[["10.0.0.1"]])), web.url()),
        await refusal(
            Fetcher(
                hosts, resolve=Resolver(llavachat_test=[[LOOPBACK]]), is_allowed=lambda _: True
            ),
            f"https://{NAME}:{port}/",
        ),
    }
    assert {"is on a host that can not be reached"} == sentences


async def test_another_address_is_tried(web: WebServer) -> None:
    """Of a host's addresses the next is asked when one does not answer."""
    resolver = Resolver(llavachat_test=[["127.0.0.3", LOOPBACK]])
    both = Fetcher(
        AllowedHosts.parse(f"{NAME}:{web.port}"),
        ssl_context=ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem")),
        resolve=resolver,
        is_allowed=lambda _: True,
    )
    assert red_circle() == await both.fetch(web.url(), max_bytes=10**6)


async def test_certificates_are_checked(web: WebServer) -> None:
    """A certificate for another name, and one of an unknown authority, are refused."""
    told = "is on a host whose certificate can not be trusted"
    assert told == await refusal(fetcher(web), web.url(name=OTHER))
    strangers = Fetcher(
        AllowedHosts.parse(f"{NAME}:{web.port}"),
        resolve=Resolver(llavachat_test=[[LOOPBACK]]),
        is_allowed=lambda _: True,
    )
    assert told == await refusal(strangers, web.url())
    assert [] == web.heard


async def test_large_bodies_are_not_read(web: WebServer) -> None:
    """A body that is told to be too large is not begun; one that turns out so is not ended."""
    written = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            written += 0x10000

    web.pages |= {"/told": ok(b"x" * 2001), "/endless": endless, "/fits": ok(b"x" * 2000)}
    told = "has more than the 2,000 bytes that are taken"
    assert told == await refusal(fetcher(web), web.url("/told"), 2000)
    assert told == await refusal(fetcher(web), web.url("/endless"), 2000)
    assert written < 50 * 2**20
    assert b"x" * 2000 == await fetcher(web).fetch(web.url("/fits"), max_bytes=2000)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b""])
async def test_slow_answers_end_in_time(web: WebServer, part: bytes) -> None:
    """One byte after the other, in head or body, or silence: the time for all is bounded."""
    is_gone = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(part)
            while True:
                writer.write(b"X" if part else b"")
                await writer.drain()
                await asyncio.sleep(0.05)
        finally:
            is_gone.set()

    web.pages["/slow"] = drip
    began = time.monotonic()
    sentence = await refusal(fetcher(web, total_seconds=0.6), web.url("/slow"))
    assert "did not answer within 0.6 s" == sentence
    assert time.monotonic() - began < 10
    if part:
        await asyncio.wait_for(is_gone.wait(), 10)


async def test_slow_look_ups_end_in_time(web: WebServer) -> None:
    """A name server that does not answer is part of the time for all."""

    async def never(host: str, port: int) -> Iterable[str]:
        await asyncio.Event().wait()
        return []

    hosts = AllowedHosts.parse(f"{NAME}:{web.port}")
    waiting = Fetcher(hosts, resolve=never, total_seconds=0.2)
    assert "did not answer within 0.2 s" == await refusal(waiting, web.url())


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with status 404"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "answered with status 302"),
        (b"HTTP/1.1 500 " + b"secret " * 9 + b"\r\n\r\n", "answered with status 500, not with a"),
        (ok(b"x", "Content-Encoding: gzip"), "answered with a compressed body"),
        (b"220 smtp.inside ESMTP\r\n", "did not answer as web servers do"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "did not answer as web servers do"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "did not answer as web servers do"),
        (b"", "did not answer as web servers do"),
    ],
)
async def test_odd_answers_are_told_apart(web: WebServer, page: bytes, says: str) -> None:
    """What a server says besides a picture is named by its kind, never quoted."""
    web.pages["/odd"] = page
    sentence = await refusal(fetcher(web), web.url("/odd"))
    assert sentence.startswith(says), sentence
    assert "secret" not in sentence
    assert "smtp" not in sentence


async def test_what_is_fetched_goes_the_way_of_all(web: WebServer, intake: Intake) -> None:
    """What an address leads to is decoded like any file, and refused like any."""
    web.pages["/page"] = ok(b"<html>")
    fetching = Intake(ImageLimits(), fetcher(web))
    picture = await intake.take(await fetching.fetch(web.url()))
    assert (320, 320) == picture.pixels.size
    with pytest.raises(BadImage, match="this is an HTML or XML page"):
        await intake.take(await fetching.fetch(web.url("/page")))
    fetching.close()


def test_the_contract_has_a_place_for_addresses() -> None:
    """An address is a field of its own, which no file can be mistaken for."""
    assert "url" == pb.Image(url="https://llavachat.test/").WhichOneof("source")
