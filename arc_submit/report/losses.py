"""Loss curves of a run's fine-tuning: what each step's loss was, by task, and a picture of it. Knows nothing about how it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from arc_submit.arc.pictures import save_picture


def read_losses(run: Path) -> dict[str, list[float]]:
    """The loss of each step in its order, by task; a line cut short by a kill is left out."""
    losses: dict[str, list[float]] = {}
    for path in sorted((run / "losses").glob("*.jsonl")):
        curve = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                curve.append(float(json.loads(line)["loss"]))
            except (ValueError, KeyError, TypeError):
                continue
        if curve:
            losses[path.stem] = curve
    return losses


def plot_losses(path: Path, losses: Mapping[str, Sequence[float]]) -> Path:
    """Every task's curve, faint, and the median over tasks at each step; a few tasks are named.

    Each curve is the mean over a window of a twentieth of its steps, because a step sees one sample and samples differ far more than steps.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    smooth: dict[str, np.ndarray] = {}
    for task_id, curve in losses.items():
        window = max(1, len(curve) // 20)
        smooth[task_id] = np.convolve(curve, np.ones(window) / window, mode="valid")
        steps = np.arange(window, len(curve) + 1)
        named = len(losses) <= 8
        axis.plot(steps, smooth[task_id], linewidth=0.8, alpha=0.9 if named else 0.3, label=task_id if named else None)
    longest = max(map(len, smooth.values()))
    if len(losses) > 1:
        padded = np.full((len(smooth), longest), np.nan)
        for row, smoothed in zip(padded, smooth.values(), strict=True):
            row[: len(smoothed)] = smoothed
        first = max(map(len, losses.values())) - longest + 1
        axis.plot(np.arange(first, first + longest), np.nanmedian(padded, axis=0), color="black", label=f"median of {len(losses)} tasks")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, nats a token")
    axis.legend(fontsize=7)
    return save_picture(figure, path)
