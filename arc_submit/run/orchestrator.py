"""The orchestrator: lets the sources of a run work, those of one lane one after the other and the lanes side by side, until the deadline.

It notes each event in the timeline and in the progress. Does not know about submissions and reports, nor how a source works.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.arc.task import Task
from arc_submit.durations import format_duration, seconds_left
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.evidence import is_scored, tests_programs
from arc_submit.ensemble.law_odds import law_factor
from arc_submit.run.host import allocate_workers
from arc_submit.run.progress import Progress, SourceCounts
from arc_submit.run.resolve import ResolvedRun
from arc_submit.run.source import CPU_LANE, JUDGE, MODEL_LANE, Source, task_cost, task_size
from arc_submit.run.standings import Standings
from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_events
from arc_submit.scheduling.gain_scheduler import GainOptions, GainScheduler
from arc_submit.scheduling.lane_time import LaneMember, LaneTime
from arc_submit.scheduling.pass_queue import PassQueue, next_pass
from arc_submit.scheduling.scheduler import (
    Level,
    Scheduler,
    SchedulerOptions,
    choose_soft_deadline,
    estimated_seconds,
    read_level,
)
from arc_submit.storage.run_dir import RunDirectory
from arc_submit.storage.task_result import TaskResult
from arc_submit.workers.fallback import run_with_fallback
from arc_submit.workers.merge_streams import merge_streams
from arc_submit.workers.pool import ProcessConfig
from arc_submit.workers.supervisor import BoundedQuota, Event, Job, JobQueue, JobSource, PoolError, WorkerQuota


@dataclass
class SourceProgress:
    """What one source has to do and has done.

    Attributes:
        source: how it is run.
        costs: relative cost of every task, for the progress.
        sizes: sizes of the tasks for the scheduler; empty without a ladder.
        reached: the level of each task that the source has finished, in this call or an earlier one.
        cost_model: estimate of what its work costs.
        failed: reasons by task.
        results: outcome of each task in this call, the latest.
        running: tasks that each worker has in hand.
        gained: predictions made in this call.
        live: what each busy worker last reported of its job in hand.
        reports: what a worker last reported of each task.
        jobs: its work in order; None: chosen by its ladder, by its passes, or the smallest task first.
        next_passes: the pass that follows, of tasks with an answer whose work has not ended.
    """

    source: Source
    costs: dict[str, float]
    sizes: dict[str, TaskSize]
    reached: dict[str, Level]
    cost_model: CostModel
    failed: dict[str, str] = field(default_factory=dict)
    results: dict[str, TaskResult] = field(default_factory=dict)
    running: dict[int, tuple[str, ...]] = field(default_factory=dict)
    gained: int = 0
    live: dict[int, dict[str, Any]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: Sequence[Job] | None = None
    next_passes: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> set[str]:
        """Tasks that it has answered, some perhaps below the plan."""
        return set(self.reached)

    @property
    def lost(self) -> str:
        """Why it has given nothing and could give nothing: the commonest reason of its tasks; "" where it has, or where time ran out."""
        if self.reached or len(self.failed) < len(self.costs) or not self.failed:
            return ""
        return Counter(self.failed.values()).most_common(1)[0][0]

    @property
    def estimated_seconds(self) -> float:
        """Estimated seconds of its plan, 0 without a ladder."""
        return estimated_seconds(self.sizes, self.source.ladder, self.cost_model) if self.source.ladder else 0.0

    @property
    def lane_member(self) -> LaneMember:
        """What the division of its lane's time goes by."""
        source = self.source
        seconds = source.cards.cards * self.estimated_seconds  # of devices: a worker with several has them all at once
        return LaneMember(source.name, seconds, source.owner or source.name, source.share, source.chances is not None)

    @property
    def below_plan(self) -> set[str]:
        """Tasks that have not reached the plan, for lack of time."""
        return {task_id for task_id in self.costs if task_id not in self.failed and not self._at_plan(task_id)}

    def _at_plan(self, task_id: str) -> bool:
        ladder, reached = self.source.ladder, self.reached.get(task_id)
        enough = ladder is None or (reached is not None and reached.views >= ladder.levels[ladder.plan].views)
        return reached is not None and enough and task_id not in self.next_passes

    @property
    def counts(self) -> SourceCounts:
        ended = (self.done | set(self.failed)) - set(self.next_passes)
        live = sum(report.get("made", 0) for report in self.live.values())
        part_done = sum(self.costs[task_id] * number / self.source.passes for task_id, number in self.next_passes.items())
        return SourceCounts(
            total=sum(self.costs.values()),
            done=sum(self.costs[task_id] for task_id in ended) + part_done,
            tasks=len(self.costs),
            ended=len(ended),
            failed=len(self.failed),
            running=sum(map(len, self.running.values())),
            gained=self.gained + live,
            kind="judgements" if self.source.name == JUDGE else "predictions",
        )


@dataclass(frozen=True)
class Step:
    """One item of a lane's stream: an event of a source's workers; or why the source cannot go on; or, with neither, its end."""

    progress: SourceProgress
    event: Event | None = None
    broken: str = ""


def load_progress(source: Source, resolved: ResolvedRun, events: Sequence[Mapping[str, Any]]) -> SourceProgress:
    """What a source has to do, and how far it has come before.

    Args:
        events: the timeline of the run.
    """
    tasks = resolved.data.tasks
    # A task file that cannot be read costs something: its worker says what is wrong with it.
    costs = {task_id: task_cost(tasks[task_id]) if task_id in tasks else 1.0 for task_id in resolved.data.chosen}
    costs = dict.fromkeys(source.job_names(sorted(resolved.data.chosen)), 1.0) if source.job_names else costs
    sizes: dict[str, TaskSize] = {}
    plan = Level(0, 0)
    if source.ladder:
        sizes = {i: task_size(task, source.trains, source.scale.train_len, source.scale.prompt_len) for i, task in tasks.items()}
        plan = source.ladder.levels[source.ladder.plan]
    reached: dict[str, Level] = {}
    next_passes: dict[str, int] = {}
    for event in events:
        task_id = event.get("task")
        if event.get("source") != source.name or not isinstance(task_id, str) or task_id not in costs:
            continue
        if event["event"] == f"{resolved.done_event}_done":
            level = read_level(event.get("level")) or plan
            reached[task_id] = max(reached.get(task_id, level), level, key=lambda one: one.views)
            _note_pass(task_id, event, next_passes)
        elif event["event"] in (f"{resolved.done_event}_failed", f"{resolved.done_event}_cut"):
            next_passes.pop(task_id, None)  # a pass that fails is not tried again by each resume
    return SourceProgress(source, costs, sizes, reached, copy.deepcopy(source.scale.costs), next_passes=next_passes)


def _note_pass(task_id: str, result: Mapping[str, Any], next_passes: dict[str, int]) -> None:
    """Note which pass of a task follows, or that none does."""
    number = next_pass(result)
    next_passes.pop(task_id, None)
    if number is not None:
        next_passes[task_id] = number


def run_sources(
    resolved: ResolvedRun,
    progresses: Sequence[SourceProgress],
    directory: RunDirectory,
    deadline: float,
    progress: Progress,
) -> Iterator[Step]:
    """Let the sources work until the deadline; note and yield each step.

    When a lane has ended, the others get its workers.
    """
    lanes: dict[str, list[SourceProgress]] = {}
    for one in progresses:
        lanes.setdefault(one.source.lane, []).append(one)
    running = {lane: len(members) for lane, members in lanes.items()}
    quotas = {lane: WorkerQuota(0) for lane in lanes}

    def allocate() -> None:
        workers, reason = allocate_workers(resolved.host, list(running), *resolved.host.resources)
        for lane, number in workers.items():
            quotas[lane].workers = number
        directory.event("machine_divided", workers=workers, reason=reason)
        progress.log(reason)

    def stop() -> None:
        for quota in quotas.values():
            quota.stopped = True

    allocate()
    streams = [_run_lane(members, directory, quotas[lane], deadline, resolved) for lane, members in lanes.items()]
    begun: dict[str, SourceProgress] = {}
    try:
        # A worker that the kernel holds can keep its lane beyond the deadline, but not the run.
        for step in merge_streams(streams, deadline + 0.3 * resolved.reserve, stop):
            _record(step, directory, progress, resolved.done_event)
            begun[step.progress.source.name] = step.progress
            progress.show({name: one.counts for name, one in begun.items()}, seconds_left(deadline))
            yield step
            if step.event is None and not step.broken:
                lane = step.progress.source.lane
                running[lane] -= 1
                if not running[lane]:
                    del running[lane]
                    if running:
                        allocate()
    finally:
        progress.close()


def _run_lane(
    members: Sequence[SourceProgress], directory: RunDirectory, quota: WorkerQuota, deadline: float, resolved: ResolvedRun
) -> Iterator[Step]:
    """One source after the other, each for as long as the scheduler allows."""
    lane_time = LaneTime(time.monotonic(), deadline)
    for number, one in enumerate(members):
        source, now = one.source, time.monotonic()
        current, *behind = [other.lane_member for other in members[number:]]
        own_deadline, reason = lane_time.choose(now, current, behind)
        # Readers of the timeline know the lane of a source by its name otherwise.
        lane = {"lane": source.lane} if source.lane != (CPU_LANE if source.name == CPU_LANE else MODEL_LANE) else {}
        # And how many devices each of its workers has.
        cards = {"cards": source.cards.cards, "devices": source.cards.groups} if source.cards.cards > 1 else {}
        directory.event("source_begun", source=source.name, seconds=round(own_deadline - now, 1), reason=reason, **lane, **cards)
        own_quota = quota if source.most_workers is None else BoundedQuota(quota, source.most_workers)
        soft_deadline = choose_soft_deadline(now, own_deadline)
        jobs = _job_source(one, directory, soft_deadline, resolved)
        processes = ProcessConfig(directory.logs(source.name), source.environment, resolved.host.launch(source.lane, source.cards.cards))
        try:
            for event in run_with_fallback(jobs, source.backends, processes, own_quota, own_deadline, soft_deadline):
                yield Step(one, event)
        except (PoolError, OSError) as error:
            # A source that cannot work at all (no memory for a process, no disk for its log) leaves the others alone.
            yield Step(one, broken=str(error))
        if left := jobs.pending():
            reason = f"{format_duration(seconds_left(own_deadline))} of its time are left, less than any of them takes"
            if isinstance(jobs, GainScheduler):
                reason += ", or nothing more is expected of them"
            directory.event("left_out", source=source.name, tasks=left, reason=reason)
        if isinstance(jobs, GainScheduler):
            spent = own_quota.workers * (time.monotonic() - now)
            directory.event("time_worth", source=source.name, reason=f"{source.name}: {jobs.outlook(spent)}")
        yield Step(one)


def _job_source(one: SourceProgress, directory: RunDirectory, soft_deadline: float, resolved: ResolvedRun) -> JobSource:
    """What chooses a source's next job: a scheduler, the passes, or for a source without levels the smallest task."""
    source, ensemble = one.source, resolved.ensemble.pure
    tasks = resolved.data.tasks if ensemble.laws else {}  # for the laws that answers break
    if one.jobs is not None:
        return JobQueue(one.jobs, until=soft_deadline)
    if source.passes > 1:
        left = {task_id: cost for task_id, cost in one.costs.items() if task_id not in one.reached or task_id in one.next_passes}
        return PassQueue(left, one.next_passes, soft_deadline)
    if source.ladder is None:
        todo = sorted((task_id for task_id in one.costs if task_id not in one.reached), key=lambda i: (one.costs[i], i))
        count = source.tasks_per_job
        return JobQueue(Job(tuple(todo[i : i + count])) for i in range(0, len(todo), count))
    learn_from_events(one.cost_model, directory.read_events(), source.name, one.sizes)
    if source.chances is not None:
        standings = Standings(directory, one.sizes, ensemble, tasks)
        gain_options = GainOptions(standings, standings.shift(source.name, source.chances), source.adapters_kept, source.alone)
        return GainScheduler(one.sizes, source.ladder, one.cost_model, soft_deadline, source.chances, one.reached, gain_options)

    def uncertainty(task_id: str) -> float:
        return _uncertainty(_predictions(directory, source.name, task_id), source.name, tasks)

    options = SchedulerOptions(uncertainty, source.tasks_per_job, source.adapters_kept)
    return Scheduler(one.sizes, source.ladder, one.cost_model, soft_deadline, one.reached, options)


def _predictions(directory: RunDirectory, source: str, task_id: str) -> list[Prediction]:
    return read_predictions(directory.predictions(source, task_id))[0]


def _uncertainty(predictions: Sequence[Prediction], source: str, tasks: Mapping[str, Task]) -> float:
    """The share of a source's predictions that do not vote for the best answer, in the least certain output of a task.

    Args:
        tasks: those of which the laws are known. The best answer is the first of those that break fewest laws, and a vote for it counts
            less where it breaks any.
    """
    ranked = rank_all(predictions, tasks).get(source, {})
    shares = []
    for test in {p.test for p in predictions}:
        answers = ranked.get((predictions[0].task, test), [])
        best = max(answers, key=lambda one: law_factor(one.broken), default=None)
        counted = best.votes * law_factor(best.broken) if best else 0.0
        shares.append(counted / sum(p.test == test for p in predictions))
    return 1.0 - min(shares, default=0.0)


def _record(step: Step, directory: RunDirectory, progress: Progress, done_event: str) -> None:
    """Note a step in the timeline, in the source's progress, and in the log."""
    one, event, source = step.progress, step.event, step.progress.source.name
    if step.broken:
        directory.event("source_failed", source=source, reason=step.broken)
        progress.log(f"{source} cannot go on: {step.broken}")
        one.failed |= {task_id: step.broken for task_id in one.costs if task_id not in one.reached}
    elif event is None:
        one.running.clear()
        one.live.clear()
    elif event.kind == "progress":
        one.live[event.worker] = event.result
        one.reports |= dict.fromkeys(event.task_ids, event.result)
    elif event.kind == "done":
        _record_results(event, one, directory, progress, done_event)
    else:
        _record_worker(event, one, directory, progress, done_event)


def _record_worker(event: Event, one: SourceProgress, directory: RunDirectory, progress: Progress, done_event: str) -> None:
    """Note an event about a worker, or about a job without a result."""
    source = one.source.name
    level = {"level": [event.params["steps"], event.params["views"]]} if event.kind == "begun" and "steps" in event.params else {}
    directory.event(
        f"worker_{event.kind}", source=source, worker=event.worker, tasks=event.task_ids, reason=event.reason, pid=event.pid, **level
    )
    if event.kind == "begun":
        one.running[event.worker] = event.task_ids
    elif event.kind == "handed_on":
        progress.log(f"{source} {event.task_ids[0]}: left to the next engine ({event.reason})")
    elif event.kind in ("lost", "retired"):
        one.running.pop(event.worker, None)
        one.live.pop(event.worker, None)
        fate = "rests" if event.kind == "retired" else "lost, its tasks are given out again" if event.task_ids else "lost"
        progress.log(f"{source} worker {event.worker}: {fate} ({event.reason})")
    elif event.kind == "given_up" and event.task_ids[0] in one.reached:
        number = one.next_passes.pop(event.task_ids[0], None)
        if number is not None:
            directory.event(f"{done_event}_cut", source=source, task=event.task_ids[0], reason=event.reason)
        place = one.reached[event.task_ids[0]] if number is None else f"the answers of pass {number} of {one.source.passes}"
        progress.log(f"{source} {event.task_ids[0]}: no further ({event.reason}), left at {place}")
    elif event.kind == "given_up":
        one.failed[event.task_ids[0]] = event.reason
        one.next_passes.pop(event.task_ids[0], None)
        directory.event(f"{done_event}_failed", source=source, task=event.task_ids[0], reason=event.reason)
        left = "ranked without a judge" if source == JUDGE else "left to its fallback"
        progress.log(f"{source} {event.task_ids[0]}: given up ({event.reason}), {left}")


def _record_results(event: Event, one: SourceProgress, directory: RunDirectory, progress: Progress, done_event: str) -> None:
    """Note the outcome of each task of a finished job."""
    source = one.source.name
    one.running.pop(event.worker, None)
    one.live.pop(event.worker, None)
    level = Level(event.params.get("steps", 0), event.params.get("views", 0))
    for task_id, value in event.result.get("tasks", {}).items():
        result = one.results[task_id] = TaskResult.from_json(value)
        kind = "failed" if result.failed else "cut" if result.unfinished else "done"
        note = {"source": source, "task": task_id, "worker": event.worker, "level": [level.steps, level.views]}
        directory.event(f"{done_event}_{kind}", **note, **result.to_json())
        one.gained += result.made
        if result.failed:
            one.next_passes.pop(task_id, None)
        if result.failed and task_id not in one.reached:
            one.failed[task_id] = result.failed
        elif not result.failed and not result.unfinished:
            one.reached[task_id] = level
            _note_pass(task_id, value, one.next_passes)
        progress.log(f"{source} {task_id}: {describe_result(one.source, result, _predictions(directory, source, task_id))}")
    directory.event("worker_done", source=source, worker=event.worker, tasks=event.task_ids, seconds=round(event.seconds, 3))


def describe_result(source: Source, result: TaskResult, predictions: Sequence[Prediction]) -> str:
    """A line on a task's outcome.

    Args:
        predictions: all that the source has made for the task.
    """
    if result.failed:
        left = "ranked without a judge" if source.name == JUDGE else "left to the other sources and its fallback"
        return f"failed ({result.failed}), {left}"
    kind = "judgements" if source.name == JUDGE else "predictions"
    parts = [f"{result.made + result.held} {kind}"] if source.source_kind not in ("finetune", "warmup") else []
    if result.steps and source.source_kind == "code":
        parts = [f"{result.steps} further questions and programs learnt in {format_duration(result.train_seconds or 0.0)}", *parts]
    elif result.steps:
        losses = f"loss {result.first_loss:.3f} to {result.last_loss:.3f}"
        parts = [f"{result.steps} steps in {format_duration(result.train_seconds or 0.0)}, {losses}", *parts]
    elif source.source_kind == "finetune":
        parts = ["its adapter exists"]
    parts += result.notes or []
    if result.programs:
        parts.append(f"programs by what they gave: {', '.join(f'{ending} {count}' for ending, count in result.programs.items())}")
    if malformed := sum(p.grid is None for p in predictions):
        parts.append(f"{malformed} without a grid")
    best = [candidates for _, candidates in sorted(rank_all(predictions).get(source.name, {}).items()) if candidates]
    if best and is_scored(best[0]):
        parts.append(f"best score {', '.join(f'{c[0].mean_logprob:.2f}' for c in best)}")
    elif best and tests_programs(best[0]):
        whole, pairs = max(fits for candidates in best for fits in candidates[0].fits)
        parts.append(f"the best program right on {whole} of {pairs} train pairs")
    elif best:
        parts.append(f"most votes {', '.join(f'{c[0].votes}/{sum(d.votes for d in c)}' for c in best)}")
    if result.unfinished:
        parts.append(f"{result.unfinished} {'views not asked' if source.name == JUDGE else 'not made'} for lack of time")
    if result.refused:
        parts.append(f"{result.refused[0]} ({len(result.refused)} prompts)")
    return "; ".join(parts)
