"""Picture addresses: which may be asked at all, and which IP addresses are a public host's."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.images.addresses import Address, AllowedHosts, BadAddress, is_public

HOSTS = AllowedHosts.parse("pictures.example.org, *.cdn.example.net  odd.example.org:8443")


def test_an_allowed_address_is_taken_apart() -> None:
    """Host, port and target come out, without the fragment."""
    url = "https://Pictures.Example.org/a/b%20c.png?size=2&x=/#top"
    assert Address("pictures.example.org", 443, "/a/b%20c.png?size=2&x=/") == HOSTS.check(url)
    assert Address("pictures.example.org", 443, "/") == HOSTS.check("https://pictures.example.org")
    assert Address("odd.example.org", 8443, "/") == HOSTS.check("https://odd.example.org:8443/")
    assert Address("a.b.cdn.example.net", 443, "/") == HOSTS.check("https://a.b.cdn.example.net/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pictures.example.org/a.png",
        "http://pictures.example.org/a.png",
        "ftp://pictures.example.org/a.png",
        "file:///etc/passwd",
        "https:///a.png",
        "https://pictures.example.org:8443/",
        "https://pictures.example.org:0x1bb/",
        "https://pictures.example.org:99999/",
        "https://odd.example.org/",
        "https://example.org/",
        "https://evil.org/pictures.example.org",
        "https://pictures.example.org.evil.org/",
        "https://evilpictures.example.org/",
        "https://cdn.example.net/",
        "https://evilcdn.example.net/",
        "https://user@pictures.example.org/",
        "https://user:word@pictures.example.org/",
        "https://pictures.example.org@evil.org/",
        "https://pictures.example.org\\@evil.org/",
        "https://evil.org\\.pictures.example.org/",
        "https://evil.org#@pictures.example.org/",
        "https://evil.org?@pictures.example.org/",
        "https://pictures.example.org./",
        "https://pictures.example.org/a b.png",
        "https://pictures.example.org/a\r\nHost: evil.org",
        "https://pictures.exämple.org/",
        "https://pictures.example.org\u3002evil.org/",
        "https://pictures.example.org/" + "a" * 2048,
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1%25eth0]/",
        "https://localhost/",
        "https://[",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """Other hosts, schemes, ports, numbers in any form, and what parsers disagree about."""
    with pytest.raises(BadAddress):
        HOSTS.check(url)


@pytest.mark.parametrize(
    "word",
    [
        "*",
        "*.org",
        "*.*.example.org",
        "127.0.0.1",
        "localhost",
        "[::1]",
        "https://example.org",
        "example.org/a",
        "example.org:0",
        "example.org:70000",
        "exa_mple.org",
        "0x7f.1",
    ],
)
def test_only_names_can_be_allowed(word: str) -> None:
    """A list that would open more than a host's name is refused, and the word is named."""
    with pytest.raises(ValueError, match="allowed: names of hosts"):
        AllowedHosts.parse(f"pictures.example.org {word}")


def test_nothing_is_allowed_by_default() -> None:
    """An empty list lets nobody in."""
    assert not AllowedHosts.parse("")
    with pytest.raises(BadAddress):
        AllowedHosts.parse("").check("https://pictures.example.org/")


@given(st.text(max_size=60))
def test_no_text_gets_past_the_list(text: str) -> None:
    """Whatever is put around an allowed host's name, what is asked is an allowed host."""
    for url in (text, f"https://{text}", f"https://pictures.example.org{text}", f"https:{text}"):
        try:
            address = HOSTS.check(url)
        except BadAddress:
            continue
        assert HOSTS.has(address.host, address.port)
        assert address.target.isascii()
        assert address.target.isprintable()
        assert " " not in address.target


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%1",
        "fec0::1",
        "ff02::1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "",
        "pictures.example.org",
    ],
)
def test_inside_addresses_are_not_public(address: str) -> None:
    """Private, special, metadata's, and IPv4 addresses dressed up as IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:831::200e"],
)
def test_public_addresses_are_public(address: str) -> None:
    """Hosts on the Internet may be asked."""
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_no_private_address_hides_in_ipv6(inside: ipaddress.IPv4Address) -> None:
    """An IPv4 address in any of IPv6's wrappings is refused, whatever it is."""
    number = int(inside)
    for wrapped in (
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
        ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ):
        assert not is_public(str(wrapped))
