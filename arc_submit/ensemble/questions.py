"""Questions about candidates: what is asked of a judge, and what of it has no answer yet.

All of it follows from the task, the candidates and `Asking` alone, so that a parent without a model knows what is left to ask. Does not
know how a question is written, nor what answers mean.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.arc.views import View, choose_views
from arc_submit.ensemble.judgements import Judgement, Question


@dataclass(frozen=True)
class Asking:
    """What is asked about candidates, and of whom.

    Attributes:
        question: "select", "verify" or "product".
        views: under how many views each question is repeated; the same views for the same task and seed.
        seed: of the views and of the order in which train pairs are tried.
        model: the name of the model in its judgements.
        fingerprint: of its weights, see `Judgement`.
    """

    question: Question
    views: int
    seed: int
    model: str
    fingerprint: str = ""

    def open_questions(
        self, task: Task, test: int, candidates: Sequence[Grid], known: Callable[[Judgement], bool] = lambda judgement: False
    ) -> list[OpenQuestions]:
        """The questions about every candidate, or every ordered pair of candidates, under each view that leaves any open.

        Args:
            candidates: different answers to the test input, without a view.
            known: whether the answer to a question exists already; the value of its argument is 0.
        """
        groups = tuple(itertools.permutations(candidates, 2)) if self.question == "select" else tuple((grid,) for grid in candidates)
        found = []
        for number, view in enumerate(choose_views(len(task.train), self.views, self.seed * 1_000_003 + zlib.crc32(task.id.encode()))):
            blank = [Judgement(task.id, test, self.question, view.key, grids, 0.0, self.model, self.fingerprint) for grids in groups]
            blank = [judgement for judgement in blank if not known(judgement)]
            if blank:
                found.append(OpenQuestions(test, number, view, groups, tuple(blank)))
        return found


@dataclass(frozen=True, eq=False)
class OpenQuestions:
    """The questions about one output under one view that have no answer yet.

    Attributes:
        test: index of the test input.
        number: of the view among those of the task.
        view: under which they are asked.
        groups: what all questions of the view are about, those with an answer too.
        blank: the judgements, without their values.
    """

    test: int
    number: int
    view: View
    groups: tuple[tuple[Grid, ...], ...]
    blank: tuple[Judgement, ...]
