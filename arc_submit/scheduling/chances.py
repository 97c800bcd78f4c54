"""The chance that a task is solved at a level: a logistic function of its size, steps and views, fitted to finished runs.

A file of a few numbers holds the function for one model and one way to fine-tune it. During a run the function is corrected by how often
the model agrees with the search where the search is sure. Pure functions; does not know predictions, tasks or files of runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.files import read_json, write_json
from arc_submit.errors import DataError

_CELLS = 500.0  # the size at which the function's constant holds
UNKNOWN_EASE = 0.4  # the mean probability of the search's best answer, for a task that the search has not answered yet
# Standard deviations of the prior of each coefficient: the constant is free, the slopes are known roughly.
_PRIOR_STD = (3.0, 0.5, 0.3, 0.3, 1.0)
_PRIOR_COUNT = 2.0  # outputs that the file's function counts for, where a run corrects it
_LARGEST_LOG_ODDS = 30.0
COEFFICIENTS = ("constant", "cells", "steps", "views", "ease")


@dataclass(frozen=True)
class SolveChances:
    """The log-odds that one output is solved.

    Attributes:
        constant: of a task of 500 cells without steps, under one view, whose search answers have the mean probability.
        cells: change for each doubling of the task's cells.
        steps: change for each doubling of 1 + steps.
        views: change for each doubling of the views.
        ease: change from a search answer of probability 0 to one of probability 1.
        observations: outputs at levels that the function was fitted to; 0 for an assumed one.
    """

    constant: float = -4.0
    cells: float = -0.7
    steps: float = 0.3
    views: float = 0.2
    ease: float = 1.75
    observations: int = 0

    def at(self, steps: Any, views: Any, cells: Any, ease: Any = UNKNOWN_EASE, shift: float = 0.0) -> Any:
        """The chance, from numbers or from arrays that broadcast.

        Args:
            cells: of the task.
            ease: the probability of the search's best answer.
            shift: correction of the log-odds by a run.
        """
        log_odds = (
            self.constant
            + shift
            + self.cells * np.log2(np.maximum(1.0, cells) / _CELLS)
            + self.steps * np.log2(1.0 + np.asarray(steps, dtype=float))
            + self.views * np.log2(np.maximum(1.0, views))
            + self.ease * (np.asarray(ease) - UNKNOWN_EASE)
        )
        return 1.0 / (1.0 + np.exp(-np.clip(log_odds, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)))


@dataclass(frozen=True)
class Observation:
    """Whether one output was solved at one level.

    Attributes:
        ease: the probability of the search's best answer, UNKNOWN_EASE where the search did not run.
    """

    steps: int
    views: int
    cells: float
    ease: float
    solved: bool


def fit_chances(observations: Sequence[Observation]) -> SolveChances:
    """Fit the function by penalised maximum likelihood (Newton's method), with the assumed function as the prior.

    No steps and no views may lower the chance: a negative coefficient of either is set to 0 and the others are fitted again.

    Raises:
        DataError: without observations.
    """
    if not observations:
        raise DataError("chances: no finished level with a known solution; give runs that were fine-tuned, and their solutions")
    prior = np.array([getattr(SolveChances(), name) for name in COEFFICIENTS])
    design = np.array(
        [
            [1.0, math.log2(max(1.0, o.cells) / _CELLS), math.log2(1 + o.steps), math.log2(max(1, o.views)), o.ease - UNKNOWN_EASE]
            for o in observations
        ]
    )
    solved = np.array([float(o.solved) for o in observations])
    free = np.ones(len(prior), dtype=bool)
    while True:
        values = _newton(design, solved, np.where(free, prior, 0.0), free)
        negative = [i for i in (2, 3) if free[i] and values[i] < 0]
        if not negative:
            constant, cells, steps, views, ease = (round(float(value), 5) for value in values)
            return SolveChances(constant, cells, steps, views, ease, len(observations))
        free[negative] = False


def _newton(design: np.ndarray, solved: np.ndarray, prior: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Maximise the log-likelihood minus the ridge; coefficients that are not free keep the prior's value."""
    values = prior.copy()
    ridge = 1.0 / np.square(_PRIOR_STD)

    def objective(v: np.ndarray) -> float:
        log_odds = design @ v
        return float(np.sum(solved * log_odds - np.logaddexp(0.0, log_odds)) - 0.5 * np.sum(ridge * (v - prior) ** 2))

    for _ in range(100):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ values, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)))
        gradient = (design.T @ (solved - chance) - ridge * (values - prior))[free]
        curvature = ((design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge))[np.ix_(free, free)]
        step = np.zeros_like(values)
        step[free] = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and objective(values + size * step) < objective(values):
            size /= 2
        values = values + size * step
        if np.max(np.abs(step)) < 1e-8:
            break
    return values


def log_loss(chances: SolveChances, observations: Sequence[Observation]) -> float:
    """Mean negative log-likelihood, nats an observation."""
    losses = []
    for o in observations:
        chance = float(chances.at(o.steps, o.views, o.cells, o.ease))
        losses.append(-math.log(chance if o.solved else 1 - chance))
    return math.fsum(losses) / len(losses)


def run_shift(agreed: int, expected: float) -> float:
    """The correction of the log-odds by a run.

    Args:
        agreed: how many first answers of the model are those of a sure search.
        expected: how many would be, by the function.
    """
    return math.log((agreed + _PRIOR_COUNT) / (expected + _PRIOR_COUNT))


def write_chances(path: Path, chances: SolveChances) -> None:
    """Write the file."""
    write_json(path, asdict(chances))


def read_chances(path: Path) -> SolveChances:
    """Read the file.

    Raises:
        DataError: where it is missing or malformed.
    """
    value = read_json(path)
    names = {field.name for field in fields(SolveChances)}
    if not isinstance(value, dict) or set(value) != names:
        raise DataError(f"{path}: not a file of chances; it holds {', '.join(sorted(names))}; arc-submit chances writes it")
    for name, one in value.items():
        if name == "observations":
            sound, expected = type(one) is int and one >= 0, "a whole number from 0"
        else:
            least = 0 if name in ("steps", "views") else -_LARGEST_LOG_ODDS  # more work lowers no chance
            sound = isinstance(one, int | float) and not isinstance(one, bool) and least <= one <= _LARGEST_LOG_ODDS
            expected = f"a number from {least:g} to {_LARGEST_LOG_ODDS:g}"
        if not sound:
            raise DataError(f"{path}: {name} is {repr(one)[:40]} and not {expected}; arc-submit chances writes the file")
    return SolveChances(**value)
