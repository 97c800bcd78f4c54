"""The pool of a run: all its candidates with their predictions, its tasks and its judgements, as one file of JSON lines.

A line is a task, a candidate, or a judgement. A candidate is one distinct grid of one source for one test input with its rank and votes,
and with every prediction that gave it: view, log-probabilities, model or program, seconds. A candidate without a grid keeps the answers
that were no grids. What is combined from a pool equals what is combined from the run. The lines may be in any order, so that pools can be
joined by appending one to the other; a last line that was cut short costs that line alone. Does not know run directories.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_text, write_text
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import OutputKey, Prediction, prediction_from_json
from arc_submit.arc.task import Task, task_from_json, task_to_json
from arc_submit.ensemble.combination import rank
from arc_submit.ensemble.judgements import Judgement, judgement_from_line
from arc_submit.errors import DataError

_OF_CANDIDATE = ("task", "test", "grid", "source", "kind")  # what all predictions of a candidate have in common


@dataclass(frozen=True, eq=False)
class Pool:
    """The contents of a pool file.

    Attributes:
        tasks: those that are known, by id.
        counts: test inputs by task id, those of submission files that came without their tasks included.
        predictions: of all sources; the order in which the sources appear is their order of trust.
        judgements: of models that were asked.
    """

    tasks: Mapping[str, Task]
    counts: Mapping[str, int]
    predictions: list[Prediction]
    judgements: list[Judgement] = field(default_factory=list)


def write_pool(path: Path, pool: Pool) -> int:
    """Write a pool file, compressed where its name ends in .gz; returns the number of candidates.

    Raises:
        DataError: where the file cannot be written.
    """
    candidates = list(_candidates(pool.predictions))
    values = [_task_line(task_id, count, pool.tasks.get(task_id)) for task_id, count in pool.counts.items()] + candidates
    lines = [json.dumps(value, separators=(",", ":")) + "\n" for value in values]
    write_text(path, "".join([*lines, *(judgement.to_line() for judgement in pool.judgements)]))
    return len(candidates)


def _task_line(task_id: str, count: int, task: Task | None) -> dict[str, Any]:
    return {"task": task_id, "outputs": count} | ({} if task is None else task_to_json(task))


def _candidates(predictions: Iterable[Prediction]) -> Iterable[dict[str, Any]]:
    """The lines of candidates: sources in their order of appearance, the best answer to each test input first, no grid last."""
    by_source: dict[str, dict[OutputKey, list[Prediction]]] = {}
    for p in predictions:
        by_source.setdefault(p.source, {}).setdefault((p.task, p.test), []).append(p)
    for found in (pool for outputs in by_source.values() for _, pool in sorted(outputs.items())):
        by_grid: dict[bytes, list[tuple[int, Prediction]]] = {}
        for number, p in enumerate(found):
            by_grid.setdefault(b"" if p.grid is None else grid_id(p.grid), []).append((number, p))
        for place_in_source, answer in enumerate(rank(found), 1):
            place = {"rank": place_in_source, "votes": answer.votes, "logprob": round(answer.mean_logprob, 6)}
            yield _candidate_line(by_grid[grid_id(answer.grid)], place)
        if b"" in by_grid:
            yield _candidate_line(by_grid[b""], {"rank": None, "votes": 0, "logprob": None})


def _candidate_line(given: list[tuple[int, Prediction]], place: dict[str, Any]) -> dict[str, Any]:
    """A candidate with its predictions, each of which has its number among those of its source for the test input."""
    values = [{"number": number} | p.to_json() for number, p in given]
    common = {name: values[0][name] for name in _OF_CANDIDATE if name in values[0]}
    return common | place | {"predictions": [{k: v for k, v in value.items() if k not in _OF_CANDIDATE} for value in values]}


def read_pool(path: Path) -> tuple[Pool, list[str]]:
    """The contents of a pool file, and a message for each line that cannot be read and is left out.

    Raises:
        DataError: where the file cannot be read, no line is one of a pool, or two lines differ about a task.
    """
    read, problems = _Read(), []
    for number, line in enumerate(read_text(path, "replace").split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}: line {number}"
        try:
            _read_line(line, where, read)
        except _OtherTaskError as error:
            raise DataError(f"{path}: {error}") from None
        except DataError as error:
            problems.append(str(error))
    # The order in which the predictions of a source came; sources keep their order, because each has a prediction with number 0.
    ordered = [p for _, p in sorted(read.numbered, key=lambda one: one[0])]
    known = [p for p in ordered if p.test < read.counts.get(p.task, 0)]
    if len(known) < len(ordered):
        problems.append(f"{path.name}: {len(ordered) - len(known)} predictions are for no test input of a task in the file")
    if not known:
        raise DataError(f"{path}: no pool of candidates{f' ({problems[0]})' if problems else ''}; see arc-submit ensemble --export-pool")
    return Pool(read.tasks, read.counts, known, read.judgements), problems


@dataclass
class _Read:
    """What the lines have given so far; each prediction with its number."""

    tasks: dict[str, Task] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    numbered: list[tuple[int, Prediction]] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


class _OtherTaskError(DataError):
    """Two lines with one task id and different tasks."""


def _read_line(line: str, where: str, read: _Read) -> None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); cut short?") from None
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise DataError(f"{where}: not an object with the id of a task")
    if "question" in value:
        read.judgements.append(judgement_from_line(line, where))
    elif "predictions" in value:
        read.numbered.extend(_read_candidate(value, where))
    elif "outputs" in value:
        _read_task(value, where, read)
    else:
        raise DataError(f"{where}: neither a task, nor a candidate, nor a judgement")


def _read_candidate(value: dict[str, Any], where: str) -> list[tuple[int, Prediction]]:
    given = value["predictions"]
    if not isinstance(given, list) or not all(isinstance(one, dict) and type(one.get("number")) is int for one in given):
        raise DataError(f"{where}: predictions must be a list of objects, each with a number")
    common = {name: value[name] for name in _OF_CANDIDATE if name in value}
    return [(one["number"], prediction_from_json(one | common, where)) for one in given]


def _read_task(value: dict[str, Any], where: str, read: _Read) -> None:
    task_id, count = value["task"], value["outputs"]
    task = task_from_json(task_id, value, f"{where}: task {task_id}") if "train" in value else None
    if type(count) is not int or count < 1 or (task is not None and len(task.tests) != count):
        raise DataError(f"{where}: task {task_id}: outputs {count!r:.20} is not its number of test inputs")
    if read.counts.get(task_id, count) != count or (task is not None and read.tasks.get(task_id, task) != task):
        raise _OtherTaskError(f"two different tasks have the id {task_id}")
    read.counts[task_id] = count
    if task is not None:
        read.tasks[task_id] = task
