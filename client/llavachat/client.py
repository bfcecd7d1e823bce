"""The client for threads. Its twin for asyncio is `llavachat.aio.AsyncClient`."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from llavachat._channel import Channel
from llavachat._resuming import ResumingStream
from llavachat._wire import exchange, requests
from llavachat._wire.line import Line
from llavachat._wire.resumption import Resumption
from llavachat._wire.streams import EventStream
from llavachat.archive import read_archive
from llavachat.chat import Chat
from llavachat.connection import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_MESSAGE_BYTES,
    Connection,
    check_timeout,
    read_environment,
)
from llavachat.errors import DeadlineExceeded, LimitReached, ServerUnavailable
from llavachat.images import Images, Picture, load_pictures
from llavachat.reply import Reply
from llavachat.types import ChatRecord, ImageInfo, OverflowPolicy, ServerInfo, TokenCount

T = TypeVar("T")

HEALTH_TIMEOUT_SECONDS = 5.0
READY_TIMEOUT_SECONDS = 60.0
_READY_POLL_SECONDS = 0.2


class Client:
    """A llavachat server, over gRPC. One client serves many threads; it connects at its first
    call and reconnects by itself. It does not outlive a fork: in a child process, its calls raise
    `ConfigurationError` once it has made one in the parent, and a new client's may crash as long
    as any of the parent's threads called. multiprocessing's spawn is free of that.

    Args:
        address: "host:port"; without a port, 50051.
        api_key: sent as ``authorization: Bearer KEY``. Refused without TLS, except to this very
            machine or with `allow_insecure`.
        tls: encrypt. None: yes when one of the files below is given.
        tls_ca_file: PEM of the authority behind the server's certificate.
        tls_cert_file, tls_key_file: PEM of this client's own certificate, for mutual TLS.
        tls_server_name: the name to expect in the server's certificate, if not the host's.
        tls_pin: SHA-256 of the server's certificate: trust it and no other.
        timeout_seconds: the deadline of a call that names none, over 0; `math.inf` for none.
        metadata: sent with every call; text, but bytes under a key that ends in "-bin".
        max_message_bytes: the largest message either way, 1024 or more.
        keepalive_seconds: how long a silent connection is trusted, 1 or more.
        resume_seconds: how long an answer whose connection was lost is tried to go on with, 0 or
            more; 0 does not try.
        restart_seconds: how long a question that has not begun is asked again while no server is
            there, 0 or more; 0 leaves it with gRPC's own tries, about 3 seconds. None: as
            `resume_seconds`. A client that was never answered, whose address may be wrong, goes
            by gRPC's alone. As long is asked again for chats and pictures that the server refuses
            for others on their way to the same user.
        allow_insecure: send the key in clear text.

    Raises:
        ConfigurationError: these can not work together, or a file can not be read.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        api_key: str | None = None,
        tls: bool | None = None,
        tls_ca_file: Path | str | None = None,
        tls_cert_file: Path | str | None = None,
        tls_key_file: Path | str | None = None,
        tls_server_name: str | None = None,
        tls_pin: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        metadata: Mapping[str, str | bytes] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        keepalive_seconds: float = 30.0,
        resume_seconds: float = 60.0,
        restart_seconds: float | None = None,
        allow_insecure: bool = False,
    ) -> None:
        self._connection = Connection(
            address=address,
            api_key=api_key,
            tls=tls,
            tls_ca_file=tls_ca_file,
            tls_cert_file=tls_cert_file,
            tls_key_file=tls_key_file,
            tls_server_name=tls_server_name,
            tls_pin=tls_pin,
            timeout_seconds=timeout_seconds,
            metadata=metadata or {},
            max_message_bytes=max_message_bytes,
            keepalive_seconds=keepalive_seconds,
            resume_seconds=resume_seconds,
            restart_seconds=restart_seconds,
            allow_insecure=allow_insecure,
        )
        self._channel = Channel(self._connection)

    @classmethod
    def from_environment(cls, **overrides: Any) -> Self:
        """A client as LLAVACHAT_ADDRESS, LLAVACHAT_API_KEY, LLAVACHAT_TLS_CA_FILE and the like
        say; see `llavachat.connection.read_environment`.

        Args:
            overrides: arguments of `Client` that go before the environment's.
        """
        return cls(**{**read_environment(os.environ), **overrides})

    @property
    def address(self) -> str:
        """Where the server is, port included."""
        return self._connection.address

    def start(
        self,
        images: Images,
        prompt: str,
        *,
        system_prompt: str | None = None,
        labels: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = (),
        overflow: OverflowPolicy | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Open a chat with its first question; the answer streams.

        Args:
            images: a picture, several, or None; see `llavachat.images.ImageSource`.
            prompt: the question.
            system_prompt: replaces the model's own system sentence; "" for none.
            labels: your own marks, to list chats by; at most 16.
            max_tokens, temperature, top_p, top_k, repetition_penalty, seed, stop: see `Params`.
                What is not given is the server's to choose.
            overflow: what to do when the context is full. None: the server decides.
            request_id: makes the call safe to repeat. None: a new UUID, which makes gRPC's own
                retries safe.
            metadata: sent with this call, such as ``{"traceparent": "00-..."}``; text, but bytes
                under a key that ends in "-bin".
            timeout_seconds: the deadline of the whole answer; `math.inf` for none. None: the
                client's.

        Raises:
            ImageError: a picture can not be read.
            InvalidRequest: an argument can not be sent. The server's refusals come when the
                reply is read.
        """
        operation = requests.start_chat(
            load_pictures(images),
            prompt,
            system_prompt=system_prompt,
            labels=labels,
            params=requests.collect_params(
                max_tokens, temperature, top_p, top_k, repetition_penalty, seed, stop
            ),
            overflow=overflow,
            request_id=request_id,
        )
        return self._stream(operation, timeout_seconds, metadata)

    def chat(self, chat_id: str) -> Chat:
        """A chat by its id. Asks nothing of the server."""
        return Chat(self, chat_id)

    def chats(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        updated_since: datetime | None = None,
        updated_before: datetime | None = None,
        page_size: int = 50,
        timeout_seconds: float | None = None,
    ) -> Iterator[ChatRecord]:
        """Chats, the most recently used first, fetched a page at a time as they are read.

        Args:
            labels: only chats that have all of these.
            updated_since, updated_before: only chats used in this time; with a time zone.
            page_size: chats in one fetch, 1 to 1000, or fewer where they are large; 0 for the
                server's choice.
            timeout_seconds: the deadline of one fetch.
        """
        token, more = "", True
        while more:
            operation = requests.list_chats(
                page_size=page_size,
                page_token=token,
                labels=labels,
                updated_since=updated_since,
                updated_before=updated_before,
            )
            page = self._read(operation, timeout_seconds)
            yield from page.chats
            token = page.next_page_token
            more = bool(token)

    def delete_chat(self, chat_id: str, *, timeout_seconds: float | None = None) -> None:
        """Erase a chat on the server.

        Raises:
            NotFound: the server does not know it.
        """
        self._call(requests.delete_chat(chat_id), timeout_seconds)

    def image(self, image: ImageInfo | str, *, timeout_seconds: float | None = None) -> Picture:
        """A picture of your chats as the model saw it: upright, RGB, as a PNG file.

        Args:
            image: what the server told of it, or its id.
            timeout_seconds: as everywhere.

        Raises:
            NotFound: no chat of yours has it.
        """
        image_id = image.id if isinstance(image, ImageInfo) else image
        parts = self._read_all(exchange.get_image(image_id), timeout_seconds)
        return exchange.join_image(parts)

    def original(self, image: ImageInfo | str, *, timeout_seconds: float | None = None) -> Picture:
        """The file in which a picture of your chats came, with all its metadata.

        Args:
            image: what the server told of it, or its id.
            timeout_seconds: as everywhere.

        Raises:
            NotFound: no chat of yours has it, or the server does not keep such files; see
                `ServerInfo.keeps_originals`.
        """
        image_id = image.id if isinstance(image, ImageInfo) else image
        parts = self._read_all(exchange.get_original(image_id), timeout_seconds)
        return exchange.join_original(parts)

    def import_chat(self, source: str | bytes, *, timeout_seconds: float | None = None) -> Chat:
        """Bring a chat to this server that was exported as JSON, from here or elsewhere.

        It gets a new id, and its turns are marked as imported. Never tried twice: a call that
        failed has left nothing, but one whose answer was lost may have.

        Args:
            source: what `Chat.export` gave.
            timeout_seconds: the deadline of the whole import.

        Raises:
            ArchiveError: it is no exported chat, or damaged.
            InvalidRequest: the server does not take it; `violations` say why.
        """
        archive = read_archive(source)
        record = self._call(exchange.import_chat(archive), timeout_seconds)
        return Chat(self, record.id)

    def count_tokens(
        self,
        images: Images,
        prompt: str,
        *,
        system_prompt: str | None = None,
        timeout_seconds: float | None = None,
    ) -> TokenCount:
        """Count the tokens of a first question, without asking it."""
        operation = requests.count_tokens(
            load_pictures(images), prompt, system_prompt=system_prompt
        )
        return self._call(operation, timeout_seconds)

    def server_info(self, *, timeout_seconds: float | None = None) -> ServerInfo:
        """Which model answers, and within which limits."""
        return self._call(requests.get_server_info(), timeout_seconds)

    def is_healthy(self, *, timeout_seconds: float = HEALTH_TIMEOUT_SECONDS) -> bool:
        """True when the server says that it serves; False also when nothing answers."""
        try:
            return self._channel.check_health(check_timeout(timeout_seconds))
        except (ServerUnavailable, DeadlineExceeded):
            return False

    def wait_until_ready(self, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait for a server that is starting.

        Raises:
            ServerUnavailable: it does not serve after `timeout_seconds`.
        """
        timeout_seconds = check_timeout(timeout_seconds)
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            if left > 0 and self.is_healthy(timeout_seconds=min(left, HEALTH_TIMEOUT_SECONDS)):
                return
            if time.monotonic() + _READY_POLL_SECONDS > deadline:
                raise ServerUnavailable(
                    f"The server at {self.address} was not ready within {timeout_seconds:g} "
                    "seconds."
                )
            time.sleep(_READY_POLL_SECONDS)

    def close(self) -> None:
        """Close the connection for good: running answers end, and they and later calls raise
        `CallCancelled`."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def _stream(
        self,
        operation: requests.Operation[Any],
        timeout_seconds: float | None,
        metadata: Mapping[str, str | bytes] | None,
    ) -> Reply:
        timeout = self._timeout(timeout_seconds)

        def open_stream(call: requests.Operation[Any], left_seconds: float) -> EventStream:
            return self._channel.stream(call, left_seconds, metadata)

        resumption = Resumption(
            operation,
            resume_seconds=self._connection.resume_seconds,
            restart_seconds=self._restart_seconds,
            timeout_seconds=timeout,
        )
        return Reply(self, ResumingStream(open_stream, operation, resumption), metadata)

    def _open(
        self, operation: requests.Operation[Any], timeout_seconds: float | None
    ) -> EventStream:
        return self._channel.stream(operation, self._timeout(timeout_seconds), None)

    def _call(
        self,
        operation: requests.Operation[T],
        timeout_seconds: float | None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> T:
        return self._channel.call(operation, self._timeout(timeout_seconds), metadata)

    def _read(self, operation: requests.Operation[T], timeout_seconds: float | None) -> T:
        return self._repeat(
            lambda left_seconds: self._channel.call(operation, left_seconds), timeout_seconds
        )

    def _read_all(self, operation: requests.Operation[T], timeout_seconds: float | None) -> list[T]:
        return self._repeat(
            lambda left_seconds: list(self._channel.stream(operation, left_seconds, None)),
            timeout_seconds,
        )

    def _repeat(self, ask: Callable[[float], T], timeout_seconds: float | None) -> T:
        line = Line(self._timeout(timeout_seconds), self._connection.patience_seconds)
        while True:
            try:
                return ask(line.left_seconds)
            except LimitReached as error:
                wait_seconds = line.plan(error)
            time.sleep(wait_seconds)

    def _restart_seconds(self) -> float:
        return self._connection.patience_seconds if self._channel.has_reached_server else 0.0

    def _timeout(self, timeout_seconds: float | None) -> float:
        if timeout_seconds is None:
            return self._connection.timeout_seconds
        return check_timeout(timeout_seconds)
