"""Where the server is and how to speak to it: one frozen value, checked when it is made.

Pure: it opens no file and no socket, and knows no gRPC.
"""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from llavachat.errors import ConfigurationError

DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_PORT = 50051
DEFAULT_TIMEOUT_SECONDS = 300.0
"""Longer than a server lets one turn take; a call that hangs still ends."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Room for several pictures of the server's largest size (10 MiB) in one request."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Stands for what was no UTF-8, as on a command line; gRPC can not take it."""
_METADATA_KEY = re.compile(r"[0-9A-Za-z_.-]+")
"""Source: gRPC over HTTP2, "Custom-Metadata"."""
_INT32_MAX = 2**31 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


def parse_address(address: str) -> str:
    """Complete an address: "host", "host:port", "[ipv6]:port", "ipv6" or "unix:/path".

    Returns:
        What gRPC connects to, with the port filled in.

    Raises:
        ConfigurationError: it is empty, a URL, or its port is not 1 to 65535.
    """
    form = 'give HOST or HOST:PORT, such as "localhost:50051"'
    text = address.strip()
    if not text:
        raise ConfigurationError(f"The server's address is empty; {form}.")
    if _SURROGATE.search(text):
        raise ConfigurationError(f"{address!r} is not a server's address; {form}.")
    if text.startswith("unix:"):
        return text
    if "://" in text or "/" in text or any(character.isspace() for character in text):
        raise ConfigurationError(f"{address!r} is not a server's address; {form}.")
    host, port = _split_port(text)
    if not host:
        raise ConfigurationError(f"{address!r} names no host; {form}.")
    if port is None:
        return f"{host}:{DEFAULT_PORT}"
    # Of thousands of digits Python makes no number.
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ConfigurationError(f"{port!r} is not a port in {address!r}; ports are 1 to 65535.")
    return f"{host}:{int(port)}"


def is_loopback(address: str) -> bool:
    """True when a parsed address can only be this very machine."""
    if address.startswith("unix:"):
        return True
    host = _split_port(address)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_timeout(timeout_seconds: float) -> float:
    """Let a deadline through: over 0, `math.inf` for none.

    Returns:
        The deadline as a float, whatever kind of number it was.

    Raises:
        ConfigurationError: it is 0, negative or not a number.
    """
    is_number = _is_number(timeout_seconds)
    seconds = _to_seconds(timeout_seconds) if is_number else timeout_seconds
    if not (is_number and seconds > 0):
        raise ConfigurationError(
            f"timeout_seconds is {seconds!r}; it must be a number of seconds over 0 "
            "(math.inf for no deadline)."
        )
    return seconds


def _is_number(value: object) -> bool:
    # numpy's are real numbers too; True is none.
    return isinstance(value, Real) and not isinstance(value, bool)


def _to_seconds(value: float) -> float:
    # gRPC takes none of numpy's but float64.
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def find_metadata_fault(metadata: object) -> str | None:
    """Why gRPC would not send this, in words without the values, which may be secrets. None: it
    would."""
    if not isinstance(metadata, Mapping):
        return "metadata must be a mapping of keys to values"
    for key, value in metadata.items():
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            return f"metadata's key {key!r} must be of ASCII letters, digits, -, _ and ."
        if key.lower().endswith("-bin"):
            if not isinstance(value, bytes):
                return f"metadata's {key} must be bytes, as that of any key that ends in -bin"
        elif not (isinstance(value, str) and value.isascii() and value.isprintable()):
            return f"metadata's {key} must be printable ASCII"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the server is and how to speak to it.

    Args:
        address: "host:port"; without a port, 50051. IPv6 in brackets; "unix:/path" works too.
        api_key: sent as ``authorization: Bearer KEY`` with every call. Refused without TLS,
            except to this very machine or with `allow_insecure`.
        tls: encrypt. None: yes when a certificate below is given, else no.
        tls_ca_file: PEM of the authority that signed the server's certificate. None: the
            authorities that come with gRPC.
        tls_cert_file, tls_key_file: PEM of this client's own certificate, for mutual TLS.
        tls_server_name: the name to expect in the server's certificate, where it is not the
            address's host (behind a tunnel, say).
        tls_pin: "sha256:" and the SHA-256 of the server's certificate in hexadecimal, or several
            of them with commas between: trust this certificate and no other, whatever its name
            and whoever signed it. ``llavachat-server certs self-signed`` prints it.
        timeout_seconds: the deadline of a call that names none; `math.inf` for none.
        metadata: sent with every call, such as ``{"traceparent": "00-..."}``; text, but bytes
            under a key that ends in "-bin".
        max_message_bytes: the largest message either way.
        keepalive_seconds: how long a silent connection is trusted before it is probed.
        resume_seconds: how long an answer whose connection was lost is tried to go on with; 0
            does not try.
        restart_seconds: how long a question that has not begun is asked again while a server that
            was there before is away, and what is read while the server sends as much as it may to
            the same user; 0 does not try. None: as `resume_seconds`.
        allow_insecure: send the key in clear text. For networks that encrypt by other means.

    Raises:
        ConfigurationError: a value, or their combination, can not work.
    """

    address: str = DEFAULT_ADDRESS
    api_key: str | None = field(default=None, repr=False)
    tls: bool | None = None
    tls_ca_file: Path | str | None = None
    tls_cert_file: Path | str | None = None
    tls_key_file: Path | str | None = None
    tls_server_name: str | None = None
    tls_pin: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    max_message_bytes: int = MAX_MESSAGE_BYTES
    keepalive_seconds: float = 30.0
    resume_seconds: float = 60.0
    restart_seconds: float | None = None
    allow_insecure: bool = False

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "address", parse_address(self.address))
        if self.tls_pin == "":
            object.__setattr__(self, "tls_pin", None)
        certificates = (
            self.tls_ca_file,
            self.tls_cert_file,
            self.tls_server_name,
            self.tls_pin,
        )
        if self.tls is None:
            object.__setattr__(self, "tls", any(certificates))
        if not self.tls and any(certificates):
            raise ConfigurationError("tls is off, but TLS files or a TLS name were given.")
        if self.tls_pin is not None:
            parse_pins(self.tls_pin)
            if self.tls_ca_file is not None:
                raise ConfigurationError("tls_pin and tls_ca_file are two ways; give one of them.")
            if self.address.startswith("unix:"):
                raise ConfigurationError("A unix socket is this very machine and needs no tls_pin.")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigurationError(
                "A client certificate needs both tls_cert_file and tls_key_file."
            )
        if self.api_key is not None and not (
            self.api_key and self.api_key.isascii() and self.api_key.isprintable()
        ):
            raise ConfigurationError("The API key must be printable ASCII, and not empty.")
        if self.api_key and not (self.tls or self.allow_insecure or is_loopback(self.address)):
            raise ConfigurationError(
                f"The API key would travel to {self.address} in clear text; use tls=True, or "
                "allow_insecure=True where the network itself is encrypted."
            )
        if fault := find_metadata_fault(self.metadata):
            raise ConfigurationError(f"{fault}.")
        object.__setattr__(self, "timeout_seconds", check_timeout(self.timeout_seconds))
        for name in ("keepalive_seconds", "resume_seconds", "restart_seconds"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _to_seconds(value))
        if not 1024 <= self.max_message_bytes <= _INT32_MAX:
            raise ConfigurationError(f"max_message_bytes must be 1024 to {_INT32_MAX:,}.")
        if not 1 <= self.keepalive_seconds < math.inf:
            raise ConfigurationError("keepalive_seconds must be 1 or more, and finite.")
        if not 0 <= self.resume_seconds < math.inf:
            raise ConfigurationError("resume_seconds must be 0 (never) or more, and finite.")
        if self.restart_seconds is not None and not 0 <= self.restart_seconds < math.inf:
            raise ConfigurationError("restart_seconds must be 0 (never) or more, and finite.")

    def _check_kinds(self) -> None:
        for name in ("address", "api_key", "tls_server_name", "tls_pin"):
            value = getattr(self, name)
            if not (isinstance(value, str) or (value is None and name != "address")):
                # Not its value: a key may have come as bytes.
                raise ConfigurationError(f"{name} must be text, not {type(value).__name__}.")
        for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str | os.PathLike)):
                raise ConfigurationError(f"{name} must be a path, not {type(value).__name__}.")
        for name in ("max_message_bytes", "keepalive_seconds", "resume_seconds", "restart_seconds"):
            value = getattr(self, name)
            if not (_is_number(value) or (value is None and name == "restart_seconds")):
                raise ConfigurationError(f"{name} is {value!r}; it must be a number.")

    @property
    def patience_seconds(self) -> float:
        """How long to ask again for a server that was there before."""
        return self.resume_seconds if self.restart_seconds is None else self.restart_seconds

    @property
    def tls_pins(self) -> tuple[str, ...]:
        """The pins in one form: "sha256:" and 64 lower-case digits each."""
        return parse_pins(self.tls_pin) if self.tls_pin is not None else ()


def parse_pins(text: str) -> tuple[str, ...]:
    """Pins, in our form or as openssl prints fingerprints, a comma between them.

    Raises:
        ConfigurationError: one of them is no SHA-256.
    """
    pins = []
    for word in text.split(","):
        scheme, colon, digits = word.strip().partition(":")
        if scheme.lower() != "sha256" or not colon:
            digits = word.strip()
        digits = digits.replace(":", "").lower()
        if not _SHA256.fullmatch(digits):
            raise ConfigurationError(
                f"tls_pin is {text!r}; it must be sha256: and the 64 hexadecimal digits of the "
                "certificate's SHA-256."
            )
        pins.append(f"sha256:{digits}")
    return tuple(pins)


def split_address(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port of a parsed address."""
    host, port = _split_port(address)
    return host.strip("[]"), int(port or DEFAULT_PORT)


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `Connection` that an environment sets; "" counts as not set.

    Reads LLAVACHAT_ADDRESS, LLAVACHAT_API_KEY, LLAVACHAT_TLS, LLAVACHAT_TLS_CA_FILE,
    LLAVACHAT_TLS_CLIENT_CERT_FILE, LLAVACHAT_TLS_CLIENT_KEY_FILE, LLAVACHAT_TLS_SERVER_NAME,
    LLAVACHAT_TLS_PIN, LLAVACHAT_TIMEOUT_SECONDS and LLAVACHAT_ALLOW_INSECURE.

    Raises:
        ConfigurationError: a value is not of its kind.
    """
    arguments: dict[str, Any] = {
        name: environment[variable]
        for variable, name in _TEXTS.items()
        if environment.get(variable)
    }
    for variable, name in _SWITCHES.items():
        if environment.get(variable):
            arguments[name] = _parse_switch(variable, environment[variable])
    seconds = environment.get("LLAVACHAT_TIMEOUT_SECONDS")
    if seconds:
        try:
            arguments["timeout_seconds"] = float(seconds)
        except ValueError:
            raise ConfigurationError(
                f"LLAVACHAT_TIMEOUT_SECONDS is {seconds!r}; it must be a number of seconds."
            ) from None
    return arguments


_TEXTS = {
    "LLAVACHAT_ADDRESS": "address",
    "LLAVACHAT_API_KEY": "api_key",
    "LLAVACHAT_TLS_CA_FILE": "tls_ca_file",
    "LLAVACHAT_TLS_CLIENT_CERT_FILE": "tls_cert_file",
    "LLAVACHAT_TLS_CLIENT_KEY_FILE": "tls_key_file",
    "LLAVACHAT_TLS_SERVER_NAME": "tls_server_name",
    "LLAVACHAT_TLS_PIN": "tls_pin",
}
_SWITCHES = {"LLAVACHAT_TLS": "tls", "LLAVACHAT_ALLOW_INSECURE": "allow_insecure"}


def _parse_switch(variable: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ConfigurationError(f"{variable} is {value!r}; it must be 1 or 0.")


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host + bracket, rest[1:] if rest else None
    if text.count(":") > 1:
        return f"[{text}]", None
    host, colon, port = text.partition(":")
    return host, port if colon else None
