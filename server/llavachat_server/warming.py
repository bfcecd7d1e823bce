"""The first answer: a server says that it serves only after a picture has really been answered.

By the way of all callers' pictures, through the intake and the engine. It must not know gRPC or
chats: nothing of it is kept.
"""

import io

from PIL import Image, ImageDraw

from llavachat_server.images.intake import Intake
from llavachat_server.interfaces import Engine
from llavachat_server.values import (
    EngineError,
    EngineImage,
    EngineRequest,
    Finished,
    FinishReason,
    Sampling,
)

WARM_UP_SECONDS = 900.0
"""On a large model and a slow processor reading the prompt takes minutes; a start may take half an
hour (`ops.pulse.MAX_START_SECONDS`)."""
_WARM_UP_TOKENS = 2
"""One of a prompt's last row, and one of a step."""


class WarmUpFailed(Exception):
    """The model did not answer about the first picture; says why, as the end of a sentence."""


async def warm_up(engine: Engine, intake: Intake) -> int:
    """Have a picture taken in and answered, as a caller would.

    Returns:
        How many tokens the answer had.

    Raises:
        WarmUpFailed: no answer came.
        IntakeUnavailable: the picture could not be decoded.
    """
    picture = await intake.take(_first_picture())
    request = EngineRequest(
        request_id="warm-up",
        token_ids=engine.prompts.build_first_turn("What is this?"),
        images=(EngineImage(picture.info.id, picture.pixels),),
        sampling=Sampling(max_tokens=_WARM_UP_TOKENS),
        time_limit_seconds=WARM_UP_SECONDS,
    )
    try:
        async for event in engine.generate(request):
            if isinstance(event, Finished):
                return _count_tokens(event)
    except EngineError as error:
        raise WarmUpFailed(str(error)) from error
    raise WarmUpFailed("its answer did not end")


def _count_tokens(end: Finished) -> int:
    reason, count = end.finish_reason, end.usage.completion_tokens
    if reason is FinishReason.TIME_LIMIT:
        raise WarmUpFailed(f"{WARM_UP_SECONDS:.0f} s are not enough for it on this machine")
    if reason not in (FinishReason.EOS, FinishReason.MAX_TOKENS):
        raise WarmUpFailed(f"its answer ended as {reason.value}")
    if not count:
        raise WarmUpFailed("its answer was empty")
    return count


def _first_picture() -> bytes:
    picture = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(picture).ellipse((48, 48, 176, 176), fill=(220, 30, 30))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
