"""The simulation: whole runs on a clock of their own, with made-up workers and the run's real decisions.

The crew decides about workers, the scheduler about work, the submission is a real one: they are the very objects of a run, told another
time. Made here are the workers' speeds, noise and faults: slow starts, hangs, crashes, jobs that fail, tasks that always do, a GPU that is
lost, a parent that is killed. A lane is stepped as arc_submit.workers.pool steps its processes. Knows nothing about models.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_job
from arc_submit.scheduling.scheduler import (
    Ladder,
    Level,
    Scheduler,
    SchedulerOptions,
    choose_deadline,
    choose_soft_deadline,
    estimated_seconds,
)
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, Supervisor, Timeouts, WorkerQuota

KILL_SECONDS = 5.0  # seconds that workers which the kernel holds keep the end waiting, see arc_submit.workers.pool


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often.

    Attributes:
        hang, crash, error: of a worker at work, for each hour of a device: it falls silent, dies, or its job fails and it leaves.
        poison: of all tasks, those that bring their worker down every time.
        misfit: of all tasks, those that no prompt fits, and that end at once.
        slow_start, no_start, bad_start: of a worker's starts: five times as slow, never ready, dead before it is ready.
        lost_gpu, killed: of all runs, those in which a GPU is lost for good, or the parent is killed and begun again, each at any time.
        unkillable: of all runs, those in whose end the kernel does not let go of a worker.
    """

    hang: float = 0.02
    crash: float = 0.02
    error: float = 0.02
    poison: float = 0.005
    misfit: float = 0.03
    slow_start: float = 0.05
    no_start: float = 0.01
    bad_start: float = 0.02
    lost_gpu: float = 0.05
    killed: float = 0.1
    unkillable: float = 0.05

    def scaled(self, factor: float) -> Faults:
        """All of it so many times as often."""
        return Faults(**{name: min(0.9, value * factor) for name, value in vars(self).items()})


@dataclass(frozen=True)
class SimulatedSource:
    """One source of a simulated run.

    Attributes:
        name: as in a run.
        ladder: of its levels; None for one that has none (the search): its jobs are begun smaller tasks first.
        initial_costs: makes what its work is taken to cost.
        true_costs: what it really costs, before the speed of a device and a job's own noise.
        tasks_per_job: tasks in one job.
        start_seconds: seconds from a worker's start to its being ready.
        timeouts: of its workers.
        sizes: of the tasks as this source sees them; None takes the run's.
    """

    name: str
    ladder: Ladder | None
    initial_costs: Callable[[], CostModel]
    true_costs: CostModel
    tasks_per_job: int = 1
    start_seconds: float = 40.0
    timeouts: Timeouts = field(default_factory=Timeouts)
    sizes: Mapping[str, TaskSize] | None = None


@dataclass(frozen=True)
class SimulationSetup:
    """What a simulated run works on, with what, for how long.

    Attributes:
        sizes: of the tasks.
        lanes: sources in the order in which they work, by lane.
        allocate_workers: workers of each lane, from those that are still running.
        devices: workers of the lane whose use is accounted_lane.
        accounted_lane: that lane.
        budget, reserve: seconds of the whole, and of these, those kept for the end.
        cost_log_std: standard deviation of the logarithm of what the guess of a run's costs is wrong by.
        speed_log_std: the same of devices' speeds.
        job_log_std: the same of jobs.
        faults: what goes wrong.
    """

    sizes: Mapping[str, TaskSize]
    lanes: Mapping[str, Sequence[SimulatedSource]]
    allocate_workers: Callable[[Sequence[str]], Mapping[str, int]]
    devices: int
    budget: float
    reserve: float
    accounted_lane: str = "model"
    cost_log_std: float = 0.4
    speed_log_std: float = 0.05
    job_log_std: float = 0.15
    faults: Faults = field(default_factory=Faults)

    @property
    def horizon(self) -> float:
        """Until when the use of devices is accounted_lane: all but the last fiftieth of the budget."""
        return 0.98 * self.budget


@dataclass
class SimulatedOutcome:
    """What came of a simulated run.

    Attributes:
        ended: seconds until the submission was final.
        overrun: whether that was later than the budget.
        invalid: what was found wrong with the submission, at any moment.
        device_seconds: of the accounted_lane devices, up to SimulationSetup.horizon, by what they did: work, lost (work that was lost with its worker),
            hung, start; and by why they did nothing: dead (a lost GPU), down (the parent was dead), waiting (for the others at the end
            of a source, or for their retries), nothing fits (in what was left of the time), nothing left (all levels reached).
        levels: tasks by source and level at the end.
        ends: seconds until each source ended.
        counts: faults, and what the crew did about them, by kind.
        events: the timeline as events.jsonl holds it, where it was asked for.
    """

    ended: float = 0.0
    overrun: bool = False
    invalid: list[str] = field(default_factory=list)
    device_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    levels: dict[str, Counter[str]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    events: list[dict[str, Any]] = field(default_factory=list)


class SubmissionCheck:
    """Told of every answer, and asked what is wrong with the submission; see arc_submit.run.simulate for the real one."""

    def check_task(self, task: str) -> str:
        """A task's answers changed: put them in; what is wrong with its entries then, or nothing."""
        return ""

    def check_all(self) -> str:
        """What is wrong with the whole at the end, or nothing."""
        return ""


class RunState:
    """What holds in one run, whoever knows of it: speeds, tasks that fail, what lies on disk."""

    def __init__(self, setup: SimulationSetup, chance: random.Random, submission: SubmissionCheck | None = None, record: bool = False):
        faults = setup.faults
        self.setup, self.chance = setup, chance
        self.submission, self.record = submission or SubmissionCheck(), record
        self.outcome = SimulatedOutcome()
        self.wrong = {name: math.exp(chance.gauss(0, setup.cost_log_std)) for name in ("train", "predict")}
        self.speed: dict[tuple[str, int], float] = {}
        tasks = list(setup.sizes)
        self.poison = {task for task in tasks if chance.random() < faults.poison}
        self.misfit = {task for task in tasks if chance.random() < faults.misfit}
        self.doubt = {task: chance.random() for task in tasks}
        self.lost_device, self.lost_at = (chance.randrange(setup.devices), chance.uniform(0, setup.budget)), math.inf
        if chance.random() < faults.lost_gpu and setup.devices > 1:
            self.lost_at = self.lost_device[1]
        self.killed_at = chance.uniform(0, setup.budget) if chance.random() < faults.killed else math.inf
        self.unkillable = chance.random() < faults.unkillable
        self.trained: dict[tuple[str, str], int] = {}  # steps of the adapter that is there
        self.made: dict[tuple[str, str], int] = {}  # views predicted so far
        self.reached: dict[str, dict[str, Level]] = {}
        self.jobs: dict[str, list[Event]] = {}  # those done, by source, as a timeline holds them

    def device_speed(self, lane: str, number: int) -> float:
        """How slow a device is against the others."""
        key = (lane, number)
        if key not in self.speed:
            self.speed[key] = math.exp(self.chance.gauss(0, self.setup.speed_log_std))
        return self.speed[key]

    def is_lost(self, lane: str, number: int, now: float) -> bool:
        return lane == self.setup.accounted_lane and number == self.lost_device[0] and now >= self.lost_at


@dataclass
class PlannedJob:
    """What a worker that has begun a job is going to do: how long it trains and predicts, and how it ends."""

    begun: float
    ends: float
    message: dict[str, Any] | None
    hung: float = math.inf


class SimulatedLane:
    """One lane: its sources one after the other, each with a supervisor, stepped like a pool of processes."""

    def __init__(self, name: str, run: RunState, quota: WorkerQuota, started: float, deadline: float):
        self.name, self.run, self.quota, self.deadline = name, run, quota, deadline
        self.outcome = run.outcome
        self.sources = list(run.setup.lanes[name])
        self.place = -1
        self.ended = self.complete = False
        self.moments: list[tuple[float, int, int, int, str]] = []
        self.serial = 0
        self._next_source(started)

    def _next_source(self, now: float) -> None:
        self.place += 1
        if self.place == len(self.sources):
            self.ended = True
            return
        self.source = self.sources[self.place]
        self.sizes = self.source.sizes or self.run.setup.sizes
        behind = {source.name: self._estimate(source) for source in self.sources[self.place + 1 :]}
        self.source_deadline, reason = choose_deadline(now, self.deadline, self._estimate(self.source), behind)
        self._note(now, "source_begun", source=self.source.name, seconds=self.source_deadline - now, reason=reason)
        self.soft_deadline = choose_soft_deadline(now, self.source_deadline)
        self.job_source = self._make_job_source(now)
        self.supervisor = Supervisor(self.job_source, self.source.timeouts, self.quota, self.source_deadline)
        self.born: dict[int, int] = {}
        self.plans: dict[int, PlannedJob] = {}
        self.moments.clear()
        self.step(now)

    def _estimate(self, source: SimulatedSource) -> float:
        return estimated_seconds(source.sizes or self.run.setup.sizes, source.ladder, source.initial_costs()) if source.ladder else 0.0

    def _make_job_source(self, now: float) -> JobSource:
        source, run = self.source, self.run
        reached = run.reached.setdefault(source.name, {})
        if source.ladder is None:
            todo = sorted((task for task in self.sizes if task not in reached), key=lambda task: (self.sizes[task].predict, task))
            return JobQueue(Job((task,)) for task in todo)
        costs = source.initial_costs()
        for event in run.jobs.get(source.name, []):
            learn_from_job(costs, event.result["tasks"], event.seconds, self.sizes)
        doubt = run.doubt.__getitem__
        return Scheduler(self.sizes, source.ladder, costs, self.soft_deadline, reached, SchedulerOptions(doubt, source.tasks_per_job))

    @property
    def next_moment(self) -> float:
        return min(self.moments[0][0], self.source_deadline) if self.moments else self.source_deadline

    def step(self, now: float) -> None:
        """Do what arc_submit.workers.pool does in one turn, with the workers that have something to say now."""
        while self.moments and self.moments[0][0] <= now:
            _, _, number, born, what = heapq.heappop(self.moments)
            if self.born.get(number) == born and number in self.supervisor.workers:
                self._turn(number, what, now)
                if self.ended:
                    return
        if self.supervisor.finished(now):
            return self._finish(now, "")
        if over := self.supervisor.check_deadline(now):
            return self._finish(now, over.reason)
        for number in self.supervisor.workers_to_start(now):
            self._start(number, now)
        for number in list(self.supervisor.workers):
            if begun := self.supervisor.assign(number, now):
                self._begin(number, begun, now)
        if self.supervisor.finished(now):
            self._finish(now, "")

    def _turn(self, number: int, what: str, now: float) -> None:
        supervisor, plan = self.supervisor, self.plans.get(number)
        code: int | None = None
        events: list[Event] = []
        if what == "ready":
            events = supervisor.on_message(number, {"event": "ready"}, now)
            self._account(number, "start", supervisor.workers[number].started, now)
        elif what == "beat":
            supervisor.on_message(number, {"event": "beat"}, now)
            self._at(supervisor.max_silence(number) + 1e-3, number, now, "look")
        elif what == "look":
            if plan is None or now < plan.hung:
                supervisor.on_message(number, {"event": "beat"}, now)  # one that works beats all the time; here only when it matters
        elif what == "error":
            supervisor.on_message(number, {"event": "error", "reason": "RuntimeError: CUDA error: device not available"}, now)
            code = 1
        elif what == "crash":
            code = -9
        elif what == "end":
            assert plan is not None
            assert plan.message is not None
            failed = plan.message["event"] == "failed"
            self._spend(number, "lost" if failed else "work", now)
            if not failed:
                self._keep(number, plan, now)
            elif plan.message["exits"]:
                code = 3
            del self.plans[number]
            events = supervisor.on_message(number, plan.message, now)
        reason = supervisor.find_fault(number, code, now)
        for event in events:
            self._take_note(event, now)
        if reason:
            self._lost(number, reason, now)

    def _lost(self, number: int, reason: str, now: float) -> None:
        supervisor, worker = self.supervisor, self.supervisor.workers[number]
        plan = self.plans.get(number)
        if plan is not None:
            self._spend(number, "lost", now)
        elif not worker.ready:
            self._account(number, "start", worker.started, now)
        self.plans.pop(number, None)
        events, fatal = supervisor.on_exit(number, reason, now)
        for event in events:
            self._take_note(event, now)
        if fatal:
            self.outcome.counts["source_hopeless"] += 1
            self._finish(now, fatal)

    def _start(self, number: int, now: float) -> None:
        """Start a worker, and draw what comes of it."""
        run, source = self.run, self.source
        self.serial += 1
        self.born[number] = self.serial
        self._take_note(self.supervisor.on_start(number, self.serial, now), now)
        faults, chance = run.setup.faults, run.chance
        seconds = source.start_seconds * math.exp(chance.gauss(0, 0.2))
        drawn = chance.random()
        if run.is_lost(self.name, number, now):
            self._at(5.0, number, now, "error")
        elif drawn < faults.no_start:
            self._at(source.timeouts.startup_timeout + 1e-3, number, now, "look")
        elif drawn < faults.no_start + faults.bad_start:
            self._at(seconds / 2, number, now, "crash")
        else:
            if drawn < faults.no_start + faults.bad_start + faults.slow_start:
                seconds *= 5
            self._at(seconds, number, now, "ready")
            self._at(source.timeouts.startup_timeout + 1e-3, number, now, "look")

    def _begin(self, number: int, begun: Event, now: float) -> None:
        """A job is begun: draw how long it takes and how it ends."""
        run, setup, chance = self.run, self.run.setup, self.run.chance
        self._take_note(begun, now)
        job = self.supervisor.workers[number].job
        assert job is not None
        seconds, tasks = self._work(number, job, now)
        self.plans[number] = plan = PlannedJob(now, now + seconds, {"event": "done", "result": {"tasks": tasks}})
        faults = setup.faults
        hours = seconds / 3600
        drawn = chance.random()
        moment = now + seconds * chance.random()
        lost = run.lost_at if self.name == setup.accounted_lane and number == run.lost_device[0] else math.inf
        if any(task in run.poison for task in job.task_ids) or drawn < (limit := hours * faults.crash):
            self._at(moment - now, number, now, "crash")
        elif drawn < (limit := limit + hours * faults.hang):
            plan.hung = moment
            self._at(moment - now, number, now, "beat")
        elif drawn < limit + hours * faults.error:
            plan.ends, plan.message = moment, {"event": "failed", "reason": "RuntimeError: CUDA error", "exits": True}
            self._at(moment - now, number, now, "end")
        elif now < lost <= plan.ends:
            self._at(lost - now, number, now, "crash")
        else:
            self._at(seconds, number, now, "end")

    def _work(self, number: int, job: Job, now: float) -> tuple[float, dict[str, dict[str, Any]]]:
        """How long a job takes on this device, and what its worker will tell."""
        run, source, setup = self.run, self.source, self.run.setup
        slow = run.device_speed(self.name, number) * math.exp(run.chance.gauss(0, setup.job_log_std))
        steps, views = job.params.get("steps", 0), job.params.get("views", 1)
        trained = units = 0.0
        tasks: dict[str, dict[str, Any]] = {}
        for task in job.task_ids:
            size, key = self.sizes[task], (source.name, task)
            if task in run.misfit:
                tasks[task] = {"failed": "no prompt smaller than the limit", "steps": 0, "made": 0, "train_seconds": 0.0}
                continue
            done = 0.0
            if steps and run.trained.get(key) != steps:
                done = source.true_costs.train.seconds(steps * size.train) * run.wrong["train"] * slow
            made = max(0, views - run.made.get(key, 0)) * size.outputs
            trained += done
            units += made * size.predict
            tasks[task] = {"failed": "", "steps": steps if done else 0, "made": made, "train_seconds": done, "views": views}
        seconds = trained + source.true_costs.predict.seconds(units) * run.wrong["predict"] * slow + 0.05
        late = now + seconds - self.soft_deadline
        if late > 0 and views and units and source.ladder is not None:
            # Workers end their predictions by themselves when they are told to.
            done_part = max(0.0, 1 - late / max(1e-9, seconds - trained))
            for told in tasks.values():
                whole = told["made"]
                told["made"] = int(whole * done_part)
                told["unfinished"] = whole - told["made"]
            seconds = max(trained, seconds - late)
        return seconds, tasks

    def _keep(self, number: int, plan: PlannedJob, now: float) -> None:
        """What a job that is done leaves on disk."""
        assert plan.message is not None
        run, name = self.run, self.source.name
        job = self.supervisor.workers[number].job
        assert job is not None
        for task, told in plan.message["result"]["tasks"].items():
            if told["failed"]:
                continue
            if job.params.get("steps"):
                run.trained[name, task] = job.params["steps"]
            if not told.get("unfinished"):
                run.made[name, task] = told.get("views", 1)
                run.reached[name][task] = Level(job.params.get("steps", 0), job.params.get("views", 1))
            if told["made"] and (wrong := self.run.submission.check_task(task)):
                self.outcome.invalid.append(wrong)

    def _spend(self, number: int, as_what: str, now: float) -> None:
        plan = self.plans[number]
        self._account(number, as_what, plan.begun, min(now, plan.hung))
        self._account(number, "hung", min(now, plan.hung), now)

    def _finish(self, now: float, reason: str) -> None:
        """The source has ended: account for what was in hand, and go on with the next."""
        self.drop(now)
        self.outcome.ends[self.source.name] = now
        reached = self.run.reached[self.source.name]
        levels = Counter(str(reached[task]) if task in reached else "nothing" for task in self.sizes)
        self.outcome.levels[self.source.name] = levels
        self.complete = isinstance(self.job_source, Scheduler) and self.job_source.complete
        self._note(now, "source_ended", source=self.source.name, reason=reason)
        self._next_source(now)

    def drop(self, now: float) -> None:
        """All workers have gone, with what they had in hand."""
        for number, worker in self.supervisor.workers.items():
            if worker.job and number in self.plans:
                self._spend(number, "lost", now)
            elif not worker.ready:
                self._account(number, "start", worker.started, now)

    def _account(self, number: int, what: str, start: float, end: float) -> None:
        if self.name == self.run.setup.accounted_lane and not self.run.is_lost(self.name, number, start):
            horizon = self.run.setup.horizon
            if self.run.is_lost(self.name, number, end):
                end = self.run.lost_at  # what comes after is the lost device's
            self.outcome.device_seconds[what] += max(0.0, min(end, horizon) - min(start, horizon))

    def _at(self, seconds: float, number: int, now: float, what: str) -> None:
        self.serial += 1
        heapq.heappush(self.moments, (now + seconds, self.serial, number, self.born[number], what))

    def _take_note(self, event: Event, now: float) -> None:
        self.outcome.counts[event.kind] += 1
        if event.kind == "done":
            self.run.jobs.setdefault(self.source.name, []).append(event)
        if not self.run.record:
            return
        level = {"level": [event.params["steps"], event.params["views"]]} if event.params else {}
        name, worker = self.source.name, event.worker
        if event.kind != "done":
            level = level if event.kind == "begun" else {}
            self._note(now, f"worker_{event.kind}", source=name, worker=worker, tasks=event.task_ids, reason=event.reason, **level)
            return
        for task, result in event.result["tasks"].items():
            kind = "task_failed" if result["failed"] else "task_cut" if result.get("unfinished") else "task_done"
            self._note(now, kind, source=name, worker=worker, task=task, **level, **result)
        self._note(now, "worker_done", source=name, worker=worker, tasks=event.task_ids, seconds=event.seconds)

    def _note(self, now: float, kind: str, **fields: Any) -> None:
        if self.run.record:
            self.outcome.events.append({"time": round(now, 3), "event": kind, **fields})


_RESTART = 60.0  # seconds from the parent's death until it has been begun again


def simulate_run(setup: SimulationSetup, seed: int, submission: SubmissionCheck | None = None, record: bool = False) -> SimulatedOutcome:
    """One run from start to end.

    Args:
        submission: is checked after each answer.
        record: keep the timeline.
    """
    run = RunState(setup, random.Random(seed), submission, record)
    outcome = run.outcome
    deadline = setup.budget - setup.reserve
    now = down = 0.0
    down_at = run.killed_at
    model: SimulatedLane | None = None
    while True:
        quotas = {name: WorkerQuota(0) for name in setup.lanes}
        for name, workers in setup.allocate_workers(list(quotas)).items():
            quotas[name].workers = workers
        lanes = {name: SimulatedLane(name, run, quota, now, deadline) for name, quota in quotas.items()}
        model = lanes.get(setup.accounted_lane)
        running = [lane for lane in lanes.values() if not lane.ended]
        while running:
            moment = max(now, min(lane.next_moment for lane in running))
            if moment >= run.killed_at:
                break
            now = moment
            for lane in running:
                if lane.next_moment <= now:
                    lane.step(now)
            if any(lane.ended for lane in running):
                running = [lane for lane in running if not lane.ended]
                if running:
                    for name, workers in setup.allocate_workers([lane.name for lane in running]).items():
                        quotas[name].workers = workers
                    for lane in running:
                        lane.step(now)
        if not running:
            break
        now, run.killed_at = run.killed_at, math.inf
        for lane in running:
            lane.drop(now)
        outcome.counts["killed"] += 1
        down += max(0.0, min(setup.horizon, now + _RESTART) - min(setup.horizon, now))
        now = min(now + _RESTART, deadline)
    lanes_ended = now
    # A worker that the kernel holds keeps the end waiting, but not for longer than the pipeline waits for a lane.
    now = min(now + (KILL_SECONDS if run.unkillable else 0.1), max(now, deadline) + 0.3 * setup.reserve)
    now += run.chance.uniform(0.02, 0.3) * setup.reserve  # every prediction is read again, and the file written
    if wrong := run.submission.check_all():
        outcome.invalid.append(wrong)
    outcome.ended, outcome.overrun = now, now > setup.budget
    _account_idle(run, down, down_at, lanes_ended, model is not None and model.complete)
    return outcome


def _account_idle(run: RunState, down: float, down_at: float, ended: float, complete: bool) -> None:
    """What the devices did not do anything for."""
    setup, spent, horizon = run.setup, run.outcome.device_seconds, run.setup.horizon
    after = setup.devices * max(0.0, horizon - ended)
    spent["down"] = setup.devices * down
    overlap = min(down, max(0.0, down_at + down - run.lost_at))
    spent["dead"] = max(0.0, min(ended, horizon) - run.lost_at - overlap)
    spent["nothing left" if complete else "nothing fits"] = after
    rest = setup.devices * horizon - sum(spent.values())
    spent["waiting"] = max(0.0, rest)
