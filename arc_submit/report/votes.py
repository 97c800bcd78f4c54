"""The answers of every source to one task of a finished run, with votes, as a table and as a picture.

Reads the run directory alone. Does not know solutions, nor how predictions are made.
"""

from __future__ import annotations

from pathlib import Path

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import file_name
from arc_submit.arc.prediction import OutputKey
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.voting import SourceAnswer
from arc_submit.report.plots import SHOWN, plot_candidates
from arc_submit.storage.run_dir import RunPaths


def read_votes(run: Path, task_id: str) -> dict[str, dict[OutputKey, list[SourceAnswer]]]:
    """Every source's distinct answers to a task's test inputs, best first."""
    paths = RunPaths(run)
    return rank_all(paths.read_predictions({task_id: len(read_task(paths.task(task_id)).tests)})[0])


def votes_table(run: Path, task_id: str) -> str:
    """A line for each source and test input: number of answers, votes of each, and the mean log-probability of the best."""
    votes_of = read_votes(run, task_id)
    width = max([8, *(len(source) + 2 for source in votes_of)])
    lines = [f"{'source':<{width}}{'test':>5}{'answers':>9}  votes"]
    for source, outputs in sorted(votes_of.items()):
        for (_, test), answers in sorted(outputs.items()):
            votes = " ".join(str(answer.votes) for answer in answers[:SHOWN])
            best = f"  (mean log p of the first {answers[0].mean_logprob:.2f})" if answers else ""
            lines.append(f"{source:<{width}}{test:>5}{len(answers):>9}  {votes or 'none is a grid'}{best}")
    return "\n".join(lines)


def plot_votes(run: Path, task_id: str) -> Path:
    """The best answers of each source beside the test input, as a PNG file in the run's report folder."""
    paths = RunPaths(run)
    return plot_candidates(paths.report / f"votes-{file_name(task_id)}.png", read_task(paths.task(task_id)), read_votes(run, task_id))
