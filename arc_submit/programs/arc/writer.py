"""The writer: proposes to the program search, for a task, the costs of the operations that set the order of its exploration.

The network says how much likelier the task makes an operation than it is in general; that is added to the cost in the operations' table,
which knows how often solutions use it. Does not know the search's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.programs.arc.features import STEP_FEATURES, features_of, task_features_count
from arc_submit.programs.arc.network import Weights, load_network, logits, new_network
from arc_submit.search.operations import OPERATIONS, TABLE
from arc_submit.search.store import Array

WRITER = Path(__file__).parents[3] / "models" / "writer" / "model.safetensors"
INSTALLED_WRITER = Path(__file__).with_name("writer.safetensors")  # in a bundle's wheel (arc_submit.kaggle.bundle)
HIDDEN = 64
_NATS = 0.57  # of one tenth of a step: with it the probabilities of all operations, exp(-0.57 * cost), sum to 1
_LOWEST, _HIGHEST = 2, 16  # costs; between them lie the cost classes that a state waits for


@dataclass(frozen=True)
class SearchWriter:
    """A network that proposes costs.

    Attributes:
        weights: see `network.new_network`.
        trust: weight of what the network says against the table; 0 gives the table's costs.
    """

    weights: Weights
    trust: float = 0.4

    def __call__(self, task: Task) -> Array:
        """int64 (operations,): the costs for a task."""
        return proposed_costs(self.evidence(task), self.trust)

    def evidence(self, task: Task) -> Array:
        """float32 (operations,): by how many nats the task changes the log-odds that an operation belongs to its program."""
        whole, steps = features_of(task.train)
        return np.asarray(logits(self.weights, whole[None], steps[None])[0, 0] - self.weights["prior"][0], dtype=np.float32)


def proposed_costs(evidence: Array, trust: float) -> Array:
    """int64 (operations,): the costs in the operations' table, less what the evidence is worth."""
    costs = TABLE[:, 5] - trust * evidence / _NATS
    return np.asarray(np.clip(np.rint(costs), _LOWEST, _HIGHEST), dtype=np.int64)


def load_writer(path: Path | None = None, trust: float = SearchWriter.trust) -> SearchWriter:
    """The writer with the weights of a file.

    Args:
        path: None takes the project's own, from a bundle's wheel or from the checkout.

    Raises:
        DataError: where the file is not there or is of another network.
    """
    path = path or (INSTALLED_WRITER if INSTALLED_WRITER.is_file() else WRITER)
    return SearchWriter(load_network(path, new_network(task_features_count(), len(OPERATIONS), STEP_FEATURES, HIDDEN, 0)), trust)
