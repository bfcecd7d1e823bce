"""The generation loop on the embedded model: when it tells what a step has made."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest
from engine_reference import SHAPES_FOLDER
from llavachat_server.engine import loop
from llavachat_server.engine.batching.sequence import Draw, Job
from llavachat_server.engine.loop import GenerationLoop, Report
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings

PLAIN = Draw(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=0, seen_row=0)


def make_job(number: int, max_new_tokens: int, num_words: int = 2) -> Job:
    """A question, and the token that begins it."""
    return Job(
        number=number,
        token_ids=[1, *range(20, 20 + num_words)],
        max_new_tokens=max_new_tokens,
        eos_token_ids=frozenset(),
        owner=None,
        draw=PLAIN,
    )


class Recorded:
    """A loop, and what happens on its thread, in order.

    Args:
        compile_steps: by the kernels, otherwise by torch.
    """

    def __init__(self, folder: Path, *, compile_steps: bool) -> None:
        settings = EngineSettings(
            model=str(SHAPES_FOLDER),
            device="cpu",
            compile_steps=compile_steps,
            compiled_folder=str(folder),
            max_batch_tokens=16,
        )
        self.core = open_backend(settings, lambda *_: None).make_core()
        self.events: list[str] = []
        self.failed: list[int] = []
        self.ended = Event()
        self.is_answered = Event()
        forward = self.core._runner.forward

        def compute(*arguments: Any) -> Any:
            self.events.append("step")
            logits = forward(*arguments)
            self.events.append("computed")
            return logits

        self.core._runner.forward = compute  # type: ignore[method-assign]
        self.loop = GenerationLoop(self.core, lambda: None, self._hear, self.ended.set)

    def _hear(self, reports: list[Report]) -> None:
        self.events += [f"told {report.output.number}" for report in reports] or ["told of a step"]
        self.failed += [report.output.number for report in reports if report.output.has_failed]
        if any(report.output.is_over for report in reports):
            self.is_answered.set()


@pytest.fixture(params=[True, False], ids=["kernels", "torch"])
def recorded(request: pytest.FixtureRequest, kernels_folder: Path) -> Recorded:
    """Both ways to compute."""
    return Recorded(kernels_folder, compile_steps=request.param)


def test_a_token_is_told_while_the_next_one_is_computed(recorded: Recorded) -> None:
    """So that whoever it wakes holds no step up; the last one is told at once."""
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, max_new_tokens=3))
    assert recorded.is_answered.wait(20)
    recorded.loop.stop(20)

    first, others, last = ["step", "computed"], ["step", "told 7", "computed"], ["told 7"]
    assert [*first, *others, *others, *last] == recorded.events


def test_what_a_failing_step_leaves_untold_is_told(recorded: Recorded) -> None:
    """The answer ends with an error, after the token before it."""
    forward, num_steps = recorded.core._runner.forward, 0

    def fail(*arguments: Any) -> Any:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 2:
            recorded.events.append("failed")
            raise MemoryError
        return forward(*arguments)

    recorded.core._runner.forward = fail  # type: ignore[method-assign]
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, max_new_tokens=3))
    assert recorded.is_answered.wait(20)
    recorded.loop.stop(20)

    assert ["step", "computed", "failed", "told 7", "told 7"] == recorded.events


def test_what_is_untold_at_the_end_is_told(recorded: Recorded) -> None:
    """A loop that is stopped in the middle of an answer has told every token that it made."""
    forward = recorded.core._runner.forward

    def stop_after(*arguments: Any) -> Any:
        logits = forward(*arguments)
        recorded.loop._inbox.put(loop._End)
        return logits

    recorded.core._runner.forward = stop_after  # type: ignore[method-assign]
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, max_new_tokens=3))
    assert recorded.ended.wait(20)

    assert ["step", "computed", "told 7"] == recorded.events


def test_a_step_that_gives_nobody_a_token_is_told_of(recorded: Recorded) -> None:
    """A prompt of 40 tokens, 16 a step: who watches the loop sees each of its parts."""
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, max_new_tokens=1, num_words=39))
    assert recorded.is_answered.wait(20)
    recorded.loop.stop(20)

    part = ["step", "computed", "told of a step"]
    assert [*part, *part, "step", "computed", "told 7"] == recorded.events


def test_a_step_that_does_not_end_is_not_told_of(recorded: Recorded) -> None:
    """A loop that hangs amid a long prompt looks like none that works."""
    forward, has_hung, may_go_on = recorded.core._runner.forward, Event(), Event()

    def hang(*arguments: Any) -> Any:
        if recorded.events:
            has_hung.set()
            assert may_go_on.wait(20)
        return forward(*arguments)

    recorded.core._runner.forward = hang  # type: ignore[method-assign]
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, max_new_tokens=1, num_words=39))
    assert has_hung.wait(20)
    events = list(recorded.events)
    may_go_on.set()
    recorded.loop.stop(20)

    assert ["step", "computed", "told of a step"] == events


def test_a_job_that_the_core_does_not_take_fails_alone(recorded: Recorded) -> None:
    """As one that is too long for a cache that was made anew; the next one is answered."""
    recorded.loop.start()
    assert recorded.loop.submit(make_job(7, recorded.core.capacity_tokens))
    assert recorded.is_answered.wait(20)
    recorded.is_answered.clear()
    assert recorded.loop.submit(make_job(8, max_new_tokens=1))
    assert recorded.is_answered.wait(20)
    recorded.loop.stop(20)

    assert ["told 7", "step", "computed", "told 8"] == recorded.events
    assert [7] == recorded.failed
