"""The cost of work: seconds of fine-tuning and prediction, estimated from the hardware first and corrected by measured jobs.

Work is counted in units: one step of fine-tuning, or one prediction, for a thousand cells of a task (a cell is about one token). Each kind
of work costs a fixed time per job and a time per unit. Does not know models or processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# (Seconds of a step, seconds of a prediction), for a thousand cells and a billion parameters; docs/budget.md derives them. They only start
# a run: its first jobs correct them.
INITIAL_RATES = {
    "T4": (0.66, 0.365),
    "L4": (0.355, 0.39),
    "A100": (0.138, 0.075),
    "H100": (0.0434, 0.0349),
    "H200": (0.0434, 0.0243),
    "cpu": (150.0, 170.0),
}
RESIDENT_OVERHEAD = 0.1  # fixed seconds of a task where the worker keeps the model loaded
PROCESS_OVERHEAD = 54.0  # the same with a new process for each task, once for fine-tuning and again for inference

_INITIAL_REL_STD = 0.25
_INITIAL_WEIGHT = 4  # of _INITIAL_REL_STD, in jobs
_PRIOR_WEIGHT = 0.05  # of the estimate from the hardware, in jobs of mean size

# A single job begins only if it ends in time even when it takes this many standard deviations longer than estimated: a job that is killed
# at the deadline wastes all its time, while one that is not begun only leaves time for a smaller one.
_DEVIATIONS = 2.0


@dataclass
class LinearCost:
    """Seconds of a job as a linear function of its units, fitted to measured jobs with the first estimate as a prior.

    The variance of a job's seconds is assumed proportional to its units. With these weights the fit preserves the sum: the fitted seconds
    of all jobs together are the measured ones, up to the prior.

    Attributes:
        fixed: seconds of a job without units.
        rate: seconds per unit.
        jobs: number of measured jobs.
        rel_std: standard deviation of a job's seconds, relative to the fitted ones.
    """

    fixed: float
    rate: float
    jobs: int = 0
    rel_std: float = _INITIAL_REL_STD
    _sums: list[float] = field(default_factory=lambda: [0.0] * 5, repr=False)  # of w, w x, w x^2, w y, w x y: units x, seconds y
    _prior: tuple[float, float] = (0.0, 0.0)
    _squared_errors: float = 0.0

    def __post_init__(self) -> None:
        self._prior = (self.fixed, self.rate)

    def seconds(self, units: float) -> float:
        """Return the estimated seconds of a job; 0 for a job without units."""
        return self.fixed + self.rate * units if units > 0 else 0.0

    def observe(self, units: float, seconds: float) -> None:
        """Learn from a measured job."""
        if units <= 0 or not 0 <= seconds < math.inf:
            return
        if self.jobs:  # the error of the first job is the error of the hardware estimate, not the variation between jobs
            error = seconds / max(1e-9, self.seconds(units)) - 1
            self._squared_errors += min(4.0, error * error)
            self.rel_std = math.sqrt((_INITIAL_WEIGHT * _INITIAL_REL_STD**2 + self._squared_errors) / (_INITIAL_WEIGHT + self.jobs))
        self.jobs += 1
        weight = 1 / units
        for place, value in enumerate((weight, weight * units, weight * units**2, weight * seconds, weight * units * seconds)):
            self._sums[place] += value
        self._fit()

    def _fit(self) -> None:
        """Fit `fixed` and `rate` by weighted least squares, with a ridge towards the prior.

        The prior is first scaled to the measured sum of seconds: the estimate knows poorly how fast a device is, but better which part of a
        job is fixed.
        """
        w, wx, wxx, wy, wxy = self._sums
        fixed, rate = self._prior
        scale = wxy / max(1e-12, self.jobs * fixed + wxx * rate)
        fixed, rate = fixed * scale, rate * scale
        mean = wx / w
        # The ridge makes the system regular while all jobs have the same size.
        a, b, c = w + _PRIOR_WEIGHT / mean, wx, wxx + _PRIOR_WEIGHT * mean
        y, xy = wy + _PRIOR_WEIGHT / mean * fixed, wxy + _PRIOR_WEIGHT * mean * rate
        determinant = a * c - b * b
        self.fixed, self.rate = (y * c - b * xy) / determinant, (a * xy - b * y) / determinant
        # A negative term is set to 0, and the other one refitted alone.
        if self.fixed < 0:
            self.fixed, self.rate = 0.0, xy / c
        elif self.rate < 0:
            self.fixed, self.rate = y / a, 0.0


@dataclass(frozen=True)
class TaskSize:
    """The properties of a task that determine its cost.

    Attributes:
        train: thousands of cells of one fine-tuning sample.
        predict: thousands of cells of one prompt with its answer.
        outputs: number of test inputs.
        fits: some prompt of the task fits. Where none does, its jobs end at once.
    """

    train: float
    predict: float
    outputs: int = 1
    fits: bool = True


@dataclass
class CostModel:
    """Seconds of fine-tuning and of predictions."""

    train: LinearCost
    predict: LinearCost

    def seconds(self, steps: int, views: int, size: TaskSize) -> float:
        """Return the estimated seconds to fine-tune on a task and then predict each of its outputs under each view."""
        return self.train.seconds(steps * size.train) + self.predict.seconds(views * size.outputs * size.predict)

    @property
    def measured_jobs(self) -> int:
        """Number of measured jobs."""
        return max(self.train.jobs, self.predict.jobs)

    @property
    def rel_std(self) -> float:
        """Standard deviation of a job's seconds, relative to the estimate: the larger one of the two kinds of work."""
        return max(
            self.train.rel_std if self.train.jobs else 0.0, self.predict.rel_std if self.predict.jobs or not self.train.jobs else 0.0
        )

    def upper_bound(self, seconds: Any) -> Any:
        """The seconds, one number or an array, that a job with this estimate hardly ever exceeds."""
        return seconds * (1 + _DEVIATIONS * self.rel_std) if self.measured_jobs else seconds


def learn_from_events(costs: CostModel, events: Iterable[Mapping[str, Any]], source: str, sizes: Mapping[str, TaskSize]) -> None:
    """Correct costs by a source's jobs in the timeline of a run.

    Args:
        sizes: of tasks; jobs with other tasks are skipped.
    """
    pending: dict[str, Mapping[str, Any]] = {}  # results of tasks whose job has not ended yet
    for event in events:
        if event.get("source") != source:
            continue
        if event["event"] == "task_done" and isinstance(event.get("task"), str):
            pending[event["task"]] = event
        elif event["event"] == "worker_done":
            results = {task_id: pending.pop(task_id) for task_id in event.get("tasks", ()) if task_id in pending}
            if results and set(results) <= set(sizes) and isinstance(event.get("seconds"), int | float):
                learn_from_job(costs, results, event["seconds"], sizes)


def learn_from_job(costs: CostModel, results: Mapping[str, Mapping[str, Any]], seconds: float, sizes: Mapping[str, TaskSize]) -> None:
    """Correct costs by a done job.

    Args:
        results: by task, as its worker reported them: "steps", "train_seconds", and the number of answered prompts ("answered") or, for
            sources that give one prediction per prompt, of predictions ("made").
        seconds: of the whole job.
    """
    steps = sum(result.get("steps", 0) * sizes[task_id].train for task_id, result in results.items())
    predictions = sum(result.get("answered", result.get("made", 0)) * sizes[task_id].predict for task_id, result in results.items())
    trained = min(seconds, sum(result.get("train_seconds", 0.0) for result in results.values()))
    costs.train.observe(steps, trained if predictions else seconds)
    costs.predict.observe(predictions, seconds - trained)


def initial_costs(device: str, parameters: float, fixed: float = RESIDENT_OVERHEAD) -> CostModel:
    """Return the costs before any job has been measured.

    Args:
        device: a key of INITIAL_RATES.
        parameters: number of parameters of the model.
        fixed: seconds of every job of either kind, see RESIDENT_OVERHEAD and PROCESS_OVERHEAD.
    """
    step, prediction = INITIAL_RATES[device]
    return CostModel(LinearCost(fixed, step * parameters / 1e9), LinearCost(fixed, prediction * parameters / 1e9))


def judging_costs(costs: CostModel, question: str, candidates: int) -> CostModel:
    """The costs of judging an output under a view, in place of a prediction.

    A prompt is read once, which takes a third of a training step (no backward pass). Each candidate is read behind it, about a tenth of a
    prompt; a question of two answers reads it twice, and one about two candidates reads both, for each ordered pair.

    Args:
        question: "select", "verify" or "product".
        candidates: of an output.
    """
    behind = {"product": candidates, "verify": 2 * candidates, "select": 4 * candidates * (candidates - 1)}[question]
    return CostModel(costs.train, LinearCost(costs.predict.fixed, costs.train.rate / 3 * (1 + 0.1 * behind)))
