"""Prediction curves: pass_n and vote_2 against the number of predictions, so that the gain from more predictions is visible.

pass_n for n of the existing predictions is exact: the mean over all choices of n (Chen et al., "Evaluating large language models trained on
code", 2021). vote_2 is the mean over seeded random choices. Takes solutions; does not know how predictions are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arc_submit.arc.grid import grid_id
from arc_submit.arc.pictures import save_picture
from arc_submit.arc.prediction import OutputKey, Prediction, group_by_output
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.voting import basis_of


@dataclass(frozen=True)
class CurvePoint:
    """Shares of all outputs that n predictions for each output solve; an output with fewer predictions gives all of them.

    Attributes:
        n: number of predictions.
        pass_n: the right answer is among them.
        vote_2: the right answer is among the two with most votes, mean over the choices.
        lowest, highest: of vote_2 over the choices.
    """

    n: int
    pass_n: float
    vote_2: float
    lowest: float
    highest: float


def prediction_curves(
    predictions: Sequence[Prediction], solutions: Solutions, task_ids: Sequence[str], choices: int = 20
) -> dict[str, list[CurvePoint]]:
    """A curve for every source that votes; n takes the powers of two up to the largest number of predictions for an output.

    Args:
        task_ids: the tasks whose outputs are counted, all with solutions.
        choices: number of random choices of n predictions, the same for the same predictions in any order.
    """
    wanted = set(task_ids)
    outputs = sum(len(solutions.outputs[task_id]) for task_id in task_ids)
    pools: dict[str, list[Prediction]] = {}
    for p in predictions:
        if basis_of(p) == "votes" and p.task in wanted and p.test < len(solutions.outputs[p.task]):
            pools.setdefault(p.source, []).append(p)
    return {source: _curve(group_by_output(pool), solutions, outputs, choices) for source, pool in sorted(pools.items())}


def _curve(pools: Mapping[OutputKey, Sequence[Prediction]], solutions: Solutions, outputs: int, choices: int) -> list[CurvePoint]:
    most = max(len(pool) for pool in pools.values())
    counts = sorted({2**k for k in range(most.bit_length())} | {most})
    passed = np.zeros(len(counts))
    voted = np.zeros((choices, len(counts)))
    for number, (output, pool) in enumerate(sorted(pools.items())):
        right = grid_id(solutions.outputs[output[0]][output[1]])
        ordered = sorted(pool, key=lambda p: (p.view, p.logprob, b"" if p.grid is None else grid_id(p.grid)))
        ids = [None if p.grid is None else grid_id(p.grid) for p in ordered]
        hits = ids.count(right)
        if not hits:
            continue  # no choice of predictions solves this output
        place = {key: k for k, key in enumerate(sorted({key for key in ids if key is not None}))}
        kinds = np.array([len(place) if key is None else place[key] for key in ids])
        logprobs = np.array([max(-1e9, p.logprob) for p in ordered])
        for k, n in enumerate(counts):
            passed[k] += 1 - math.comb(len(pool) - hits, min(n, len(pool))) / math.comb(len(pool), min(n, len(pool)))
        rng = np.random.default_rng([number, len(pool)])
        for choice in range(choices):
            order = rng.permutation(len(pool))
            for k, n in enumerate(counts):
                voted[choice, k] += _among_two(kinds[order[:n]], logprobs[order[:n]], place[right], len(place))
    shares = voted / max(1, outputs)
    return [
        CurvePoint(n, float(passed[k] / max(1, outputs)), float(shares[:, k].mean()), float(shares[:, k].min()), float(shares[:, k].max()))
        for k, n in enumerate(counts)
    ]


def _among_two(kinds: np.ndarray, logprobs: np.ndarray, right: int, grids: int) -> bool:
    """Whether the grid `right` is among the two with most votes, ties broken as in arc_submit.ensemble.voting.

    Args:
        kinds: the number of each prediction's grid, in the order of the grids' bytes; `grids` for a prediction without a grid.
    """
    votes = np.bincount(kinds, minlength=grids + 1)[:grids]
    if not votes[right]:
        return False
    means = np.bincount(kinds, weights=logprobs, minlength=grids + 1)[:grids] / np.maximum(1, votes)
    tied = votes == votes[right]
    before = (votes > votes[right]) | (tied & (means > means[right])) | (tied & (means == means[right]) & (np.arange(grids) < right))
    return int(before.sum()) < 2


def plot_curves(path: Path, curves: Mapping[str, Sequence[CurvePoint]]) -> Path:
    """A PNG file with both curves of every source, vote_2 with its range over the choices."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    from arc_submit.report.timeline import colours_of

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    colours = colours_of(curves)
    for source, points in curves.items():
        colour, counts = colours[source], [p.n for p in points]
        passed, voted, lowest, highest = ([100 * getattr(p, name) for p in points] for name in ("pass_n", "vote_2", "lowest", "highest"))
        axis.plot(counts, passed, color=colour, marker="o", markersize=4, label=f"{source}: pass_n")
        axis.plot(counts, voted, color=colour, marker="s", markersize=4, linestyle="--", label=f"{source}: vote_2")
        axis.fill_between(counts, lowest, highest, color=colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    ticks = sorted({p.n for points in curves.values() for p in points})
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, labels=[str(n) for n in ticks])
    axis.set_ylim(bottom=0, top=max(1.0, *(105 * p.pass_n for points in curves.values() for p in points)))
    axis.set_xlabel("predictions for each output")
    axis.set_ylabel("% of outputs")
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    return save_picture(figure, path, dpi=110)
