"""The first answer, before which a server does not say that it serves."""

from collections.abc import AsyncIterator

import pytest
from llavachat_server.images.intake import Intake
from llavachat_server.values import (
    ContextFull,
    Delta,
    EngineEvent,
    EngineRequest,
    Finished,
    FinishReason,
    Timings,
    Usage,
)
from llavachat_server.warming import WarmUpFailed, warm_up
from scripted_engine import ScriptedEngine


async def test_warming_up_asks_about_a_picture(intake: Intake) -> None:
    """The engine gets a picture by the way of all, and its answer's tokens are counted."""
    engine = ScriptedEngine("A red circle.")
    num_tokens = await warm_up(engine, intake)
    assert len(engine.prompts.encode_text("A red circle.")) == num_tokens
    (request,) = engine.requests
    assert 1 == len(request.images)
    assert (220, 30, 30) == request.images[0].pixels.getpixel((112, 112))


class EndingEngine(ScriptedEngine):
    """Gives a token, and ends for a reason."""

    def __init__(self, reason: FinishReason) -> None:
        super().__init__()
        self._reason = reason

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine.generate`."""
        yield Delta("A", 0)
        usage = Usage(9, 64, 0, 1, 3000)
        yield Finished(self._reason, None, (319,), usage, Timings(0.0, 0.1, 0.2, 0.3, 0.0))


@pytest.mark.parametrize("reason", FinishReason)
async def test_an_answer_that_was_cut_is_no_answer(intake: Intake, reason: FinishReason) -> None:
    """Only the model itself, or the limit that the question set, ends a first answer well."""
    warming_up = warm_up(EndingEngine(reason), intake)
    if reason in (FinishReason.EOS, FinishReason.MAX_TOKENS):
        assert 1 == await warming_up
        return
    with pytest.raises(WarmUpFailed) as caught:
        await warming_up
    expected = (
        "900 s are not enough for it on this machine"
        if reason is FinishReason.TIME_LIMIT
        else f"its answer ended as {reason.value}"
    )
    assert expected == str(caught.value)


async def test_an_empty_answer_is_no_answer(intake: Intake) -> None:
    """A model that says nothing does not serve."""
    with pytest.raises(WarmUpFailed) as caught:
        await warm_up(ScriptedEngine(""), intake)
    assert "its answer was empty" == str(caught.value)


async def test_what_the_engine_says_of_it_is_told(intake: Intake) -> None:
    """Such as that the model's context does not hold a picture."""
    full = ContextFull(text_tokens=9, image_tokens=576, context_tokens=512)
    with pytest.raises(WarmUpFailed) as caught:
        await warm_up(ScriptedEngine(full), intake)
    assert str(full) == str(caught.value)
