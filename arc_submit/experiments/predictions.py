"""The experiment predictions: pass_n and vote_2 by the number of predictions, from the predictions that one run has made.

Nothing is predicted. A number below the run's is the mean over random choices of its predictions. Does not know how they were made.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.errors import ConfigError, DataError
from arc_submit.experiments.frame import add_out, add_task_options, read_tasks
from arc_submit.experiments.results import Line, Panel, text_table, write_results
from arc_submit.report.curves import CurvePoint, prediction_curves
from arc_submit.storage.run_dir import RunPaths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_out(parser)
    add_task_options(parser)
    parser.add_argument("--run", type=Path, required=True, help="directory of a run or of infer; all its tasks with solutions count")
    parser.add_argument("--choices", type=int, default=20, metavar="N", help="random choices of predictions for each number (%(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the table and the picture; returns figures."""
    if args.choices < 1:
        raise ConfigError(f"--choices {args.choices}: at least 1 is needed")
    paths = RunPaths(args.run)
    tasks, solutions = read_tasks(args)
    ids = [task_id for task_id in paths.read_tasks() if task_id in tasks]
    predictions, _ = paths.read_predictions({i: len(tasks[i].tests) for i in ids}, ids)
    curves = prediction_curves(predictions, solutions, ids, args.choices)
    if not curves:
        raise DataError(f"{args.run}: no predictions of a model for a task with solutions; give the challenges and solutions of that run")
    args.out.mkdir(parents=True, exist_ok=True)
    outputs = sum(len(solutions.outputs[i]) for i in ids)
    lines = [f"{len(ids)} tasks, {outputs} outputs; vote_2 is the mean of {args.choices} random choices, from lowest to highest"]
    panel_lines: list[Line] = []
    values: dict[str, Any] = {}
    for source, points in curves.items():
        cells = [[str(p.n), *(f"{100 * value:.1f}" for value in (p.pass_n, p.vote_2, p.lowest, p.highest))] for p in points]
        lines.append(f"{source}\n" + text_table([["predictions", "pass_n", "vote_2", "lowest", "highest"], *cells]))
        slopes = {name: gain_by_doubling(points, name) for name in ("pass_n", "vote_2")}
        lines.append("; ".join(f"{name}: {gain:+.2f} points for each doubling, R2 {fit:.2f}" for name, (gain, fit) in slopes.items()))
        panel_lines += [
            Line(f"{source}: pass_n", [(p.n, 100 * p.pass_n, None) for p in points]),
            Line(f"{source}: vote_2", [(p.n, 100 * p.vote_2, 50 * (p.highest - p.lowest)) for p in points]),
        ]
        values[source] = {"points": [vars(p) for p in points], "by_doubling": slopes}
    return write_results(args.out, "\n".join(lines), [Panel("predictions (log)", "% of outputs", panel_lines, log=2)], {"sources": values})


def gain_by_doubling(points: Sequence[CurvePoint], name: str) -> tuple[float, float]:
    """The least-squares slope of a share against the logarithm of n: (points of per cent for each doubling, R squared).

    R squared is 1 where the share is constant; both are 0 and 1 for a single point.
    """
    y = np.array([100 * getattr(p, name) for p in points])
    if len(points) < 2:
        return 0.0, 1.0
    x = np.log2([p.n for p in points])
    slope, start = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    return float(slope), 1.0 if spread < 1e-12 else float(1 - ((y - start - slope * x) ** 2).sum() / spread)
