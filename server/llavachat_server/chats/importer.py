"""Takes a chat in that was exported, from this server or another.

Contract: the chat is kept whole, under ids of this server's making, or nothing of it is; an
import whose caller is gone leaves nothing either. Words are tokenised as text, whatever they
look like, and every picture comes in by the intake. It must not know gRPC or torch.
"""

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from llavachat_server.chats.arrivals import RETRY_SECONDS, Arrival, Arrivals
from llavachat_server.chats.errors import ImportStalled
from llavachat_server.chats.record import Chat, Turn
from llavachat_server.chats.store import ChatStore
from llavachat_server.chats.wording import tokenise
from llavachat_server.images.header import sniff
from llavachat_server.images.intake import (
    MAX_KEPT_SIDE_PIXELS,
    BadImage,
    Intake,
    Picture,
    kept_size,
)
from llavachat_server.interfaces import TurnTokenizer
from llavachat_server.values import InvalidField

MAX_FILE_BYTES = MAX_KEPT_SIDE_PIXELS**2 * 3 + 1024**2
"""The largest PNG that a server gives away: it may be larger than the JPEG that it once was."""

BODY_SECONDS = 600.0
"""The longest that a body may take to arrive."""

_BATCH_TURNS = 32
"""Tokenised in one go; after each, an import whose caller is gone can end."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture of a chat that comes in: its pixels as a PNG, or the file in which it once came."""

    data: bytes
    is_original: bool = False

    @property
    def part(self) -> str:
        """Its name in refusals."""
        return "original" if self.is_original else "image"


class Importer:
    """Takes chats in.

    Args:
        store: keeps them.
        intake: decodes pictures.
        prompts: the model's template and tokenizer.
        num_image_tokens: how wide one picture is in the context.
        max_bytes: of words and pixels of one chat together.
    """

    def __init__(
        self,
        store: ChatStore,
        intake: Intake,
        prompts: TurnTokenizer,
        num_image_tokens: int,
        *,
        max_bytes: int,
    ) -> None:
        self._max_bytes = max_bytes
        self._store = store
        self._intake = intake
        self._prompts = prompts
        self._num_image_tokens = num_image_tokens
        self._arrivals = Arrivals()
        # One thread, whoever imports: those who ask need the other cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="import")

    async def take(
        self, tenant: str, read: Callable[[], Chat], files: AsyncIterable[PictureFile]
    ) -> Chat:
        """Take one chat in.

        Args:
            tenant: whose it is.
            read: the chat as it was told: a tree in order, its ids the sender's, its token ids left
                out. Called in a thread, and not before the import has a place: what it takes, one
                tenant can not have taken many times at once.
            files: its pictures, in any order.

        Returns:
            The chat as it is kept.

        Raises:
            InvalidField: it is no such chat, a picture can not be taken, is missing or is not one
                of the chat's, or words and pictures are too large together.
            ImportStalled: the pictures did not come in time, or so late that another import took
                the place.
            IntakeBusy, IntakeUnavailable: pictures can not be decoded now.
            ChatFull: it has more turns than a chat may have.
            TooManyAtOnce: others are being taken in and none is late, or another of this tenant.
            StoreFull: nothing more can be kept.
        """
        with self._arrivals.enter(tenant) as arrival:
            chat = await asyncio.get_running_loop().run_in_executor(self._thread, read)
            pictures = await self._take_pictures(chat, aiter(files), arrival)
            taken = await self._settle(chat)
            await self._store.add_chat(taken, pictures)
        return taken

    def close(self) -> None:
        """Take no more in."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _take_pictures(
        self, chat: Chat, files: AsyncIterator[PictureFile], arrival: Arrival
    ) -> tuple[Picture, ...]:
        named = {image.id for turn in chat.turns for image in turn.images}
        taken: dict[str, Picture] = {}
        # Tens of megabytes, at most.
        num_bytes = await asyncio.to_thread(_count_word_bytes, chat)
        if num_bytes > self._max_bytes:
            raise InvalidField(
                "chat",
                f"its words take {num_bytes:,} bytes; at most {self._max_bytes:,} in one chat, "
                "its pixels included",
            )
        index = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while (file := await arrival.receive(files)) is not None:
                    arrival.num_bytes += len(file.data)
                    field = f"{file.part}[{index}]"
                    picture = await self._take_picture(chat.tenant, field, file)
                    _check_picture(field, picture, named, taken.keys())
                    num_bytes += picture.num_bytes + len(picture.original or b"")
                    if num_bytes > self._max_bytes:
                        raise InvalidField(
                            field,
                            f"words and pixels of the chat up to here take {num_bytes:,} bytes; "
                            f"at most {self._max_bytes:,} in one chat",
                        )
                    taken[picture.info.id] = picture
                    index += 1
        except TimeoutError:
            raise ImportStalled(RETRY_SECONDS) from None
        _check_told(chat, taken)
        return tuple(taken.values())

    async def _take_picture(self, tenant: str, field: str, file: PictureFile) -> Picture:
        try:
            is_made = not file.is_original and sniff(file.data) == "PNG"
            max_bytes = MAX_FILE_BYTES if is_made else None
            picture = await self._intake.take(file.data, tenant=tenant, max_bytes=max_bytes)
        except BadImage as error:
            raise InvalidField(field, str(error)) from error
        # A PNG that a server made of the pixels is nobody's file.
        return picture if file.is_original else replace(picture, original=None)

    async def _settle(self, chat: Chat) -> Chat:
        """The chat under new ids, with its token ids."""
        loop = asyncio.get_running_loop()
        new_ids: dict[str, str] = {}
        num_tokens: dict[str | None, int] = {None: 0}
        tokenised: list[Turn] = []
        for begin in range(0, len(chat.turns), _BATCH_TURNS):
            batch = chat.turns[begin : begin + _BATCH_TURNS]
            tokenised += await loop.run_in_executor(
                self._thread, self._tokenise, batch, chat.system_prompt
            )
        turns: list[Turn] = []
        for turn in tokenised:
            widened = len(turn.images) * (self._num_image_tokens - 1)
            num_prompt_tokens = num_tokens[turn.parent_id] + len(turn.question_ids) + widened
            # Every answer is closed by one more token.
            num_tokens[turn.id] = num_prompt_tokens + len(turn.answer_ids) + 1
            new_ids[turn.id] = secrets.token_hex(16)
            turns.append(
                replace(
                    turn,
                    id=new_ids[turn.id],
                    parent_id=None if turn.parent_id is None else new_ids[turn.parent_id],
                    num_untrimmed_tokens=num_prompt_tokens,
                )
            )
        return replace(chat, id=secrets.token_hex(16), turns=tuple(turns))

    def _tokenise(self, turns: tuple[Turn, ...], system_prompt: str | None) -> list[Turn]:
        return [tokenise(turn, self._prompts, system_prompt) for turn in turns]


def _count_word_bytes(chat: Chat) -> int:
    """In UTF-8, as they are sent and kept."""
    words = (text for turn in chat.turns for text in (turn.prompt, turn.answer))
    return len((chat.system_prompt or "").encode()) + sum(len(text.encode()) for text in words)


def _check_picture(
    field: str, picture: Picture, named: AbstractSet[str], taken: AbstractSet[str]
) -> None:
    if picture.info.id not in named:
        raise InvalidField(
            field,
            f"no turn names this picture, whose id is {picture.info.id}; send the pixels as "
            "GetImage told them without `original`",
        )
    if picture.info.id in taken:
        raise InvalidField(field, f"the picture {picture.info.id} came before; send each once")


def _check_told(chat: Chat, pictures: Mapping[str, Picture]) -> None:
    """Each turn's pictures have come, and are as large as the turn says."""
    for position, turn in enumerate(chat.turns):
        for number, image in enumerate(turn.images):
            field = f"chat.turns[{position}].images[{number}]"
            picture = pictures.get(image.id)
            if picture is None:
                raise InvalidField(
                    f"{field}.id", "its picture did not come; send it after the chat"
                )
            told, size = (image.width_pixels, image.height_pixels), picture.pixels.size
            if size not in (told, kept_size(*told)):
                raise InvalidField(
                    f"{field}.width_pixels",
                    f"{told[0]} x {told[1]} pixels are told, and the picture has "
                    f"{size[0]} x {size[1]}",
                )
