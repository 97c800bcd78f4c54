"""The writer's network: from the features of a task to the odds that each operation belongs to its program, and that it is the first.

One hidden layer over all features, and for each operation a linear term of its own features whose weights start equal for all operations.
It is small enough for numpy, so that a worker of the search needs no torch. Does not know tasks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from arc_submit.errors import DataError
from arc_submit.search.store import Array

Weights = dict[str, Array]
TARGETS = 2  # the operation is in the program; it is the program's first


def new_network(features: int, operations: int, step_features: int, hidden: int, seed: int) -> Weights:
    """Weights before training, float32, which give even odds; "prior" holds the log-odds without a look at the task and is not trained."""
    rng = np.random.default_rng(seed)
    inputs = features + operations * step_features
    weights = {
        "hidden": rng.normal(0, inputs**-0.5, (inputs, hidden)),
        "hidden_bias": np.zeros(hidden),
        "output": np.zeros((hidden, TARGETS * operations)),
        "output_bias": np.zeros((TARGETS, operations)),
        "shared": np.zeros((TARGETS, step_features)),
        "own": np.zeros((TARGETS, operations, step_features)),
        "prior": np.zeros((TARGETS, operations)),
    }
    return {name: value.astype(np.float32) for name, value in weights.items()}


def logits(weights: Weights, tasks: Array, steps: Array) -> Array:
    """float32 (samples, TARGETS, operations): log-odds.

    Args:
        tasks: float32 (samples, features).
        steps: float32 (samples, operations, step features).
    """
    return _forward(weights, tasks, steps)[0]


def _forward(weights: Weights, tasks: Array, steps: Array) -> tuple[Array, Array, Array]:
    """The log-odds, the hidden values and the input of the hidden layer."""
    inputs = np.concatenate([tasks, steps.reshape(len(steps), -1)], axis=1)
    hidden = np.maximum(inputs @ weights["hidden"] + weights["hidden_bias"], 0)
    out = (hidden @ weights["output"]).reshape(len(tasks), TARGETS, -1) + weights["output_bias"]
    for target in range(TARGETS):
        out[:, target] += (steps * (weights["own"][target] + weights["shared"][target])).sum(axis=2)
    return out, hidden, inputs


def loss_and_gradient(weights: Weights, tasks: Array, steps: Array, labels: Array) -> tuple[float, Weights]:
    """The negative log-likelihood of all operations in nats a sample, and its gradient.

    Args:
        labels: float32 (samples, TARGETS, operations), 0 or 1.
    """
    out, hidden, inputs = _forward(weights, tasks, steps)
    loss = float((np.logaddexp(0, out) - labels * out).sum() / len(tasks))
    error = (1 / (1 + np.exp(-out)) - labels) / len(tasks)
    flat = error.reshape(len(tasks), -1)
    back = (flat @ weights["output"].T) * (hidden > 0)
    own = np.stack([(error[:, target, :, None] * steps).sum(axis=0) for target in range(TARGETS)])
    return loss, {
        "hidden": inputs.T @ back,
        "hidden_bias": back.sum(axis=0),
        "output": hidden.T @ flat,
        "output_bias": error.sum(axis=0),
        "shared": own.sum(axis=1),
        "own": own,
    }


class Adam:
    """Adam with decoupled weight decay on the matrices of the hidden layer; changes the weights in place."""

    def __init__(self, weights: Weights, rate: float, decay: float = 0.0):
        self.weights, self.rate, self.decay = weights, rate, decay
        self._first = {name: np.zeros_like(value) for name, value in weights.items()}
        self._second = {name: np.zeros_like(value) for name, value in weights.items()}
        self._steps = 0

    def step(self, gradient: Weights, rate: float | None = None) -> None:
        """One step down the gradient, at the rate given or the optimizer's own."""
        self._steps += 1
        rate = self.rate if rate is None else rate
        corrected = rate * (1 - 0.999**self._steps) ** 0.5 / (1 - 0.9**self._steps)
        for name, slope in gradient.items():
            value = self.weights[name]
            self._first[name] += 0.1 * (slope - self._first[name])
            self._second[name] += 0.001 * (slope**2 - self._second[name])
            if name in ("hidden", "output"):
                value *= 1 - rate * self.decay
            value -= corrected * self._first[name] / (np.sqrt(self._second[name]) + 1e-8)


def save_network(weights: Weights, path: Path) -> None:
    """Write the weights as float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value.astype(np.float16)) for name, value in weights.items()}, path)


def load_network(path: Path, shapes: Weights) -> Weights:
    """Read weights, float32.

    Args:
        shapes: arrays by name whose shapes the file must have.

    Raises:
        DataError: where there is no file, or where it is of another network or of other operations.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; train it with python -m arc_submit.train.new_writer --out {path}")
    try:
        read = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no safetensors file: {error}") from error
    found, wanted = ({name: value.shape for name, value in one.items()} for one in (read, shapes))
    if found != wanted:
        raise DataError(f"{path}: has {found}, not {wanted}: it was trained for other operations; train it anew")
    return {name: value.astype(np.float32) for name, value in read.items()}
