"""A picture of scores over time, with the noise below the best one. Does not know where scores come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from arc_submit.arc.pictures import save_picture


def plot_scores(path: Path, series: Mapping[str, Sequence[tuple[datetime, float, str]]], noise: float) -> Path:
    """A PNG file with a line for each series that has points.

    Args:
        series: points by name, each with its time, its score in points and its label; the noise is drawn below the best of the first.
        noise: points.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.add_subplot()
    for number, (name, points) in enumerate(series.items()):
        days = [float(date2num(time)) for time, _, _ in points]  # type: ignore[no-untyped-call]
        if points:
            axis.plot(days, [score for _, score, _ in points], "s:" if number else "o-", label=name, color=f"C{number}")
        for day, (_, score, label) in zip(days, points, strict=True):
            axis.annotate(label, (day, score), xytext=(4, 4), textcoords="offset points", fontsize=8)
        if points and not number:
            best = max(score for _, score, _ in points)
            axis.axhspan(best - noise, best, alpha=0.15, label=f"{noise:g} points of noise")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axis.set(ylabel="points", title="Scores of the season")
    axis.legend(fontsize=8)
    return save_picture(figure, path)
