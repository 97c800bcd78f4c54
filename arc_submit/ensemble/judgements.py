"""Judgements: what a model said of candidate answers, as data, and the scores that come of it.

Three questions can be asked of a candidate under a view of the task: which of two is right (select), is this one right (verify), and how
probable is it as the answer (product). A judgement is one answer, one line of a file. Knows nothing about how a model is asked
(judging.py does).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid
from arc_submit.arc.prediction import Output
from arc_submit.ensemble.bradley_terry import strengths
from arc_submit.ensemble.product import ScoredCandidate, rank_by_product
from arc_submit.errors import DataError

Question = Literal["select", "verify", "product"]
QUESTIONS: dict[str, Question] = {"selection": "select", "verification": "verify", "product": "product"}  # by the way that needs it


@dataclass(frozen=True, eq=False)
class Judgement:
    """One answer of a model about one candidate, or about two.

    Attributes:
        task: task id.
        test: index of the test input.
        question: "select", "verify" or "product".
        view: key of the view under which the task was shown.
        grids: the candidates in the task's own frame: two in the order shown for "select", else one.
        value: natural log: for "select" the odds of the first against the second, for "verify" the odds of right against wrong, for
            "product" the probability of the candidate as the answer.
        model: the name of the model.
        weights: what tells its weights, and the prompt that they were asked with, from others under the same name; "" where nobody said.
    """

    task: str
    test: int
    question: Question
    view: str
    grids: tuple[Grid, ...]
    value: float
    model: str
    weights: str = ""

    @property
    def key(self) -> tuple[int, str, str, tuple[bytes, ...], str, str]:
        """What makes two judgements of a task the same question to the same model."""
        return self.test, self.question, self.view, tuple(map(grid_id, self.grids)), self.model, self.weights

    def to_line(self) -> str:
        """The JSON line, with its newline."""
        value = {"task": self.task, "test": self.test, "question": self.question, "view": self.view}
        value |= {"grids": [grid_to_lists(grid) for grid in self.grids], "value": round(self.value, 6), "model": self.model}
        value |= {"weights": self.weights} if self.weights else {}
        return json.dumps(value, separators=(",", ":")) + "\n"


def judgement_from_line(line: str, where: str = "judgement") -> Judgement:
    """Read one line.

    Raises:
        DataError: naming `where` where the line is not a judgement.
    """
    try:
        value = json.loads(line)
        question, grids = value["question"], tuple(make_grid(grid, where) for grid in value["grids"])
        test, number = value["test"], float(value["value"])
        sound = question in QUESTIONS.values() and len(grids) == (2 if question == "select" else 1) and math.isfinite(number)
        if not sound or type(test) is not int or test < 0:
            raise DataError(f"{where}: {question!r:.20} of test {test!r:.20} with {len(grids)} grids and value {number} is no judgement")
        model, weights = str(value["model"]), str(value.get("weights", ""))
        return Judgement(str(value["task"]), test, question, str(value["view"]), grids, number, model, weights)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: not a judgement line ({type(error).__name__}: {error})") from None


def heard(judgements: Iterable[Judgement], question: Question) -> dict[Output, list[Judgement]]:
    """For every test input the answers to one question that count, in an order that is not that of the file.

    Of the same question asked twice it is the last answer, and of a model's weights those that were asked last about this test
    input: what a judge said before it was trained on is not its word any more.
    """
    asked: dict[Output, dict[str, list[Judgement]]] = {}
    for judgement in judgements:
        if judgement.question == question:
            asked.setdefault((judgement.task, judgement.test), {}).setdefault(judgement.model, []).append(judgement)
    counting = {}
    for output, models in asked.items():
        found = {one.key: one for said in models.values() for one in said if one.weights == said[-1].weights}
        counting[output] = [found[key] for key in sorted(found)]
    return counting


def judged_scores(judgements: Iterable[Judgement], question: Question) -> dict[Output, dict[bytes, float]]:
    """For every test input what the answers to one question make of each candidate, the higher the better, by `grid_id`.

    "select": Bradley-Terry strengths, a comparison counting as the share of a win that its odds make it; "verify": the mean of the
    log-odds over the views; "product": the sum of the log-probabilities over the views that all candidates were scored under. What counts
    is what `heard` says; the order of different questions to the same weights never matters.
    """
    scores = {"select": _selected, "verify": _verified, "product": _multiplied}[question]
    return {output: scores(counting) for output, counting in heard(judgements, question).items()}


def _selected(judgements: list[Judgement]) -> dict[bytes, float]:
    ids = sorted({grid_id(grid) for judgement in judgements for grid in judgement.grids})
    place = {key: number for number, key in enumerate(ids)}
    won: list[list[list[float]]] = [[[] for _ in ids] for _ in ids]
    for judgement in judgements:
        first, second = (place[grid_id(grid)] for grid in judgement.grids)
        share = 1 / (1 + math.exp(-max(-50.0, min(50.0, judgement.value))))
        won[first][second].append(share)
        won[second][first].append(1 - share)
    return dict(zip(ids, strengths([[math.fsum(cell) for cell in row] for row in won]), strict=True))


def _verified(judgements: list[Judgement]) -> dict[bytes, float]:
    values: dict[bytes, list[float]] = {}
    for judgement in judgements:
        values.setdefault(grid_id(judgement.grids[0]), []).append(judgement.value)
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def _multiplied(judgements: list[Judgement]) -> dict[bytes, float]:
    grids = {grid_id(j.grids[0]): j.grids[0] for j in judgements}
    values: dict[bytes, dict[str, float]] = {}
    for judgement in judgements:
        values.setdefault(grid_id(judgement.grids[0]), {})[f"{judgement.model} {judgement.view}"] = judgement.value
    common = set.intersection(*(set(found) for found in values.values()))
    scored = [ScoredCandidate(grids[key], _only(found, common)) for key, found in values.items()]
    return {grid_id(candidate.grid): candidate.total for candidate in rank_by_product(scored)}


def _only(values: Mapping[str, float], views: set[str]) -> dict[str, float]:
    return {view: value for view, value in values.items() if view in views}
