"""Brings a request's pictures into the bank, and writes its prompt in virtual ids.

Each new picture is read and encoded once, on a worker thread, however many requests ask about it
at the same time; of one whose features are there not even the pixels are read. What nobody waits
for any more is not encoded. A request holds its pictures until the generation loop has let go of
it.

Belongs to one event loop; the model stays behind the backend.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from PIL import Image

from llavachat_server.engine.backend import Backend
from llavachat_server.engine.bank import ImageBank, ImageKey, Slot
from llavachat_server.engine.run import Run
from llavachat_server.turnstile import Turnstile
from llavachat_server.values import EngineImage, EngineUnavailable, InvalidField

ALIAS_RETRY_SECONDS = 60.0

Work = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a slow call on the worker thread."""


async def read_pixels(image: EngineImage) -> Image.Image:
    """The pixels of a picture, RGB.

    Raises:
        InvalidField: they are not.
        EngineError: they can not be read.
    """
    pixels = await image.pixels() if callable(image.pixels) else image.pixels
    if pixels.mode != "RGB" or min(pixels.size) < 1:
        raise InvalidField("images", "must be RGB pictures of at least one pixel")
    return pixels


class _Filling:
    """A picture on its way into its slot, and the runs that want it."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.runs: set[Run] = set()
        self.is_encoding = False
        self.error: Exception | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody is still there to be answered."""
        return any(not run.is_over for run in self.runs)


class PictureDesk:
    """Bank, vision tower and placeholders put together.

    Args:
        backend: preprocesses and encodes.
        num_slots: pictures that the bank holds.
        work: runs the backend's slow calls.
        flush_prefixes: see `ImageBank`.
    """

    def __init__(
        self,
        backend: Backend,
        num_slots: int,
        work: Work,
        flush_prefixes: Callable[[], None],
    ) -> None:
        facts = backend.loaded.facts
        self._backend = backend
        self._work = work
        self._image_token_id = facts.prompts.special.image
        self._tokens_per_image = facts.num_image_tokens
        self._bank = ImageBank(
            num_slots, facts.num_image_tokens, backend.ids.first_image_id, flush_prefixes
        )
        self.num_hits = 0
        """Pictures whose features were there, or on their way."""
        self.num_misses = 0
        self.encoded_at_seconds = 0.0
        """Monotonic time at which a picture was last encoded."""
        self._fillings: dict[int, _Filling] = {}
        # One picture at a time is the worker's, so that what else it is asked waits for that alone,
        # and those behind it can still be given up. By tenants in turn, because one may have
        # brought as many as the bank has places.
        self._encoder = Turnstile(
            1, places_per_tenant=1, max_waiting=sys.maxsize, max_waiting_per_tenant=sys.maxsize
        )
        # Pictures that are read for this lie in memory until they are encoded: so the one that is,
        # the next of the same tenant, and one of another.
        self._readers = Turnstile(
            3, places_per_tenant=2, max_waiting=sys.maxsize, max_waiting_per_tenant=sys.maxsize
        )
        self._aliases: dict[str, int] = {}
        self._has_news = asyncio.Event()
        # Who waits for slots, in order: else who needs many would wait as long as others need few.
        self._line: deque[Run] = deque()
        # Since its head came there. Who needs no new slot takes none from those before it, and
        # passes them. But it keeps known pictures pinned, in turns with its like for ever: after
        # as many as there are slots nobody passes, and the head waits for those inside alone.
        self._num_passed = 0

    async def build_prompt(self, run: Run) -> list[int]:
        """The prompt with virtual ids; its pictures' features are in the bank.

        Returns:
            The ids; of no use when the run has ended meanwhile.
        """
        request = run.request
        if request.images and not await self._bring_in(run):
            return []
        first_ids = iter([slot.first_id for slot in run.slots])
        ids = [self._find_alias(request.tenant)]
        for token_id in request.token_ids[1:]:
            if token_id == self._image_token_id:
                first_id = next(first_ids)
                assert first_id is not None
                ids.extend(range(first_id, first_id + self._tokens_per_image))
            else:
                ids.append(token_id)
        return ids

    def release(self, run: Run) -> None:
        """Let the run's pictures go."""
        self._bank.unpin(run.slots)
        run.slots = []
        self.wake()

    def forget_owner(self, owner: Hashable) -> None:
        """Let go of the pictures that no other known owner uses."""
        self._bank.forget_owner(owner)

    def wake(self) -> None:
        """Have those who wait look again: for room, for their pictures, or for their own end."""
        self._has_news.set()

    async def _bring_in(self, run: Run) -> bool:
        images = run.request.images
        if not await self._pin(run, [ImageKey(run.request.tenant, image.id) for image in images]):
            return False
        await self._fill(run, images)
        return True

    async def _pin(self, run: Run, keys: list[ImageKey]) -> bool:
        self._line.append(run)
        try:
            while not run.is_over:
                is_first = self._line[0] is run
                if is_first or (self._num_passed < self._bank.num_slots and self._bank.knows(keys)):
                    slots = self._bank.pin(keys, run.owner)
                    if slots is not None:
                        self._num_passed += not is_first
                        run.slots = slots
                        return True
                await self._wait_for_news()
            return False
        finally:
            if self._line[0] is run:
                self._num_passed = 0
            self._line.remove(run)
            self.wake()

    async def _fill(self, run: Run, images: Sequence[EngineImage]) -> None:
        """Encode what is new, each picture from the run's own image unless another's is on its way.

        Raises:
            EngineError, Exception: the run's own image can not be read or encoded.
        """
        places = {slot.index: (slot, image) for slot, image in zip(run.slots, images, strict=True)}
        missing = [place for place in places.values() if not place[0].is_filled]
        num_new = sum(slot.index not in self._fillings for slot, _ in missing)
        self.num_misses += num_new
        self.num_hits += len(images) - num_new
        if not missing:
            return
        run.begin_vision()
        own = []
        try:
            while missing and not run.is_over:
                for slot, image in missing:
                    filling = self._fillings.get(slot.index)
                    # Another's may have failed, which tells nothing about this image.
                    if filling is None:
                        filling = self._begin_filling(slot, image, run.request.tenant)
                        own.append(filling)
                    filling.runs.add(run)
                await self._wait_for_news()
                for filling in own:
                    if filling.error is not None:
                        raise filling.error
                missing = [place for place in missing if not place[0].is_filled]
        finally:
            await self._leave_fillings(run)
        run.end_vision()

    def _begin_filling(self, slot: Slot, image: EngineImage, tenant: str) -> _Filling:
        filling = self._fillings[slot.index] = _Filling()
        # Others may come to wait for the same picture, so the task outlives whoever begins it.
        filling.task = asyncio.create_task(self._fill_slot(filling, slot, image, tenant))
        return filling

    async def _fill_slot(
        self, filling: _Filling, slot: Slot, image: EngineImage, tenant: str
    ) -> None:
        try:
            async with AsyncExitStack() as places:
                if callable(image.pixels):
                    await self._readers.enter(tenant)
                    places.callback(self._readers.leave, tenant)
                pixels = await read_pixels(image)
                await self._encoder.enter(tenant)
                places.callback(self._encoder.leave, tenant)
                # Asked here and not before: while others were encoded, all may have gone.
                if not filling.is_wanted:
                    return
                filling.is_encoding = True
                await self._work(lambda: self._backend.fill_slot(slot.index, pixels))
                slot.is_filled = True
                self.encoded_at_seconds = time.monotonic()
        except Exception as error:
            filling.error = error
        finally:
            if self._fillings.get(slot.index) is filling:
                del self._fillings[slot.index]
            self.wake()

    async def _leave_fillings(self, run: Run) -> None:
        """Give up what has not been begun for others; wait for what is written into a slot."""
        for index, filling in list(self._fillings.items()):
            if not filling.is_encoding:
                filling.runs.discard(run)
                if not filling.runs:
                    # The slot goes to another picture as soon as it is unpinned.
                    del self._fillings[index]
                    filling.task.cancel()
        while any(run in filling.runs for filling in self._fillings.values()):
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        self._has_news.clear()
        await self._has_news.wait()

    def _find_alias(self, tenant: str) -> int:
        """The tenant's own id for the first token: cached prefixes begin with it."""
        ids = self._backend.ids
        alias = self._aliases.setdefault(tenant, ids.first_alias_id + len(self._aliases))
        if alias >= ids.first_image_id:
            del self._aliases[tenant]
            raise EngineUnavailable(ALIAS_RETRY_SECONDS)
        return alias
