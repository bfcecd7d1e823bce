"""Errors told better by what the connection knows: whether a key was sent, and who answers at the
other addresses of a name.

gRPC tries every address of a name and tells of the last one alone, at random: of a server that
listens at 127.0.0.1 and does not speak TLS, "localhost" as often says that ::1 refused.
"""

import ipaddress
import socket
import ssl

from llavachat._deadline import connect
from llavachat.connection import Connection, split_address
from llavachat.errors import AuthenticationFailed, CannotConnect, StatusError

PROBE_SECONDS = 1.0
"""The longest that all addresses together are asked, and a handshake is waited for."""

_REFUSED = "Connection refused"
_AUTHORIZATION = "authorization"


def tell_key(error: StatusError, connection: Connection) -> StatusError:
    """Say of a refused key whether there was one; other errors as they are."""
    if not isinstance(error, AuthenticationFailed):
        return error
    # A key that was given as metadata is the caller's own business.
    if all(item.field != _AUTHORIZATION for item in error.details.violations):
        return error
    sent = connection.api_key
    text = "The server does not know this key." if sent else "The server wants a key."
    return AuthenticationFailed(text, error.details)


def is_doubtful(error: StatusError, connection: Connection) -> bool:
    """True for a refusal that may be another address's than the server's."""
    if not isinstance(error, CannotConnect) or _REFUSED not in error.details.message:
        return False
    if connection.address.startswith("unix:"):
        return False
    try:
        ipaddress.ip_address(split_address(connection.address)[0])
    except ValueError:
        return True  # a name
    return False


def look_closer(error: StatusError, connection: Connection) -> StatusError:
    """Say of a doubtful refusal what does answer; for as long as `PROBE_SECONDS` and a look-up."""
    host, port = split_address(connection.address)
    try:
        plain = connect(host, port, PROBE_SECONDS)
    except OSError:
        return error
    reason = _REASONS[bool(connection.tls), _speaks_tls(plain, host)]
    text = f"No llavachat server answers at {connection.address} ({reason})."
    return CannotConnect(text, error.details)


_REASONS = {
    (True, True): "its certificate is not trusted here, or it asks for a client certificate",
    (True, False): "it does not speak TLS",
    (False, True): "it wants TLS",
    (False, False): "something takes connections there, but no calls",
}
"""By whether we speak TLS, and whether they do."""


def _speaks_tls(plain: socket.socket, host: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is said to whoever it is.
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with plain:
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except OSError:
            return False
    return True
