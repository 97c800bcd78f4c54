"""The simulation: whole runs on a simulated clock, with simulated workers and the real decisions of a run.

The supervisor decides about workers, the scheduler about jobs, and the submission is a real one: they are the objects of a run, with
another clock. Simulated are the speeds of workers, the noise and the faults: slow starts, hangs, crashes, failing jobs, tasks that always
fail, a lost GPU, a mount that cannot be read for a while, a killed parent. A lane takes the same steps as arc_submit.workers.pool. Does not
know models.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from arc_submit.scheduling.costs import learn_from_job
from arc_submit.scheduling.gain_scheduler import GainOptions, GainScheduler, Standing
from arc_submit.scheduling.lane_time import LaneMember, LaneTime
from arc_submit.scheduling.scheduler import (
    Level,
    Scheduler,
    SchedulerOptions,
    choose_soft_deadline,
    estimated_seconds,
)
from arc_submit.scheduling.simulated_run import RunState, SimulatedOutcome, SimulatedSource, SimulationSetup, SubmissionCheck
from arc_submit.workers.supervisor import BoundedQuota, Event, Job, JobQueue, JobSource, Supervisor, WorkerQuota

KILL_SECONDS = 5.0  # that the end waits for workers which the kernel does not release, see arc_submit.workers.pool
_RESTART_SECONDS = 60.0  # from the parent's death to its restart


@dataclass
class PlannedJob:
    """The course of a job that a worker has begun, drawn at its beginning.

    Attributes:
        begun, ends: times.
        message: the worker's last message about the job.
        hung: time from which the worker is silent.
    """

    begun: float
    ends: float
    message: dict[str, Any]
    hung: float = math.inf


Action = Literal["ready", "beat", "check", "error", "refused", "crash", "end"]


class _Timer(NamedTuple):
    """Something that happens to a worker at a time. The serial number makes the order total."""

    time: float
    serial: int
    worker_id: int
    process: int  # a timer of a worker that has been replaced since is void
    action: Action


class SimulatedLane:
    """A lane: its sources one after the other, each with a supervisor, in the steps of a pool of processes."""

    def __init__(self, sources: Sequence[SimulatedSource], name: str, run: RunState, quota: WorkerQuota, time: tuple[float, float]):
        started, self.deadline = time
        self.name, self.run, self.quota = name, run, quota
        self.outcome = run.outcome
        self.sources = list(sources)
        self.lane_time = LaneTime(started, self.deadline)
        self.source_index = -1
        self.ended = self.complete = False
        self.stepped = started
        self._timers: list[_Timer] = []  # a heap
        self._serial = 0
        self._next_source(started)

    def _next_source(self, now: float) -> None:
        self.source_index += 1
        if self.source_index == len(self.sources):
            self.ended = True
            return
        self.source = self.sources[self.source_index]
        self.sizes = self.source.sizes or self.run.setup.sizes
        current, *behind = [
            LaneMember(one.name, self._estimate(one), one.owner or one.name, one.share, one.chances is not None)
            for one in self.sources[self.source_index :]
        ]
        self.source_deadline, reason = self.lane_time.choose(now, current, behind)
        self._record(now, "source_begun", source=self.source.name, seconds=self.source_deadline - now, reason=reason)
        self.soft_deadline = choose_soft_deadline(now, self.source_deadline)
        self.job_source = self._make_job_source(now)
        cards = self.source.cards
        quota = self.quota if cards == 1 else BoundedQuota(self.quota, max(1, self.quota.workers // cards))
        self.supervisor = Supervisor(self.job_source, self.source.timeouts, quota, self.source_deadline)
        self.processes: dict[int, int] = {}  # the serial number of each worker's process
        self.jobs: dict[int, PlannedJob] = {}  # in progress, by worker
        self._timers.clear()
        self.step(now)

    def _estimate(self, source: SimulatedSource) -> float:
        if source.ladder is None:
            return 0.0
        return source.cards * estimated_seconds(source.sizes or self.run.setup.sizes, source.ladder, source.initial_costs())

    def _make_job_source(self, now: float) -> JobSource:
        source, run = self.source, self.run
        reached = run.reached.setdefault(source.name, {})
        if source.views:
            least_settled = sorted((task_id for task_id in self.sizes if task_id not in reached), key=lambda i: (-run.uncertainty[i], i))
            jobs = (Job((task_id,), params={"steps": 0, "views": source.views}) for task_id in least_settled)
            return JobQueue(jobs, until=self.soft_deadline)
        if source.ladder is None:
            todo = sorted((task_id for task_id in self.sizes if task_id not in reached), key=lambda i: (self.sizes[i].predict, i))
            return JobQueue(Job((task_id,)) for task_id in todo)
        costs = source.initial_costs()
        for event in run.done.get(source.name, []):
            learn_from_job(costs, event.result["tasks"], event.seconds, self.sizes)
        if source.chances is not None:
            gain_options = GainOptions(lambda ids: {i: Standing((run.settled[i],), (run.settled[i],)) for i in ids}, alone=source.alone)
            return GainScheduler(self.sizes, source.ladder, costs, self.soft_deadline, source.chances, reached, gain_options)
        options = SchedulerOptions(run.uncertainty.__getitem__, source.tasks_per_job)
        return Scheduler(self.sizes, source.ladder, costs, self.soft_deadline, reached, options)

    @property
    def next_time(self) -> float:
        """The time at which `step` must run next."""
        timer = self._timers[0].time if self._timers else math.inf
        return min(timer, self.supervisor.next_restart(self.stepped), self.source_deadline)

    def step(self, now: float) -> None:
        """Take one turn of arc_submit.workers.pool, with the workers that have something to report now."""
        self.stepped = now
        while self._timers and self._timers[0].time <= now:
            timer = heapq.heappop(self._timers)
            if self.processes.get(timer.worker_id) == timer.process and timer.worker_id in self.supervisor.workers:
                self._apply(timer.worker_id, timer.action, now)
                if self.ended:
                    return
        if self.supervisor.finished(now):
            return self._finish(now, "")
        if end := self.supervisor.check_deadline(now):
            return self._finish(now, end.reason)
        for worker_id in self.supervisor.workers_to_start(now):
            self._start(worker_id, now)
        for worker_id in list(self.supervisor.workers):
            if begun := self.supervisor.assign(worker_id, now):
                self._begin(worker_id, begun, now)
        if self.supervisor.finished(now):
            self._finish(now, "")

    def _apply(self, worker_id: int, action: Action, now: float) -> None:
        supervisor, job = self.supervisor, self.jobs.get(worker_id)
        exit_code: int | None = None
        events: list[Event] = []
        if action == "ready":
            events = supervisor.on_message(worker_id, {"event": "ready"}, now)
            self._account(worker_id, "start", supervisor.workers[worker_id].started, now)
        elif action == "beat":  # the last one before a hang; the check follows when the supervisor must have noticed
            supervisor.on_message(worker_id, {"event": "beat"}, now)
            self._set_timer(supervisor.max_silence(worker_id) + 1e-3, worker_id, now, "check")
        elif action == "check":
            # A real worker beats all the time. Here it beats only when the supervisor looks, which gives the same decisions.
            if job is None or now < job.hung:
                supervisor.on_message(worker_id, {"event": "beat"}, now)
        elif action == "error":
            supervisor.on_message(worker_id, {"event": "error", "reason": "RuntimeError: CUDA error: device not available"}, now)
            exit_code = 1
        elif action == "refused":
            supervisor.on_message(worker_id, {"event": "refused", "reason": "device cuda:1: is not there"}, now)
            exit_code = 2
        elif action == "crash":
            exit_code = -9
        elif action == "end":
            assert job is not None
            failed = job.message["event"] == "failed"
            self._account_job(worker_id, "lost" if failed else "work", now)
            if not failed:
                self._save_results(worker_id, job)
            elif job.message["exits"]:
                exit_code = 3
            del self.jobs[worker_id]
            events = supervisor.on_message(worker_id, job.message, now)
        reason = supervisor.find_fault(worker_id, exit_code, now)
        for event in events:
            self._on_event(event, now)
        if reason:
            self._lose(worker_id, reason, now)

    def _lose(self, worker_id: int, reason: str, now: float) -> None:
        worker = self.supervisor.workers[worker_id]
        if worker_id in self.jobs:
            self._account_job(worker_id, "lost", now)
        elif not worker.ready:
            self._account(worker_id, "start", worker.started, now)
        self.jobs.pop(worker_id, None)
        events, fatal = self.supervisor.on_exit(worker_id, reason, now)
        for event in events:
            self._on_event(event, now)
        if fatal:
            self.outcome.counts["source_hopeless"] += 1
            self._finish(now, fatal)

    def _start(self, worker_id: int, now: float) -> None:
        """Start a worker, and draw how its start goes."""
        run, source = self.run, self.source
        self._serial += 1
        self.processes[worker_id] = self._serial
        self._on_event(self.supervisor.on_start(worker_id, self._serial, now), now)
        faults, rng = run.setup.faults, run.rng
        seconds = source.start_seconds * math.exp(rng.gauss(0, 0.2))
        drawn = rng.random()
        if self._is_lost(worker_id, now):
            self._set_timer(5.0, worker_id, now, "refused" if run.lost_refuses else "error")
        elif run.is_out(self.name, now):
            self._set_timer(5.0, worker_id, now, "refused")
        elif drawn < faults.no_start:
            self._set_timer(source.timeouts.startup_timeout + 1e-3, worker_id, now, "check")
        elif drawn < faults.no_start + faults.bad_start:
            self._set_timer(seconds / 2, worker_id, now, "crash")
        else:
            if drawn < faults.no_start + faults.bad_start + faults.slow_start:
                seconds *= 5
            self._set_timer(seconds, worker_id, now, "ready")
            self._set_timer(source.timeouts.startup_timeout + 1e-3, worker_id, now, "check")

    def _begin(self, worker_id: int, begun: Event, now: float) -> None:
        """Begin a job: draw how long it takes and how it ends."""
        run, setup, rng = self.run, self.run.setup, self.run.rng
        self._on_event(begun, now)
        job = self.supervisor.workers[worker_id].job
        assert job is not None
        seconds, results = self._draw_job(worker_id, job, now)
        self.jobs[worker_id] = planned = PlannedJob(now, now + seconds, {"event": "done", "result": {"tasks": results}})
        faults = setup.faults
        hours = seconds / 3600
        drawn = rng.random()
        fault_time = now + seconds * rng.random()
        lost_at = run.lost_at if self._is_lost(worker_id, math.inf) else math.inf
        if any(task_id in run.poison for task_id in job.task_ids) or drawn < (limit := hours * faults.crash):
            self._set_timer(fault_time - now, worker_id, now, "crash")
        elif drawn < (limit := limit + hours * faults.hang):
            planned.hung = fault_time
            self._set_timer(fault_time - now, worker_id, now, "beat")
        elif drawn < limit + hours * faults.error:
            planned.ends, planned.message = fault_time, {"event": "failed", "reason": "RuntimeError: CUDA error", "exits": True}
            self._set_timer(fault_time - now, worker_id, now, "end")
        elif now < lost_at <= planned.ends:
            self._set_timer(lost_at - now, worker_id, now, "crash")
        elif self.name == setup.accounted_lane and now < run.outage_at <= planned.ends:
            self._set_timer(run.outage_at - now, worker_id, now, "crash")
        else:
            self._set_timer(seconds, worker_id, now, "end")

    def _draw_job(self, worker_id: int, job: Job, now: float) -> tuple[float, dict[str, dict[str, Any]]]:
        """Return how long a job takes on this device, and the results by task that its worker will report."""
        run, source, setup = self.run, self.source, self.run.setup
        slowness = run.slowness(self.name, worker_id) * math.exp(run.rng.gauss(0, setup.job_log_std))
        steps, views = job.params.get("steps", 0), job.params.get("views", 1)
        train_seconds = units = 0.0
        results: dict[str, dict[str, Any]] = {}
        for task_id in job.task_ids:
            size, key = self.sizes[task_id], (source.name, task_id)
            if task_id in run.misfit:
                results[task_id] = {"failed": "no prompt smaller than the limit", "steps": 0, "made": 0, "train_seconds": 0.0}
                continue
            trained = 0.0
            if steps and run.trained.get(key) != steps:
                trained = source.true_costs.train.seconds(steps * size.train) * run.cost_factor["train"] * slowness
            made = max(0, views - run.predicted.get(key, 0)) * size.outputs
            train_seconds += trained
            units += made * size.predict
            results[task_id] = {"failed": "", "steps": steps if trained else 0, "made": made, "train_seconds": trained, "views": views}
        seconds = train_seconds + source.true_costs.predict.seconds(units) * run.cost_factor["predict"] * slowness + 0.05
        late = now + seconds - self.soft_deadline
        if late > 0 and views and units and (source.ladder is not None or source.views):
            # At the soft deadline a worker ends its predictions by itself and reports those that are done.
            done_part = max(0.0, 1 - late / max(1e-9, seconds - train_seconds))
            for result in results.values():
                planned = result["made"]
                result["made"] = int(planned * done_part)
                result["unfinished"] = planned - result["made"]
            seconds = max(train_seconds, seconds - late)
        return seconds, results

    def _save_results(self, worker_id: int, planned: PlannedJob) -> None:
        """Record what a done job has left on disk."""
        run, name = self.run, self.source.name
        job = self.supervisor.workers[worker_id].job
        assert job is not None
        for task_id, result in planned.message["result"]["tasks"].items():
            if result["failed"]:
                continue
            if job.params.get("steps"):
                run.trained[name, task_id] = job.params["steps"]
            if not result.get("unfinished"):
                run.predicted[name, task_id] = result.get("views", 1)
                run.reached[name][task_id] = Level(job.params.get("steps", 0), job.params.get("views", 1))
            if result["made"] and (error := run.submission.check_task(task_id)):
                self.outcome.invalid.append(error)

    def _finish(self, now: float, reason: str) -> None:
        """End the source, and begin the next one."""
        self.drop_workers(now)
        self.outcome.ends[self.source.name] = now
        reached = self.run.reached[self.source.name]
        self.outcome.levels[self.source.name] = Counter(str(reached.get(task_id, "nothing")) for task_id in self.sizes)
        jobs = self.job_source
        self.complete = jobs.complete if isinstance(jobs, Scheduler | GainScheduler) else not jobs.pending()
        self._record(now, "source_ended", source=self.source.name, reason=reason)
        self._next_source(now)

    def drop_workers(self, now: float) -> None:
        """Account for all workers, which end here with their jobs."""
        for worker_id, worker in self.supervisor.workers.items():
            if worker.job and worker_id in self.jobs:
                self._account_job(worker_id, "lost", now)
            elif not worker.ready:
                self._account(worker_id, "start", worker.started, now)

    def _account_job(self, worker_id: int, use: str, now: float) -> None:
        job = self.jobs[worker_id]
        self._account(worker_id, use, job.begun, min(now, job.hung))
        self._account(worker_id, "hung", min(now, job.hung), now)

    def _account(self, worker_id: int, use: str, start: float, end: float) -> None:
        if self.name == self.run.setup.accounted_lane and not self._is_lost(worker_id, start):
            horizon = self.run.setup.horizon
            if self._is_lost(worker_id, end):
                end = self.run.lost_at  # the time after it counts as "dead", and that of cards which the worker held with it as "waiting"
            self.outcome.device_seconds[use] += self.source.cards * max(0.0, min(end, horizon) - min(start, horizon))

    def _is_lost(self, worker_id: int, now: float) -> bool:
        """Whether a device of a worker is lost by a time."""
        own = range(worker_id * self.source.cards, (worker_id + 1) * self.source.cards)
        return any(self.run.is_lost(self.name, device, now) for device in own)

    def _set_timer(self, seconds: float, worker_id: int, now: float, action: Action) -> None:
        self._serial += 1
        heapq.heappush(self._timers, _Timer(now + seconds, self._serial, worker_id, self.processes[worker_id], action))

    def _on_event(self, event: Event, now: float) -> None:
        self.outcome.counts[event.kind] += 1
        if event.kind == "done":
            self.run.done.setdefault(self.source.name, []).append(event)
        if not self.run.record:
            return
        level = {"level": [event.params["steps"], event.params["views"]]} if event.params else {}
        name, worker = self.source.name, event.worker
        if event.kind != "done":
            level = level if event.kind == "begun" else {}
            self._record(now, f"worker_{event.kind}", source=name, worker=worker, tasks=event.task_ids, reason=event.reason, **level)
            return
        for task_id, result in event.result["tasks"].items():
            kind = "task_failed" if result["failed"] else "task_cut" if result.get("unfinished") else "task_done"
            self._record(now, kind, source=name, worker=worker, task=task_id, **level, **result)
        self._record(now, "worker_done", source=name, worker=worker, tasks=event.task_ids, seconds=event.seconds)

    def _record(self, now: float, kind: str, **fields: Any) -> None:
        if self.run.record:
            self.outcome.events.append({"time": round(now, 3), "event": kind, **fields})


def simulate_run(setup: SimulationSetup, seed: int, submission: SubmissionCheck | None = None, record: bool = False) -> SimulatedOutcome:
    """Simulate one run from start to end.

    Args:
        submission: receives every answer.
        record: whether to record the timeline.
    """
    run = RunState(setup, random.Random(seed), submission, record)
    outcome = run.outcome
    deadline = setup.budget - setup.reserve
    stages: list[tuple[Mapping[str, Sequence[SimulatedSource]], float]] = [(setup.lanes, deadline)]
    if setup.judge is not None:
        stages = [(setup.lanes, deadline - setup.judge_seconds), ({setup.accounted_lane: (setup.judge,)}, deadline)]
    now = down = 0.0
    down_at = run.killed_at
    accounted: SimulatedLane | None = None
    while True:  # once, and once more after the parent has been killed
        killed = False
        for sources, until in stages:
            now, lanes, killed = _run_stage(run, sources, now, until)
            accounted = lanes.get(setup.accounted_lane)
            if killed:
                break
        if not killed:
            break
        now, run.killed_at = run.killed_at, math.inf
        for lane in lanes.values():
            if not lane.ended:
                lane.drop_workers(now)
        outcome.counts["killed"] += 1
        down += max(0.0, min(setup.horizon, now + _RESTART_SECONDS) - min(setup.horizon, now))
        now = min(now + _RESTART_SECONDS, deadline)
    lanes_ended = now
    # A worker that the kernel does not release delays the end, up to the limit that the pipeline sets for lanes.
    now = min(now + (KILL_SECONDS if run.unkillable else 0.1), max(now, deadline) + 0.3 * setup.reserve)
    now += run.rng.uniform(0.02, 0.3) * setup.reserve  # reading all predictions and writing the submission
    if error := run.submission.check_all():
        outcome.invalid.append(error)
    outcome.ended, outcome.overrun = now, now > setup.budget
    judge = None if setup.judge is None else setup.judge.name
    outcome.solved = {name: _expected_solved(run, reached) for name, reached in run.reached.items() if name != judge}
    _account_idle(run, down, down_at, lanes_ended, accounted is not None and accounted.complete)
    return outcome


def _run_stage(
    run: RunState, sources: Mapping[str, Sequence[SimulatedSource]], now: float, deadline: float
) -> tuple[float, dict[str, SimulatedLane], bool]:
    """Let lanes of sources work to their ends, or until the parent is killed.

    Returns:
        the time, the lanes, and whether the parent has been killed.
    """
    setup = run.setup
    quotas = {name: WorkerQuota(0) for name in sources}
    for name, workers in setup.allocate_workers(list(quotas)).items():
        quotas[name].workers = workers
    lanes = {name: SimulatedLane(sources[name], name, run, quota, (now, deadline)) for name, quota in quotas.items()}
    running = [lane for lane in lanes.values() if not lane.ended]
    while running:
        next_time = max(now, min(lane.next_time for lane in running))
        if next_time >= run.killed_at:
            return now, lanes, True
        now = next_time
        for lane in running:
            if lane.next_time <= now:
                lane.step(now)
        if any(lane.ended for lane in running):
            running = [lane for lane in running if not lane.ended]
            if running:
                # The workers of a lane that has ended go to the others.
                for name, workers in setup.allocate_workers([lane.name for lane in running]).items():
                    quotas[name].workers = workers
                for lane in running:
                    lane.step(now)
    return now, lanes, False


def _expected_solved(run: RunState, reached: Mapping[str, Level]) -> float:
    """Outputs that a source solves and the search does not, in the mean over what a run cannot know."""
    chances = run.setup.worth
    if chances is None:
        return 0.0
    expected = 0.0
    for task_id, level in reached.items():
        size, settled = run.setup.sizes[task_id], run.settled[task_id]
        chance = float(chances.at(level.steps, level.views, 1000 * size.predict, settled, run.hidden[task_id]))
        expected += size.outputs * (1 - settled) * chance
    return expected


def _account_idle(run: RunState, down: float, down_at: float, lanes_ended: float, complete: bool) -> None:
    """Attribute the device time that no worker used."""
    setup, seconds, horizon = run.setup, run.outcome.device_seconds, run.setup.horizon
    seconds["down"] = setup.devices * down
    down_after_loss = min(down, max(0.0, down_at + down - run.lost_at))  # counts as "down", not as "dead"
    seconds["dead"] = max(0.0, min(lanes_ended, horizon) - run.lost_at - down_after_loss)
    seconds["nothing left" if complete else "nothing fits"] = setup.devices * max(0.0, horizon - lanes_ended)
    seconds["waiting"] = max(0.0, setup.devices * horizon - sum(seconds.values()))
