"""The turnstile: bounded, fair between tenants, and true to its count when callers go."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.turnstile import LineFull, Turnstile


def turnstile(num_places: int = 3, per_tenant: int = 2, max_waiting: int = 4) -> Turnstile:
    """A small one."""
    return Turnstile(
        num_places,
        places_per_tenant=per_tenant,
        max_waiting=max_waiting,
        max_waiting_per_tenant=max_waiting - 1,
    )


async def come(gate: Turnstile, tenant: str, told: list[str]) -> "asyncio.Task[None]":
    """Somebody who has come to the gate; `told` gets the tenant's name on entering."""

    async def enter() -> None:
        await gate.enter(tenant)
        told.append(tenant)

    task = asyncio.create_task(enter())
    await asyncio.sleep(0)
    return task


async def test_a_tenant_can_not_take_all_places() -> None:
    """With two inside, a greedy tenant waits before a free place; its neighbour walks in."""
    gate, told = turnstile(), []
    for tenant in ("greedy", "greedy", "greedy", "neighbour"):
        await come(gate, tenant, told)
    assert ["greedy", "greedy", "neighbour"] == told


async def test_tenants_take_turns() -> None:
    """Who waits with one picture waits for the greedy's that is inside, and for no other."""
    gate, told = turnstile(num_places=1, per_tenant=1, max_waiting=9), []
    tasks = [await come(gate, tenant, told) for tenant in ("a", "a", "a", "b", "c")]
    for _ in range(4):
        gate.leave(told[-1])
        await asyncio.sleep(0)
    assert ["a", "b", "c", "a", "a"] == told
    assert all(task.done() for task in tasks)


async def test_the_line_is_bounded() -> None:
    """Neither one tenant nor all together can wait without end."""
    gate, told = turnstile(num_places=1, per_tenant=1), []
    tasks = [await come(gate, "a", told) for _ in range(4)]
    with pytest.raises(LineFull):
        await gate.enter("a")
    tasks.append(await come(gate, "b", told))
    with pytest.raises(LineFull):
        await gate.enter("c")
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("is_admitted", [False, True], ids=["waiting", "just admitted"])
async def test_a_caller_who_goes_leaves_no_gap(is_admitted: bool) -> None:
    """A place that was given to one who is gone goes to the next."""
    gate, told = turnstile(num_places=1, per_tenant=1), []
    await gate.enter("a")
    gone = await come(gate, "b", told)
    await come(gate, "c", told)
    if is_admitted:
        gate.leave("a")
        gone.cancel()
    else:
        gone.cancel()
        gate.leave("a")
    for _ in range(3):
        await asyncio.sleep(0)
    assert ["c"] == told


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "leave", "go"]))))
def test_the_count_stays_true(steps: list[tuple[str, str]]) -> None:
    """Whatever the order: never too many inside, and nobody waits before a place he may have."""

    async def play() -> None:
        gate, told = turnstile(max_waiting=99), []
        tasks: list[tuple[str, asyncio.Task[None]]] = []
        inside: Counter[str] = Counter()
        for tenant, step in steps:
            if step == "come":
                tasks.append((tenant, await come(gate, tenant, told)))
            elif step == "leave" and inside[tenant]:
                gate.leave(tenant)
                inside[tenant] -= 1
            elif step == "go":
                waiting = [task for name, task in tasks if name == tenant and not task.done()]
                for task in waiting[:1]:
                    task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
            inside.update(told)
            told.clear()
            waiters = {name for name, task in tasks if not task.done()}
            assert inside.total() <= 3
            assert max(inside.values(), default=0) <= 2
            assert inside.total() == 3 or all(inside[name] == 2 for name in waiters)
        for _, task in tasks:
            task.cancel()

    asyncio.run(play())
