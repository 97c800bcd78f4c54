"""One task under study: what each source answered in a finished run, with votes, as a table and as a picture.

Reads the run directory alone. Knows nothing about solutions or about how predictions were made.
"""

from __future__ import annotations

from pathlib import Path

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import Output, Prediction, read_predictions
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.voting import Candidate
from arc_submit.report.plots import draw_grid

_SHOWN = 5


def read_votes(run: Path, task_id: str) -> dict[str, dict[Output, list[Candidate]]]:
    """Every source's distinct answers to a task's test inputs, best first."""
    predictions: list[Prediction] = []
    for path in sorted((run / "predictions").glob(f"*/{task_id}.jsonl")):
        predictions += read_predictions(path)[0]
    return rank_all(predictions)


def votes_table(run: Path, task_id: str) -> str:
    """A line for each source and test input: how many answers, how many votes each, and the mean log-probability of the best."""
    lines = [f"{'source':<8}{'test':>5}{'answers':>9}  votes"]
    for source, outputs in sorted(read_votes(run, task_id).items()):
        for (_, test), candidates in sorted(outputs.items()):
            votes = " ".join(str(candidate.votes) for candidate in candidates[:_SHOWN])
            best = f"  (mean log p of the first {candidates[0].mean_logprob:.2f})" if candidates else ""
            lines.append(f"{source:<8}{test:>5}{len(candidates):>9}  {votes or 'none is a grid'}{best}")
    return "\n".join(lines)


def plot_votes(run: Path, task_id: str) -> Path:
    """The best answers of each source beside the test input, a row for each source and test input."""
    from matplotlib.figure import Figure

    task = read_task(run / "tasks" / f"{task_id}.json")
    rows = [
        (source, test, candidates) for source, o in sorted(read_votes(run, task_id).items()) for (_, test), candidates in sorted(o.items())
    ]
    figure = Figure(figsize=(1.9 * (1 + _SHOWN), 2.1 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots(max(1, len(rows)), 1 + _SHOWN, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (source, test, candidates) in zip(axes, rows, strict=False):
        draw_grid(row[0], task.tests[test], f"{source}: test {test} input")
        for axis, candidate in zip(row[1:], candidates, strict=False):
            draw_grid(axis, candidate.grid, f"{candidate.votes} votes, log p {candidate.mean_logprob:.1f}")
    path = run / "report" / f"votes-{task_id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path
