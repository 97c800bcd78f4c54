"""The report of a run: its score table, and the files in its report folder.

With solutions: every figure by source, the score that each ensemble method would have reached, and Kaggle's score of the submission in both
readings. Without: counts of answers. The tables are written first, then charts and the HTML page that holds everything, then pictures of
single tasks, as far as the time allows. Does not know how predictions are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.files import file_name, write_json
from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.metrics import PredictionScores, SubmissionScores, score_submission, submission_text
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.arc.task import Solutions
from arc_submit.arc.views import View, identity_view, parse_view
from arc_submit.durations import format_duration
from arc_submit.ensemble.combination import CombinedRanking, EnsembleConfig, RankedAnswer, combine_sources, rank_all
from arc_submit.ensemble.voting import RankedSources, SourceAnswer
from arc_submit.report.comparison import COLUMNS, ScoreRow, compare_methods, comparison_table, score_sources, source_table
from arc_submit.report.html_page import CaptionedGrid, Page, Table, TaskSection, render
from arc_submit.report.time_limit import run_within
from arc_submit.report.timeline import plot_timeline, read_timeline

_TASKS_ON_PAGE = 40
_PAIRS_ON_PAGE = 4
_ANSWERS_ON_PAGE = 5
_FIRST_PICTURE_SECONDS = 2.0  # assumed before any picture has been drawn


@dataclass(frozen=True)
class Report:
    """The results of a run for people and programs.

    Attributes:
        text: the tables.
        figures: the same as JSON.
        pictures: files, the most informative first.
        page: the HTML page that holds everything; None where time ran out before it.
        complete: False where the deadline came before the last picture.
    """

    text: str
    figures: dict[str, Any]
    pictures: list[Path]
    page: Path | None = None
    complete: bool = True


@dataclass(frozen=True, eq=False)
class ReportData:
    """The contents of a report.

    Attributes:
        challenges: the tasks worked on, which are the ones scored.
        predictions: of all sources.
        attempts: the submission's, by task id and test input.
        solutions: None where unknown.
        events: the run's timeline.
        losses: of each fine-tuning step, by task.
        ensemble: how the attempts were chosen.
        notices: lines that come before everything else.
        judged: a judge's scores of the candidates, where the method needs them.
    """

    challenges: Challenges
    predictions: Sequence[Prediction]
    attempts: Mapping[str, Sequence[Sequence[Grid]]]
    solutions: Solutions | None = None
    events: Sequence[dict[str, Any]] = ()
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    notices: Sequence[str] = ()
    judged: Mapping[OutputKey, Mapping[bytes, float]] | None = None

    @cached_property
    def ranked(self) -> RankedSources:
        return rank_all(self.predictions, self.challenges.tasks)

    @cached_property
    def ranking(self) -> CombinedRanking:
        return combine_sources(self.ranked, self.ensemble, self.judged)

    @cached_property
    def known(self) -> dict[str, tuple[Grid, ...]]:
        """The solutions of the tasks that can be scored: those with a solution for every test input."""
        outputs = self.solutions.outputs if self.solutions else {}
        return {
            task_id: outputs[task_id] for task_id, task in self.challenges.tasks.items() if len(outputs.get(task_id, ())) == len(task.tests)
        }

    @cached_property
    def unsolved(self) -> list[str]:
        """Tasks with an unsolved output, or all tasks where that is unknown; those nearest to an answer first."""
        ids = [
            task_id
            for task_id in self.challenges.tasks
            if task_id not in self.known or not all(self.solved(task_id, test) for test in range(len(self.known[task_id])))
        ]
        return sorted(ids, key=lambda task_id: (-self._nearness(task_id), task_id))

    def answers(self, task_id: str, test: int) -> list[RankedAnswer]:
        return self.ranking.answers.get((task_id, test), [])

    def solved(self, task_id: str, test: int) -> bool:
        return any(same_grid(grid, self.known[task_id][test]) for grid in self.attempts[task_id][test])

    def missed(self, task_id: str) -> int:
        """Number of unsolved outputs whose right answer is among the candidates."""
        return sum(
            any(same_grid(answer.grid, solution) for answer in self.answers(task_id, test))
            for test, solution in enumerate(self.known.get(task_id, ()))
            if not self.solved(task_id, test)
        )

    def _nearness(self, task_id: str) -> float:
        """With solutions, the number of missed answers; without, the uncertainty of the first answers."""
        if task_id in self.known:
            return self.missed(task_id)
        first = [self.answers(task_id, test)[:1] for test in range(len(self.challenges.tasks[task_id].tests))]
        return -sum(answer.probability for answers in first for answer in answers)


@dataclass(frozen=True)
class _Scores:
    """The tables of a report; `sources`, `methods` and `submission` are empty without solutions."""

    sources: dict[str, PredictionScores]
    methods: list[ScoreRow]
    submission: SubmissionScores | None
    notes: list[str]
    figures: dict[str, Any]
    text: str


class _PictureBudget:
    """The time for pictures: a picture is begun only where the time left suffices for another like the one before.

    Args:
        deadline: on the monotonic clock.
    """

    def __init__(self, deadline: float):
        self.deadline, self.last_seconds = deadline, _FIRST_PICTURE_SECONDS

    def allows_one(self) -> bool:
        return time.monotonic() + self.last_seconds < self.deadline

    def draw(self, plot: Callable[[], Path]) -> list[Path]:
        """The picture that `plot` makes, or nothing."""
        if not self.allows_one():
            return []
        began = time.monotonic()
        path = plot()
        self.last_seconds = time.monotonic() - began
        return [path]


def make_report(folder: Path, data: ReportData, pictures: int, deadline: float = math.inf) -> Report:
    """Write scores.txt, scores.json, index.html and pictures into a folder.

    Args:
        pictures: how many tasks to draw; half as many unsolved ones are drawn with their votes.
        deadline: on the monotonic clock. No picture is begun that would end after it, and one that is late is not waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores = _score(data)
    (folder / "scores.txt").write_text(scores.text + "\n", encoding="utf-8")
    write_json(folder / "scores.json", scores.figures)
    drawing = _Drawing()
    ended = run_within(deadline - time.monotonic(), lambda: _draw(folder, data, scores, pictures, deadline, drawing))
    return Report(scores.text, scores.figures, list(drawing.files), drawing.page, complete=ended)


@dataclass
class _Drawing:
    """What is drawn by now."""

    files: list[Path] = field(default_factory=list)
    page: Path | None = None


def _draw(folder: Path, data: ReportData, scores: _Scores, pictures: int, deadline: float, drawing: _Drawing) -> None:
    """Charts, the page, pictures of tasks. The files of the charts come last: pictures of tasks tell more."""
    budget = _PictureBudget(deadline)
    charts = _charts(folder, data, budget)
    drawing.files = [path for _, path in charts]
    if time.monotonic() < deadline:
        page = folder / "index.html"
        page.write_text(render(_page(data, scores, charts, deadline)), encoding="utf-8")
        drawing.page = page
    drawing.files = [*_task_pictures(folder, data, pictures, budget), *drawing.files]


def _score(data: ReportData) -> _Scores:
    sources: dict[str, PredictionScores] = {}
    methods: list[ScoreRow] = []
    submission = None
    figures: dict[str, Any] = {"tasks": len(data.challenges.tasks), "predictions": len(data.predictions), "sources": {}}
    lines = [*data.notices, ""] if data.notices else []
    if data.known:
        solutions, ids = Solutions(data.known), list(data.known)
        sources = score_sources(data.predictions, solutions, ids)
        submission = score_submission({task_id: data.attempts[task_id] for task_id in ids}, solutions)
        figures["sources"] = {source: row.to_json() for source, row in sources.items()}
        figures["submission"] = submission.to_json()
        lines += [source_table(sources), "", submission_text(submission)]
        if len(data.ranked) > 1 or data.judged is not None:
            judged = {} if data.judged is None else {data.ensemble.method: data.judged}
            singles, methods = compare_methods(data.ranked, solutions, ids, data.ensemble, judged)
            figures["ways"] = {row.name: row.to_json() for row in methods}
            lines += ["", comparison_table(singles, methods, data.ensemble.method)]
    else:
        answered = {(p.task, p.test) for p in data.predictions if p.grid is not None}
        expected = sum(len(task.tests) for task in data.challenges.tasks.values())
        figures["answered_outputs"] = len(answered)
        lines.append(
            f"{len(answered)} of {expected} outputs answered by {len(data.predictions)} predictions; no solutions to score them with"
        )
    notes = [f"{source}: {trust.reason}" for source, trust in data.ranking.trust.items()] if len(data.ranked) > 1 else []
    notes += [str(event.get("reason")) for event in data.events if event.get("event") == "time_worth"]
    notes += [str(event.get("reason")) for event in data.events if event.get("event") == "judged"][-1:]
    refused = sorted({line for event in data.events for line in event.get("refused", [])})
    if refused:
        notes.append(f"{len(refused)} tasks or views without a prompt that fits, first: {refused[0]}")
    text = "\n".join([*lines, *(["", *notes] if notes else [])])
    return _Scores(sources, methods, submission, notes, figures, text)


def _charts(folder: Path, data: ReportData, budget: _PictureBudget) -> list[tuple[str, Path]]:
    """The charts for which there is data, each with its title."""
    if not budget.allows_one():
        return []
    from arc_submit.report.curves import plot_curves, prediction_curves
    from arc_submit.report.losses import plot_losses

    curves = prediction_curves(data.predictions, Solutions(data.known), list(data.known))
    wanted: list[tuple[str, Callable[[], Path]]] = []
    if curves:
        wanted.append(("Predictions against votes", lambda: plot_curves(folder / "votes.png", curves)))
    if data.losses:
        wanted.append(("Loss of fine-tuning", lambda: plot_losses(folder / "losses.png", data.losses)))
    if any("worker" in event for event in data.events):
        wanted.append(("What each worker did when", lambda: plot_timeline(folder / "timeline.png", data.events)))
    return [(title, path) for title, plot in wanted for path in budget.draw(plot)]


def _task_pictures(folder: Path, data: ReportData, count: int, budget: _PictureBudget) -> list[Path]:
    """Some tasks with their attempts, solved ones first, and half as many unsolved ones with their votes."""
    if not count or not budget.allows_one():
        return []
    from arc_submit.report.plots import plot_candidates, plot_task

    tasks = data.challenges.tasks
    files: list[Path] = []
    for task_id in _spread(sorted(tasks, key=lambda i: (i in data.unsolved, i)), count):
        attempts, outputs = data.attempts[task_id], data.known.get(task_id)
        files += budget.draw(partial(plot_task, folder / f"task-{file_name(task_id)}.png", tasks[task_id], attempts, outputs))
    for task_id in data.unsolved[: count // 2]:
        votes = {source: {o: a for o, a in outputs.items() if o[0] == task_id} for source, outputs in data.ranked.items()}
        if any(votes.values()):
            path = folder / f"votes-{file_name(task_id)}.png"
            files += budget.draw(partial(plot_candidates, path, tasks[task_id], votes, data.known.get(task_id)))
    return files


def _page(data: ReportData, scores: _Scores, charts: Sequence[tuple[str, Path]], deadline: float) -> Page:
    """Everything in the report, on one page."""
    tasks, total, method = data.challenges.tasks, scores.submission, data.ensemble.method
    outputs = sum(len(task.tests) for task in tasks.values())
    notes = [*data.notices, *scores.notes]
    page = Page("Run report", f"{len(tasks)} tasks, {outputs} test outputs; attempts by way “{method}”", notes=notes, figures=charts)
    if total is not None:
        page.cards += [
            (f"{100 * total.per_output:.1f} %", f"{total.solved_outputs} of {total.outputs} outputs solved"),
            (f"{100 * total.per_task:.1f} %", f"mean over {total.tasks} tasks"),
            (f"{100 * total.first_attempt:.1f} %", "by the first attempt alone"),
        ]
    else:
        page.cards.append((str(scores.figures["answered_outputs"]), "outputs answered"))
    seconds = read_timeline(data.events).length
    page.cards += [(str(len(data.predictions)), "predictions"), (format_duration(seconds), "of work")]
    if scores.sources:
        cells = [
            [s, str(r.outputs), str(r.predictions), *(f"{100 * getattr(r, n):.1f}" for n in COLUMNS)] for s, r in scores.sources.items()
        ]
        page.tables.append(Table("By source", ["source", "outputs", "predictions", *COLUMNS], cells, note="Per cent of test outputs."))
    if scores.methods:
        header = ["way", "top 1", "top 2", "pass_n", "top 2, mean over tasks"]
        cells = [[row.name, *row.shares(), f"{100 * row.per_task:.1f} %"] for row in scores.methods]
        used = frozenset(i for i, row in enumerate(scores.methods) if row.name == method)
        page.tables.append(Table("By combination", header, cells, used, "Every way on the same predictions; the one in use stands out."))
    kind = "Unsolved tasks" if data.known else "Tasks, the least settled first"
    page.tasks_title = f"{kind}: {len(data.unsolved)}"
    page.tasks_note = "Each source's answers with most votes; " + ("those found but not chosen come first." if data.known else "")
    for task_id in data.unsolved[:_TASKS_ON_PAGE]:
        if time.monotonic() > deadline:
            break
        page.tasks.append(_task_section(data, task_id))
    if len(data.unsolved) > len(page.tasks):
        page.tasks_note += f" The first {len(page.tasks)} of {len(data.unsolved)} are shown."
    page.programs = _program_sections(data)
    cells = []
    for task_id, task in sorted(tasks.items()):
        for test in range(len(task.tests)):
            reasons = [answer.reason for answer in data.answers(task_id, test)[:2]]
            reasons += ["fallback"] * (2 - len(reasons))
            solved = "" if task_id not in data.known else "yes" if data.solved(task_id, test) else "no"
            cells.append([task_id, str(test), solved, *reasons])
    header, texts = ["task", "test", "solved", "first attempt", "second attempt"], frozenset({"first attempt", "second attempt"})
    title = "Which source gave each attempt, and how probable each was thought to be"
    page.appendix.append(Table(title, header, cells, texts=texts))
    return page


def _task_section(data: ReportData, task_id: str) -> TaskSection:
    task = data.challenges.tasks[task_id]
    rows: list[tuple[str, list[CaptionedGrid]]] = []
    for test, grid in enumerate(task.tests):
        solution = data.known[task_id][test] if task_id in data.known else None

        def right(answer: Grid, solution: Grid | None = solution) -> bool | None:
            return None if solution is None else same_grid(answer, solution)

        row = [CaptionedGrid(grid, ["test input"])]
        for number, attempt in enumerate(data.attempts[task_id][test][:2], 1):
            reason = next((answer.reason for answer in data.answers(task_id, test) if same_grid(answer.grid, attempt)), "fallback")
            verdict = {None: "", True: ": right", False: ": wrong"}[right(attempt)]
            row.append(CaptionedGrid(attempt, [f"attempt {number}{verdict}", reason], right(attempt)))
        if solution is not None:
            row.append(CaptionedGrid(solution, ["solution"], True))
        rows.append((f"test {test}", row))
        for source in sorted(data.ranked):
            answers = data.ranked[source].get((task_id, test), ())
            row = [CaptionedGrid(a.grid, [_evidence(a)], right(a.grid)) for a in answers[:_ANSWERS_ON_PAGE]]
            if row:
                rows.append((f"test {test}, {source}: {len(answers)} different answers", row))
    pairs = [(pair.input, pair.output) for pair in task.train[:_PAIRS_ON_PAGE]]
    return TaskSection(task_id, "the right answer was found and not chosen" if data.missed(task_id) else "", pairs, rows)


def _program_sections(data: ReportData) -> list[TaskSection]:
    """The tasks with a program that reproduces all train pairs: its text, and what it gives for the first test input.

    All grids are shown under the view for which the program was written.
    """
    sections = []
    for source, outputs in sorted(data.ranked.items()):
        for (task_id, test), answers in sorted(outputs.items()):
            if test or not answers or not any(0 < pairs == whole for whole, pairs in answers[0].fits):
                continue
            task, best = data.challenges.tasks[task_id], answers[0]
            right = same_grid(best.grid, data.known[task_id][0]) if task_id in data.known else None
            plain = identity_view(len(task.train))
            view = _view_of_program(data, source, task_id, best) or plain
            shown = view.apply_task(task)
            row = [CaptionedGrid(shown.tests[0], ["test input"]), CaptionedGrid(view.apply(best.grid), [_evidence(best)], right)]
            pairs = [(pair.input, pair.output) for pair in shown.train[:_PAIRS_ON_PAGE]]
            summary = source if view == plain else f"{source}, all under the view {view.key}"
            sections.append(TaskSection(task_id, summary, pairs, [("test 0", row)], best.program))
    return sections[:_TASKS_ON_PAGE]


def _view_of_program(data: ReportData, source: str, task_id: str, answer: SourceAnswer) -> View | None:
    """The view for which the program of an answer to the first test input was written; None for the task as it is.

    A text that was written for several views with the same outcome is shown under the first by its key.
    """
    written = [
        (-p.fits[0], p.view)
        for p in data.predictions
        if (p.source, p.task, p.test, p.program) == (source, task_id, 0, answer.program) and p.grid is not None
        if same_grid(p.grid, answer.grid)
    ]
    _, key = min(written, default=(0, ""))
    return parse_view(key) if key else None


def _evidence(answer: SourceAnswer) -> str:
    if answer.basis == "score":
        return f"score {answer.mean_logprob:.2f}"
    if answer.basis == "programs":
        whole, pairs = max(answer.fits)
        return f"{answer.votes} program{'' if answer.votes == 1 else 's'}, right on {whole} of {pairs} train pairs"
    return f"{answer.votes} vote{'' if answer.votes == 1 else 's'}, log p {answer.mean_logprob:.1f}"


def _spread(ids: list[str], count: int) -> list[str]:
    """`count` of a ranked list: half of them from its top, the others evenly from the rest."""
    if len(ids) <= count:
        return ids
    top = ids[: count - count // 2]
    rest = ids[len(top) :]
    below = count - len(top)
    return top + [rest[i * len(rest) // below] for i in range(below)] if below else top
