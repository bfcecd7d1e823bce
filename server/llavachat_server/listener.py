"""The open port: a gRPC server with its limits, and the address that it listens on.

It must not know what is served.
"""

import socket
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import grpc
import grpc.aio

from llavachat_server.network import explain_refusal, read_networks, split_address
from llavachat_server.observation import FloodAction
from llavachat_server.ops.health import CHAT_SERVICE
from llavachat_server.profiles import Profile
from llavachat_server.rpc.floods import FloodLimits, Floods
from llavachat_server.rpc.limits import MAX_RUNNING_CALLS, channel_arguments
from llavachat_server.rpc.sockets import Sockets
from llavachat_server.rpc.tls import BadCertificate, Certificates
from llavachat_server.settings import Settings


class ListenError(Exception):
    """The port can not be opened so; one sentence for the operator."""


def make_server(
    settings: Settings, profile: Profile, interceptors: Sequence[grpc.aio.ServerInterceptor]
) -> grpc.aio.Server:
    """A server with every limit of the transport, and reflection where it is switched on.

    Args:
        settings: how to serve.
        profile: what to serve; its pictures bound the messages.
        interceptors: stand before every call, the first one first.
    """
    server = grpc.aio.server(
        interceptors=list(interceptors),
        options=channel_arguments(
            max_image_bytes=profile.image_limits.max_bytes,
            max_images=profile.max_images_per_turn,
            max_prompt_chars=profile.max_prompt_chars,
        ),
        maximum_concurrent_rpcs=MAX_RUNNING_CALLS,
    )
    if settings.reflection:
        from grpc_health.v1 import health_pb2
        from grpc_reflection.v1alpha import reflection

        names = (
            CHAT_SERVICE,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, server)
    return server


def bind(server: grpc.aio.Server, settings: Settings) -> str:
    """Open the port, with TLS where there is a certificate.

    Returns:
        The address that was bound.

    Raises:
        ListenError: the address is taken, or the certificate can not be used.
    """
    listen = settings.listen
    if listen.startswith("unix:"):
        _check_unanswered(listen)
    try:
        credentials = _read_credentials(settings)
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except BadCertificate as error:
        raise ListenError(str(error)) from error
    except RuntimeError as error:
        why = explain_refusal(listen)
        raise ListenError(f"listen: {listen!r} can not be opened; {why}") from error
    if listen.startswith("unix:"):
        return listen
    return f"{listen.rpartition(':')[0]}:{port}"


def make_floods(settings: Settings, observe: Callable[[FloodAction, int], None]) -> Floods:
    """Who counts calls that come to nothing.

    Args:
        settings: how many may.
        observe: is told of what is done.
    """
    limits = FloodLimits(
        settings.max_spoilt_calls_per_second,
        settings.flood_block_seconds,
        read_networks(settings.flood_exempt),
    )
    return Floods(limits, observe)


async def watch_floods(floods: Floods, address: str) -> None:
    """Send away who floods the port, until this is cancelled.

    Args:
        floods: knows who does.
        address: that was bound.
    """
    # Whoever comes by a unix socket has no address, and is on this machine.
    if not address.startswith("unix:"):
        await floods.act(Sockets(split_address(address)[1]))


def _check_unanswered(listen: str) -> None:
    """Let a unix socket's path through if nobody answers there.

    gRPC takes a socket's file away before it makes its own, and would so cut a running server off
    from its callers. One that a dead server left behind has to go.

    Raises:
        ListenError: somebody answers, or that can not be known.
    """
    # As gRPC reads it: with or without slashes before the path, and percent signs in it.
    path = unquote(listen.removeprefix("unix:").removeprefix("//"))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            # So many wait to be taken in that we could not even wait behind them.
            pass
        except OSError as error:
            why = error.strerror or str(error)
            raise ListenError(f"listen: {listen!r} can not be opened: {why}") from error
    raise ListenError(f"listen: {listen!r} can not be opened; another program uses it")


def _read_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    certificates = Certificates(
        settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    )
    return certificates.make_credentials()
