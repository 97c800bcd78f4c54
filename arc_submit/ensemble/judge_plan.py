"""Which outputs are judged, in which order, and the jobs for that: where the sources' ranking is least certain comes first.

A pure function of the ranking and of what has been asked. Does not know models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arc_submit.arc.grid import Grid
from arc_submit.arc.prediction import OutputKey
from arc_submit.arc.submission import ATTEMPTS
from arc_submit.arc.task import Task
from arc_submit.ensemble.combination import CombinedRanking, RankedAnswer
from arc_submit.ensemble.judge_settings import JudgeSettings
from arc_submit.ensemble.judgements import Judgement, candidate_id
from arc_submit.workers.supervisor import Job


@dataclass(frozen=True, eq=False)
class Contest:
    """An output that has several candidates.

    Attributes:
        output: task id and test input.
        candidates: the answers to judge; those that are the attempts without a judge come first.
        left_out: the probability of all answers that are no attempt without a judge: the most that a judge can gain.
        gap: between the probabilities of the two attempts.
    """

    output: OutputKey
    candidates: tuple[Grid, ...]
    left_out: float
    gap: float


def find_contests(ranking: CombinedRanking, most: int, settled: float = 1.0) -> list[Contest]:
    """The outputs with several answers, the least settled first.

    What is left out of the attempts orders them. Outputs with two answers come last, by their gap: both are attempted in any case.

    Args:
        ranking: without a judge.
        most: candidates of an output; after the attempts the most probable answers.
        settled: an output with an answer of a higher probability is left out.
    """
    contests = []
    for output, answers in ranking.answers.items():
        if len(answers) < 2 or is_settled(answers, settled):
            continue
        attempts = answers[: len(ATTEMPTS)]
        others = sorted(answers[len(ATTEMPTS) :], key=lambda answer: -answer.probability)
        grids = tuple(answer.grid for answer in [*attempts, *others][:most])
        left_out = math.fsum(answer.probability for answer in others)
        contests.append(Contest(output, grids, left_out, abs(attempts[0].probability - attempts[1].probability)))
    return sorted(contests, key=lambda contest: (-contest.left_out, contest.gap, contest.output))


def is_settled(answers: Iterable[RankedAnswer], settled: float) -> bool:
    """Whether the sources are sure of one of the answers to an output: its probability is higher than `settled`."""
    return any(answer.probability > settled for answer in answers)


def plan_jobs(
    contests: Iterable[Contest], tasks: Mapping[str, Task], settings: JudgeSettings, judgements: Mapping[str, Sequence[Judgement]]
) -> list[Job]:
    """A job for each task with an open question, in the order of its least settled output.

    Args:
        judgements: what has been asked, by task.
    """
    by_task: dict[str, list[Contest]] = {}
    for contest in contests:
        by_task.setdefault(contest.output[0], []).append(contest)
    jobs = []
    for task_id, own in by_task.items():
        asking, known = settings.asking(task_id), {judgement.key for judgement in judgements.get(task_id, ())}
        candidates = {
            str(contest.output[1]): [candidate_id(grid) for grid in contest.candidates]
            for contest in own
            if asking.open_questions(tasks[task_id], contest.output[1], contest.candidates, lambda one, known=known: one.key in known)  # type: ignore[misc]
        }
        if candidates:
            reason = _reason(own[0])
            params = {"steps": 0, "views": asking.views, "candidates": {task_id: candidates}}
            jobs.append(Job((task_id,), params=params, reason=reason))
    return jobs


def _reason(contest: Contest) -> str:
    if contest.left_out > 0:
        return f"test {contest.output[1]}: a probability of {contest.left_out:.2f} lies on answers that are no attempt"
    return f"test {contest.output[1]}: both answers are attempted in any case"
