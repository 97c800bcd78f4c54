"""The score table of a run and the files in its report folder.

With solutions: every figure by source, what each way to combine the sources would have solved, and Kaggle's score of the submission in both
readings. Without: what was answered. Tables come first, then charts and the page that holds everything, then pictures of single tasks:
whatever there is no time for is left out. Knows nothing about how predictions were made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, write_json
from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.metrics import PredictionScores, SubmissionScores, score_predictions, score_submission, submission_text
from arc_submit.arc.prediction import Output, Prediction
from arc_submit.arc.task import Solutions
from arc_submit.durations import format_duration
from arc_submit.ensemble.combination import Decision, EnsembleConfig, decide, rank_all
from arc_submit.ensemble.evidence import SCORED_SOURCES
from arc_submit.ensemble.voting import Candidate
from arc_submit.report.comparison import Row, compare_ways, comparison_table
from arc_submit.report.page import Page, Shown, Table, TaskView, render
from arc_submit.report.timeline import plot_timeline, read_timeline

COLUMNS = ("pass_n", "vote_2", "accuracy", "correct_pixels", "max_correct_pixels", "correct_size", "any_correct_size", "unanswered")

_TASKS_ON_PAGE = 40
_PAIRS_ON_PAGE = 4
_ANSWERS_ON_PAGE = 5
_FIRST_PICTURE = 2.0  # seconds that a picture is taken to need before one has been made

Ranked = Mapping[str, Mapping[Output, Sequence[Candidate]]]


@dataclass(frozen=True)
class Report:
    """What a run leaves for people and programs.

    Attributes:
        text: the table.
        figures: the same as JSON.
        pictures: files, in the order worth looking at.
        page: the HTML page that holds all of it; None where there was no time for it.
    """

    text: str
    figures: dict[str, Any]
    pictures: list[Path]
    page: Path | None = None


@dataclass(frozen=True, eq=False)
class _Run:
    """What a report is about, put together once."""

    challenges: Challenges
    ranked: Ranked
    decision: Decision
    settings: EnsembleConfig
    attempts: Mapping[str, Sequence[Sequence[Grid]]]
    solutions: Mapping[str, Sequence[Grid]]  # of the tasks that can be scored

    def solved(self, task_id: str, test: int) -> bool:
        return any(same_grid(grid, self.solutions[task_id][test]) for grid in self.attempts[task_id][test])

    def unsolved(self) -> list[str]:
        """Tasks with an output that is not solved, or where that is not known all tasks, those nearest to an answer first."""
        tasks = [
            task_id
            for task_id in self.challenges.tasks
            if task_id not in self.solutions or not all(self.solved(task_id, test) for test in range(len(self.solutions[task_id])))
        ]
        return sorted(tasks, key=lambda task_id: (-self._nearness(task_id), task_id))

    def _nearness(self, task_id: str) -> float:
        """With solutions, whether an unsolved output's answer is among the candidates; without, how unsure the first answers are."""
        total = 0.0
        for test in range(len(self.challenges.tasks[task_id].tests)):
            choices = self.decision.choices.get((task_id, test), [])
            if task_id not in self.solutions:
                total -= choices[0].probability if choices else 0.0
            elif not self.solved(task_id, test):
                total += any(same_grid(choice.grid, self.solutions[task_id][test]) for choice in choices)
        return total


class _Patience:
    """The time that pictures may take: one is begun only where the time that is left suffices for another like the one before.

    Args:
        until: on the monotonic clock.
    """

    def __init__(self, until: float):
        self.until, self.last = until, _FIRST_PICTURE

    def enough(self) -> bool:
        return time.monotonic() + self.last < self.until

    def draw(self, plot: Callable[[], Path]) -> list[Path]:
        """The picture that `plot` makes, or nothing."""
        if not self.enough():
            return []
        began = time.monotonic()
        path = plot()
        self.last = time.monotonic() - began
        return [path]


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
    settings: EnsembleConfig | None = None,
) -> Report:
    """Write scores.txt, scores.json, index.html and pictures into a folder.

    Args:
        challenges: the tasks worked on, which are the ones scored.
        attempts: the submission's, by task id and test input.
        events: the run's timeline.
        pictures: how many tasks to draw, and how many unsolved ones with their votes.
        until: on the monotonic clock; nothing but the tables is begun after it, and no picture that would not be ready by then.
        losses: of each step, by task, where tasks were fine-tuned on.
        settings: how the attempts were chosen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings or EnsembleConfig()
    tasks = challenges.tasks
    known = [task_id for task_id in tasks if solutions and len(solutions.outputs.get(task_id, ())) == len(tasks[task_id].tests)]
    ranked = rank_all(predictions)
    of_known = {task_id: solutions.outputs[task_id] for task_id in known} if solutions else {}
    run = _Run(challenges, ranked, decide(ranked, settings), settings, attempts, of_known)
    figures: dict[str, Any] = {"tasks": len(tasks), "predictions": len(predictions), "sources": {}}
    rows: dict[str, PredictionScores] = {}
    ways: list[Row] = []
    total: SubmissionScores | None = None
    lines: list[str] = []
    if solutions and known:
        by_source = {source: [p for p in predictions if p.source == source] for source in sorted(ranked)}
        rows = {source: score_source(pool, ranked[source], solutions, known) for source, pool in by_source.items()}
        total = score_submission({task_id: attempts[task_id] for task_id in known}, solutions)
        figures["sources"] = {source: row.to_json() for source, row in rows.items()}
        figures["submission"] = total.to_json()
        lines += [source_table(rows), "", submission_text(total)]
        if len(ranked) > 1:
            singles, ways = compare_ways(ranked, solutions, known, settings)
            figures["ways"] = {row.name: row.to_json() for row in ways}
            lines += ["", comparison_table(singles, ways, settings.way)]
    else:
        answered = {(p.task, p.test) for p in predictions if p.grid is not None}
        outputs = sum(len(task.tests) for task in tasks.values())
        figures["answered_outputs"] = len(answered)
        lines.append(f"{len(answered)} of {outputs} outputs answered by {len(predictions)} predictions; no solutions to score them with")
    notes = [f"{source}: {trust.reason}" for source, trust in run.decision.trusts.items()] if len(ranked) > 1 else []
    refused = sorted({line for event in events for line in event.get("refused", [])})
    if refused:
        notes.append(f"{len(refused)} tasks or views without a prompt that fits, first: {refused[0]}")
    text = "\n".join([*lines, *(["", *notes] if notes else [])])
    (folder / "scores.txt").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "scores.json", figures)
    patience = _Patience(until)
    charts = _charts(folder, predictions, solutions, known, events, losses, patience)
    page = None
    if time.monotonic() < until:
        page = folder / "index.html"
        page.write_text(render(_page(run, rows, ways, total, figures, notes, events, charts, until)), encoding="utf-8")
    files = _task_pictures(folder, run, pictures, patience)
    return Report(text, figures, [*files, *(path for _, path in charts)], page)


def score_source(
    predictions: Sequence[Prediction], ranked: Mapping[Output, Sequence[Candidate]], solutions: Solutions, task_ids: Sequence[str]
) -> PredictionScores:
    """The figures of one source's predictions, its two attempts those it ranks first."""
    attempts = {output: [c.grid for c in candidates[:2]] for output, candidates in ranked.items()}
    return score_predictions(predictions, attempts, solutions, task_ids)


def source_table(rows: Mapping[str, PredictionScores]) -> str:
    """One line a source; shares in per cent of test outputs."""
    lines = [f"{'source':<10}{'outputs':>8}{'pred.':>8}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS)]
    for source, row in rows.items():
        cells = "".join(f"{100 * getattr(row, name):>{len(name) + 2}.1f}" for name in COLUMNS)
        lines.append(f"{source:<10}{row.outputs:>8}{row.predictions:>8}{cells}")
    return "\n".join(lines)


def _charts(
    folder: Path,
    predictions: Sequence[Prediction],
    solutions: Solutions | None,
    known: Sequence[str],
    events: Sequence[dict[str, Any]],
    losses: Mapping[str, Sequence[float]] | None,
    patience: _Patience,
) -> list[tuple[str, Path]]:
    """The charts that there is something for, each with its title."""
    if not patience.enough():
        return []
    from arc_submit.report.curves import plot_curves, prediction_curves
    from arc_submit.report.losses import plot_losses

    curves = prediction_curves(predictions, solutions, known) if solutions and known else {}
    wanted: list[tuple[str, Callable[[], Path]]] = []
    if curves:
        wanted.append(("Predictions against votes", lambda: plot_curves(folder / "votes.png", curves)))
    if losses:
        wanted.append(("Loss of fine-tuning", lambda: plot_losses(folder / "losses.png", losses)))
    if any("worker" in event for event in events):
        wanted.append(("What each worker did when", lambda: plot_timeline(folder / "timeline.png", events)))
    return [(title, path) for title, plot in wanted for path in patience.draw(plot)]


def _task_pictures(folder: Path, run: _Run, count: int, patience: _Patience) -> list[Path]:
    """Some tasks with their attempts, solved ones first, and half as many unsolved ones with their votes."""
    if not count or not patience.enough():
        return []
    from arc_submit.report.plots import plot_candidates, plot_task

    def task_picture(task_id: str) -> Path:
        task, outputs = run.challenges.tasks[task_id], run.solutions.get(task_id)
        return plot_task(folder / f"task-{task_id}.png", task, run.attempts[task_id], outputs)

    def votes_picture(task_id: str) -> Path:
        return plot_candidates(folder / f"votes-{task_id}.png", run.challenges.tasks[task_id], votes[task_id], run.solutions.get(task_id))

    unsolved = run.unsolved()
    missed = set(unsolved)
    votes = {
        task_id: {source: {o: c for o, c in outputs.items() if o[0] == task_id} for source, outputs in run.ranked.items()}
        for task_id in unsolved[: count // 2]
    }
    files: list[Path] = []
    for task_id in _spread(sorted(run.challenges.tasks, key=lambda i: (i in missed, i)), count):
        files += patience.draw(partial(task_picture, task_id))
    for task_id, rows in votes.items():
        if any(rows.values()):
            files += patience.draw(partial(votes_picture, task_id))
    return files


def _page(
    run: _Run,
    rows: Mapping[str, PredictionScores],
    ways: Sequence[Row],
    total: SubmissionScores | None,
    figures: Mapping[str, Any],
    notes: Sequence[str],
    events: Sequence[dict[str, Any]],
    charts: Sequence[tuple[str, Path]],
    until: float,
) -> Page:
    """Everything the run has to show, on one page."""
    outputs = sum(len(task.tests) for task in run.challenges.tasks.values())
    seconds = read_timeline(events).length
    page = Page("Run report", f"{len(run.challenges.tasks)} tasks, {outputs} test outputs; attempts by way “{run.settings.way}”")
    if total is not None:
        page.cards += [
            (f"{100 * total.per_output:.1f} %", f"{total.solved_outputs} of {total.outputs} outputs solved"),
            (f"{100 * total.per_task:.1f} %", f"mean over {total.tasks} tasks"),
            (f"{100 * total.first_attempt:.1f} %", "by the first attempt alone"),
        ]
    else:
        page.cards.append((str(figures["answered_outputs"]), "outputs answered"))
    page.cards += [(str(figures["predictions"]), "predictions"), (format_duration(seconds), "of work")]
    if rows:
        cells = [[s, str(r.outputs), str(r.predictions), *(f"{100 * getattr(r, n):.1f}" for n in COLUMNS)] for s, r in rows.items()]
        page.tables.append(Table("By source", ["source", "outputs", "predictions", *COLUMNS], cells, note="Per cent of test outputs."))
    if ways:
        header = ["way", "top 1", "top 2", "pass_n", "top 2, mean over tasks"]
        cells = [[w.name, *(_share(n, w.outputs) for n in (w.top_1, w.top_2, w.found)), f"{100 * w.per_task:.1f} %"] for w in ways]
        used = frozenset(i for i, way in enumerate(ways) if way.name == run.settings.way)
        page.tables.append(Table("By combination", header, cells, used, "Every way on the same predictions; the one in use stands out."))
    page.notes += notes
    page.figures += charts
    unsolved = run.unsolved()
    kind = "Unsolved tasks" if run.solutions else "Tasks, the least settled first"
    page.tasks_title = f"{kind}: {len(unsolved)}"
    page.tasks_note = "Each source's answers with most votes; " + ("those found but not chosen come first." if run.solutions else "")
    for task_id in unsolved[:_TASKS_ON_PAGE]:
        if time.monotonic() > until:
            break
        page.tasks.append(_task_view(run, task_id))
    if len(unsolved) > len(page.tasks):
        page.tasks_note += f" The first {len(page.tasks)} of {len(unsolved)} are shown."
    header = ["task", "test", "solved", "first attempt", "second attempt"]
    cells = []
    for task_id, task in sorted(run.challenges.tasks.items()):
        for test in range(len(task.tests)):
            reasons = [choice.reason for choice in run.decision.choices.get((task_id, test), [])[:2]]
            reasons += ["fallback"] * (2 - len(reasons))
            solved = "" if task_id not in run.solutions else "yes" if run.solved(task_id, test) else "no"
            cells.append([task_id, str(test), solved, *reasons])
    texts = frozenset({"first attempt", "second attempt"})
    title = "Which source gave each attempt, and how probable each was thought to be"
    page.appendix.append(Table(title, header, cells, texts=texts))
    return page


def _task_view(run: _Run, task_id: str) -> TaskView:
    """A task with its attempts and every source's best answers."""
    task = run.challenges.tasks[task_id]
    rows: list[tuple[str, list[Shown]]] = []
    for test, grid in enumerate(task.tests):
        solution = run.solutions[task_id][test] if task_id in run.solutions else None

        def judged(answer: Grid, solution: Grid | None = solution) -> bool | None:
            return None if solution is None else same_grid(answer, solution)

        choices = run.decision.choices.get((task_id, test), [])
        shown = [Shown(grid, ["test input"])]
        for number, attempt in enumerate(run.attempts[task_id][test][:2], 1):
            reason = next((choice.reason for choice in choices if same_grid(choice.grid, attempt)), "fallback")
            verdict = {None: "", True: ": right", False: ": wrong"}[judged(attempt)]
            shown.append(Shown(attempt, [f"attempt {number}{verdict}", reason], judged(attempt)))
        if solution is not None:
            shown.append(Shown(solution, ["solution"], True))
        rows.append((f"test {test}", shown))
        for source in sorted(run.ranked):
            candidates = run.ranked[source].get((task_id, test), ())
            scored = source in SCORED_SOURCES
            answers = [
                Shown(c.grid, [f"score {c.mean_logprob:.2f}" if scored else _votes(c)], judged(c.grid))
                for c in candidates[:_ANSWERS_ON_PAGE]
            ]
            if answers:
                rows.append((f"test {test}, {source}: {len(candidates)} different answers", answers))
    pairs = [(pair.input, pair.output) for pair in task.train[:_PAIRS_ON_PAGE]]
    found = sum(
        any(same_grid(choice.grid, solution) for choice in run.decision.choices.get((task_id, test), []))
        for test, solution in enumerate(run.solutions.get(task_id, ()))
        if not run.solved(task_id, test)
    )
    summary = "the right answer was found and not chosen" if found else ""
    return TaskView(task_id, summary, pairs, rows)


def _votes(candidate: Candidate) -> str:
    return f"{candidate.votes} vote{'' if candidate.votes == 1 else 's'}, log p {candidate.mean_logprob:.1f}"


def _share(count: int, outputs: int) -> str:
    return f"{count} ({100 * count / max(1, outputs):.1f} %)"


def _spread(ids: list[str], count: int) -> list[str]:
    """Some of a ranked list: its first half from the top, the rest evenly from below."""
    if len(ids) <= count:
        return ids
    top = ids[: count - count // 2]
    rest = ids[len(top) :]
    below = count - len(top)
    return top + [rest[i * len(rest) // below] for i in range(below)] if below else top
