"""What is measured of a contender, through `Interface` alone.

A row's key is its name in the run's JSON; `ROWS` says what it means.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.served.clients.talk import AnswerFailed, Interface, Talk
from bench.served.figures import median, percentile
from bench.served.workload import ANSWER_TOKENS, HISTORY_TOKENS, Opening, Workload, count_words

ANSWER_SECONDS = 300.0
"""The longest wait for one answer."""
FIRST_TOKEN_TOKENS = 4
"""Length of an answer of which only the beginning is measured."""
LONG_CHATS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of figure. `is_rate`: more is better; otherwise less is."""

    title: str
    unit: str
    is_rate: bool = False


def make_rows(chats: Sequence[int]) -> dict[str, Row]:
    """All rows, in the order of the tables.

    Args:
        chats: how many are asked side by side.
    """
    return {
        "single": Row("one stream", "tok/s", is_rate=True),
        "picture": Row("new picture, first token", "ms"),
        "cold": Row(f"{HISTORY_TOKENS} tokens cold, first token", "ms"),
        "follow_up": Row(f"follow-up on {HISTORY_TOKENS}, first token", "ms"),
        **{
            f"total_{n}": Row(f"{n} {'chat' if n == 1 else 'chats'}, all", "tok/s", is_rate=True)
            for n in chats
        },
        "long": Row(f"{LONG_CHATS} follow-ups on {HISTORY_TOKENS}, all", "tok/s", is_rate=True),
        **{f"gap_{n}": Row(f"{n} {'chat' if n == 1 else 'chats'}, p99 gap", "ms") for n in chats},
        "memory": Row("memory (PSS)", "MB"),
        "start": Row("start to first answer", "s"),
    }


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is asked.

    Args:
        chats: how many side by side, one row each.
        answer_tokens: length of an answer.
        repeats: of each measurement that takes one chat; their median counts.
        rows: which groups: "single", "picture", "follow_up", "chats", "long".
    """

    chats: tuple[int, ...] = (1, 4, 8, 16, 32)
    answer_tokens: int = ANSWER_TOKENS
    repeats: int = 3
    rows: frozenset[str] = frozenset({"single", "picture", "follow_up", "chats", "long"})


@dataclass(slots=True)
class Answer:
    """One answer as it came, by ``time.perf_counter``."""

    asked_seconds: float
    times: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The whole answer, without the space that some servers put in front."""
        return "".join(self.pieces).strip()

    @property
    def first_token_ms(self) -> float:
        """From the question to the first words."""
        return 1000 * (self.times[0] - self.asked_seconds)

    @property
    def rate(self) -> float:
        """Tokens a second from the first words on."""
        num_tokens = count_words(self.text) - count_words(self.pieces[0])
        return num_tokens / (self.times[-1] - self.times[0])

    @property
    def gaps_ms(self) -> list[float]:
        """Between what a reader sees."""
        return [
            1000 * (later - earlier)
            for earlier, later in zip(self.times, self.times[1:], strict=False)
        ]


@dataclass(slots=True)
class Measured:
    """What came out of one contender in one round.

    Args:
        figures: by row's key.
        answers: texts of the answers to the single chats, for comparison.
        prompt_tokens: of a short chat's and a follow-up's prompt, as the server counted them.
    """

    figures: dict[str, float] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    prompt_tokens: dict[str, int] = field(default_factory=dict)


class UnequalWork(Exception):
    """An answer is not as long as all answers are to be."""


async def ask(interface: Interface, talk: Talk, question: str, max_tokens: int) -> Answer:
    """Ask one question, note when the answer's pieces come, and check its length.

    Raises:
        AnswerFailed, UnequalWork: there is none, or not the one that was asked for.
    """
    answer = Answer(time.perf_counter())
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for piece in interface.ask(talk, question, max_tokens):
                answer.times.append(time.perf_counter())
                answer.pieces.append(piece)
    except TimeoutError as error:
        raise AnswerFailed(f"no answer within {ANSWER_SECONDS:.0f} s") from error
    num_tokens = count_words(answer.text)
    if num_tokens != max_tokens:
        raise UnequalWork(f"{num_tokens} tokens came, not {max_tokens}: {answer.text[:200]!r}")
    talk.turns.append((question, answer.text))
    return answer


async def open_talk(interface: Interface, opening: Opening, max_tokens: int) -> tuple[Talk, Answer]:
    """Begin a chat."""
    talk = Talk(opening.picture)
    return talk, await ask(interface, talk, opening.question, max_tokens)


async def measure(interface: Interface, workload: Workload, scale: Scale) -> Measured:
    """Everything once, after a warm-up.

    The workload is drawn in whole whatever rows are asked for, so that a row's questions are the
    same in every run.
    """
    measured = Measured()
    await warm_up(interface, workload)
    openings = [workload.draw_opening() for _ in range(scale.repeats)]
    if "single" in scale.rows:
        await measure_single(interface, openings, scale, measured)
    openings = [workload.draw_opening() for _ in range(2 * scale.repeats + 1)]
    if "picture" in scale.rows:
        answers = [await open_talk(interface, o, FIRST_TOKEN_TOKENS) for o in openings]
        measured.figures["picture"] = median([a.first_token_ms for _, a in answers])
    openings = [workload.draw_long_opening() for _ in range(scale.repeats)]
    if "follow_up" in scale.rows:
        await measure_follow_up(interface, openings, workload, measured)
    for num_chats in scale.chats:
        openings = [workload.draw_opening() for _ in range(num_chats)]
        if "chats" in scale.rows:
            await measure_chats(interface, openings, scale, measured)
    openings = [workload.draw_long_opening() for _ in range(LONG_CHATS)]
    if "long" in scale.rows:
        await measure_long(interface, openings, workload, scale, measured)
    return measured


async def warm_up(interface: Interface, workload: Workload) -> None:
    """What a first question costs a server once is not what is measured."""
    openings = [workload.draw_opening() for _ in range(4)]
    talks = await asyncio.gather(*(open_talk(interface, o, 8) for o in openings))
    await ask(interface, talks[0][0], workload.draw_question(), 8)


async def measure_single(
    interface: Interface, openings: Sequence[Opening], scale: Scale, measured: Measured
) -> None:
    """One chat after another."""
    answers = []
    for opening in openings:
        talk, answer = await open_talk(interface, opening, scale.answer_tokens)
        measured.prompt_tokens["short"] = talk.prompt_tokens
        answers.append(answer)
    measured.answers = [answer.text for answer in answers]
    measured.figures["single"] = median([answer.rate for answer in answers])


async def measure_follow_up(
    interface: Interface, openings: Sequence[Opening], workload: Workload, measured: Measured
) -> None:
    """A long chat's first token, and that of the question after it."""
    cold, follow_up = [], []
    for opening in openings:
        talk, answer = await open_talk(interface, opening, ANSWER_TOKENS)
        cold.append(answer.first_token_ms)
        answer = await ask(interface, talk, workload.draw_question(), FIRST_TOKEN_TOKENS)
        follow_up.append(answer.first_token_ms)
        measured.prompt_tokens["follow_up"] = talk.prompt_tokens
    measured.figures["cold"] = median(cold)
    measured.figures["follow_up"] = median(follow_up)


async def measure_chats(
    interface: Interface, openings: Sequence[Opening], scale: Scale, measured: Measured
) -> None:
    """New chats about new pictures, all at once."""
    began = time.perf_counter()
    answered = await asyncio.gather(
        *(open_talk(interface, opening, scale.answer_tokens) for opening in openings)
    )
    seconds = time.perf_counter() - began
    gaps = [gap for _, answer in answered for gap in answer.gaps_ms]
    measured.figures[f"total_{len(openings)}"] = len(openings) * scale.answer_tokens / seconds
    measured.figures[f"gap_{len(openings)}"] = percentile(gaps, 99) if gaps else math.nan


async def measure_long(
    interface: Interface,
    openings: Sequence[Opening],
    workload: Workload,
    scale: Scale,
    measured: Measured,
) -> None:
    """Follow-ups in long chats, all at once. Their histories are read in turn beforehand."""
    talks = [(await open_talk(interface, opening, ANSWER_TOKENS))[0] for opening in openings]
    questions = [workload.draw_question() for _ in talks]
    began = time.perf_counter()
    await asyncio.gather(
        *(
            ask(interface, talk, question, scale.answer_tokens)
            for talk, question in zip(talks, questions, strict=True)
        )
    )
    seconds = time.perf_counter() - began
    measured.figures["long"] = len(talks) * scale.answer_tokens / seconds
