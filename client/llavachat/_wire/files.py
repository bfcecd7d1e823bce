"""The files of a connection, PEM certificates and keys: read, and what is wrong in a sentence."""

import ssl
from pathlib import Path

from llavachat.connection import Connection
from llavachat.errors import ConfigurationError


def read_pem(name: str, path: Path | str | None) -> bytes | None:
    """A file's bytes; None for none.

    Args:
        name: of the argument that names the file.
        path: the file, perhaps with ~ for a user's folder.

    Raises:
        ConfigurationError: it can not be read.
    """
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        reason = error.strerror
    except (ValueError, RuntimeError):  # a NUL; ~ and the name of nobody
        reason = "its name is not a path"
    raise ConfigurationError(f"{name} {path} can not be read: {reason}.")


def load_own_certificate(context: ssl.SSLContext, connection: Connection) -> None:
    """Have a context show this client's certificate, where it has one.

    Raises:
        ConfigurationError: it can not be read, or is not of its key.
    """
    if connection.tls_cert_file is None or connection.tls_key_file is None:
        return
    try:
        context.load_cert_chain(
            Path(connection.tls_cert_file).expanduser(),
            Path(connection.tls_key_file).expanduser(),
            password="",
        )
    except (ssl.SSLError, ValueError):
        fault = "are not a PEM certificate and its unencrypted key"
    except (OSError, RuntimeError):
        fault = "can not be read"
    else:
        return
    raise ConfigurationError(
        f"tls_cert_file {connection.tls_cert_file} and tls_key_file {connection.tls_key_file} "
        f"{fault}."
    )
