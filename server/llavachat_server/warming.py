"""The first answer: a server says that it serves only after a picture has really been answered.

By the way of all callers' pictures, through the intake and the engine. It must not know gRPC or
chats: nothing of it is kept.
"""

import io

from PIL import Image, ImageDraw

from llavachat_server.images.intake import Intake
from llavachat_server.interfaces import Engine
from llavachat_server.values import (
    EngineImage,
    EngineRequest,
    Finished,
    FinishReason,
    Sampling,
)

_WARM_UP_SECONDS = 120.0
_WARM_UP_TOKENS = 2
"""One of a prompt's last row, and one of a step."""


class WarmUpFailed(Exception):
    """The model did not answer about the first picture."""


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
        time_limit_seconds=_WARM_UP_SECONDS,
    )
    async for event in engine.generate(request):
        if isinstance(event, Finished):
            is_answer = event.finish_reason in (FinishReason.EOS, FinishReason.MAX_TOKENS)
            if is_answer and event.usage.completion_tokens > 0:
                return event.usage.completion_tokens
            raise WarmUpFailed(f"the first answer ended as {event.finish_reason.value}")
    raise WarmUpFailed("the first answer did not end")


def _first_picture() -> bytes:
    picture = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(picture).ellipse((48, 48, 176, 176), fill=(220, 30, 30))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
