"""The inputs of the ensemble: run directories, pool files and submission files, put together under names of their own.

A source of several inputs is named INPUT/SOURCE, where the input is named by its path or by NAME=PATH; a submission file is one source
under the name of its input. What the inputs say of a task must agree. Does not know how sources are combined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from arc_submit.arc.datasets import Challenges, short_id
from arc_submit.arc.files import read_json
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Task
from arc_submit.ensemble.attempts_file import AttemptsFile, attempt_predictions, read_attempts
from arc_submit.ensemble.judgements import Judgement, read_judgements
from arc_submit.ensemble.pool import Pool, read_pool
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.config import SOURCES
from arc_submit.run.recombine import read_run
from arc_submit.storage.run_dir import RunPaths

_ENDINGS = (".gz", ".jsonl", ".json")


@dataclass(frozen=True, eq=False)
class Input:
    """One input of the ensemble.

    Attributes:
        name: what its sources are named by; "" leaves them their own names.
        path: of the run directory or the file.
        pool: its tasks, predictions and judgements; without predictions for a submission file.
        attempts: of a submission file; None for a run or a pool.
        problems: lines, candidates and attempts that were left out.
    """

    name: str
    path: Path
    pool: Pool
    attempts: AttemptsFile | None = None
    problems: Sequence[str] = ()

    @property
    def is_run(self) -> bool:
        return self.path.is_dir()


@dataclass(frozen=True, eq=False)
class Gathered:
    """All inputs together.

    Attributes:
        challenges: the test file that a submission is written for: one that was given, or the tasks of all inputs.
        predictions: of all sources, for tasks of `challenges`.
        judgements: of all inputs.
        sources: names of the sources in the order of the inputs, the most trusted first.
        names: for each source the other names that stand for it on the command line: of its input, its own in the input, and its kind.
        notes: what was left out, and which tasks are in a part of the inputs alone.
    """

    challenges: Challenges
    predictions: list[Prediction]
    judgements: list[Judgement]
    sources: tuple[str, ...]
    names: Mapping[str, set[str]]
    notes: list[str] = field(default_factory=list)

    def expand(self, name: str) -> list[str]:
        """The sources that a name stands for: the source itself, or all sources of an input, of this name in any input, or of a kind."""
        return [name] if name in self.names else [source for source, names in self.names.items() if name in names]


def read_inputs(texts: Sequence[str]) -> list[Input]:
    """Read the inputs from their words on the command line, PATH or NAME=PATH.

    Raises:
        ConfigError: where two inputs have one name, or one is given twice.
        DataError: where one cannot be read.
    """
    named = [split_input(text) for text in texts]
    paths = [path for _, path in named]
    repeated = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if repeated:
        raise ConfigError(f"{repeated[0]} is given twice; give each input once")
    names = [name or default for (name, _), default in zip(named, _default_names(paths), strict=True)]
    if len(texts) == 1 and not named[0][0] and not _is_submission(paths[0]):
        names = [""]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"two inputs are named {twice[0]}; name them by NAME=PATH")
    return [_read(name, path) for name, path in zip(names, paths, strict=True)]


def split_input(text: str) -> tuple[str, Path]:
    """The name, "" where there is none, and the path of PATH or NAME=PATH; a path may hold "=" itself.

    Raises:
        ConfigError: where the name cannot be one.
        DataError: where there is no such path.
    """
    name, sign, path = text.partition("=")
    if not sign or Path(text).exists() or "/" in name:
        name, path = "", text
    if sign and name and not path:
        raise ConfigError(f"{text}: give a path after the name, such as {name}=runs/mine")
    if "," in name:
        raise ConfigError(f"{text}: a name of an input holds no comma")
    if not Path(path).exists():
        raise DataError(f"{path}: no such file or directory; give a run directory, a pool or a submission.json")
    return name, Path(path)


def _default_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path without its ending; where others have it too, with the folders above that tell them apart."""
    parts = [(*path.resolve().parts[1:-1], _stem(path.resolve())) for path in paths]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]).replace(",", "-"))
    return names


def _stem(path: Path) -> str:
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending) if path.is_file() else name
    return name


def _read(name: str, path: Path) -> Input:
    if path.is_dir():
        tasks, predictions, problems = read_run(path)
        counts = {task_id: len(task.tests) for task_id, task in tasks.items()}
        return Input(name, path, Pool(tasks, counts, predictions, read_judgements(RunPaths(path), sorted(tasks))), None, problems)
    if _is_submission(path):
        attempts = read_attempts(path)
        counts = {task_id: len(entries) for task_id, entries in attempts.entries.items()}
        return Input(name, path, Pool({}, counts, []), attempts, attempts.problems)
    pool, problems = read_pool(path)
    return Input(name, path, pool, None, problems)


def _is_submission(path: Path) -> bool:
    """Whether a file is one JSON value, and no line of a pool."""
    if path.is_dir():
        return False
    try:
        value = read_json(path)
    except DataError as error:
        if "not JSON" in str(error):
            return False
        raise
    return not isinstance(value, dict) or not isinstance(value.get("task"), str)


def gather(inputs: Sequence[Input], challenges: Challenges | None = None, challenges_path: Path | None = None) -> Gathered:
    """Put inputs together, with the names of their sources.

    Args:
        challenges: the test file to answer; None takes the tasks of all inputs.
        challenges_path: its path, for messages.

    Raises:
        DataError: where two inputs differ about a task, or an input has no task of the others or of `challenges`.
    """
    known = _check_tasks(inputs, challenges, challenges_path)
    _check_overlap(inputs, challenges, challenges_path)
    counts: dict[str, int] = {}
    for one in inputs:
        counts |= one.pool.counts
    tested = challenges or Challenges({i: known[i] for i in counts if i in known}, {}, counts)
    notes = _task_notes(inputs, tested)
    sources: dict[str, set[str]] = {}
    predictions: list[Prediction] = []
    judgements: list[Judgement] = []
    for one in inputs:
        found = one.pool.predictions
        if one.attempts is not None:
            found, fallbacks = attempt_predictions(one.name, one.attempts, known)
            if fallbacks:
                notes.append(f"{one.path}: {fallbacks} attempts are fallbacks (the test input, a plain grid) and left out")
        elif one.name:
            found = [replace(p, source=f"{one.name}/{p.source}", kind=p.source_kind) for p in found]
        # A pool has its sources in their order of trust already.
        own = {p.source: p.source_kind for p in (sorted(found, key=_place) if one.is_run else found)}
        sources |= {source: _names(one.name, source) | {kind} for source, kind in own.items()}
        predictions += [p for p in found if p.test < tested.test_counts.get(p.task, 0)]
        judgements += one.pool.judgements
        notes += _problem_notes(one)
    return Gathered(tested, predictions, judgements, tuple(sources), sources, notes)


def pool_of(gathered: Gathered, judgements: list[Judgement]) -> Pool:
    """Everything that was gathered as a pool, the sources in their order of trust."""
    predictions = sorted(gathered.predictions, key=lambda p: gathered.sources.index(p.source))
    return Pool(gathered.challenges.tasks, gathered.challenges.test_counts, predictions, judgements)


def _names(name: str, source: str) -> set[str]:
    """What stands for a source beside its full name; a source of a pool may have the name of an input before its own already."""
    before, _, own = source.rpartition("/")
    return {name, source.removeprefix(f"{name}/"), before, own} - {""}


def _place(p: Prediction) -> tuple[int, str]:
    return SOURCES.index(p.source_kind) if p.source_kind in SOURCES else len(SOURCES), p.source


def _check_tasks(inputs: Sequence[Input], challenges: Challenges | None, challenges_path: Path | None) -> dict[str, Task]:
    """The tasks of all inputs, each under its id alone.

    Raises:
        DataError: for the first task about which two inputs differ, with both.
    """
    known: dict[str, tuple[Task, Path | None]] = {}
    counts: dict[str, tuple[int, Path | None]] = {}
    if challenges is not None:
        known = {task_id: (task, challenges_path) for task_id, task in challenges.tasks.items()}
        counts = {task_id: (len(task.tests), challenges_path) for task_id, task in challenges.tasks.items()}
    for one in sorted(inputs, key=lambda one: one.attempts is not None):  # the files without tasks last
        for task_id, count in one.pool.counts.items():
            if task_id in counts and counts[task_id][0] != count:
                raise DataError(
                    f"task {short_id(task_id)} has {count} test inputs in {one.path} and {counts[task_id][0]} in {counts[task_id][1]}:"
                    " they belong to different test files"
                )
            counts.setdefault(task_id, (count, one.path))
            task = one.pool.tasks.get(task_id)
            if task is None:
                continue
            other, path = known.setdefault(task_id, (task, one.path))
            if task != other:
                where = "test inputs" if _train(task) == _train(other) else "train pairs"
                raise DataError(f"task {short_id(task_id)} has other {where} in {one.path} than in {path}: they are different tasks")
    return {task_id: task for task_id, (task, _) in known.items()}


def _train(task: Task) -> str:
    return replace(task, tests=()).digest()


def _check_overlap(inputs: Sequence[Input], challenges: Challenges | None, challenges_path: Path | None) -> None:
    """Refuse an input without any task to answer, and a submission file without any task of the other inputs."""
    for one in inputs:
        own = set(one.pool.counts)
        if challenges is not None:
            if not own & set(challenges.test_counts):
                raise DataError(f"{one.path}: holds none of the tasks of {challenges_path}; is it another test file's?")
            continue
        others = [other for other in inputs if other is not one]
        if one.attempts is not None and others and not own & {task_id for other in others for task_id in other.pool.counts}:
            raise DataError(
                f"{one.path}: holds none of the tasks of {', '.join(str(other.path) for other in others)}; is it another test file's?"
            )


def _task_notes(inputs: Sequence[Input], tested: Challenges) -> list[str]:
    """Which tasks are in one input alone, and which are not in the test file."""
    notes = []
    for one in inputs:
        others = {task_id for other in inputs if other is not one for task_id in other.pool.counts}
        alone = [task_id for task_id in one.pool.counts if task_id not in others and task_id in tested.test_counts]
        if len(inputs) > 1 and alone:
            notes.append(f"{len(alone)} tasks are in {one.path} alone, first {short_id(alone[0])}; they are kept")
        outside = [task_id for task_id in one.pool.counts if task_id not in tested.test_counts]
        if outside:
            notes.append(f"{len(outside)} tasks of {one.path} are not in the test file, first {short_id(outside[0])}; they are left out")
    return notes


def _problem_notes(one: Input) -> list[str]:
    if one.is_run:
        return [f"{len(one.problems)} prediction lines could not be read and are left out"] if one.problems else []
    return [f"left out: {problem}" for problem in one.problems]
