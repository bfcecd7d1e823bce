"""Visual chat you own: the client.

::

    from llavachat import Client

    with Client("localhost:50051") as client:
        with client.start("cat.jpg", "What is this?") as reply:
            for text in reply:
                print(text, end="", flush=True)
        print(reply.chat.ask("And behind it?").read())

Names are imported when they are first used: ``llavachat.v1`` and the command line's ``--help``
need not wait for gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llavachat.aio import AsyncChat, AsyncClient, AsyncReply
    from llavachat.chat import Chat
    from llavachat.client import Client
    from llavachat.errors import (
        ArchiveError,
        AuthenticationFailed,
        CallCancelled,
        CannotConnect,
        CertificateRefused,
        ConfigurationError,
        ContextFull,
        DataLost,
        DeadlineExceeded,
        FieldViolation,
        ImageError,
        IncompleteReply,
        InvalidRequest,
        LimitReached,
        LlavaChatError,
        NotFound,
        NotStartedYet,
        NotSupported,
        OutOfRange,
        PermissionDenied,
        PreconditionFailed,
        RequestIdReused,
        ServerFailed,
        ServerUnavailable,
        StatusDetails,
        StatusError,
        TurnRunning,
        UnknownFailure,
    )
    from llavachat.images import Images, ImageSource, Picture, load_picture
    from llavachat.reply import Reply
    from llavachat.types import (
        ChatRecord,
        ContextTrimmed,
        Delta,
        Event,
        ExportFormat,
        Finished,
        FinishReason,
        ImageInfo,
        Limits,
        ModelInfo,
        OverflowPolicy,
        Params,
        Queued,
        ReplayChange,
        ReplayVerdict,
        ServerInfo,
        Started,
        Timings,
        TokenCount,
        Turn,
        TurnState,
        Usage,
    )

__all__ = [
    "ArchiveError",
    "AsyncChat",
    "AsyncClient",
    "AsyncReply",
    "AuthenticationFailed",
    "CallCancelled",
    "CannotConnect",
    "CertificateRefused",
    "Chat",
    "ChatRecord",
    "Client",
    "ConfigurationError",
    "ContextFull",
    "ContextTrimmed",
    "DataLost",
    "DeadlineExceeded",
    "Delta",
    "Event",
    "ExportFormat",
    "FieldViolation",
    "FinishReason",
    "Finished",
    "ImageError",
    "ImageInfo",
    "ImageSource",
    "Images",
    "IncompleteReply",
    "InvalidRequest",
    "LimitReached",
    "Limits",
    "LlavaChatError",
    "ModelInfo",
    "NotFound",
    "NotStartedYet",
    "NotSupported",
    "OutOfRange",
    "OverflowPolicy",
    "Params",
    "PermissionDenied",
    "Picture",
    "PreconditionFailed",
    "Queued",
    "ReplayChange",
    "ReplayVerdict",
    "Reply",
    "RequestIdReused",
    "ServerFailed",
    "ServerInfo",
    "ServerUnavailable",
    "Started",
    "StatusDetails",
    "StatusError",
    "Timings",
    "TokenCount",
    "Turn",
    "TurnRunning",
    "TurnState",
    "UnknownFailure",
    "Usage",
    "load_picture",
]

_HOMES = {
    "llavachat.aio": ("AsyncChat", "AsyncClient", "AsyncReply"),
    "llavachat.chat": ("Chat",),
    "llavachat.client": ("Client",),
    "llavachat.errors": (
        "ArchiveError",
        "AuthenticationFailed",
        "CallCancelled",
        "CannotConnect",
        "CertificateRefused",
        "ConfigurationError",
        "ContextFull",
        "DataLost",
        "DeadlineExceeded",
        "FieldViolation",
        "ImageError",
        "IncompleteReply",
        "InvalidRequest",
        "LimitReached",
        "LlavaChatError",
        "NotFound",
        "NotStartedYet",
        "NotSupported",
        "OutOfRange",
        "PermissionDenied",
        "PreconditionFailed",
        "RequestIdReused",
        "ServerFailed",
        "ServerUnavailable",
        "StatusDetails",
        "StatusError",
        "TurnRunning",
        "UnknownFailure",
    ),
    "llavachat.images": ("ImageSource", "Images", "Picture", "load_picture"),
    "llavachat.reply": ("Reply",),
    "llavachat.types": (
        "ChatRecord",
        "ContextTrimmed",
        "Delta",
        "Event",
        "ExportFormat",
        "FinishReason",
        "Finished",
        "ImageInfo",
        "Limits",
        "ModelInfo",
        "OverflowPolicy",
        "Params",
        "Queued",
        "ReplayChange",
        "ReplayVerdict",
        "ServerInfo",
        "Started",
        "Timings",
        "TokenCount",
        "Turn",
        "TurnState",
        "Usage",
    ),
}
_HOME_BY_NAME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("llavachat")
        except PackageNotFoundError:
            return "0"
    if name not in _HOME_BY_NAME:
        raise AttributeError(f"module 'llavachat' has no attribute {name!r}")
    value = getattr(import_module(_HOME_BY_NAME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_BY_NAME])
