"""Calls that fail, health, and keys: what tests of the service over a socket share."""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from app_in_process import RunningApp
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (anext(aiter(call)) if hasattr(call, "__aiter__") else call)
    return caught.value


async def end(replies: Any) -> grpc.aio.AioRpcError:
    """The error that a stream ends with, whatever comes before it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [reply async for reply in replies]
    return caught.value


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    """The google.rpc details of an error."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            found = []
            for box in status_pb2.Status.FromString(value).details:
                kind = getattr(error_details_pb2, box.type_url.rpartition(".")[2])()
                assert box.Unpack(kind)
                found.append(kind)
            return found
    return []


async def health(app: RunningApp, service: str = "") -> int:
    """What a health check says."""
    stub = health_pb2_grpc.HealthStub(app.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


def write_keys(folder: Path, **keys: str) -> str:
    """A file of keys, one for each tenant; its path."""
    path = folder / "keys"
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The header that carries a key."""
    return (("authorization", f"Bearer {key}"),)


def violation(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """The field that a refusal names, and what would be right."""
    (refusal,) = details(error)
    assert isinstance(refusal, error_details_pb2.BadRequest)
    return refusal.field_violations[0].field, refusal.field_violations[0].description
