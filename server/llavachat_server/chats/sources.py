"""Pictures as a question brings them, from its bytes or from an address, through the intake; and as
the store has them, for the engine.

It must not know gRPC.
"""

from dataclasses import replace

from PIL import Image

from llavachat_server.chats.errors import NotFound, StoreDamaged, StoreUnavailable, TooManyAtOnce
from llavachat_server.chats.question import ImageSource
from llavachat_server.chats.store import ChatStore
from llavachat_server.images.intake import BadAddress, BadImage, Intake, Picture
from llavachat_server.values import EngineFailed, EngineImage, EngineUnavailable, InvalidField


async def take_new(intake: Intake, tenant: str, index: int, source: ImageSource) -> Picture:
    """Take in a picture that is not known yet.

    Args:
        intake: fetches and decodes.
        tenant: who asks.
        index: the picture's place in the request, for errors.
        source: the file or its address.

    Raises:
        InvalidField: it can not be taken.
        IntakeBusy, IntakeUnavailable: not now.
    """
    data = await _read(intake, tenant, index, source)
    try:
        picture = await intake.take(data, tenant=tenant)
    except BadImage as error:
        raise InvalidField(_field(index, source), str(error)) from error
    num_frames = max(picture.info.num_frames, source.num_frames)
    return replace(picture, info=replace(picture.info, num_frames=num_frames))


async def check_new(intake: Intake, tenant: str, index: int, source: ImageSource) -> None:
    """Check such a picture's header; see `take_new`.

    Raises:
        InvalidField, IntakeBusy, IntakeUnavailable: see `take_new`.
    """
    data = await _read(intake, tenant, index, source)
    try:
        await intake.check(data, tenant=tenant)
    except BadImage as error:
        raise InvalidField(_field(index, source), str(error)) from error


def use_kept(store: ChatStore, tenant: str, image_id: str) -> EngineImage:
    """A picture that a chat uses, whose pixels are unpacked only if the engine needs them."""

    async def read() -> Image.Image:
        try:
            return (await store.get_picture(tenant, image_id)).pixels
        except (StoreUnavailable, TooManyAtOnce) as error:
            raise EngineUnavailable(error.retry_after_seconds) from error
        except StoreDamaged as error:
            raise EngineFailed(str(error)) from error
        except NotFound as error:
            raise EngineFailed("a picture of this chat was erased before it was read") from error

    return EngineImage(image_id, read)


async def _read(intake: Intake, tenant: str, index: int, source: ImageSource) -> bytes:
    if source.url is None:
        return source.data or b""
    try:
        return await intake.fetch(source.url, tenant=tenant)
    except BadAddress as error:
        raise InvalidField(_field(index, source), str(error)) from error


def _field(index: int, source: ImageSource) -> str:
    return f"images[{index}].{'data' if source.url is None else 'url'}"
