"""The pipeline: challenges in, a valid scored submission out; and the commands that do a part of it.

`run` reads top to bottom: resolve, write a complete submission of fallbacks, let the sources work, replace the submission as answers come,
report. `finetune`, `infer` and `search` are runs of one source over the same orchestrator. Does not know how a source works.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import short_id, split_tasks
from arc_submit.arc.files import write_json
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.submission import Submission
from arc_submit.durations import format_duration, seconds_left
from arc_submit.ensemble.combination import JUDGED_METHODS
from arc_submit.errors import ConfigError, DataError
from arc_submit.report.losses import plot_losses, read_losses
from arc_submit.report.summary import Report, ReportData, make_report
from arc_submit.run.config import RunConfig
from arc_submit.run.judge_stage import decide, judged_scores, load_judging, note_judged, run_judge
from arc_submit.run.orchestrator import SourceProgress, Step, load_progress, run_sources
from arc_submit.run.progress import Progress, choose_progress
from arc_submit.run.resolve import ResolvedRun, resolve_run
from arc_submit.run.resolve_single import (
    SearchReport,
    check_same_tasks,
    earlier_searches,
    finished_inference,
    goes_on,
    resolve_infer,
    resolve_search_alone,
    search_report,
)
from arc_submit.storage.run_dir import RunDirectory, open_run


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        submission: the file.
        done: tasks that at least one source has finished.
        failed: reasons by "source task".
        unfinished: tasks that some source has not brought to its plan, for lack of time.
        report: table and pictures.
        seconds: wall-clock seconds of this call.
        lost: sources that gave nothing and could give nothing, each with the reason.
    """

    submission: Path
    done: list[str]
    failed: dict[str, str]
    unfinished: list[str]
    report: Report
    seconds: float
    lost: dict[str, str] = field(default_factory=dict)


def run(config: RunConfig) -> RunResult:
    """Make a submission within the budget, or go on with one that was begun.

    Raises:
        ArcSubmitError: before any work, where it cannot work at all: no model, no tasks, another run's directory.
    """
    began = time.monotonic()
    resolved = resolve_run(config)
    progress, _ = choose_progress()
    with open_run(config.out, resolved.fingerprint, resolved.reset_budget) as directory:
        deadline = run_deadline(resolved, directory, began)
        submission = Submission(resolved.data.challenges, resolved.submission, resolved.data.counts)
        _answer(directory, resolved, submission)
        _log_start(resolved, directory, deadline, progress)
        split_tasks(resolved.data.challenges.subset(resolved.data.chosen), directory.tasks)
        events = directory.read_events()
        sources = [load_progress(source, resolved, events) for source in resolved.sources]
        judge_seconds = resolved.judge.seconds if resolved.judge else 0.0
        for step in run_sources(resolved, sources, directory, deadline - judge_seconds, progress):
            if step.event is not None and step.event.kind == "done":
                _answer_early(directory, resolved, submission, progress, step.event.task_ids)
        judging = load_judging(resolved, directory)
        for step in run_judge(resolved, judging, directory, deadline, progress) if judging else ():
            if step.event is not None and step.event.kind == "done":
                _answer_early(directory, resolved, submission, progress, step.event.task_ids)
        answering = [one for one in sources if one.source.name in resolved.answering]
        done = {task_id for one in answering for task_id in one.done}
        failed = {f"{one.source.name} {task_id}": reason for one in answering for task_id, reason in one.failed.items()}
        unfinished = {task_id for one in answering for task_id in one.below_plan}
        predictions = _answer_at_the_end(directory, resolved, submission, progress)
        judged = decide(resolved, directory, predictions, resolved.data.chosen)
        if resolved.ensemble.method in JUDGED_METHODS:
            progress.log(note_judged(resolved, judging, judged, directory))
        directory.event("submission_final", tasks=len(resolved.data.counts), predictions=len(predictions))
        lost = resolved.lost | {one.source.name: one.lost for one in (*answering, *([judging] if judging else [])) if one.lost}
        report = _report(directory, resolved, predictions, submission, deadline + 0.8 * resolved.reserve, _lost_lines(lost))
        directory.event("run_ended", done=len(done), failed=len(failed), unfinished=len(unfinished))
        seconds = time.monotonic() - began
        for line in report.text.splitlines():  # a log shows an end of line within a line as text
            progress.log(line)
        if not report.complete:
            directory.event("report_cut", pictures=len(report.pictures))
            progress.log("the time ran out before the report's last picture; the same command with --reset-budget draws them all")
        if unfinished:
            progress.log(f"{len(unfinished)} tasks are below the plan, first {min(unfinished)}; --reset-budget goes on with them")
        progress.log(f"{submission.path}: {len(resolved.data.counts)} tasks, valid; {format_duration(seconds)}")
        for line in _lost_lines(lost):
            progress.log(line)
        return RunResult(submission.path, sorted(done), failed, sorted(unfinished), report, seconds, lost)


def _lost_lines(lost: Mapping[str, str]) -> list[str]:
    return [f"{source} gives nothing: {reason}" for source, reason in lost.items()]


@dataclass(frozen=True)
class FinetuneResult:
    """The outcome of fine-tuning alone.

    Attributes:
        adapters: the folder that holds one for each task.
        done: tasks that have an adapter.
        failed: reasons by task.
        unfinished: tasks without an adapter for lack of time.
        steps, tokens: of this call, all tasks together.
        losses: picture of the loss curves, None where there is none.
        seconds: wall-clock seconds of this call.
    """

    adapters: Path
    done: list[str]
    failed: dict[str, str]
    unfinished: list[str]
    steps: int
    tokens: int
    losses: Path | None
    seconds: float


def finetune(config: RunConfig) -> FinetuneResult:
    """Fine-tune on every task within the budget, or go on with it, and predict nothing.

    A run of the source ttft alone with the same settings in the same directory then uses these adapters.

    Args:
        config: its sources are ("ttft",).

    Raises:
        ArcSubmitError: before any work, where it cannot work at all.
    """
    began = time.monotonic()
    resolved = resolve_run(config, predict=False)
    progress, _ = choose_progress()
    with open_run(config.out, resolved.fingerprint, resolved.reset_budget) as directory:
        deadline = run_deadline(resolved, directory, began)
        _log_start(resolved, directory, deadline, progress)
        split_tasks(resolved.data.challenges.subset(resolved.data.chosen), directory.tasks)
        events = directory.read_events()
        sources = [load_progress(source, resolved, events) for source in resolved.sources]
        _exhaust(run_sources(resolved, sources, directory, deadline, progress))
        tuned = sources[-1]
        losses = read_losses(config.out)
        picture = plot_losses(directory.report / "losses.png", losses) if losses else None
        unfinished = sorted(tuned.below_plan)
        seconds = time.monotonic() - began
        if unfinished:
            progress.log(f"{len(unfinished)} tasks have no adapter, first {unfinished[0]}; --reset-budget goes on with them")
        progress.log(f"{directory.adapters}: {len(tuned.done)} adapters, {len(tuned.failed)} tasks failed; {format_duration(seconds)}")
        return FinetuneResult(
            adapters=directory.adapters,
            done=sorted(tuned.done),
            failed=tuned.failed,
            unfinished=unfinished,
            steps=sum(result.steps or 0 for one in sources for result in one.results.values()),
            tokens=sum(result.tokens or 0 for one in sources for result in one.results.values()),
            losses=picture,
            seconds=seconds,
        )


@dataclass
class InferResult:
    """The outcome of inference alone.

    Attributes:
        made, held: predictions made now, and found on disk.
        malformed: answers without a grid.
        answered: prompts (a test input under a view) answered by now.
        tokens: tokens generated.
        done: tasks with all predictions.
        failed: reasons by task.
        unfinished: tasks that lack predictions for lack of time.
        refused: prompts that do not fit.
        recoveries: seconds from each loss of a worker to the next prediction or finished job.
        seconds: wall-clock seconds of the whole; `working` from the first job's start.
    """

    made: int = 0
    held: int = 0
    malformed: int = 0
    answered: int = 0
    tokens: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    refused: int = 0
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0
    working: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "made": self.made,
            "held": self.held,
            "malformed": self.malformed,
            "refused": self.refused,
            "done": self.done,
            "failed": len(self.failed),
            "unfinished": len(self.unfinished),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / self.working, 1) if self.working else 0.0,
            "recoveries": [round(seconds, 2) for seconds in self.recoveries],
            "seconds": round(self.seconds, 1),
        }


def infer(config: RunConfig) -> InferResult:
    """Make the predictions of a model that the run directory does not hold yet, with or without adapters that exist.

    Works on a challenges file, or on the tasks of a directory that another command has begun.

    Args:
        config: its sources are ("frozen",), or ("ttft",) with `adapters`.

    Raises:
        ArcSubmitError: before any work, where it cannot work at all.
    """
    began = time.monotonic()
    resolved = resolve_infer(config)
    progress, _ = choose_progress()
    with open_run(config.out, resolved.fingerprint) as directory:
        if config.challenges is not None:
            check_same_tasks(resolved.data.challenges, directory)
            _log_broken(resolved, progress)
            split_tasks(resolved.data.challenges, directory.tasks)
        if not resolved.data.chosen:
            raise ConfigError(f"{directory.root}: holds no tasks; give --challenges")
        source = load_progress(resolved.sources[0], resolved, [])
        finished = finished_inference(directory, source.source.name)
        finished = {task_id: result for task_id, result in finished.items() if task_id in resolved.data.tasks}
        source.results |= finished
        source.costs = {task_id: cost for task_id, cost in source.costs.items() if task_id not in finished}
        # The command has its whole budget in each call; its directory may be another command's, with a budget of its own.
        steps = run_sources(resolved, [source], directory, began + resolved.budget, progress) if source.costs else ()
        result = _follow_inference(steps, source)
        if config.challenges is not None:
            _answer(directory, resolved, Submission(resolved.data.challenges, directory.submission, resolved.data.counts))
        result.seconds = time.monotonic() - began
    return result


def _follow_inference(steps: Iterable[Step], source: SourceProgress) -> InferResult:
    """Let a source of predictions work; collects its figures."""
    result = InferResult()
    first: float | None = None
    lost_at: list[float] = []
    for step in steps:
        now, event = time.monotonic(), step.event
        if event is None:
            continue
        if event.kind == "begun":
            first = first or now
        elif event.kind == "lost":
            lost_at.append(now)
        elif event.kind == "deadline":
            result.unfinished += event.task_ids
        elif event.kind == "done" or (event.kind == "progress" and event.result.get("made")):
            result.recoveries += [now - moment for moment in lost_at]
            lost_at.clear()
        result.working = now - first if first else 0.0
    for task_id, one in source.results.items():
        result.made += one.made
        result.held += one.held
        result.malformed += one.malformed or 0
        result.answered += one.answered or 0
        result.tokens += one.tokens or 0
        result.refused += len(one.refused)
        if one.unfinished:
            result.unfinished.append(task_id)
        elif not one.failed:
            result.done += 1
    result.failed = dict(source.failed)
    return result


def search(config: RunConfig) -> list[SearchReport]:
    """Search every task of a challenges file with programs, or go on with that; leaves predictions, a report a task and a submission.

    Args:
        config: its sources are ("search",).

    Returns:
        a report for each task of the file, those of earlier calls included.

    Raises:
        ArcSubmitError: before any work, where it cannot work at all.
    """
    resolved = resolve_search_alone(config)
    progress, _ = choose_progress()
    _log_broken(resolved, progress)
    with open_run(config.out, resolved.fingerprint, adopt=True) as directory:
        check_same_tasks(resolved.data.challenges, directory)
        split_tasks(resolved.data.challenges, directory.tasks)
        submission = Submission(resolved.data.challenges, directory.submission, resolved.data.counts)
        _answer(directory, resolved, submission)
        reports = earlier_searches(directory, resolved.data.chosen, config.search_effort)
        open_ids = {
            task_id for task_id in resolved.data.chosen if task_id not in reports or goes_on(reports[task_id], config.search_seconds)
        }
        source = load_progress(resolved.sources[0], resolved, [])
        source.costs = {task_id: cost for task_id, cost in source.costs.items() if task_id in open_ids}
        source.next_passes = {task_id: reports[task_id].next_pass for task_id in open_ids & set(reports) if reports[task_id].next_pass}
        deadline = time.monotonic() + resolved.budget
        for step in run_sources(resolved, [source], directory, deadline, progress):
            for report in search_report(step, directory, config.search_effort, reports):
                reports[report.task] = report
                write_json(directory.search_report(report.task), asdict(report))
                _answer(directory, resolved, submission, [report.task])
                if report.ending not in ("done", "pass"):
                    progress.log(f"{report.task}: cut by {report.ending} after {report.seconds:.1f} s, {report.answers} answers kept")
    return [reports[task_id] for task_id in resolved.data.challenges.tasks if task_id in reports]


def run_deadline(resolved: ResolvedRun, directory: RunDirectory, began: float) -> float:
    """When the sources of a run must end, on the monotonic clock.

    The budget counts from the run's first call, and in this call from its beginning: resolving loads libraries and reads files.
    """
    first = time.monotonic() + directory.started - time.time()
    return min(first, began) + resolved.budget - resolved.reserve


def _exhaust(steps: Iterator[Step]) -> None:
    for _ in steps:
        pass


def _answer(
    directory: RunDirectory, resolved: ResolvedRun, submission: Submission, task_ids: Sequence[str] | None = None
) -> list[Prediction]:
    """Put the answers of the predictions on disk into the submission, of some tasks or of all, and replace the file.

    The file stays where the answers of some tasks change none of its attempts.

    Raises:
        DataError: where the disk does not take the file; the one that exists stays unchanged.
    """
    predictions = _decide(directory, resolved, submission, task_ids)
    if task_ids is None or not submission.saved:
        submission.save()
    return predictions


def _decide(
    directory: RunDirectory, resolved: ResolvedRun, submission: Submission, task_ids: Sequence[str] | None = None
) -> list[Prediction]:
    """`_answer` in memory alone."""
    counts = resolved.data.counts
    wanted = [task_id for task_id in (resolved.data.chosen if task_ids is None else task_ids) if task_id in counts]
    predictions, problems = directory.read_predictions(counts, wanted)
    if task_ids is None:  # earlier a source may be in the middle of a line
        for problem in problems:
            directory.event("prediction_unreadable", reason=problem)
    for (task_id, test), choices in decide(resolved, directory, predictions, wanted).answers.items():
        submission.set(task_id, test, [choice.grid for choice in choices[:2]])
    return predictions


def _answer_early(
    directory: RunDirectory, resolved: ResolvedRun, submission: Submission, progress: Progress, task_ids: Sequence[str]
) -> None:
    """`_answer` during the run: a full disk may have room again by the end, and the file that exists stays valid."""
    try:
        _answer(directory, resolved, submission, task_ids)
    except DataError as error:
        progress.log(str(error))


def _answer_at_the_end(directory: RunDirectory, resolved: ResolvedRun, submission: Submission, progress: Progress) -> list[Prediction]:
    """`_answer` at the end: a full disk may cost the last answers, but not the run, because a valid file exists."""
    predictions = _decide(directory, resolved, submission)
    try:
        submission.save()
    except DataError as error:
        directory.event("submission_not_replaced", reason=str(error))
        progress.log(f"{error}; the file stays as it was last written, complete and valid")
    return predictions


def _report(
    directory: RunDirectory,
    resolved: ResolvedRun,
    predictions: list[Prediction],
    submission: Submission,
    deadline: float,
    notices: Sequence[str],
) -> Report:
    """The report, or one line in its place: the submission is final, and no picture may cost it."""
    data = resolved.data
    try:
        contents = ReportData(
            data.challenges.subset(data.chosen),
            predictions,
            submission.attempts,
            data.solutions,
            directory.read_events(),
            read_losses(directory.root),
            resolved.ensemble,
            notices,
            judged_scores(resolved, directory, data.chosen),
        )
        return make_report(directory.report, contents, resolved.pictures, deadline)
    except Exception as error:  # noqa: BLE001 - see above
        directory.event("report_failed", reason=f"{type(error).__name__}: {error}")
        return Report(f"no report ({type(error).__name__}: {error}); the submission is complete without it", {}, [])


def _log_start(resolved: ResolvedRun, directory: RunDirectory, deadline: float, progress: Progress) -> None:
    data = resolved.data
    for line in _lost_lines(resolved.lost):
        progress.log(line)
    for source, reason in resolved.lost.items():
        directory.event("source_left_out", source=source, reason=reason)
    outputs = sum(data.counts[i] for i in data.chosen)
    for problem in data.problems:
        progress.log(f"left out of the scores: {problem}")
    progress.log(
        f"{'going on with' if directory.resumed else 'run'} {directory.root}: {len(data.chosen)} of {len(data.counts)} tasks"
        f" ({outputs} outputs) of {data.name}; sources {', '.join(resolved.answering)}; {format_duration(seconds_left(deadline))} left"
    )
    for choice in resolved.choices:
        progress.log(f"auto: {choice.text}")
    for one in resolved.sources:
        if one.cards.reason:
            progress.log(f"{one.name}: {one.cards.reason}")
    _log_broken(resolved, progress)
    for source, budget in resolved.adapter_budgets.items():
        named = {} if source == "ttft" else {"source": source}
        directory.event("adapter_room", **named, bound=budget.bound, reason=budget.reason)
        progress.log(f"{source}: {budget.reason}" if named else budget.reason)


def _log_broken(resolved: ResolvedRun, progress: Progress) -> None:
    for task_id, reason in resolved.data.challenges.errors.items():
        progress.log(f"set aside {short_id(task_id)}: {reason}")
