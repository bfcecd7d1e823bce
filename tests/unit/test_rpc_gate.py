"""The gate by itself: who counts as having a key, and when no call is left."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from llavachat_server.rpc.auth import Key, KeyRing, hash_secret
from llavachat_server.rpc.gate import Gate, GateState

METHOD = "/llavachat.v1.ChatService/ListChats"


def come(*headers: tuple[str, str | bytes]) -> Any:
    """A call with these headers, as gRPC tells of it."""
    return SimpleNamespace(method=METHOD, invocation_metadata=headers)


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ([("authorization", "Bearer 1")], True),
        ([("authorization", "Bearer 1"), ("authorization", "Bearer 1")], False),
        ([("authorization", "Bearer 1"), ("authorization", "Bearer 2")], False),
        ([("authorization", "Bearer 2"), ("authorization", "Bearer 1")], False),
        ([("authorization", b"Bearer 1")], False),
        ([], False),
    ],
)
async def test_a_key_comes_in_one_header(
    headers: list[tuple[str, str | bytes]], *, is_let_in: bool
) -> None:
    """Of two, a proxy and the server could each believe another one."""
    ring = KeyRing([Key("anna", hash_secret("1"))])
    gate = Gate(lambda: ring)
    gate.state = GateState.OPEN
    entered: list[object] = []

    async def enter(details: object) -> None:
        entered.append(details)

    call = come(*headers)
    await asyncio.create_task(gate.intercept_service(enter, call))
    assert ([call] if is_let_in else []) == entered


RESUME = "/llavachat.v1.ChatService/ResumeTurn"


@pytest.mark.parametrize("has_served", [True, False])
async def test_turns_are_followed_until_the_last_has_ended(*, has_served: bool) -> None:
    """A server that stops lets their readers in; never one that had not begun to serve."""
    gate = Gate(lambda: None)
    gate.state = GateState.OPEN if has_served else GateState.STARTING
    entered: list[str] = []

    async def enter(details: Any) -> None:
        entered.append(details.method)

    async def call_both() -> None:
        for method in (METHOD, RESUME):
            call = SimpleNamespace(method=method, invocation_metadata=())
            await asyncio.create_task(gate.intercept_service(enter, call))  # type: ignore[arg-type]

    gate.stop()
    await call_both()
    gate.close()
    await call_both()
    assert ([RESUME] if has_served else []) == entered


async def test_a_call_amid_the_quiet_makes_it_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came and went within the moment says that another may be on its way."""
    gate = Gate(lambda: None)
    gate.state = GateState.OPEN
    num_moments = 0

    async def answer(_: object) -> None:
        return None

    async def pass_moment(_: float) -> None:
        nonlocal num_moments
        num_moments += 1
        if num_moments < 3:
            call = asyncio.create_task(gate.intercept_service(answer, come()))
            await asyncio.wait({call})

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", pass_moment)
        await gate.wait_until_idle(60.0)
    assert 3 == num_moments
