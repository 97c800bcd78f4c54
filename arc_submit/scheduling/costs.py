"""What work costs: seconds for fine-tuning and predicting, guessed from the hardware at first and corrected by what is measured.

Work is counted in units: a step of fine-tuning, or a prediction, for a thousand cells of a task (a cell is about a token). Each kind of
work costs something fixed for every job and something for each unit. Knows nothing about what a model or a process is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Seconds of a step, and of a prediction, for a thousand cells and a billion parameters. T4: a Qwen2.5-1.5B took 2.6 and 4.3 minutes a task
# for 100 and 200 steps, 1.2 and 1.5 minutes for 32 and 64 predictions, on tasks of about a thousand cells. The other GPUs: the same,
# divided by the ratio of the data sheets' 16-bit throughput for a step, of memory bandwidth for a prediction. A CPU core: the pocket model.
# These are where a run begins; its first jobs correct them.
INITIAL_RATES = {
    "T4": (0.66, 0.365),
    "L4": (0.355, 0.39),
    "A100": (0.138, 0.075),
    "H100": (0.0434, 0.0349),
    "H200": (0.0434, 0.0243),
    "cpu": (150.0, 170.0),
}
RESIDENT_OVERHEAD = 0.1  # seconds that each task takes beside its work where the worker keeps the model
PROCESS_OVERHEAD = 54.0  # the same with a process for each task, on Kaggle's GPUs: once for training, and again for inference


@dataclass
class LinearCost:
    """Seconds of a job as a straight line over its units, fitted to what was measured and, while that is little, to a guess.

    The variance of a job is taken to grow with its units, so that the fitted seconds of all jobs together are those measured.

    Attributes:
        fixed: seconds of a job without units.
        rate: seconds of a unit.
        jobs: how many were measured.
        rel_std: standard deviation of a job's seconds, as a part of the fitted ones.
    """

    fixed: float
    rate: float
    jobs: int = 0
    rel_std: float = 0.25
    _sums: list[float] = field(default_factory=lambda: [0.0] * 5, repr=False)
    _prior: tuple[float, float] = (0.0, 0.0)
    _squared_errors: float = 0.0

    def __post_init__(self) -> None:
        self._prior = (self.fixed, self.rate)

    def seconds(self, units: float) -> float:
        """Of a job; 0 where there is nothing to do."""
        return self.fixed + self.rate * units if units > 0 else 0.0

    def observe(self, units: float, seconds: float) -> None:
        """A job of so many units has taken so many seconds."""
        if units <= 0 or not 0 <= seconds < math.inf:
            return
        if self.jobs:  # the first correction is of the guess and says nothing about how much jobs differ
            error = seconds / max(1e-9, self.seconds(units)) - 1
            self._squared_errors += min(4.0, error * error)
            self.rel_std = math.sqrt((4 * 0.25**2 + self._squared_errors) / (4 + self.jobs))
        self.jobs += 1
        weight = 1 / units
        for place, value in enumerate((weight, weight * units, weight * units**2, weight * seconds, weight * units * seconds)):
            self._sums[place] += value
        self._fit()

    def _fit(self) -> None:
        """Least squares of both, drawn a little towards the shape of the guess.

        The guess is first scaled to the seconds measured in all: how fast a device is it tells badly, how much of a job is fixed less so.
        """
        w, wx, wxx, wy, wxy = self._sums
        fixed, rate = self._prior
        scale = wxy / max(1e-12, self.jobs * fixed + wxx * rate)
        fixed, rate = fixed * scale, rate * scale
        mean = wx / w
        # It weighs as much as a twentieth of one job of middling units.
        a, b, c = w + 0.05 / mean, wx, wxx + 0.05 * mean
        y, xy = wy + 0.05 / mean * fixed, wxy + 0.05 * mean * rate
        determinant = a * c - b * b
        self.fixed, self.rate = (y * c - b * xy) / determinant, (a * xy - b * y) / determinant
        if self.fixed < 0:
            self.fixed, self.rate = 0.0, xy / c
        elif self.rate < 0:
            self.fixed, self.rate = y / a, 0.0


@dataclass(frozen=True)
class TaskSize:
    """What of a task decides how long work on it takes.

    Attributes:
        train: thousands of cells of a sample of fine-tuning.
        predict: the same of a prompt with its answer.
        outputs: test inputs.
    """

    train: float
    predict: float
    outputs: int = 1


@dataclass
class CostModel:
    """Seconds of fine-tuning and of predictions."""

    train: LinearCost
    predict: LinearCost

    def seconds(self, steps: int, views: int, size: TaskSize) -> float:
        """Of fine-tuning a task by so many steps, then predicting each of its outputs under so many views."""
        return self.train.seconds(steps * size.train) + self.predict.seconds(views * size.outputs * size.predict)

    @property
    def measured_jobs(self) -> int:
        """Jobs that have been measured."""
        return max(self.train.jobs, self.predict.jobs)

    @property
    def rel_std(self) -> float:
        """How much a job differs from what is foretold, as a part of it."""
        return max(
            self.train.rel_std if self.train.jobs else 0.0, self.predict.rel_std if self.predict.jobs or not self.train.jobs else 0.0
        )


def learn_from_events(costs: CostModel, events: Iterable[Mapping[str, Any]], source: str, sizes: Mapping[str, TaskSize]) -> None:
    """Correct costs by the jobs in a run's timeline that one of its sources did.

    Args:
        sizes: of tasks; jobs with others are passed over.
    """
    results_of: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("source") != source:
            continue
        if event["event"] == "task_done" and isinstance(event.get("task"), str):
            results_of[event["task"]] = event
        elif event["event"] == "worker_done":
            results = {task: results_of.pop(task) for task in event.get("tasks", ()) if task in results_of}
            if results and set(results) <= set(sizes) and isinstance(event.get("seconds"), int | float):
                learn_from_job(costs, results, event["seconds"], sizes)


def learn_from_job(costs: CostModel, results: Mapping[str, Mapping[str, Any]], seconds: float, sizes: Mapping[str, TaskSize]) -> None:
    """Correct costs by a job that is done.

    Args:
        results: what its worker told of each task: "steps", "train_seconds", and how many predictions were "made", or prompts "answered"
            where one may give several.
        seconds: of the whole job.
    """
    steps = sum(result.get("steps", 0) * sizes[task].train for task, result in results.items())
    predictions = sum(result.get("answered", result.get("made", 0)) * sizes[task].predict for task, result in results.items())
    trained = min(seconds, sum(result.get("train_seconds", 0.0) for result in results.values()))
    costs.train.observe(steps, trained if predictions else seconds)
    costs.predict.observe(predictions, seconds - trained)


def initial_costs(device: str, parameters: float, fixed: float = RESIDENT_OVERHEAD) -> CostModel:
    """What a run begins with.

    Args:
        device: one of INITIAL_RATES.
        parameters: of the model.
        fixed: seconds of every job of either kind, see RESIDENT_OVERHEAD and PROCESS_OVERHEAD.
    """
    step, prediction = INITIAL_RATES[device]
    return CostModel(LinearCost(fixed, step * parameters / 1e9), LinearCost(fixed, prediction * parameters / 1e9))
