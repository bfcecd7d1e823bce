"""Which picture addresses the server may fetch: the names, the ports, and what they resolve to.

Pure: nothing is looked up or connected to here.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from llavachat_server.images.picture import BadImage

HTTPS_PORT = 443
MAX_ADDRESS_CHARS = 2048

# Two labels at least, the last one no number: what can be read as an IPv4 address in decimal,
# octal or hexadecimal form is no name. Source: RFC 1123, section 2.1; RFC 3696, section 2.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_PRINTABLE = re.compile(r"[!-~]+")

_SPECIAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
"""What is not a public host's. Source: IANA's registries of special-purpose addresses for IPv4 and
IPv6; 168.63.129.16, a public one, is Azure's metadata service; 2001::/23 has Teredo and 2002::/16
is 6to4, which hold an IPv4 address. All of IPv6 outside 2000::/3 is refused with them: loopback,
link-local, private, multicast, IPv4-mapped, NAT64."""

_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")


class BadAddress(BadImage):
    """A picture's address can not be used. The message is fit for the caller's eyes."""


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address: an https host by name, its port, and the path with its query."""

    host: str
    port: int
    target: str

    def join(self, location: str) -> str:
        """Where a redirect leads that this address answers with."""
        return urljoin(f"https://{self.host}:{self.port}{self.target}", location)


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that may be asked, as (name, port); "*.NAME" means every name below it."""

    entries: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "AllowedHosts":
        """Read names, parted by commas or spaces, each with :PORT where that is not 443.

        Raises:
            ValueError: one is not a host's name; the message says which.
        """
        entries = set()
        for word in text.replace(",", " ").split():
            name, _, port = word.lower().partition(":")
            port = port or str(HTTPS_PORT)
            is_port = port.isdecimal() and 0 < int(port) < 65536
            if not is_port or not _NAME.fullmatch(name.removeprefix("*.")):
                # Before an @ there may be a password, and the sentence may be logged.
                shown = re.sub(r".*@", "***@", word)
                raise ValueError(
                    f"allowed: names of hosts as in pictures.example.org or *.example.org, "
                    f"not {shown!r}"
                )
            entries.add((name, int(port)))
        return cls(frozenset(entries))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def has(self, host: str, port: int) -> bool:
        """Whether a host may be asked on a port."""
        parts = host.split(".")
        parents = ("*." + ".".join(parts[cut:]) for cut in range(1, len(parts)))
        return any((name, port) in self.entries for name in (host, *parents))

    def check(self, url: str) -> Address:
        """Check an address as far as it can be without looking it up.

        Raises:
            BadAddress: it is none that may be asked.
        """
        if len(url) > MAX_ADDRESS_CHARS or not _PRINTABLE.fullmatch(url) or "\\" in url:
            raise BadAddress(
                f"is not an address; 1 to {MAX_ADDRESS_CHARS} printable ASCII characters without "
                "spaces, others as %XX"
            )
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or HTTPS_PORT
        except ValueError:
            raise BadAddress("is not an address; https://HOST/PATH is one") from None
        if parts.scheme.lower() != "https":
            raise BadAddress("must begin with https://")
        if "@" in parts.netloc:
            raise BadAddress("must not hold a name or password")
        if not _NAME.fullmatch(host):
            raise BadAddress("must name its host by a full name, not by a number")
        if not self.has(host, port):
            raise BadAddress("is on a host that this server does not fetch from; send the file")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Address(host, port, target)


def is_public(address: str) -> bool:
    """Whether an IP address is that of a public host: nothing inside, special or in disguise."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and (ip.scope_id is not None or ip not in _IPV6_UNICAST):
        return False
    return ip.is_global and not any(ip in network for network in _SPECIAL_NETWORKS)
