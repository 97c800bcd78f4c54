"""The score table of a run and the files in its report folder.

With solutions: every figure by source, and Kaggle's score of the submission in both readings. Without: what was answered. Knows
nothing about how predictions were made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, write_json
from arc_submit.arc.grid import Grid
from arc_submit.arc.metrics import PredictionScores, score_predictions, score_submission, submission_text
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.combination import rank_all

COLUMNS = ("pass_n", "vote_2", "accuracy", "correct_pixels", "max_correct_pixels", "correct_size", "any_correct_size", "unanswered")


@dataclass(frozen=True)
class Report:
    """What a run leaves for people and programs.

    Attributes:
        text: the table.
        figures: the same as JSON.
        pictures: files, in the order worth looking at.
    """

    text: str
    figures: dict[str, Any]
    pictures: list[Path]


def make_report(
    folder: Path,
    challenges: Challenges,
    predictions: Sequence[Prediction],
    attempts: Mapping[str, Sequence[Sequence[Grid]]],
    solutions: Solutions | None,
    events: Sequence[dict[str, Any]],
    pictures: int,
    until: float = math.inf,
    losses: Mapping[str, Sequence[float]] | None = None,
) -> Report:
    """Write scores.txt, scores.json and then pictures into a folder.

    Args:
        challenges: the tasks worked on, which are the ones scored.
        attempts: the submission's, by task id and test input.
        events: the run's timeline.
        pictures: how many tasks to draw.
        until: on the monotonic clock; no picture is begun after it.
        losses: of each step, by task, where tasks were fine-tuned on.
    """
    from arc_submit.report.losses import plot_losses
    from arc_submit.report.plots import plot_predictions_against_votes, plot_task, plot_timeline

    folder.mkdir(parents=True, exist_ok=True)
    tasks = challenges.tasks
    known = [task_id for task_id in tasks if solutions and len(solutions.outputs.get(task_id, ())) == len(tasks[task_id].tests)]
    by_source: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_source.setdefault(prediction.source, []).append(prediction)
    figures: dict[str, Any] = {"tasks": len(tasks), "predictions": len(predictions), "sources": {}}
    lines = []
    if solutions and known:
        rows = {source: score_source(pool, solutions, known) for source, pool in sorted(by_source.items())}
        total = score_submission({task_id: attempts[task_id] for task_id in known}, solutions)
        figures["sources"] = {source: row.to_json() for source, row in rows.items()}
        figures["submission"] = total.to_json()
        lines += [source_table(rows), "", submission_text(total)]
    else:
        answered = {(p.task, p.test) for p in predictions if p.grid is not None}
        outputs = sum(len(task.tests) for task in tasks.values())
        figures["answered_outputs"] = len(answered)
        lines.append(f"{len(answered)} of {outputs} outputs answered by {len(predictions)} predictions; no solutions to score them with")
    refused = sorted({line for event in events for line in event.get("refused", [])})
    if refused:
        lines += ["", f"{len(refused)} tasks or views without a prompt that fits, first: {refused[0]}"]
    text = "\n".join(lines)
    (folder / "scores.txt").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "scores.json", figures)
    files: list[Path] = []
    solved_first = sorted(tasks, key=lambda i: (not _solved(i, attempts, solutions), i))
    for task_id in _spread(solved_first, pictures):
        known_outputs = solutions.outputs[task_id] if solutions and task_id in known else None
        if time.monotonic() > until:
            return Report(text, figures, files)
        files.append(plot_task(folder / f"task-{task_id}.png", tasks[task_id], attempts[task_id], known_outputs))
    if solutions and known and predictions:
        files.append(plot_predictions_against_votes(folder / "votes.png", predictions, solutions, known))
    if losses:
        files.append(plot_losses(folder / "losses.png", losses))
    if any(event["event"] == "task_done" for event in events):
        files.append(plot_timeline(folder / "timeline.png", events))
    return Report(text, figures, files)


def score_source(predictions: Sequence[Prediction], solutions: Solutions, task_ids: Sequence[str]) -> PredictionScores:
    """The figures of one source's predictions, its two attempts chosen as in the submission."""
    ranked = {output: candidates for outputs in rank_all(predictions).values() for output, candidates in outputs.items()}
    attempts = {output: [c.grid for c in candidates[:2]] for output, candidates in ranked.items()}
    return score_predictions(predictions, attempts, solutions, task_ids)


def source_table(rows: Mapping[str, PredictionScores]) -> str:
    """One line a source; shares in per cent of test outputs."""
    lines = [f"{'source':<10}{'outputs':>8}{'pred.':>8}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS)]
    for source, row in rows.items():
        cells = "".join(f"{100 * getattr(row, name):>{len(name) + 2}.1f}" for name in COLUMNS)
        lines.append(f"{source:<10}{row.outputs:>8}{row.predictions:>8}{cells}")
    return "\n".join(lines)


def _solved(task_id: str, attempts: Mapping[str, Sequence[Sequence[Grid]]], solutions: Solutions | None) -> bool:
    if not solutions or task_id not in solutions.outputs or len(solutions.outputs[task_id]) != len(attempts[task_id]):
        return False
    return score_submission({task_id: attempts[task_id]}, solutions).solved_tasks == 1


def _spread(ids: list[str], count: int) -> list[str]:
    """Some of a ranked list: its first half from the top, the rest evenly from below."""
    if len(ids) <= count:
        return ids
    top = ids[: count - count // 2]
    rest = ids[len(top) :]
    below = count - len(top)
    return top + [rest[i * len(rest) // below] for i in range(below)] if below else top
