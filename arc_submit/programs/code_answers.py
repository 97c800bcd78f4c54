"""The answers of a model that writes programs, as a task's file keeps them, and the predictions that their outputs become.

Does not know models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from arc_submit.arc.files import append_lines, file_name
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.task import Task
from arc_submit.programs.interface import WrittenProgram
from arc_submit.programs.relabel import RanProgram, view_of

_KEPT = 50  # programs whose outputs become predictions, the best of a task


@dataclass(frozen=True)
class Answer:
    """One answer of the model, as the source's folder keeps it.

    Attributes:
        turn: 0 for a first program, then the round of questions about failed ones, then three for each round of learning:
            its programs at the low temperature, the others, and none, as the third is the number of the learner's seed.
        number: within the turn.
        parent: place in the list of all answers of the program that it was asked about; -1 where it was asked about none.
        view: under which it was asked.
        text: the program; empty where the answer holds none.
        problem: why there is none.
        logprob: natural log of the probability of the answer.
        tokens: of the answer.
    """

    turn: int
    number: int
    parent: int
    view: str
    text: str
    problem: str
    logprob: float
    tokens: int

    @property
    def written(self) -> WrittenProgram:
        """The program as the model wrote it."""
        return WrittenProgram(self.text, self.logprob, self.view)


def programs_path(home: Path, task_id: str) -> Path:
    """The file of a task's programs in the source's folder."""
    return home / "programs" / f"{file_name(task_id)}.jsonl"


def rounds_folder(home: Path, task_id: str) -> Path:
    """The folder of a task's rounds of learning in the source's folder."""
    return home / "rounds" / file_name(task_id)


def read_answers(path: Path) -> list[Answer]:
    """The answers in a task's file; a line that a kill cut short is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    answers = []
    for line in lines:
        try:
            answers.append(Answer(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return answers


def keep_answer(path: Path, answer: Answer) -> None:
    """Append an answer to a task's file."""
    append_lines(path, json.dumps(vars(answer), separators=(",", ":")) + "\n")


def make_predictions(task: Task, ran: Iterable[RanProgram | None], model: str, source: str, seconds: float) -> list[Prediction]:
    """A prediction of each of the best programs for each test input with an output; of programs with one text and view one.

    Args:
        ran: the programs; None where an answer held none.
        seconds: of all of them.
    """
    pairs = len(task.train)
    best: dict[tuple[str, str], RanProgram] = {}
    for one in ran:
        if one is not None and any(grid is not None for grid in one.outputs[pairs:]):
            key = one.program.view, one.program.text
            best[key] = max(best.get(key, one), one, key=lambda one: one.program.logprob)
    chosen = sorted(best.values(), key=lambda one: one.order, reverse=True)[:_KEPT]
    predictions = []
    for one in chosen:
        view, logprob = view_of(one.program, task).key, min(0.0, one.program.logprob)
        for test, grid in enumerate(one.outputs[pairs:]):
            if grid is not None:
                fits = one.whole, pairs
                predictions.append(
                    Prediction(task.id, test, grid, source, view, logprob, model, seconds, program=one.program.text, fits=fits)
                )
    return predictions


def append_new(path: Path, predictions: Iterable[Prediction], kind: str) -> int:
    """Write the predictions of programs that have none yet; returns how many."""
    held = {(p.test, p.view, p.program) for p in read_predictions(path)[0]}
    new = [replace(p, kind=kind) if kind else p for p in predictions if (p.test, p.view, p.program) not in held]
    append_predictions(path, new)
    return len(new)
