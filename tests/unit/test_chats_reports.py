"""What chats report of each turn: once, before its end is told, and never what was said."""

import asyncio

import pytest
from llavachat_server.chats.errors import TurnRunning
from llavachat_server.chats.live import Ended
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import ImageSource, NewChat, Place, Question, SamplingWishes
from llavachat_server.chats.turns import Turns
from llavachat_server.images.intake import Intake
from llavachat_server.observation import TRACE, TurnReport
from llavachat_server.values import (
    EngineFailed,
    FinishReason,
    QueueFull,
    Sampling,
)
from pictures import red_circle
from reports import TRACE as A_TRACE
from scripted_engine import Hold, ScriptedEngine

TENANT = "a tenant"
SAID = ("quixotic question", "quixotic answer", "quixotic stop")


class Room:
    """Turns, and what they have reported."""

    def __init__(self, intake: Intake, *script: str | Hold | Exception) -> None:
        self.reports: list[TurnReport] = []
        self.store = MemoryStore()
        self.turns = Turns(
            ScriptedEngine(*script),
            self.store,
            intake,
            defaults=Sampling(max_tokens=16),
            max_turn_seconds=30.0,
            observe=self.reports.append,
        )

    async def ask(self, question: Question) -> str:
        """Ask, and follow to the end; the chat's id."""
        live = self.turns.ask(TENANT, question)
        async for event in live.follow():
            if isinstance(event, Ended):
                assert self.reports, "told before it was reported"
        return live.chat_id


async def test_an_answered_turn_is_reported_once(intake: Intake) -> None:
    """Who, which, how much, how long and how it ended."""
    room = Room(intake, SAID[1])
    question = Question(
        NewChat(),
        SAID[0],
        (ImageSource(data=red_circle()),),
        SamplingWishes(stop=(SAID[2],)),
        request_id="r1",
    )
    token = TRACE.set(A_TRACE)
    chat_id = await room.ask(question)
    TRACE.reset(token)
    (report,) = room.reports
    (turn,) = (await room.store.get_chat(TENANT, chat_id)).turns
    assert (TENANT, "r1", chat_id, turn.id, 1, A_TRACE) == (
        report.tenant,
        report.request_id,
        report.chat_id,
        report.turn_id,
        report.num_images,
        report.trace,
    )
    assert (FinishReason.EOS, "", turn.usage, turn.timings, "shapes") == (
        report.finish_reason,
        report.error,
        report.usage,
        report.timings,
        report.model.name,
    )
    assert ["intake", "commit_question", "commit_answer"] == [p.name for p in report.phases]
    times = [(p.began_seconds, p.ended_seconds) for p in report.phases]
    assert times == sorted(times)
    assert report.began_seconds <= times[0][0] <= times[-1][1] <= report.ended_seconds


async def test_a_report_holds_no_word(intake: Intake) -> None:
    """Stop texts are parameters, and words all the same: the log and the spans leave them out."""
    room = Room(intake, SAID[1])
    await room.ask(Question(NewChat(), SAID[0]))
    assert "quixotic" not in repr(room.reports)


@pytest.mark.parametrize(
    ("failure", "error"), [(QueueFull(1.0), "queue_full"), (EngineFailed(), "engine_failed")]
)
async def test_a_refused_question_is_reported_without_a_turn(
    intake: Intake, failure: Exception, error: str
) -> None:
    """There is none to name."""
    room = Room(intake, failure)
    with pytest.raises(type(failure)):
        await room.ask(Question(NewChat(), "What?"))
    (report,) = room.reports
    assert (error, "", "", None) == (
        report.error,
        report.chat_id,
        report.turn_id,
        report.finish_reason,
    )


async def test_a_cancelled_turn_is_reported_with_its_end(intake: Intake) -> None:
    """It is no error."""
    hold = Hold()
    room = Room(intake, hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    await hold.said.wait()
    await room.turns.cancel_turn(TENANT, live.chat_id, live.turn_id)
    (report,) = room.reports
    assert (FinishReason.CANCELLED, "") == (report.finish_reason, report.error)


async def test_a_turn_that_a_stop_cut_off_is_an_error(intake: Intake) -> None:
    """Its reader gets UNAVAILABLE."""
    hold = Hold()
    room = Room(intake, hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    await hold.said.wait()
    await room.turns.stop(0)
    (report,) = room.reports
    assert (FinishReason.SHUTDOWN, "shutting_down") == (report.finish_reason, report.error)
    assert live.turn_id == report.turn_id


async def test_a_repeated_request_is_no_second_turn(intake: Intake) -> None:
    """What is told again was answered once."""
    room = Room(intake, "Red.")
    question = Question(NewChat(), "What?", request_id="r1")
    await room.ask(question)
    await room.ask(question)
    assert 1 == len(room.reports)


async def test_turns_of_one_trace_keep_it_to_themselves(intake: Intake) -> None:
    """A call's trace goes with its own turn, however many run."""
    room = Room(intake, "One.", "Two.")
    token = TRACE.set(A_TRACE)
    first = asyncio.create_task(room.ask(Question(NewChat(), "1", request_id="traced")))
    await asyncio.sleep(0)
    TRACE.reset(token)
    await room.ask(Question(NewChat(), "2", request_id="untraced"))
    await first
    traces = {report.request_id: report.trace for report in room.reports}
    assert {"traced": A_TRACE, "untraced": None} == traces


async def test_a_place_that_is_taken_is_reported(intake: Intake) -> None:
    """As what it was refused for."""
    hold = Hold()
    room = Room(intake, hold)
    live = room.turns.ask(TENANT, Question(NewChat(), "What?"))
    following = asyncio.create_task(anext(live.follow()))
    await hold.said.wait()
    with pytest.raises(TurnRunning):
        await room.ask(Question(Place(live.chat_id), "And?"))
    hold.release.set()
    await following
    assert "turn_running" == room.reports[0].error
