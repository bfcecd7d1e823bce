"""A server known by the SHA-256 of its certificate: no authority, no name, that one certificate.

gRPC can not be told a pin. So the certificate is fetched first, over a connection of its own that
says nothing, and compared; then gRPC is told to trust that certificate alone. Who answers must
hold its private key, so nothing is gained by showing a copy of it.
"""

import hashlib
import hmac
import ssl
from dataclasses import dataclass
from typing import Any

from llavachat._deadline import Deadline, connect
from llavachat._wire.files import load_own_certificate
from llavachat._wire.status import tell_late
from llavachat.connection import Connection, split_address
from llavachat.errors import CannotConnect, CertificateRefused

CONNECT_SECONDS = 10.0
"""The longest that a server may take to show its certificate, where the call has longer."""


@dataclass(frozen=True, slots=True)
class PinnedServer:
    """What gRPC is told.

    Args:
        certificate: PEM; what alone is trusted.
        name: the name to expect, one of the certificate's own. None: the address's host, which
            is one of them.
    """

    certificate: bytes
    name: str | None


def fetch_pinned(connection: Connection, deadline: Deadline) -> PinnedServer:
    """Ask the server for its certificate, and let it through if the pin is its.

    Args:
        connection: where the server is, and its pin.
        deadline: of the call that needs it.

    Raises:
        CannotConnect: nothing answers there, or it does not speak TLS.
        DeadlineExceeded: there was no answer in time.
        CertificateRefused: it is another certificate, or one that can not be used.
        ConfigurationError: our own can not be used.
    """
    host, _ = split_address(connection.address)
    with _connect(connection, deadline, _any_context(connection)) as unchecked:
        der = unchecked.getpeercert(binary_form=True) or b""
    pin = f"sha256:{hashlib.sha256(der).hexdigest()}"
    if not any(hmac.compare_digest(pin, known) for known in connection.tls_pins):
        raise CertificateRefused(
            f"The server at {connection.address} shows a certificate with the pin {pin}, which is "
            "not the one in tls_pin. If its certificate was changed, ask whoever did; else "
            "somebody stands between."
        )
    pem = ssl.DER_cert_to_PEM_cert(der)
    with _connect(connection, deadline, _trusting_context(connection, pem)) as checked:
        shown: Any = checked.getpeercert()
    names = [name for _, name in shown.get("subjectAltName", ())]
    if not names:
        raise CertificateRefused(
            f"The certificate at {connection.address} holds no name (subjectAltName); gRPC can "
            "not use it."
        )
    fits = connection.tls_server_name is None and host in names
    return PinnedServer(pem.encode(), None if fits else connection.tls_server_name or names[0])


def _any_context(connection: Connection) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Whatever is shown is compared with the pin; nothing is sent before.
    context.verify_mode = ssl.CERT_NONE
    return _prepare(context, connection)


def _trusting_context(connection: Connection, pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pem)
    # The certificate itself is the anchor, whoever has signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return _prepare(context, connection)


def _prepare(context: ssl.SSLContext, connection: Connection) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_own_certificate(context, connection)
    return context


def _connect(connection: Connection, deadline: Deadline, context: ssl.SSLContext) -> ssl.SSLSocket:
    address = connection.address
    host, port = split_address(address)
    left_seconds = deadline.left_seconds
    try:
        plain = connect(host, port, min(left_seconds, CONNECT_SECONDS))
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise CertificateRefused(
            f"The certificate at {address} is the pinned one but can not be used: "
            f"{error.verify_message}."
        ) from None
    except ssl.SSLError:
        raise CannotConnect(
            f"No llavachat server answers at {address} (it does not speak TLS)."
        ) from None
    except OSError as error:
        if isinstance(error, TimeoutError) and left_seconds <= CONNECT_SECONDS:
            raise tell_late() from None
        raise CannotConnect(
            f"No llavachat server answers at {address} ({error.strerror or error})."
        ) from None
