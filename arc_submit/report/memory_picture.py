"""A picture of a memory plan: the bytes of each task by its length, against the card. Does not know how they are planned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arc_submit.arc.pictures import save_picture

_COLOURS = {"plain": "#009e73", "checkpointed": "#0072b2", "shortened": "#e69f00", "not": "#d55e00", "predicted": "#999999"}


def plot_memory(path: Path, points: Sequence[tuple[int, float, str]], room: float, title: str) -> Path:
    """Draw points of (tokens, GiB, kind) below a line at `room` GiB; returns the path.

    Args:
        points: kinds are plain, checkpointed, shortened and not, of fine-tuning, and predicted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in _COLOURS.items():
        own = [(tokens, gib) for tokens, gib, one in points if one == kind]
        if own:
            label = "prediction" if kind == "predicted" else f"fine-tuning: {kind}"
            axes.scatter([tokens for tokens, _ in own], [gib for _, gib in own], s=9, color=colour, label=f"{label} ({len(own)})")
    axes.axhline(room, color="black", linewidth=1, label=f"room on the card: {room:.1f} GiB")
    axes.set(xlabel="tokens of the longest sample or prompt with its answer", ylabel="GiB at the peak", title=title, ylim=(0, None))
    axes.legend(fontsize=8)
    return save_picture(figure, path)
