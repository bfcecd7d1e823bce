"""Measures a checkpoint: ``python -m training.evaluate --quantization all``.

Every scene is fresh and every wording held out of training; with ``--blind`` the wordings are
another author's. Each table has two columns of accuracy: the facts that were asked for, and the
whole answer word for word.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from training.answering import QUANTISATIONS, Answerer
from training.cases import (
    FOLLOW_UP_KINDS,
    SINGLE_KINDS,
    Case,
    load_blind_wordings,
    sample_after_long_history,
    sample_follow_up,
    sample_other_picture,
    sample_second_picture,
    sample_single,
    sample_talk_case,
    sample_without_picture,
)
from training.checkpoint import DEFAULT_FOLDER
from training.grading import has_right_facts, is_exact
from training.phrasing import AUTHORS, choose_asked, find_unasked
from training.rendering import Style

DEFAULT_BLIND_PATH = Path(__file__).parent / "blind" / "wordings.json"
_SCENES_PER_BLIND_WORDING = 6
_LONG_HISTORY_TURNS = 55
_STYLES = {
    "textured background": Style(textured=True),
    "outlines only": Style(outlined=True),
    "48 pixels": Style(side_pixels=48),
    "JPEG quality 10": Style(jpeg_quality=10),
}
_SEED = 7


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--quantization", choices=(*QUANTISATIONS, "all"), default="all")
    parser.add_argument("--n", type=int, default=480, help="questions in a large table")
    parser.add_argument("--blind", nargs="?", type=Path, const=DEFAULT_BLIND_PATH)
    parser.add_argument(
        "--authors",
        nargs="+",
        choices=AUTHORS,
        default=AUTHORS,
        help="whose wordings to ask; all by default",
    )
    parser.add_argument(
        "--seen", action="store_true", help="ask the wordings that training has seen instead"
    )
    parser.add_argument("--brief", action="store_true", help="only the first two tables")
    parser.add_argument("--failures", type=int, default=0, help="failures to print per table")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quantisations = QUANTISATIONS if options.quantization == "all" else (options.quantization,)
    choose_asked(options.authors, seen=options.seen)
    if unasked := find_unasked((*SINGLE_KINDS, *FOLLOW_UP_KINDS)):
        parser.error(
            f"--authors {' '.join(options.authors)}: they have no frames to ask of "
            f"{', '.join(unasked)}; name more authors"
        )
    for index, quantisation in enumerate(quantisations):
        report = Report(Answerer(options.model, quantisation), quantisation, options.failures)
        if options.blind:
            report.measure_blind(options.blind)
            continue
        report.measure_single(options.n)
        report.measure_follow_ups(options.n // 2)
        if index == 0 and not options.brief:
            report.measure_robustness(options.n // 4)
            report.measure_conversation(options.n // 6)


class Report:
    """Asks, grades and prints, table by table."""

    def __init__(self, answerer: Answerer, name: str, num_failures: int) -> None:
        self._answerer = answerer
        self._name = "fp32" if name == "none" else name
        self._num_failures = num_failures

    def measure_single(self, num_cases: int) -> None:
        """Single questions, by type."""
        rng = random.Random(f"single {_SEED}")
        cases = [
            sample_single(rng, SINGLE_KINDS[index % len(SINGLE_KINDS)])
            for index in range(num_cases)
        ]
        self._grade("single questions", cases)

    def measure_follow_ups(self, num_cases: int) -> None:
        """Follow-ups, by type; the model's own first answer is in the history."""
        rng = random.Random(f"follow-up {_SEED}")
        kinds = FOLLOW_UP_KINDS
        cases = [sample_follow_up(rng, kinds[index % len(kinds)]) for index in range(num_cases)]
        self._grade("follow-ups", cases)

    def measure_robustness(self, num_cases: int) -> None:
        """Single questions on pictures that are hard to see."""
        for name, style in _STYLES.items():
            rng = random.Random(f"{name} {_SEED}")
            cases = [
                sample_single(rng, SINGLE_KINDS[index % len(SINGLE_KINDS)], style)
                for index in range(num_cases)
            ]
            self._grade(name, cases, by_type=False)

    def measure_conversation(self, num_cases: int) -> None:
        """Whether it looks, remembers, knows its limits."""
        rng = random.Random(f"conversation {_SEED}")
        kinds = [SINGLE_KINDS[index % len(SINGLE_KINDS)] for index in range(num_cases)]
        swapped = [sample_other_picture(rng, sample_single(rng, kind)) for kind in kinds]
        self._grade("same question, another picture (should be low)", swapped, by_type=False)
        histories = [sample_after_long_history(rng, kind, _LONG_HISTORY_TURNS) for kind in kinds]
        self._grade(
            f"after {_LONG_HISTORY_TURNS} turns", histories[: num_cases // 2], by_type=False
        )
        seconds = [sample_second_picture(rng, kind) for kind in kinds]
        self._grade("about a second picture", seconds, by_type=False)
        no_pictures = [sample_without_picture(rng) for _ in kinds]
        self._grade("no picture was sent", no_pictures, by_type=False)
        talk = [sample_talk_case(rng, index % 2 == 0) for index in range(num_cases)]
        self._grade("small talk and questions off the topic", talk)

    def measure_blind(self, path: Path) -> None:
        """Wordings of another author, several scenes each."""
        wordings = load_blind_wordings(path)
        rng = random.Random(f"blind {_SEED}")
        cases = [
            sample_single(rng, kind, wording=wording)
            for kind, wording in wordings.single
            for _ in range(_SCENES_PER_BLIND_WORDING)
        ]
        self._grade("blind wordings, single questions", cases)
        firsts: dict[str, list[str]] = defaultdict(list)
        for kind, wording in wordings.single:
            firsts[kind].append(wording)
        cases = [
            sample_follow_up(rng, kind, after, (wording, _choose(rng, firsts, after)))
            for kind, after, wording in wordings.follow_up
            for _ in range(_SCENES_PER_BLIND_WORDING)
        ]
        self._grade("blind wordings, follow-ups", cases)

    def _grade(self, title: str, cases: Sequence[Case], *, by_type: bool = True) -> None:
        self._ask_first_questions(cases)
        replies = self._answerer.answer([case.chat for case in cases])
        marks: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        failures = []
        for case, reply in zip(cases, replies, strict=True):
            right = has_right_facts(case.kind, case.expected, reply)
            for row in ("all", *((case.kind,) if by_type else ())):
                marks[row].append((right, is_exact(case.expected, reply)))
            if not right:
                failures.append((case, reply))
        print(f"\n## {title} ({self._name}, n = {len(cases)})\n")
        print("| type | facts % | word for word % | n |\n|---|---|---|---|")
        for row, pairs in marks.items():
            facts = 100 * sum(right for right, _ in pairs) / len(pairs)
            exact = 100 * sum(exact for _, exact in pairs) / len(pairs)
            print(f"| {row} | {facts:.1f} | {exact:.1f} | {len(pairs)} |")
        for case, reply in failures[: self._num_failures]:
            history = f" (after {case.first_question!r})" if case.first_question else ""
            print(
                f"- {case.kind}: {case.chat.question!r}{history}: {reply!r}, not {case.expected!r}"
            )
        sys.stdout.flush()

    def _ask_first_questions(self, cases: Sequence[Case]) -> None:
        waiting = [case for case in cases if case.first_question is not None]
        follow_ups = [case.chat.question for case in waiting]
        for case in waiting:
            case.chat.question = case.first_question or ""
        replies = self._answerer.answer([case.chat for case in waiting])
        for case, question, reply in zip(waiting, follow_ups, replies, strict=True):
            case.chat.turns = [(case.chat.question, reply)]
            case.chat.question = question


def _choose(rng: random.Random, wordings: dict[str, list[str]], kind: str) -> str | None:
    return rng.choice(wordings[kind]) if wordings.get(kind) else None


if __name__ == "__main__":
    main()
