"""Loss curves: of a run's fine-tuning by task and step, and of base trainings by the tokens seen.

Reads the losses folder of a run and the log.jsonl of `arc-submit train`. Does not know how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from arc_submit.arc.files import file_name, read_json_lines
from arc_submit.arc.pictures import save_picture
from arc_submit.errors import DataError
from arc_submit.storage.run_dir import RunPaths

if TYPE_CHECKING:
    import numpy as np


def read_losses(run: Path) -> dict[str, list[float]]:
    """The losses of a run's fine-tuning by task, in the order of steps; a line cut short by a kill is left out.

    A task of a source with a name of its own has it too: "ttft15 TASK".
    """
    paths = RunPaths(run)
    id_of = {file_name(task_id): task_id for task_id in paths.task_ids()}
    losses: dict[str, list[float]] = {}
    for source, home in paths.homes().items():
        for path in home.loss_files():
            curve = [float(line["loss"]) for line in read_json_lines(path) if isinstance(line.get("loss"), int | float)]
            if curve:
                losses[f"{source} {id_of.get(path.stem, path.stem)}".strip()] = curve
    return losses


def plot_losses(path: Path, losses: Mapping[str, Sequence[float]]) -> Path:
    """Every task's curve, faint, and the median over tasks at each step; the tasks are named where there are at most 8.

    Each curve is a moving mean over a twentieth of its steps: a step sees one sample, and samples differ more than steps.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    named = len(losses) <= 8
    smooth = {task_id: _moving_mean(curve, 20) for task_id, curve in losses.items()}
    for task_id, smoothed in smooth.items():
        steps = np.arange(len(losses[task_id]) - len(smoothed) + 1, len(losses[task_id]) + 1)
        axis.plot(steps, smoothed, linewidth=0.8, alpha=0.9 if named else 0.3, label=task_id if named else None)
    if len(losses) > 1:
        axis.plot(*zip(*median_curve(losses), strict=True), color="black", label=f"median of {len(losses)} tasks")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, nats a token")
    axis.legend(fontsize=7)
    return save_picture(figure, path)


def median_curve(losses: Mapping[str, Sequence[float]]) -> list[tuple[int, float]]:
    """The median over adapters of their moving means as in `plot_losses`, by step; a shorter curve counts as far as it goes."""
    import numpy as np

    smooth = [_moving_mean(curve, 20) for curve in losses.values()]
    longest = max(map(len, smooth))
    padded = np.full((len(smooth), longest), np.nan)
    for row, smoothed in zip(padded, smooth, strict=True):
        row[: len(smoothed)] = smoothed
    first = max(map(len, losses.values())) - longest + 1
    return list(zip(range(first, first + longest), np.nanmedian(padded, axis=0).tolist(), strict=True))


@dataclass(frozen=True)
class LearningCurve:
    """The curve of one base training.

    Attributes:
        tokens: tokens seen at each log line that has a loss.
        losses: nats per token with full loss weight, mean over the steps of the line.
        eval_tokens, eval_losses: the same of evaluations.
        overlaps: for each evaluation, the share of its tasks that are trained on too (--allow-overlap).
    """

    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    eval_tokens: list[int] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)

    @property
    def evaluations(self) -> str:
        """What the evaluations are of."""
        overlap = max(self.overlaps, default=0.0)
        return f"evaluations, {100 * overlap:.0f} % of their tasks trained on" if overlap else "evaluations"


def read_learning_curve(path: Path) -> LearningCurve:
    """The curve of a training's folder, or of its log alone; a line cut short by a kill is left out.

    Raises:
        DataError: where there is no log with a loss in it.
    """
    log = path / "log.jsonl" if path.is_dir() else path
    curve, tokens = LearningCurve(), 0
    try:
        for line in read_json_lines(log):
            tokens = int(line.get("tokens", tokens))  # before 2026-11-28 the lines of evaluations had no tokens
            if isinstance(line.get("loss"), int | float):
                curve.losses.append(float(line["loss"]))
                curve.tokens.append(tokens)
            if isinstance(line.get("eval_loss"), int | float):
                curve.eval_losses.append(float(line["eval_loss"]))
                curve.overlaps.append(float(line.get("eval_overlap", 0)))
                curve.eval_tokens.append(tokens)
    except DataError as error:
        raise DataError(f"{str(error).partition('; ')[0]}; give the --out of an arc-submit train, or its log.jsonl") from None
    if not curve.losses:
        raise DataError(f"{log}: no loss in it yet; wait for the first lines of the training")
    return curve


def by_tokens(curve: LearningCurve, intervals: int) -> list[tuple[int, int, float]]:
    """The mean loss in equal intervals of tokens: (from, to, loss); intervals without a line are left out."""
    most = curve.tokens[-1]
    rows = []
    for place in range(intervals):
        low, high = most * place // intervals, most * (place + 1) // intervals
        inside = [loss for seen, loss in zip(curve.tokens, curve.losses, strict=True) if low < seen <= high]
        if inside:
            rows.append((low, high, sum(inside) / len(inside)))
    return rows


def plot_learning(path: Path, curves: Mapping[str, LearningCurve]) -> Path:
    """Each training's loss against tokens, a moving mean over a thirtieth of its lines, and its evaluations as points."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        smooth = _moving_mean(curve.losses, 30)
        drawn = axis.plot(np.array(curve.tokens[len(curve.losses) - len(smooth) :]) / 1e6, smooth, linewidth=1, label=name)
        if curve.eval_losses:
            label = f"{name}, {curve.evaluations}"
            axis.plot(np.array(curve.eval_tokens) / 1e6, curve.eval_losses, "o-", markersize=3, color=drawn[0].get_color(), label=label)
    axis.set_xlabel("million tokens seen")
    axis.set_ylabel("loss, nats a token learnt")
    axis.legend(fontsize=7)
    return save_picture(figure, path)


def _moving_mean(values: Sequence[float], parts: int) -> np.ndarray:
    """The mean over each window of a `parts`-th of the values; shorter than the values by the window less one."""
    import numpy as np

    window = max(1, len(values) // parts)
    return np.convolve(values, np.ones(window) / window, mode="valid")
