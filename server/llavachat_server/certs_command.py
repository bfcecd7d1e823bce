"""``llavachat-server certs self-signed --name NAME``: a certificate for a private network.

It writes ``tls.crt`` and ``tls.key`` and prints the client's pin, alone on stdout. Exit codes:
0 done, 1 could not be done, 2 wrong use.
"""

import argparse
import hashlib
import ipaddress
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from llavachat_server.drafts import draft_of
from llavachat_server.output import NotSaid, describe, say

_BACKDATED = timedelta(hours=1)
"""Clocks of a private network need not agree to the minute."""
_MAX_NAME_CHARS = 253
_MAX_COMMON_NAME_CHARS = 64


class _CanNot(Exception):
    """It can not be done; one sentence."""


def run(words: Sequence[str]) -> int:
    """Do what the command line says.

    Args:
        words: the command line after ``certs``.

    Returns:
        The exit code.
    """
    options = _build_parser().parse_args(words)
    try:
        return _make(options)
    except _CanNot as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
    except NotSaid as error:
        print(f"llavachat-server: the pin could not be written: {error}", file=sys.stderr)  # noqa: T201
    except OSError as error:
        print(f"llavachat-server: {describe(error)}", file=sys.stderr)  # noqa: T201
    return 1


def build_certificate(
    names: Sequence[str], addresses: Sequence[str], days: int
) -> tuple[bytes, bytes, bytes]:
    """Make a key and a certificate that it signs itself.

    Args:
        names: DNS names that it is for, one or more.
        addresses: IP addresses that it is for.
        days: how long it lasts.

    Returns:
        PEM of the certificate, PEM of the key, and the certificate's DER.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_MAX_COMMON_NAME_CHARS])]
    )
    now = datetime.now(UTC)
    others: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    others += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        # It vouches for itself and can not vouch for others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return certificate.public_bytes(serialization.Encoding.PEM), private, der


def format_pin(der: bytes) -> str:
    """What a client is given to know a certificate by."""
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def _make(options: argparse.Namespace) -> int:
    cert_file, key_file = options.folder / "tls.crt", options.folder / "tls.key"
    present = [path for path in (cert_file, key_file) if path.exists()]
    if present and not options.replace:
        raise _CanNot(f"{present[0]} is there already; give --replace to replace it")
    certificate, private, der = build_certificate(options.name, options.ip, options.days)
    options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path, data, mode in ((key_file, private, 0o600), (cert_file, certificate, 0o644)):
        with draft_of(path, mode) as draft:
            draft.write(data)
    pin = format_pin(der)
    say(pin)
    print(  # noqa: T201
        f"This is the pin of {cert_file}, which lasts {options.days} days. Serve with "
        f"--tls-cert-file {cert_file} --tls-key-file {key_file}; connect with "
        f"LLAVACHAT_TLS_PIN={pin}, or with {cert_file} itself as LLAVACHAT_TLS_CA_FILE.",
        file=sys.stderr,
    )
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llavachat-server certs",
        description="Make a certificate for a network that no public authority knows.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(required=True, metavar="self-signed")
    make = actions.add_parser("self-signed", help="write tls.crt and tls.key, print the pin")
    make.add_argument(
        "--name",
        action="append",
        required=True,
        type=_name,
        metavar="NAME",
        help="DNS name of the server; may be repeated",
    )
    make.add_argument(
        "--ip",
        action="append",
        default=[],
        type=_address,
        metavar="ADDRESS",
        help="IP address of the server; may be repeated",
    )
    make.add_argument(
        "--days", type=_days, default=825, metavar="N", help="how long it lasts (default: 825)"
    )
    make.add_argument(
        "--folder", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)"
    )
    make.add_argument("--replace", action="store_true", help="put it in the place of another")
    return parser


def _name(text: str) -> str:
    labels = text.split(".")
    if len(text) > _MAX_NAME_CHARS or not all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "").isalnum()
        for label in labels
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is no DNS name, such as llavachat.internal")
    return text.lower()


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from error


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 3650):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: 1 to 3650")
    return int(text)
