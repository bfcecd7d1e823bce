"""The one way in for pictures: bytes from anywhere become upright RGB pixels, or a refusal.

Contract: the format is told by its magic bytes, never by a name; size, pixels and scans are
read from the header and checked before a pixel is decoded; decoding happens in small confined
processes beside the server, a few at a time; what comes out carries no metadata. It must not
know gRPC, chats or the model.
"""

import asyncio
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from llavachat_server.images.addresses import BadAddress
from llavachat_server.images.decoding import check_header, decode
from llavachat_server.images.header import sniff
from llavachat_server.images.picture import (
    HEIC_MEDIA_TYPE,
    MAX_KEPT_SIDE_PIXELS,
    MEDIA_TYPES,
    BadImage,
    ImageInfo,
    ImageLimits,
    Picture,
    identify,
    kept_size,
)
from llavachat_server.images.process import DecoderBroken
from llavachat_server.images.worker import Worker, begin_workers
from llavachat_server.turnstile import LineFull, Turnstile

if TYPE_CHECKING:
    from llavachat_server.images.fetcher import Fetcher

__all__ = [
    "ADDRESSES_ARE_OFF",
    "MAX_KEPT_SIDE_PIXELS",
    "MEDIA_TYPES",
    "BadAddress",
    "BadImage",
    "ImageInfo",
    "ImageLimits",
    "Intake",
    "IntakeBusy",
    "IntakeUnavailable",
    "Picture",
    "check_header",
    "decode",
    "kept_size",
]

ADDRESSES_ARE_OFF = "this server does not fetch addresses; send the file as data"

OTHERS_SECONDS = 1.0
"""After the first decoder is ready. Each takes a core for a tenth of a second to start, which who
waits for the server and then for its first answer would notice."""

MAX_WAITING = 256
MAX_WAITING_PER_TENANT = 128
"""More pictures than a server has running and waiting turns by default."""

RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass
class IntakeBusy(Exception):
    """Too many pictures wait to be decoded. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "too many pictures are being taken in now"


@dataclass
class IntakeUnavailable(Exception):
    """Pictures can not be decoded now. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "the server can not look at pictures now"


class Intake:
    """Decodes pictures off the event loop, a few at a time, in processes of their own.

    The first process starts with the intake, the others some time after `start`, or when pictures
    come before that.

    Args:
        limits: what is taken.
        fetcher: brings pictures from addresses; without it, none are fetched.
        workers: decode beside each other.
        keep_originals: hand each file on beside its pixels.
    """

    def __init__(
        self,
        limits: ImageLimits,
        fetcher: "Fetcher | None" = None,
        workers: Sequence[Worker] = (),
        *,
        keep_originals: bool = False,
    ) -> None:
        self.limits = limits
        self.keeps_originals = keep_originals
        self._fetcher = fetcher
        self._workers = workers or begin_workers()
        num_workers = len(self._workers)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="images")
        self._others: asyncio.TimerHandle | None = None
        self._turnstile = Turnstile(
            num_workers,
            places_per_tenant=max(1, num_workers - 1),
            max_waiting=MAX_WAITING,
            max_waiting_per_tenant=MAX_WAITING_PER_TENANT,
        )

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The decoders' processes, as far as they have started."""
        return tuple(pid for worker in self._workers if (pid := worker.process_id) is not None)

    async def start(self) -> tuple[str, ...]:
        """Wait for the first decoder; the others follow `OTHERS_SECONDS` later, one by one.

        Returns:
            The media types that are taken.

        Raises:
            IntakeUnavailable: it can not be started.
        """
        loop = asyncio.get_running_loop()
        try:
            has_heic = await loop.run_in_executor(self._threads, self._workers[0].start)
        except DecoderBroken:
            raise IntakeUnavailable(RETRY_SECONDS) from None
        self._others = loop.call_later(OTHERS_SECONDS, self._start_others)
        heic = (HEIC_MEDIA_TYPE,) if has_heic else ()
        return tuple(sorted((*MEDIA_TYPES.values(), *heic)))

    async def start_all(self) -> tuple[str, ...]:
        """Start every decoder, and wait until each can be asked; see `start`."""
        media_types = await self.start()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, _start_all, self._workers[1:])
        return media_types

    async def take(self, data: bytes, *, tenant: str = "", max_bytes: int | None = None) -> Picture:
        """Decode one file.

        Args:
            data: the file.
            tenant: whose it is; tenants take turns.
            max_bytes: another limit for its bytes than the usual one.

        Raises:
            BadImage: it is no picture, of another format, too large, or damaged.
            IntakeBusy: too many wait.
            IntakeUnavailable: the decoders do not work.
        """
        limits = self.limits if max_bytes is None else replace(self.limits, max_bytes=max_bytes)
        picture = await self._hand_over(tenant, data, limits, _take)
        return replace(picture, original=data) if self.keeps_originals else picture

    async def check(self, data: bytes, *, tenant: str = "") -> None:
        """Check one file's header without decoding it.

        Raises:
            BadImage, IntakeBusy, IntakeUnavailable: see `take`, as far as a header shows it.
        """
        await self._hand_over(tenant, data, self.limits, Worker.check)

    async def fetch(self, url: str, *, tenant: str = "") -> bytes:
        """Fetch a file from an address, for `take` or `check`.

        Raises:
            BadAddress: addresses are not fetched, not this one, or it gives no file.
            IntakeBusy: too many wait.
        """
        if self._fetcher is None:
            raise BadAddress(ADDRESSES_ARE_OFF)
        try:
            return await self._fetcher.fetch(url, max_bytes=self.limits.max_bytes, tenant=tenant)
        except LineFull:
            raise IntakeBusy(RETRY_SECONDS) from None

    def close(self) -> None:
        """Take no more pictures, and end the decoders."""
        if self._fetcher is not None:
            self._fetcher.close()
        if self._others is not None:
            self._others.cancel()
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _start_others(self) -> None:
        self._threads.submit(_start_all, self._workers[1:])

    async def _hand_over(
        self,
        tenant: str,
        data: bytes,
        limits: ImageLimits,
        job: Callable[[Worker, bytes, ImageLimits], T],
    ) -> T:
        # What is no picture costs no worker's time.
        if len(data) > limits.max_bytes:
            raise BadImage(
                f"the file has {len(data):,} bytes; at most {limits.max_bytes:,} are taken"
            )
        sniff(data)
        try:
            await self._turnstile.enter(tenant)
        except LineFull:
            raise IntakeBusy(RETRY_SECONDS) from None
        loop = asyncio.get_running_loop()
        try:
            running = self._threads.submit(self._run, data, limits, job)
        except BaseException:
            self._turnstile.leave(tenant)
            raise

        def leave(_: "Future[T]") -> None:
            loop.call_soon_threadsafe(self._turnstile.leave, tenant)

        # Not when the caller goes: the thread works on, and so does its worker.
        running.add_done_callback(leave)
        try:
            return await asyncio.wrap_future(running)
        except DecoderBroken:
            raise IntakeUnavailable(RETRY_SECONDS) from None

    def _run(
        self, data: bytes, limits: ImageLimits, job: Callable[[Worker, bytes, ImageLimits], T]
    ) -> T:
        worker = self._idle.get()
        try:
            return job(worker, data, limits)
        finally:
            self._idle.put(worker)


def _start_all(workers: Sequence[Worker]) -> None:
    for worker in workers:
        # One that can not be started now is tried again with a picture.
        with suppress(DecoderBroken):
            worker.start()


def _take(worker: Worker, data: bytes, limits: ImageLimits) -> Picture:
    pixels = worker.decode(data, limits)
    image_id = identify(pixels.kept, pixels.rgb)
    info = ImageInfo(image_id, *pixels.size, pixels.media_type, pixels.num_frames)
    return Picture(info, Image.frombytes("RGB", pixels.kept, pixels.rgb))
