"""The gate before every method: is the server ready, and may this caller in?

Contract: everything is refused unless the table of access lets it through. A refused call is
ended before its body is read: it is answered as a stream of requests whose first one is never
asked for. A key that is revoked ends its running calls, and a server that stops those that would
not end by themselves: each with its status. How each call ended is told to whoever watches.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from llavachat_server.observation import TRACE, CallReport, TraceContext
from llavachat_server.rpc.access import HEALTH_WATCH, RULES, Rule, is_health
from llavachat_server.rpc.auth import CALLER, OPEN_TENANT, TENANT, Key, KeyRing, Scope
from llavachat_server.rpc.call import Call, Handler, abort, dropping_frames
from llavachat_server.rpc.incoming import make_walks
from llavachat_server.rpc.limits import MAX_HEALTH_WATCHES
from llavachat_server.rpc.notes import NOTES, CallNotes
from llavachat_server.rpc.places import Places
from llavachat_server.rpc.quota import QUOTA, Quotas
from llavachat_server.rpc.status import (
    TOO_MANY_WATCHES,
    UNAUTHENTICATED,
    UNKNOWN_METHOD,
    Refusal,
    not_in_scope,
    retry,
)

_STARTING = retry(grpc.StatusCode.UNAVAILABLE, "the server is starting", 2.0, reason="starting")
_STOPPING = retry(grpc.StatusCode.UNAVAILABLE, "the server is stopping", 5.0, reason="stopping")
_QUIET_SECONDS = 0.1


class GateState(Enum):
    """What the gate does with calls."""

    STARTING = "starting"
    OPEN = "open"
    STOPPING = "stopping"


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls in.

    Args:
        find_keys: who may call at this moment; None lets everybody in, as one tenant.
        rules: how each method is guarded; what is not there is refused.
        observe: gets a report of each call that has ended; it must not raise.
        on_spoilt: gets the connection, as gRPC names it, of each call that had no readable request
            or no known key; it must not raise.
    """

    def __init__(
        self,
        find_keys: Callable[[], KeyRing | None],
        rules: Mapping[str, Rule] = RULES,
        observe: Callable[[CallReport], None] = lambda _: None,
        on_spoilt: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = GateState.STARTING
        self._drains = False
        self.quotas = Quotas()
        self._find_keys = find_keys
        self._rules = rules
        self._observe = observe
        self._on_spoilt = on_spoilt
        self._tasks: set[asyncio.Task[Any]] = set()
        self._places = Places()
        self._walks = make_walks()
        self._num_arrived = 0
        self._num_watches = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Let one call through, or put a refusal in its handler's place."""
        method = handler_call_details.method
        task = asyncio.current_task()
        assert task is not None
        TRACE.set(_read_trace(handler_call_details))
        notes = CallNotes(method if method in self._rules else "", TRACE.get())
        NOTES.set(notes)
        task.add_done_callback(lambda _: self._observe(notes.report()))
        if is_health(method):
            key, answer = None, self._judge_health(method, task)
        else:
            self._count(task)
            key, answer = self._judge(handler_call_details)
        if answer is not None:
            return self._refuse(answer)
        call = Call(
            key, self._rules[method], task, self._places.take_request, self._on_spoilt, self._walks
        )
        self._enter(call, task)
        TENANT.set(OPEN_TENANT if key is None else key.tenant)
        CALLER.set(key)
        handler = await continuation(handler_call_details)
        notes.is_stream = handler is not None and handler.response_streaming
        return call.wrap(handler)

    def end_revoked(self) -> None:
        """End the calls of keys that are no more, or do not open their method any more."""
        ring = self._find_keys()
        if ring is None:
            return
        for call in self._places.list_calls():
            if call.rule.scopes is None:
                continue
            key = None if call.key is None else ring.get(call.key.sha256)
            if key is None or not _opens(key, call.rule):
                call.end(UNAUTHENTICATED)
        self.quotas.forget(ring)

    def stop(self) -> None:
        """Let nothing begin any more, and end the calls whose requests have not come.

        Those of turns that run are let in until `close`; see `Rule.drains`.
        """
        # One that never served has no turns, and nothing yet that could answer.
        self._drains = self.state is GateState.OPEN
        self.state = GateState.STOPPING
        for call in self._places.list_waiting():
            # Who asks for the server's health learns that it does not serve.
            if call.rule.scopes is not None and not self._lets_in(call.rule):
                call.end(_STOPPING)

    def close(self) -> None:
        """Let nobody in any more: no turn runs."""
        self._drains = False

    def end_left(self) -> None:
        """End the calls that still run, whatever they wait for; health watches among them."""
        for call in self._places.list_calls():
            call.end(_STOPPING)

    @contextmanager
    def reading_figures(self, authorization: str) -> Iterator[Refusal | None]:
        """Let somebody read the server's figures, who does not come by gRPC.

        Args:
            authorization: the header's value; "" where there was none.

        Yields:
            What is refused and why; None lets it pass.
        """
        ring = self._find_keys()
        if ring is None:
            yield None
            return
        key = ring.find(authorization)
        if key is None:
            yield UNAUTHENTICATED
            return
        if Scope.METRICS not in key.scopes:
            yield not_in_scope("metrics", [Scope.METRICS.value])
            return
        quota = self.quotas.of(key)
        if (answer := quota.admit(generates=False)) is not None:
            yield answer
            return
        try:
            yield None
        finally:
            quota.leave()

    async def wait_until_idle(self, max_seconds: float) -> None:
        """Wait until every call has got its status and none has come for a moment.

        gRPC ends what it has not handed over, or not finished, when it closes as CANCELLED.

        Args:
            max_seconds: no longer than this.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(max_seconds):
                num_seen = -1
                while self._tasks or num_seen != self._num_arrived:
                    num_seen = self._num_arrived
                    if self._tasks:
                        await asyncio.wait(self._tasks)
                    await asyncio.sleep(_QUIET_SECONDS)

    def _judge(self, details: grpc.HandlerCallDetails) -> tuple[Key | None, Refusal | None]:
        """Whose call it is, and what it is refused with, if it is."""
        ring, key = self._find_keys(), None
        if ring is not None:
            key = _find_key(ring, details)
            if key is None:
                return None, UNAUTHENTICATED
        rule = self._rules.get(details.method)
        if rule is None:
            return key, UNKNOWN_METHOD
        if key is not None and not _opens(key, rule):
            return key, not_in_scope(details.method, [s.value for s in rule.scopes or ()])
        if self.state is GateState.STARTING:
            return key, _STARTING
        if self.state is GateState.STOPPING and not self._lets_in(rule):
            return key, _STOPPING
        if key is None:
            return None, None
        if (answer := self._places.refuse(key.tenant)) is not None:
            return key, answer
        return key, self.quotas.of(key).admit(generates=rule.generates)

    def _lets_in(self, rule: Rule) -> bool:
        """Whether a server that stops lets such calls in."""
        return self._drains and rule.drains

    def _judge_health(self, method: str, task: "asyncio.Task[Any]") -> Refusal | None:
        if method not in self._rules:
            return UNKNOWN_METHOD
        if method == HEALTH_WATCH:
            # They need no key and never end, and so would in time take every call's place.
            if self._num_watches >= MAX_HEALTH_WATCHES:
                return TOO_MANY_WATCHES
            self._num_watches += 1
            task.add_done_callback(self._forget_watch)
        return None

    def _refuse(self, refusal: Refusal) -> Handler:
        async def end(_: AsyncIterator[Any], context: Any) -> None:
            if refusal in (UNAUTHENTICATED, UNKNOWN_METHOD):
                self._on_spoilt(context.peer())
            with dropping_frames():
                await abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(end)

    def _forget_watch(self, _: "asyncio.Task[Any]") -> None:
        self._num_watches -= 1

    def _count(self, task: "asyncio.Task[Any]") -> None:
        # gRPC answers each call, from here to its status, in one task.
        self._num_arrived += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _enter(self, call: Call, task: "asyncio.Task[Any]") -> None:
        # That has just admitted it. Of a key that is back there may be another when it leaves.
        quota = None if call.key is None else self.quotas.of(call.key)

        def leave(_: "asyncio.Task[Any]") -> None:
            self._places.leave(call)
            if quota is not None:
                quota.leave()

        self._places.enter(call)
        QUOTA.set(quota)
        task.add_done_callback(leave)


def _find_key(ring: KeyRing, details: grpc.HandlerCallDetails) -> Key | None:
    header = _read_header(details, "authorization")
    return None if header is None else ring.find(header)


def _read_trace(details: grpc.HandlerCallDetails) -> TraceContext | None:
    parent = _read_header(details, "traceparent")
    if parent is None:
        return None
    return TraceContext.parse(parent, _read_header(details, "tracestate") or "")


def _read_header(details: grpc.HandlerCallDetails, name: str) -> str | None:
    """A header that came once, as text."""
    values = [value for key, value in details.invocation_metadata if key == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _opens(key: Key, rule: Rule) -> bool:
    return rule.scopes is None or bool(rule.scopes & key.scopes)
