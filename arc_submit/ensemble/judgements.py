"""Judgements: a model's answers to questions about candidates, as data, and the scores computed from them.

There are three questions about candidates under a view of the task: which of two is right (select), is this one right (verify), and how
probable is it as the answer (product). A judgement is one answer, a line of a file. Does not know how a model is queried (judging.py).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid
from arc_submit.arc.prediction import OutputKey
from arc_submit.ensemble.bradley_terry import strengths
from arc_submit.errors import DataError
from arc_submit.storage.run_dir import RunPaths

Question = Literal["select", "verify", "product"]
QUESTIONS: dict[str, Question] = {"selection": "select", "verification": "verify", "product": "product"}  # by ensemble method


@dataclass(frozen=True, eq=False)
class Judgement:
    """One answer of a model about one candidate, or about two.

    Attributes:
        task: task id.
        test: index of the test input.
        question: "select", "verify" or "product".
        view: key of the view that was applied to the task.
        grids: the candidates without the view: two in the order shown for "select", else one.
        value: natural log: for "select" the odds of the first against the second, for "verify" the odds of right against wrong, for
            "product" the probability of the candidate as the answer.
        model: the name of the model.
        fingerprint: a hash of the model's weights and the prompt; "" where unknown. Its JSON key is "weights".
    """

    task: str
    test: int
    question: Question
    view: str
    grids: tuple[Grid, ...]
    value: float
    model: str
    fingerprint: str = ""

    @property
    def key(self) -> tuple[int, str, str, tuple[bytes, ...], str, str]:
        """Equal for two judgements of a task that answer the same question by the same weights."""
        return self.test, self.question, self.view, tuple(map(grid_id, self.grids)), self.model, self.fingerprint

    def to_line(self) -> str:
        """The JSON line, with its newline."""
        value = {"task": self.task, "test": self.test, "question": self.question, "view": self.view}
        value |= {"grids": [grid_to_lists(grid) for grid in self.grids], "value": round(self.value, 6), "model": self.model}
        value |= {"weights": self.fingerprint} if self.fingerprint else {}
        return json.dumps(value, separators=(",", ":")) + "\n"


def judgement_from_line(line: str, where: str = "judgement") -> Judgement:
    """Read one line.

    Raises:
        DataError: naming `where`, where the line is not a judgement.
    """
    try:
        value = json.loads(line)
        question, grids = value["question"], tuple(make_grid(grid, where) for grid in value["grids"])
        test, number = value["test"], float(value["value"])
        sound = question in QUESTIONS.values() and len(grids) == (2 if question == "select" else 1) and math.isfinite(number)
        if not sound or type(test) is not int or test < 0:
            raise DataError(f"{where}: {question!r:.20} of test {test!r:.20} with {len(grids)} grids and value {number} is no judgement")
        model, fingerprint = str(value["model"]), str(value.get("weights", ""))
        return Judgement(str(value["task"]), test, question, str(value["view"]), grids, number, model, fingerprint)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: not a judgement line ({type(error).__name__}: {error})") from None


def candidate_id(grid: Grid) -> str:
    """A short name of a grid, equal for equal grids."""
    return hashlib.sha256(grid_id(grid)).hexdigest()[:16]


def read_judgements(paths: RunPaths, task_ids: Sequence[str]) -> list[Judgement]:
    """The judgements of some tasks in a run directory; a line cut short by a kill is left out."""
    found = []
    for task_id in task_ids:
        path = paths.judgements(task_id)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                found.append(judgement_from_line(line, path.name))
            except DataError:
                continue
    return found


def latest_judgements(judgements: Iterable[Judgement], question: Question) -> dict[OutputKey, list[Judgement]]:
    """For every test input the valid answers to one question, in an order that does not depend on the file's.

    Of repeated questions the last answer is valid. Of each model only the answers of its latest weights are valid, so that further training
    of a judge discards its earlier answers.
    """
    by_model: dict[OutputKey, dict[str, list[Judgement]]] = {}
    for judgement in judgements:
        if judgement.question == question:
            by_model.setdefault((judgement.task, judgement.test), {}).setdefault(judgement.model, []).append(judgement)
    latest = {}
    for output, models in by_model.items():
        found = {j.key: j for answers in models.values() for j in answers if j.fingerprint == answers[-1].fingerprint}
        latest[output] = [found[key] for key in sorted(found)]
    return latest


def judgement_scores(judgements: Iterable[Judgement], question: Question) -> dict[OutputKey, dict[bytes, float]]:
    """For every test input the score of each candidate by `grid_id`, the higher the better, from the `latest_judgements`.

    "select": Bradley-Terry log-strengths, a comparison being the fraction of a win that its odds give. "verify": the mean log-odds over
    the views. "product": the sum of the log-probabilities over the views under which every candidate was scored (a product of experts, the
    ARChitects' selection of 2024). The order of the judgements does not matter.
    """
    scores = {"select": _select_scores, "verify": _verify_scores, "product": _product_scores}[question]
    return {output: scores(latest) for output, latest in latest_judgements(judgements, question).items()}


def scores_by_method(judgements: Sequence[Judgement]) -> dict[str, dict[OutputKey, dict[bytes, float]]]:
    """`judgement_scores` by the ensemble method that needs them; a method without judgements is left out."""
    return {method: scores for method, question in QUESTIONS.items() if (scores := judgement_scores(judgements, question))}


def _select_scores(judgements: list[Judgement]) -> dict[bytes, float]:
    ids = sorted({grid_id(grid) for judgement in judgements for grid in judgement.grids})
    place = {key: number for number, key in enumerate(ids)}
    won: list[list[list[float]]] = [[[] for _ in ids] for _ in ids]
    for judgement in judgements:
        first, second = (place[grid_id(grid)] for grid in judgement.grids)
        share = 1 / (1 + math.exp(-max(-50.0, min(50.0, judgement.value))))
        won[first][second].append(share)
        won[second][first].append(1 - share)
    return dict(zip(ids, strengths([[math.fsum(cell) for cell in row] for row in won]), strict=True))


def _verify_scores(judgements: list[Judgement]) -> dict[bytes, float]:
    values: dict[bytes, list[float]] = {}
    for judgement in judgements:
        values.setdefault(grid_id(judgement.grids[0]), []).append(judgement.value)
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def _product_scores(judgements: list[Judgement]) -> dict[bytes, float]:
    values: dict[bytes, dict[tuple[str, str], float]] = {}
    for judgement in judgements:
        values.setdefault(grid_id(judgement.grids[0]), {})[judgement.model, judgement.view] = judgement.value
    # Sums over different views cannot be compared: a view counts only where it scored every candidate.
    common = set.intersection(*map(set, values.values()))
    if not common:
        return {}
    return {key: math.fsum(found[view] for view in common) for key, found in values.items()}
