"""A gRPC status into the error that stands for it, google.rpc details read from the trailer."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from llavachat.errors import (
    ERRORS_BY_STATUS,
    CannotConnect,
    ContextFull,
    DeadlineExceeded,
    FieldViolation,
    LimitReached,
    ServerFailed,
    ServerUnavailable,
    StatusDetails,
    StatusError,
    UnknownFailure,
)
from llavachat.v1 import error_details_pb2

DETAILS_KEY = "grpc-status-details-bin"

_COUNTS = re.compile(r"\((\d+) text, (\d+) image(?:, (\d+) history)?\)\D*?holds (\d+)")
# What gRPC itself says when no connection came about.
_NO_CONNECTION = re.compile(
    r"failed to connect to all addresses|DNS resolution failed|Name resolution failure"
    r"|Domain name not found|address lookup failed|empty address list",
    re.IGNORECASE,
)
# What gRPC's last error means for the one who called, most telling words first.
_MEANINGS = (
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is signed by an authority unknown here"),
    ("Hostname Verification", "its certificate is for another name"),
    ("is not in peer certificate", "its certificate is for another name"),
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate"),
    ("Connection refused", "connection refused"),
    ("Socket closed", "it closed the connection at once; perhaps it wants TLS, or has too many"),
)
# What gRPC itself refuses at the server, before llavachat sees it; a size here, too.
_UNPACKS_TOO_LARGE = "Decompressed message larger than max"
_TOO_LARGE = re.compile(r"(?:Received|Sent) message larger than max \((\d+) vs\. (\d+)\)")
_TOO_MUCH_METADATA = re.compile(r"metadata size exceeds|received initial metadata size")
# What gRPC's asyncio says where a refusal overtook a request that was still being sent.
_BROKEN_WRITE = "Internal error from Core"
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
_TOO_MANY_PINGS = "Too many pings"
# What gRPC itself says of a stream that a proxy ended when it lost the server behind it: nginx by
# RST_STREAM, HAProxy and Caddy in good order but without a status.
_CUT = re.compile(r"Stream removed|RST_STREAM|END_STREAM flag received|No status received")
# And of an answer that was whole before the request was, by which nginx refuses one that is too
# large for it, and any while it does not reach the server; gRPC's asyncio loses its HTTP status.
_OVERTAKEN = re.compile(r"END_STREAM.*RST_STREAM with error code 0\b")
_BY_HTTP = re.compile(r"Received http2 header with status: (\d+)")
_TOO_LARGE_BY_HTTP = "413"
_NOT_REACHED_BY_HTTP = ("502", "503", "504")
_MADE_ON_THE_WAY = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""What gRPC makes of a stream that is cut: by itself they say nothing of the server."""
_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
_POLICY = "allow OVERFLOW_POLICY_DROP_OLDEST_TURNS"
_POLICY_HERE = "give overflow=OverflowPolicy.DROP_OLDEST_TURNS"
"""What the contract names, in this library's words."""
_LAST_ERROR = re.compile(r"last error: \w+: (?:[\w.:\[\]%-]+: )?(.+?)\)?$")


def read_status(
    code: grpc.StatusCode,
    message: str | None,
    trailers: Iterable[tuple[str, str | bytes]] | None,
    *,
    address: str,
) -> StatusError:
    """The error for a status that is not OK.

    Args:
        code: the status.
        message: what came with it, from the server or from gRPC itself.
        trailers: the call's trailing metadata.
        address: where the call went, for the sentence about a failed connection.
    """
    code, details, from_server = _read_details(code, message or "", trailers or ())
    if not from_server and (by_http := _BY_HTTP.search(details.message)):
        if by_http[1] == _TOO_LARGE_BY_HTTP:
            text = "Something between here and the server refuses a message of this size."
            return LimitReached(text, details)
        if by_http[1] in _NOT_REACHED_BY_HTTP:
            text = f"A proxy at {address} does not reach the server."
            return ServerUnavailable(text, details)
    is_cut = code in _MADE_ON_THE_WAY and _CUT.search(details.message)
    if (code is grpc.StatusCode.UNAVAILABLE or is_cut) and not from_server:
        return _read_unavailable(details, address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not from_server:
        return tell_late(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not from_server:
        return LimitReached(_explain_limit(details.message), details)
    if code is grpc.StatusCode.INTERNAL and details.message == _BROKEN_WRITE:
        text = "The server ended the call before it had the whole request, perhaps for its key."
        return ServerFailed(text, details)
    text = _sentence(details.message) or f"The server answered {code.name}."
    text = _add_violations(text, details)
    if any(kind == "CONTEXT_FULL" for kind, _, _ in details.preconditions):
        return _read_context_full(text, details)
    return ERRORS_BY_STATUS.get(code.name, UnknownFailure)(text, details)


def read_rpc_error(error: grpc.RpcError, *, address: str) -> StatusError:
    """The error for a call that failed; sync and async calls say the same in the same words."""
    call: Any = error
    return read_status(call.code(), call.details(), call.trailing_metadata(), address=address)


def tell_late(details: StatusDetails | None = None) -> DeadlineExceeded:
    """The error for a deadline that passed here, whether gRPC noticed or we did."""
    return DeadlineExceeded("The answer did not come within timeout_seconds.", details)


def _read_details(
    code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]]
) -> tuple[grpc.StatusCode, StatusDetails, bool]:
    """The code, what came with it, and whether that is the server's word."""
    status = error_details_pb2.ErrorStatus()
    packed = next((value for key, value in trailers if key == DETAILS_KEY), None)
    if not isinstance(packed, bytes):
        return code, StatusDetails(message=message), False
    try:
        status.ParseFromString(packed)
        told = _CODES.get(status.code, code)
        if code in _MADE_ON_THE_WAY and told is not code:
            # A proxy that gives a refusal on cuts the request that was still coming, and gRPC takes
            # that for the end.
            code, message = told, status.message
        found: dict[str, Any] = {"message": message or status.message}
        for detail in status.details:
            name = detail.type_url.rpartition(".")[2]
            if name in _READERS:
                _READERS[name](detail.value, found)
    except DecodeError:
        return code, StatusDetails(message=message), True
    return code, StatusDetails(**found), True


def _read_bad_request(value: bytes, found: dict[str, Any]) -> None:
    detail = error_details_pb2.BadRequest.FromString(value)
    found["violations"] = tuple(
        FieldViolation(item.field, item.description, item.reason)
        for item in detail.field_violations
    )


def _read_precondition_failure(value: bytes, found: dict[str, Any]) -> None:
    detail = error_details_pb2.PreconditionFailure.FromString(value)
    found["preconditions"] = tuple(
        (item.type, item.subject, item.description) for item in detail.violations
    )


def _read_retry_info(value: bytes, found: dict[str, Any]) -> None:
    detail = error_details_pb2.RetryInfo.FromString(value)
    found["retry_after_seconds"] = detail.retry_delay.ToTimedelta().total_seconds()


def _read_resource_info(value: bytes, found: dict[str, Any]) -> None:
    detail = error_details_pb2.ResourceInfo.FromString(value)
    found["resource"] = (detail.resource_type, detail.resource_name)


def _read_quota_failure(value: bytes, found: dict[str, Any]) -> None:
    detail = error_details_pb2.QuotaFailure.FromString(value)
    found["quotas"] = tuple(item.description for item in detail.violations)
    found["quota_subjects"] = tuple(item.subject for item in detail.violations)


_READERS: dict[str, Callable[[bytes, dict[str, Any]], None]] = {
    "BadRequest": _read_bad_request,
    "PreconditionFailure": _read_precondition_failure,
    "RetryInfo": _read_retry_info,
    "ResourceInfo": _read_resource_info,
    "QuotaFailure": _read_quota_failure,
}


def _read_unavailable(details: StatusDetails, address: str) -> ServerUnavailable:
    if _NO_CONNECTION.search(details.message):
        reason = _explain(details.message)
        shown = f" ({reason})" if reason else ""
        return CannotConnect(f"No llavachat server answers at {address}{shown}.", details)
    if _TOO_MANY_PINGS in details.message:
        text = (
            f"The connection to {address} was lost: the server was asked too often whether it is "
            "still there; raise keepalive_seconds."
        )
        return ServerUnavailable(text, details)
    if _OVERTAKEN.search(details.message):
        text = (
            f"The connection to {address} was lost, or something between here and the server "
            "refuses a message of this size."
        )
        return ServerUnavailable(text, details)
    lost = "Socket closed" in details.message or "reset" in details.message.lower()
    if lost or "GOAWAY" in details.message or _CUT.search(details.message):
        return ServerUnavailable(f"The connection to {address} was lost.", details)
    text = _sentence(details.message) or f"The server at {address} is not available."
    return ServerUnavailable(text, details)


def _explain(message: str) -> str:
    for sign, meaning in _MEANINGS:
        if sign in message:
            return meaning
    reason = _LAST_ERROR.search(message)
    return reason[1].rstrip(".") if reason else ""


def _explain_limit(message: str) -> str:
    if sizes := _TOO_LARGE.search(message):
        size, limit = (int(number) for number in sizes.groups())
        return f"A message of {size:,} bytes is over the limit of {limit:,}; send less at a time."
    if _UNPACKS_TOO_LARGE in message:
        return "The message is over the server's limit once it is unpacked; send less at a time."
    if _TOO_MUCH_METADATA.search(message):
        # What gRPC says here of an answer; of a call it is the server who says it.
        if "Stream removed" in message:
            return "The server's answer came with more metadata than can be taken."
        return "The call's metadata is too large; send less of it."
    if _TOO_MANY_CALLS in message:
        return "The server answers as many calls as it can; try again."
    return _sentence(message) or "The server is at one of its limits."


def _read_context_full(text: str, details: StatusDetails) -> ContextFull:
    descriptions = " ".join(description for _, _, description in details.preconditions)
    counts = _COUNTS.search(descriptions) or _COUNTS.search(details.message)
    numbers = [int(number or 0) for number in counts.groups()] if counts else [None] * 4
    return ContextFull(
        text.replace(_POLICY, _POLICY_HERE),
        details,
        text_tokens=numbers[0],
        image_tokens=numbers[1],
        history_tokens=numbers[2],
        context_tokens=numbers[3],
    )


def _add_violations(text: str, details: StatusDetails) -> str:
    """Name the wrong fields, where the server's sentence does not."""
    missing = [
        f"{item.field}: {item.description}"
        for item in details.violations
        if item.description and item.description.rstrip(".") not in text
    ]
    return f"{text} {_sentence('; '.join(missing), capital=False)}" if missing else text


def _sentence(text: str, *, capital: bool = True) -> str:
    text = " ".join(text.split())
    if not text:
        return ""
    # A field's name at the beginning stays as it is spelt.
    first = text.split(maxsplit=1)[0].rstrip(",")
    if capital and first.isalpha():
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."
