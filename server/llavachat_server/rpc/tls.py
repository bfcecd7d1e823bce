"""The server's certificate, read again whenever its files change: for gRPC's port, and for HTTP's.

Contract: the next connection gets the new certificate and open ones go on; files that do not
belong together or can not be read, as in the middle of a change, are not taken up, and are tried
again at each connection. gRPC speaks TLS 1.2 and 1.3 and nothing older. It must not know what is
served.
"""

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from llavachat_server.rpc.stamp import Stamp, read_stamp

log = logging.getLogger("llavachat")

_Stamps = tuple[Stamp | None, ...]
_Read = TypeVar("_Read")


class BadCertificate(Exception):
    """The files can not be used; one sentence for the operator."""


class Certificates:
    """A certificate, its key, and perhaps the authority behind the clients' certificates.

    Args:
        cert_file: PEM of the chain, the server's own certificate first.
        key_file: PEM of its private key, not encrypted.
        client_ca_file: PEM of the authority whose certificates clients must show. None: they
            need none.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._lock = threading.Lock()
        self._stamps: _Stamps = ()
        """Of the files that are in use."""
        self._trouble = ""
        """Why the files of now are not, as it was logged last."""

    def make_credentials(self) -> grpc.ServerCredentials:
        """What to listen with.

        Raises:
            BadCertificate: the files can not be used.
        """
        self._stamps = self._look()
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._fetch,  # type: ignore[arg-type] # None is allowed, by gRPC's documentation
            require_client_authentication=self._client_ca_file is not None,
        )

    def make_context(self) -> ssl.SSLContext:
        """The same for a listener that is not gRPC's. The clients' authority is read once.

        Raises:
            BadCertificate: the files can not be used.
        """
        self._stamps = self._look()
        context = self._read_context()

        def renew(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            nonlocal context
            context = self._renew(self._read_context) or context
            connection.context = context

        context.sni_callback = renew
        return context

    def _read_context(self) -> ssl.SSLContext:
        check_pair(self._cert_file, self._key_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert_file, self._key_file)
        if self._client_ca_file is not None:
            _check_authority(self._client_ca_file)
            context.load_verify_locations(self._client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next connection gets; None: what the last one got.

        gRPC asks on threads of its own, before each handshake.
        """
        with self._lock:
            return self._renew(self._read)

    def _renew(self, read: Callable[[], _Read]) -> _Read | None:
        """What the files hold if they have changed since they were read; None: the same as then."""
        stamps = self._look()
        if stamps == self._stamps:
            self._trouble = ""
            return None
        try:
            found = read()
        except BadCertificate as error:
            # Once, and not at each connection until somebody sees to it.
            if str(error) != self._trouble:
                self._trouble = str(error)
                fields = {"why": self._trouble}
                log.error("the certificate of before stays in use", extra={"fields": fields})
            return None
        # Not before: chown and chmod let a file be read, and leave its stamp as it is.
        self._stamps, self._trouble = stamps, ""
        log.info("certificate changed")
        return found

    def _look(self) -> _Stamps:
        return tuple(read_stamp(path) for path in self._paths())

    def _paths(self) -> list[Path]:
        given = (self._cert_file, self._key_file, self._client_ca_file)
        return [path for path in given if path is not None]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        check_pair(self._cert_file, self._key_file)
        authority = self._client_ca_file
        if authority is not None:
            _check_authority(authority)
        try:
            return grpc.ssl_server_certificate_configuration(
                [(self._key_file.read_bytes(), self._cert_file.read_bytes())],
                root_certificates=authority.read_bytes() if authority is not None else None,
            )
        except OSError as error:
            raise BadCertificate(f"{error.filename}: {error.strerror}") from error


def check_pair(cert_file: Path, key_file: Path) -> None:
    """Let a certificate and its key through.

    Raises:
        BadCertificate: they can not be read, or do not belong together.
    """
    # gRPC itself would take any bytes, and fail at each connection without saying why.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        raise BadCertificate(
            f"{cert_file} and {key_file} are not a PEM certificate and its unencrypted key"
        ) from error
    except OSError as error:
        raise BadCertificate(f"{cert_file} or {key_file}: {error.strerror}") from error


def _check_authority(path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise BadCertificate(f"{path} holds no PEM certificate") from error
    except OSError as error:
        raise BadCertificate(f"{path}: {error.strerror}") from error
