"""Learning at test time: what the search's programs make of a task's own inputs is labelled data for the task's writer.

A short exploration of the task's inputs gives programs with what they really draw. The network learns on these for some seconds, and then
proposes for the outputs that are asked. Does not know what is asked: of the outputs it uses the sizes and the colours.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.programs.arc.features import features_of
from arc_submit.programs.arc.network import Adam, loss_and_gradient
from arc_submit.programs.arc.samples import draw_samples, labels_of
from arc_submit.programs.arc.writer import SearchWriter


def learn_on_task(writer: SearchWriter, task: Task, samples: int = 48, steps: int = 20, rate: float = 3e-4, seed: int = 0) -> SearchWriter:
    """The writer after a short training on programs over the inputs of one task; the writer as it is where no program makes a sample.

    Args:
        samples: programs drawn; each costs some ten milliseconds.
        steps: of the optimizer, each on all samples.
    """
    drawn = islice(draw_samples([task.train], np.random.default_rng(seed), each=16), samples)
    rows = [(*features_of(sample.pairs), labels_of(sample.programs)) for sample in drawn]
    if not rows:
        return writer
    tasks, one_step, labels = (np.stack([row[k] for row in rows]) for k in range(3))
    weights = {name: value.copy() for name, value in writer.weights.items()}
    optimizer = Adam(weights, rate)
    for _ in range(steps):
        optimizer.step(loss_and_gradient(weights, tasks, one_step, labels)[1])
    return replace(writer, weights=weights)
