"""Learning curves of a base's training: the loss against the tokens seen, of one training or of several side by side.

Reads the log.jsonl that `arc-submit train` leaves; knows nothing about how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arc_submit.arc.pictures import save_picture
from arc_submit.errors import DataError


@dataclass(frozen=True)
class LearningCurve:
    """One training's curve.

    Attributes:
        tokens: seen by each line of the log that has a loss.
        losses: nats a token learnt in full, mean over the steps of the line.
        eval_tokens, eval_losses: the same of evaluations.
    """

    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    eval_tokens: list[int] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)


def read_learning_curve(path: Path) -> LearningCurve:
    """The curve of a training's folder, or of its log alone; a line cut short by a kill is left out.

    Raises:
        DataError: where there is no log with a loss in it.
    """
    log = path / "log.jsonl" if path.is_dir() else path
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{log}: cannot be read ({error.strerror}); give the --out of an arc-submit train, or its log.jsonl") from None
    curve, tokens = LearningCurve(), 0
    for line in text.splitlines():
        try:
            value = json.loads(line)
            tokens = int(value.get("tokens", tokens))  # logs of before 2026-11-28 do not have them in lines of evaluations
            if "loss" in value:
                curve.losses.append(float(value["loss"]))
                curve.tokens.append(tokens)
            if "eval_loss" in value:
                curve.eval_losses.append(float(value["eval_loss"]))
                curve.eval_tokens.append(tokens)
        except (ValueError, KeyError, TypeError):
            continue
    if not curve.losses:
        raise DataError(f"{log}: no loss in it yet; wait for the first lines of the training")
    return curve


def by_tokens(curve: LearningCurve, intervals: int) -> list[tuple[int, int, float]]:
    """The mean loss in equal intervals of tokens: (from, to, loss), leaving out intervals without a line."""
    most = curve.tokens[-1]
    rows = []
    for place in range(intervals):
        low, high = most * place // intervals, most * (place + 1) // intervals
        inside = [loss for seen, loss in zip(curve.tokens, curve.losses, strict=True) if low < seen <= high]
        if inside:
            rows.append((low, high, sum(inside) / len(inside)))
    return rows


def plot_learning(path: Path, curves: Mapping[str, LearningCurve]) -> Path:
    """Each training's loss against tokens, a mean over a thirtieth of its lines, and its evaluations as points."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        window = max(1, len(curve.losses) // 30)
        smooth = np.convolve(curve.losses, np.ones(window) / window, mode="valid")
        drawn = axis.plot(np.array(curve.tokens[window - 1 :]) / 1e6, smooth, linewidth=1, label=name)
        if curve.eval_losses:
            label = f"{name}, evaluations"
            axis.plot(np.array(curve.eval_tokens) / 1e6, curve.eval_losses, "o-", markersize=3, color=drawn[0].get_color(), label=label)
    axis.set_xlabel("million tokens seen")
    axis.set_ylabel("loss, nats a token learnt")
    axis.legend(fontsize=7)
    return save_picture(figure, path)
