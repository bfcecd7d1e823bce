"""The tree of errors, and how a gRPC status finds its class."""

import inspect

import grpc
import llavachat
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat import errors
from llavachat._wire.status import DETAILS_KEY, read_status
from llavachat.v1 import error_details_pb2

ADDRESS = "gpu.example:50051"


def read(code, message="", *details):
    """The error for a status with google.rpc details, as a server sends them."""
    status = error_details_pb2.ErrorStatus(code=code.value[0], message=message)
    for detail in details:
        name = f"type.googleapis.com/google.rpc.{type(detail).__name__}"
        status.details.append(AnyMessage(type_url=name, value=detail.SerializeToString()))
    trailers = ((DETAILS_KEY, status.SerializeToString()),) if details else ()
    return read_status(code, message, trailers, address=ADDRESS)


def all_classes():
    """Every error class of the module."""
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.LlavaChatError)
    ]


def test_every_status_has_a_class():
    """A status that gRPC adds one day must be given a class before this passes again."""
    expected = {code.name for code in grpc.StatusCode} - {"OK"}
    assert expected == set(errors.ERRORS_BY_STATUS)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_a_status_is_raised_as_its_class(code):
    """The class that is raised carries the name of its status."""
    error = read(code, "something happened")
    assert code.name == error.status
    assert isinstance(error, errors.ERRORS_BY_STATUS[code.name])


def test_the_drawn_tree_is_the_real_tree():
    """The module's docstring draws every class under its real parent, with its real status."""
    lines = [
        line for line in errors.__doc__.splitlines() if "──" in line or "LlavaChatError" in line
    ]
    drawn, path = {}, []
    for line in lines:
        name = line.strip("│├└─ ").split()[0]
        depth = (len(line) - len(line.lstrip(" │├└─"))) // 4 - 1
        path[max(depth, 0) :] = [name]
        drawn[name] = path[max(depth, 0) - 1] if depth > 0 else None
    real = {cls.__name__: cls.__mro__[1].__name__ for cls in all_classes()}
    real["LlavaChatError"] = None
    assert real == drawn
    for cls in all_classes():
        if getattr(cls, "status", ""):
            line = next(line for line in lines if f" {cls.__name__} " in line)
            assert cls.status in line


def test_all_errors_are_exported():
    """`from llavachat import X` works for each of them."""
    expected = {cls.__name__ for cls in all_classes()}
    assert expected <= set(llavachat.__all__)


def test_wrong_fields_are_told():
    """BadRequest becomes violations, and the sentence names what the server's does not."""
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="params.top_p", description="must be over 0 and at most 1, not 2.0"
    )
    detail = error_details_pb2.BadRequest(field_violations=[violation])
    error = read(grpc.StatusCode.INVALID_ARGUMENT, "the request is wrong", detail)
    assert (
        errors.FieldViolation("params.top_p", "must be over 0 and at most 1, not 2.0"),
    ) == error.violations
    assert "The request is wrong. params.top_p: must be over 0 and at most 1, not 2.0." == str(
        error
    )


def test_a_sentence_that_names_the_field_is_not_repeated():
    """The server's usual message holds the violation already."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="prompt", description="is blank")
    detail = error_details_pb2.BadRequest(field_violations=[violation])
    error = read(grpc.StatusCode.INVALID_ARGUMENT, "prompt: is blank", detail)
    assert "prompt: is blank." == str(error)


def test_a_full_context_tells_its_counts():
    """PreconditionFailure of type CONTEXT_FULL is a class of its own, with numbers."""
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="CONTEXT_FULL",
        subject="context",
        description="the prompt has 5000 tokens (4424 text, 576 image) and the model's context "
        "holds 4096",
    )
    detail = error_details_pb2.PreconditionFailure(violations=[violation])
    error = read(grpc.StatusCode.FAILED_PRECONDITION, "the context is full", detail)
    assert isinstance(error, errors.ContextFull)
    assert (4424, 576, 4096) == (error.text_tokens, error.image_tokens, error.context_tokens)


def test_a_full_context_names_the_librarys_own_switch():
    """The server names the contract's."""
    values = pytest.importorskip("llavachat_server.values")
    status = pytest.importorskip("llavachat_server.rpc.status")
    full = values.ContextFull(12, 34, 40, 5, can_drop=True)
    refusal = status.ROWS[values.ContextFull](full)
    packed = error_details_pb2.ErrorStatus(message=refusal.message)
    for detail in refusal.details:
        packed.details.add().Pack(detail)
    trailers = ((DETAILS_KEY, packed.SerializeToString()),)
    error = read_status(refusal.code, refusal.message, trailers, address=ADDRESS)
    assert "give overflow=OverflowPolicy.DROP_OLDEST_TURNS, or start" in str(error)


def test_a_full_context_matches_the_servers_words():
    """The server's own error, word for word, gives the counts."""
    values = pytest.importorskip("llavachat_server.values")
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="CONTEXT_FULL", description=str(values.ContextFull(12, 34, 40, 5))
    )
    detail = error_details_pb2.PreconditionFailure(violations=[violation])
    error = read(grpc.StatusCode.FAILED_PRECONDITION, "full", detail)
    assert (12, 34, 5, 40) == (
        error.text_tokens,
        error.image_tokens,
        error.history_tokens,
        error.context_tokens,
    )


def test_retry_after_is_told():
    """RetryInfo becomes seconds."""
    detail = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    error = read(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is full", detail)
    assert isinstance(error, errors.LimitReached)
    assert 2.5 == error.retry_after_seconds
    assert "The server is full." == str(error)


def test_what_was_not_found_is_told():
    """ResourceInfo becomes (kind, id)."""
    detail = error_details_pb2.ResourceInfo(resource_type="chat", resource_name="c-1")
    error = read(grpc.StatusCode.NOT_FOUND, "there is no such chat", detail)
    assert ("chat", "c-1") == error.details.resource


def test_no_connection_names_the_address():
    """gRPC's own words for a closed port become one sentence."""
    error = read(
        grpc.StatusCode.UNAVAILABLE,
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
        "Failed to connect to remote host: Connection refused",
    )
    assert isinstance(error, errors.CannotConnect)
    assert "No llavachat server answers at gpu.example:50051 (connection refused)." == str(error)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("UNKNOWN: ipv4:1.2.3.4:1: Something new", "(Something new)"),
        ("UNAVAILABLE: ipv4:1.2.3.4:1: Socket closed", "perhaps it wants TLS"),
        ("UNKNOWN: Tls handshake failed: ... WRONG_VERSION_NUMBER", "does not speak TLS"),
    ],
)
def test_why_there_is_no_connection_is_told(last, expected):
    """In words for the caller where they are known, in gRPC's where they are not."""
    message = f"failed to connect to all addresses; last error: {last}"
    assert expected in str(read(grpc.StatusCode.UNAVAILABLE, message))


def test_a_lost_connection_is_not_a_closed_port():
    """A connection that breaks is ServerUnavailable, and nothing narrower."""
    error = read(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    assert errors.ServerUnavailable is type(error)
    assert "The connection to gpu.example:50051 was lost." == str(error)


CUT_BY_NGINX = "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"
CUT_BY_HAPROXY = "Stream removed (Data frame with END_STREAM flag received)"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.INTERNAL, CUT_BY_NGINX),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.CANCELLED, CUT_BY_NGINX.replace("2", "8")),
        (grpc.StatusCode.UNAVAILABLE, CUT_BY_NGINX.replace("2", "7")),
        (grpc.StatusCode.UNKNOWN, CUT_BY_HAPROXY),
        (grpc.StatusCode.UNKNOWN, "No status received"),
    ],
)
def test_a_stream_that_a_proxy_cut_is_a_lost_connection(code, message):
    """Whatever status gRPC makes of it."""
    error = read(code, message)
    assert errors.ServerUnavailable is type(error)
    assert "The connection to gpu.example:50051 was lost." == str(error)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.CANCELLED, "Locally cancelled by application!"),
        (grpc.StatusCode.INTERNAL, "the model failed on this question"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, CUT_BY_NGINX.replace("2", "11")),
    ],
)
def test_other_ends_are_no_lost_connection(code, message):
    """What was cancelled here, what a server said, and who sends too much are not asked again."""
    assert errors.ERRORS_BY_STATUS[code.name] is type(read(code, message))


def test_what_a_server_says_is_no_lost_connection():
    """Its details tell that they are its own words, whatever these are."""
    detail = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1))
    assert errors.ServerFailed is type(read(grpc.StatusCode.INTERNAL, CUT_BY_NGINX, detail))


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN]
)
def test_a_refusal_that_was_cut_on_the_way_is_what_the_server_said(code):
    """The code and the words of its details, where gRPC's own were made of a cut request."""
    status = error_details_pb2.ErrorStatus(code=16, message="no such key")
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    error = read_status(code, "Received RST_STREAM with error code 8", trailers, address=ADDRESS)
    assert errors.AuthenticationFailed is type(error)
    assert "No such key." == str(error)


def test_what_a_proxy_refuses_for_its_size_is_told():
    """nginx takes 1 MB by default; asking again would not help."""
    error = read(grpc.StatusCode.UNKNOWN, "Received http2 header with status: 413")
    assert (errors.LimitReached, None) == (type(error), error.retry_after_seconds)
    assert "Something between here and the server refuses a message of this size." == str(error)


def test_an_answer_that_overtook_its_request_says_what_it_may_be():
    """gRPC's asyncio does not tell nginx's 413 from its 502."""
    message = f"{CUT_BY_HAPROXY} ({CUT_BY_NGINX.replace('2', '0')})"
    error = read(grpc.StatusCode.UNKNOWN, message)
    assert errors.ServerUnavailable is type(error)
    assert "or something between here and the server refuses a message" in str(error)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_does_not_reach_its_server_is_told(status):
    """As what it is, and not as a status of HTTP."""
    error = read(grpc.StatusCode.UNAVAILABLE, f"Received http2 header with status: {status}")
    assert errors.ServerUnavailable is type(error)
    assert "A proxy at gpu.example:50051 does not reach the server." == str(error)


def test_a_deadline_is_a_timeout_error():
    """Code that catches TimeoutError catches ours."""
    error = read(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert isinstance(error, TimeoutError)


@settings(deadline=None)
@given(st.sampled_from(list(grpc.StatusCode)), st.text(), st.binary())
def test_no_trailer_breaks_the_reading(code, message, packed):
    """Whatever a server sends as details, an error comes out, and it has words."""
    error = read_status(code, message, ((DETAILS_KEY, packed),), address=ADDRESS)
    assert str(error)


@settings(deadline=None)
@given(st.binary())
def test_no_detail_breaks_the_reading(value):
    """A detail of a known name with unknown content is passed over."""
    status = error_details_pb2.ErrorStatus()
    for name in ("BadRequest", "RetryInfo", "PreconditionFailure", "QuotaFailure", "ResourceInfo"):
        status.details.append(AnyMessage(type_url=f"x/google.rpc.{name}", value=value))
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    assert str(read_status(grpc.StatusCode.INTERNAL, "failed", trailers, address=ADDRESS))


def test_a_connection_that_was_asked_too_often_says_what_to_change():
    """gRPC's two words for it tell nobody which setting is meant."""
    error = read(grpc.StatusCode.UNAVAILABLE, "Too many pings")
    assert isinstance(error, errors.ServerUnavailable)
    assert "raise keepalive_seconds" in str(error)


def test_a_refusal_that_overtook_its_request_is_told_in_words():
    """gRPC's asyncio calls it an internal error, of its own."""
    error = read(grpc.StatusCode.INTERNAL, "Internal error from Core")
    assert isinstance(error, errors.ServerFailed)
    expected = "The server ended the call before it had the whole request, perhaps for its key."
    assert expected == str(error)
