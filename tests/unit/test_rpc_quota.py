"""Limits of a key: counted exactly, told with their name, and nobody else's business."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from app_in_process import PATIENCE_SECONDS
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.rpc.auth import Key, KeyRing, Scope, hash_secret
from llavachat_server.rpc.gate import Gate, GateState
from llavachat_server.rpc.quota import Bucket, Quota, Quotas
from llavachat_server.rpc.status import Refusal


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


def read_details(refusal: Refusal | None) -> tuple[str, float]:
    """The limit's subject, and the seconds to wait."""
    assert refusal is not None
    assert StatusCode.RESOURCE_EXHAUSTED is refusal.code
    status = status_pb2.Status.FromString(refusal.trailing_metadata()[0][1])
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    assert status.details[0].Unpack(retry)
    assert status.details[1].Unpack(quota)
    return quota.violations[0].subject, retry.retry_delay.ToTimedelta().total_seconds()


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=60),
)
def test_no_more_goes_out_than_came_in(per_minute: int, steps: list[tuple[float, int]]) -> None:
    """Over any time: at most a minute's worth at once and then the rate."""
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    taken = 0
    for pause, amount in steps:
        clock.now += pause
        if bucket.seconds_until(amount) == 0:
            bucket.take(amount)
            taken += amount
    elapsed = clock.now - 1000.0
    assert taken <= per_minute * (1 + elapsed / 60) + 1e-6


@given(per_minute=st.integers(1, 1000), amount=st.integers(1, 1000))
def test_waiting_as_long_as_told_is_enough(per_minute: int, amount: int) -> None:
    """RetryInfo keeps its word."""
    amount = min(amount, per_minute)
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    bucket.take(per_minute)
    clock.now += bucket.seconds_until(amount) + 1e-6
    assert 0 == bucket.seconds_until(amount)


def test_each_limit_refuses_by_its_name() -> None:
    """And with the time after which the next call passes."""
    clock = Clock()
    quota = Quota(Key("anna", b"", frozenset(), 2, 600, 1), clock)
    assert quota.admit(generates=True) is None
    assert ("key:anna/max_concurrent", 1.0) == read_details(quota.admit(generates=True))
    quota.leave()
    assert quota.admit(generates=True) is None
    quota.leave()
    assert ("key:anna/requests_per_minute", 30.0) == read_details(quota.admit(generates=True))
    clock.now += 30
    quota.charge(700)
    subject, seconds = read_details(quota.admit(generates=True))
    assert ("key:anna/tokens_per_minute", 10.1) == (subject, round(seconds, 6))
    assert quota.admit(generates=False) is None


def test_turns_count_that_nobody_follows() -> None:
    """Not beside the call that follows them, not once they have ended, not in their own chat."""
    quota = Quota(Key("anna", b"", frozenset(), max_concurrent=2), Clock())
    turns = [SimpleNamespace(chat_id=name, is_over=False, is_followed=True) for name in "ab"]
    for turn in turns:
        assert quota.admit(generates=True) is None
        assert quota.admit_turn() is None
        quota.note_turn(turn)
    for turn in turns:
        quota.leave()
        turn.is_followed = False
    assert quota.admit(generates=True) is None
    assert ("key:anna/max_concurrent", 1.0) == read_details(quota.admit_turn())
    assert quota.admit_turn("a") is None
    turns[1].is_over = True
    assert quota.admit_turn() is None


def test_a_turn_that_has_no_chat_yet_counts_as_well() -> None:
    """Who leaves while pictures are decoded has not found a way around the limit."""
    quota = Quota(Key("anna", b"", frozenset(), max_concurrent=1), Clock())
    assert quota.admit(generates=True) is None
    quota.note_turn(SimpleNamespace(chat_id="", is_over=False, is_followed=False))
    expected = ("key:anna/max_concurrent", 1.0)
    assert [expected] * 2 == [read_details(quota.admit_turn(chat)) for chat in (None, "a")]


def test_a_call_of_before_is_charged_to_the_limits_of_now() -> None:
    """A changed limit holds while calls run that came under the old one; one that is gone, not."""
    quotas = Quotas(Clock())
    old = Key("anna", hash_secret("1"), tokens_per_minute=100)
    new = Key("anna", hash_secret("1"), tokens_per_minute=10)
    assert quotas.of(old).admit(generates=True) is None
    assert quotas.of(new).admit(generates=True) is None
    quotas.charge(old, 10)
    subject, seconds = read_details(quotas.of(new).admit(generates=True))
    assert ("key:anna/tokens_per_minute", 6.0) == (subject, seconds)
    quotas.forget(KeyRing([]))
    quotas.charge(old, 10)
    assert quotas.of(new).admit(generates=True) is None


def test_keys_do_not_share_their_limits() -> None:
    """One key's greed costs the other nothing; a changed limit holds at once."""
    quotas = Quotas(Clock())
    anna = Key("anna", hash_secret("1"), requests_per_minute=1)
    ben = Key("ben", hash_secret("2"), requests_per_minute=1)
    assert quotas.of(anna).admit(generates=True) is None
    assert quotas.of(anna).admit(generates=True) is not None
    assert quotas.of(ben).admit(generates=True) is None

    wider = Key("anna", hash_secret("1"), requests_per_minute=5)
    assert quotas.of(wider).admit(generates=True) is None
    assert 2 == quotas.of(wider).num_running
    quotas.forget(KeyRing([ben]))
    assert 0 == quotas.of(wider).num_running


def test_a_call_leaves_the_limits_that_admitted_it() -> None:
    """Wider ones have taken its place over; those of a key that is back know nothing of it."""
    quotas = Quotas(Clock())
    key = Key("anna", hash_secret("1"), max_concurrent=1)
    ending = quotas.of(key)
    assert ending.admit(generates=True) is None
    wider = Key("anna", hash_secret("1"), max_concurrent=2)
    assert quotas.of(wider).admit(generates=True) is None
    ending.leave()
    assert 1 == quotas.of(wider).num_running
    quotas.forget(KeyRing([]))
    assert quotas.of(key).admit(generates=True) is None
    ending.leave()
    assert 1 == quotas.of(key).num_running


async def test_a_call_that_ends_late_does_not_leave_for_another() -> None:
    """Whose key was revoked and is back; who reads figures by that key leaves its own as well."""
    key = Key("anna", hash_secret("1"), frozenset({Scope.CHAT, Scope.METRICS}))
    rings = [KeyRing([key])]
    gate = Gate(lambda: rings[-1])
    gate.state = GateState.OPEN
    is_revoked, may_end = asyncio.Event(), asyncio.Event()

    async def answer(_: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        is_revoked.set()
        await may_end.wait()

    details: Any = SimpleNamespace(
        method="/llavachat.v1.ChatService/ListChats",
        invocation_metadata=(("authorization", "Bearer 1"),),
    )
    call = asyncio.create_task(gate.intercept_service(answer, details))
    await asyncio.wait({call}, timeout=0)
    try:
        with gate.reading_figures("Bearer 1") as refusal:
            assert refusal is None
            assert 2 == gate.quotas.of(key).num_running
            rings.append(KeyRing([]))
            gate.end_revoked()
            rings.append(rings[0])
            with gate.reading_figures("Bearer 1"):
                await asyncio.wait_for(is_revoked.wait(), PATIENCE_SECONDS)
                may_end.set()
                await asyncio.wait({call})
                # Its callbacks come after it.
                await asyncio.sleep(0)
                assert 1 == gate.quotas.of(key).num_running
        assert 0 == gate.quotas.of(key).num_running
    finally:
        # It takes no cancellation: the event loop would wait for it without an end.
        may_end.set()
