"""Pictures: a task with its answers, predictions against votes, a run's timeline.

Every function writes one PNG file and returns its path. Uses no global state of matplotlib, so that it never disturbs a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from arc_submit.arc.grid import COLOURS, Grid, same_grid
from arc_submit.arc.metrics import score_predictions
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Solutions, Task
from arc_submit.ensemble.evidence import SCORED_SOURCES
from arc_submit.ensemble.voting import vote_all

# The colours the ARC-AGI site shows the ten values in.
PALETTE = ["#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"]

_MOST_PAIRS = 10  # more would take minutes to draw


def plot_task(path: Path, task: Task, attempts: Sequence[Sequence[Grid]], solutions: Sequence[Grid] | None) -> Path:
    """Train pairs above, then for each test input the attempts and, where it is known, the solution."""
    shown = task.train[:_MOST_PAIRS]
    columns = max(2 * len(shown), 4)
    rows = 1 + len(task.tests)
    figure = Figure(figsize=(1.7 * columns, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, pair in enumerate(shown):
        draw_grid(axes[0][2 * i], pair.input, f"train {i} input")
        draw_grid(axes[0][2 * i + 1], pair.output, f"train {i} output")
    for test, grid in enumerate(task.tests):
        row = axes[1 + test]
        draw_grid(row[0], grid, f"test {test} input")
        for number, attempt in enumerate(attempts[test][:2]):
            solution = solutions[test] if solutions is not None else None
            verdict = "" if solution is None else ": right" if same_grid(attempt, solution) else ": wrong"
            draw_grid(row[1 + number], attempt, f"attempt {number + 1}{verdict}")
        if solutions is not None:
            draw_grid(row[3], solutions[test], "solution")
    figure.suptitle(task.id if len(shown) == len(task.train) else f"{task.id} ({len(shown)} of {len(task.train)} train pairs)")
    return _save(figure, path)


def draw_grid(axis: Axes, grid: Grid, title: str) -> None:
    """One grid in the usual colours with lines between its cells."""
    axis.axis("on")
    axis.imshow(grid, cmap=ListedColormap(PALETTE), vmin=0, vmax=COLOURS - 1, interpolation="nearest")
    axis.set_xticks([x - 0.5 for x in range(1, grid.shape[1])], labels=[])
    axis.set_yticks([y - 0.5 for y in range(1, grid.shape[0])], labels=[])
    axis.grid(color="#555555", linewidth=0.4)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=8)


def plot_predictions_against_votes(path: Path, predictions: Sequence[Prediction], solutions: Solutions, task_ids: Sequence[str]) -> Path:
    """pass_n and vote_2 against the number of predictions for each output, by source; the first n as the run made them by view."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for source in sorted({p.source for p in predictions} - set(SCORED_SOURCES)):
        pools: dict[tuple[str, int], list[Prediction]] = {}
        for prediction in sorted((p for p in predictions if p.source == source), key=lambda p: (p.task, p.test, p.view)):
            pools.setdefault((prediction.task, prediction.test), []).append(prediction)
        most = max(len(pool) for pool in pools.values())
        counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, most) if n <= most})
        scores = []
        for n in counts:
            first = [p for pool in pools.values() for p in pool[:n]]
            attempts = {output: [c.grid for c in candidates[:2]] for output, candidates in vote_all(first).items()}
            scores.append(score_predictions(first, attempts, solutions, task_ids))
        axis.plot(counts, [100 * s.pass_n for s in scores], marker="o", label=f"{source}: pass_n")
        axis.plot(counts, [100 * s.vote_2 for s in scores], marker="s", label=f"{source}: vote_2")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("predictions for each output")
    axis.set_ylabel("% of outputs")
    axis.legend()
    return _save(figure, path)


def plot_timeline(path: Path, events: Sequence[dict[str, Any]]) -> Path:
    """What each worker did when: a bar for every job, workers lost and the ends of runs marked."""
    start = events[0]["time"]
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axis = figure.subplots()
    begun: dict[str, float] = {}
    bars: dict[str, list[tuple[str, float, float]]] = {"done": [], "lost": []}
    for event in events:
        minutes = (event["time"] - start) / 60
        kind = {"task_done": "done", "task_failed": "done", "worker_lost": "lost"}.get(event["event"])
        worker = f"{event.get('source', '')} {event['worker']}".strip() if "worker" in event else ""
        if event["event"] == "worker_begun":
            begun[worker] = minutes
        elif kind and worker in begun:
            bars[kind].append((worker, begun.pop(worker), minutes))
    rows = {worker: row for row, worker in enumerate(sorted({worker for kind in bars.values() for worker, _, _ in kind}))}
    for kind, colour in (("done", "#0074d9"), ("lost", "#ff4136")):
        if bars[kind]:
            workers, lefts, rights = zip(*bars[kind], strict=True)
            widths = [right - left for left, right in zip(lefts, rights, strict=True)]
            axis.barh(
                [rows[worker] for worker in workers],
                widths,
                left=lefts,
                height=0.6,
                color=colour,
                edgecolor="white",
                linewidth=0.6,
                label=f"job {kind}",
            )
    for kind, colour in (("run_resumed", "#ff851b"), ("run_ended", "#2ecc40")):
        for i, event in enumerate(e for e in events if e["event"] == kind):
            at = (event["time"] - start) / 60
            axis.axvline(at, color=colour, linewidth=1, label=kind.replace("_", " ") if i == 0 else None)
    axis.set_yticks(list(rows.values()), labels=list(rows))
    axis.set_ylabel("source and worker")
    axis.set_xlabel("minutes since the run's start")
    figure.legend(loc="outside upper right", ncols=4, fontsize=7)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path
