"""Rounds in which a picture is drawn, for people: a line for each, what was asked and what was drawn so far, and the curve of the rounds.

Does not know how a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.arc.pictures import save_picture
from arc_submit.arc.task import Task
from arc_submit.programs.painter.paint import drawn_picture
from arc_submit.programs.rounds import RoundRecord
from arc_submit.report.html_page import PALETTE

_IN_A_ROW = 5
_SHOWN = 9  # pictures of rounds


def line_of(record: RoundRecord) -> str:
    """One line about a round."""
    learnt = "nothing learnt" if record.loss is None else f"loss {record.loss:.3f}"
    return (
        f"round {record.round:3}: {record.seconds:6.1f} s, {record.valid} of {record.written} valid, {record.distinct} distinct, "
        f"{record.new} new, best {100 * max(0.0, record.cells):.1f} % of cells (mean {100 * record.mean_cells:.1f}), "
        f"{record.lines} lines, {record.size} tokens, {learnt}"
    )


def plot_painting(folder: Path, task: Task, records: Sequence[RoundRecord], title: str) -> tuple[Path, Path]:
    """Write drawn.png, the picture that was asked beside the best so far at up to nine rounds, and rounds.png, the curve."""
    better: list[RoundRecord] = []
    for one in records:
        if one.whole >= 0 and (not better or one.cells > better[-1].cells):
            better.append(one)
    places = {round(i * (len(better) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)} if better else set()
    titled = [("asked", task.train[0].output)]
    for one in (better[place] for place in sorted(places)):
        drawn = drawn_picture(task, one)
        if drawn is not None:
            titled.append((f"round {one.round}: {100 * one.cells:.1f} %, {one.lines} lines", drawn))
    return plot_drawn(folder / "drawn.png", titled), plot_rounds(folder / "rounds.png", records, title)


def plot_drawn(path: Path, titled: Sequence[tuple[str, Grid]]) -> Path:
    """A PNG file with grids in rows of five, each below its title."""
    rows = -(-len(titled) // _IN_A_ROW)
    figure = Figure(figsize=(2.3 * _IN_A_ROW, 2.6 * rows), layout="constrained")
    for axis in figure.subplots(rows, _IN_A_ROW, squeeze=False).flat:
        axis.axis("off")
    for axis, (title, grid) in zip(figure.axes, titled, strict=False):
        axis.imshow(grid, cmap=ListedColormap(PALETTE), vmin=0, vmax=COLOURS - 1, interpolation="nearest")
        axis.set_title(title, fontsize=8)
    return save_picture(figure, path)


def plot_rounds(path: Path, records: Sequence[RoundRecord], title: str) -> Path:
    """A PNG file: the share of right cells by round, of the best program and of all valid ones; below it the lines of the best."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    rounds = [one.round for one in records]
    above.plot(rounds, [100 * max(0.0, one.cells) for one in records], marker="o", markersize=3, label="best of the round")
    above.plot(rounds, [100 * one.mean_cells for one in records], color="#999999", label="mean of the round")
    above.set(ylabel="right cells, %", ylim=(0, 102), title=title)
    above.legend(fontsize=8, frameon=False)
    below.plot(rounds, [one.lines for one in records], color="#009e73", marker="o", markersize=3)
    below.set(xlabel="round", ylabel="lines of the best", ylim=(0, None))
    return save_picture(figure, path)
