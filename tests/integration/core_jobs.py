"""Jobs that a core is given, from the first to the last token."""

from collections.abc import Sequence

from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.sequence import Job


def run(core: Core, jobs: Sequence[Job]) -> list[list[int]]:
    """All answers, in the order of the jobs; none may fail."""
    answers: dict[int, list[int]] = {job.number: [] for job in jobs}
    for job in jobs:
        core.add(job)
    while core.has_work:
        for output in core.step():
            assert not output.has_failed
            assert output.token_id is not None
            answers[output.number].append(output.token_id)
    return [answers[job.number] for job in jobs]
