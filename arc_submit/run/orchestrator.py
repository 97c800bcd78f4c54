"""What the sources of a run have to do, how far they have come, and letting them do it: side by side, until the deadline.

What happens is put down in the run's timeline and said beside the progress bars. Knows nothing about submissions and reports.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Task
from arc_submit.durations import format_duration, seconds_left
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.evidence import SCORED_SOURCES
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.run.adapter_budget import AdapterBudget
from arc_submit.run.config import RunConfig
from arc_submit.run.sources import LANES, Source, cost, divide, guess_costs, lanes, machine, make_source, needs, size
from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_events
from arc_submit.scheduling.scheduler import Level, Scheduler, SchedulerOptions, choose_deadline, choose_soft_deadline, estimated_seconds
from arc_submit.storage.run_dir import RunDirectory
from arc_submit.workers.fallback import run_with_fallback
from arc_submit.workers.merge_streams import merge_streams
from arc_submit.workers.pool import Launch, ProcessConfig, launch_locally
from arc_submit.workers.ray_cluster import Cluster
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, WorkerQuota


@dataclass
class Work:
    """What one source has to do and has done.

    Attributes:
        source: how it is run.
        costs: of every chosen task, for the progress bar, see arc_submit.run.sources.cost.
        sizes: the same for the scheduler.
        reached: how far each task has come that it has finished something of, in this call or an earlier one.
        guess: what its work is taken to cost.
        failed: reasons by task.
        bar: its progress, by cost.
    """

    source: Source
    costs: dict[str, float]
    sizes: dict[str, TaskSize]
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
        return estimated_seconds(self.sizes, self.source.ladder, self.guess) if self.source.ladder else 0.0

    @property
    def short(self) -> set[str]:
        """Tasks that have not come as far as was planned, for lack of time."""
        return {task_id for task_id in self.costs if task_id not in self.failed and not self._there(task_id)}

    def _there(self, task_id: str) -> bool:
        ladder, reached = self.source.ladder, self.reached.get(task_id)
        return reached is not None and (ladder is None or reached.views >= ladder.levels[ladder.plan].views)


@dataclass(frozen=True)
class Step:
    """What comes out of a lane: an event of a source's workers; or why the source cannot go on; or, with neither, that it has ended."""

    work: Work
    event: Event | None = None
    broken: str = ""


def find_work(name: str, directory: RunDirectory, tasks: Mapping[str, Task], config: RunConfig, room: AdapterBudget | None) -> Work:
    """What there is for a source to do on these tasks, and how far it has come before."""
    source = make_source(name, directory.path, config, room)
    costs = {task_id: cost(task) for task_id, task in tasks.items()} if name != "warmup" else {"all tasks": 1.0}
    sizes: dict[str, TaskSize] = {}
    if source.ladder:
        prompt_len = resolve_prompt_config(config.model, config.grid_encoder, config.prompt, config.max_seq_len).max_seq_len
        train_len = config.ttft_max_seq_len or prompt_len
        sizes = {task_id: size(name, task, train_len, prompt_len) for task_id, task in tasks.items()}
    plan = source.ladder.levels[source.ladder.plan] if source.ladder else Level(0, 0)
    reached: dict[str, Level] = {}
    for event in directory.events():
        task_id = event.get("task")
        if event["event"] == "task_done" and event.get("source") == name and isinstance(task_id, str) and task_id in costs:
            level = _level(event.get("level"), plan)
            reached[task_id] = max(reached.get(task_id, level), level, key=lambda one: one.views)
    return Work(source, costs, sizes, reached, guess_costs(config)[0])


def _level(told: Any, otherwise: Level) -> Level:
    """What a timeline says of a level, which anybody may have edited."""
    sound = isinstance(told, list) and len(told) == 2 and all(isinstance(number, int) and number >= 0 for number in told)
    return Level(*told) if sound else otherwise


def work_in_lanes(
    works: dict[str, Work], directory: RunDirectory, config: RunConfig, deadline: float, cluster: Cluster | None
) -> Iterator[Step]:
    """Let the sources work, those of one lane one after the other and the lanes side by side, until the deadline.

    What a lane that has ended leaves over goes to the others.
    """
    running = lanes(list(works))
    lane_of = {name: lane for lane, names in running.items() for name in names}
    shares = {lane: WorkerQuota(0) for lane in running}

    def divide_among(names: list[str]) -> None:
        workers, reason = divide(config, names, *(cluster.resources if cluster else machine()))
        for lane, number in workers.items():
            shares[lane].workers = number
        directory.event("machine_divided", workers=workers, reason=reason)
        say(reason)

    def stop() -> None:
        for share in shares.values():
            share.stopped = True

    divide_among(list(running))
    launches = {lane: cluster.launch(*needs(lane, config)) if cluster else launch_locally for lane in running}
    streams = [_lane([works[name] for name in names], directory, shares[lane], deadline, launches[lane]) for lane, names in running.items()]
    # A worker that the kernel holds can keep its lane beyond the deadline, but not the run.
    for step in merge_streams(streams, deadline + 0.3 * config.reserve, stop):
        yield step
        if step.event is None and not step.broken:
            lane = lane_of[step.work.source.name]
            running[lane].remove(step.work.source.name)
            if not running[lane]:
                del running[lane]
                if running:
                    divide_among(list(running))


def _lane(works: list[Work], directory: RunDirectory, share: WorkerQuota, deadline: float, launch: Launch) -> Iterator[Step]:
    """One source's work after the other's, each for as long as the scheduler says."""
    for number, work in enumerate(works):
        source, now = work.source, time.monotonic()
        behind = {other.source.name: other.foretold for other in works[number + 1 :]}
        until, reason = choose_deadline(now, deadline, work.foretold, behind)
        directory.event("source_begun", source=source.name, seconds=round(until - now, 1), reason=reason)
        soft = choose_soft_deadline(now, until)
        supply = _supply(work, directory, soft)
        logs = directory.path / "logs" / source.name
        try:
            for event in run_with_fallback(supply, source.stages, ProcessConfig(logs, source.environment, launch), share, until, soft):
                yield Step(work, event)
        except (PoolError, OSError) as error:
            # One source that cannot work at all (no memory for a process, no room for its log) leaves the others as they are.
            yield Step(work, broken=str(error))
        left = supply.pending()
        if left:
            reason = f"{format_duration(seconds_left(until))} of its time are left, less than any of them takes"
            directory.event("left_out", source=source.name, tasks=left, reason=reason)
        yield Step(work)


def _supply(work: Work, directory: RunDirectory, until: float) -> JobSource:
    """What chooses a source's next job: the scheduler, or the smaller task first for a source without levels."""
    source = work.source
    if source.ladder is None:
        todo = sorted((task_id for task_id in work.costs if task_id not in work.reached), key=lambda i: (work.costs[i], i))
        return JobQueue(Job(tuple(todo[i : i + source.group])) for i in range(0, len(todo), source.group))
    learn_from_events(work.guess, directory.events(), source.name, work.sizes)

    def unsettled(task_id: str) -> float:
        return _unsettled(directory, source.name, task_id)

    return Scheduler(work.sizes, source.ladder, work.guess, until, work.reached, SchedulerOptions(unsettled, source.group, source.keeps))


def _unsettled(directory: RunDirectory, source: str, task_id: str) -> float:
    """The part of a source's predictions that do not vote for the best answer, in the most doubtful output of a task."""
    predictions, _ = read_predictions(directory.path / "predictions" / source / f"{task_id}.jsonl")
    ranked = rank_all(predictions).get(source, {})
    shares = []
    for test in {p.test for p in predictions}:
        best = ranked.get((task_id, test), [])
        shares.append(best[0].votes / sum(p.test == test for p in predictions) if best else 0.0)
    return 1.0 - min(shares, default=0.0)


def take_note(step: Step, directory: RunDirectory) -> None:
    """Put down what has happened, and say it."""
    work, event, source = step.work, step.event, step.work.source.name
    if work.bar is None:
        total, so_far = sum(work.costs.values()), sum(work.costs[task_id] for task_id in work.done)
        form = "{desc} {percentage:3.0f}% |{bar}| {postfix} [{elapsed}<{remaining}]"
        place = list(LANES).index("search" if source == "search" else "model")
        work.bar = tqdm(total=total, initial=so_far, desc=source, bar_format=form, mininterval=1.0, position=place)
    if step.broken:
        directory.event("source_failed", source=source, reason=step.broken)
        say(f"{source} cannot go on: {step.broken}")
        work.failed |= {task_id: step.broken for task_id in work.costs if task_id not in work.reached}
    elif event is None:
        work.bar.close()
    else:
        _take_note_of_event(event, work, directory)


def _take_note_of_event(event: Event, work: Work, directory: RunDirectory) -> None:
    source = work.source.name
    if event.kind == "progress":
        return
    if event.kind == "handed_on":
        say(f"{source} {event.task_ids[0]}: left to the next engine ({event.reason})")
    if event.kind != "done":
        told = {"level": [event.params["steps"], event.params["views"]]} if event.kind == "begun" and event.params else {}
        directory.event(f"worker_{event.kind}", source=source, worker=event.worker, tasks=event.task_ids, reason=event.reason, **told)
    if event.kind in ("lost", "retired"):
        fate = "at rest" if event.kind == "retired" else "its tasks are given out again" if event.task_ids else "lost"
        say(f"{source} worker {event.worker}: {fate} ({event.reason})")
    if event.kind == "given_up" and event.task_ids[0] in work.reached:
        say(f"{source} {event.task_ids[0]}: no further ({event.reason}), left at {work.reached[event.task_ids[0]]}")
    elif event.kind == "given_up":
        work.failed[event.task_ids[0]] = event.reason
        directory.event("task_failed", source=source, task=event.task_ids[0], reason=event.reason)
        say(f"{source} {event.task_ids[0]}: given up ({event.reason}), left to its fallback")
    level = Level(event.params.get("steps", 0), event.params.get("views", 0))
    for task_id, result in event.result.get("tasks", {}).items():
        cut = result.get("unfinished", 0)
        kind = "task_failed" if result["failed"] else "task_cut" if cut else "task_done"
        directory.event(kind, source=source, task=task_id, worker=event.worker, level=[level.steps, level.views], **result)
        if result["failed"] and task_id not in work.reached:
            work.failed[task_id] = result["failed"]
        elif not result["failed"] and not cut:
            work.reached[task_id] = level
        say(_task_line(source, directory, task_id, result))
    if event.kind == "done":
        directory.event("worker_done", source=source, worker=event.worker, tasks=event.task_ids, seconds=round(event.seconds, 3))
    ended = work.done | set(work.failed)
    work.bar.set_postfix_str(f"{len(ended)}/{len(work.costs)} tasks", refresh=False)
    work.bar.update(sum(work.costs[task_id] for task_id in ended) - work.bar.n)


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


def say(text: str) -> None:
    """Print a line beside the progress bar; a terminal that has gone away does not end a run."""
    with contextlib.suppress(OSError):
        tqdm.write(text)
