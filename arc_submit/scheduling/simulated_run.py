"""A simulated run as data: its tasks, sources, machine and faults, its state outside the lanes, and its outcome.

Does not know workers or the clock.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arc_submit.scheduling.chances import SolveChances
from arc_submit.scheduling.costs import CostModel, TaskSize
from arc_submit.scheduling.scheduler import Ladder, Level
from arc_submit.workers.supervisor import Event, Timeouts

_HIDDEN_STD = 1.0  # of the log-odds that a task is solved, beside what its size and the search say; an assumption


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often.

    Attributes:
        hang, crash, error: per hour of a busy worker: it falls silent, its process dies, or its job fails and it exits.
        poison: fraction of tasks that crash their worker every time.
        misfit: fraction of tasks for which no prompt fits; they fail at once.
        slow_start, no_start, bad_start: fraction of worker starts that take five times as long, never end, or crash.
        lost_gpu: fraction of runs that lose a GPU for good, at any time. In half of them its workers refuse to start, in the other half
            they fail.
        outage: fraction of runs in which a worker crashes at any time, and every start is refused for some minutes.
        killed: fraction of runs whose parent is killed and restarted, at any time.
        unkillable: fraction of runs at whose end the kernel does not release a worker.
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
    outage: float = 0.05
    killed: float = 0.1
    unkillable: float = 0.05

    def scaled(self, factor: float) -> Faults:
        """Return the faults with all frequencies multiplied."""
        return Faults(**{name: min(0.9, value * factor) for name, value in vars(self).items()})


@dataclass(frozen=True)
class SimulatedSource:
    """One source of a simulated run.

    Attributes:
        name: as in a run.
        ladder: of levels; None for a source without levels (the search), whose jobs begin in the order of their size.
        initial_costs: returns the estimates before any job has been measured.
        true_costs: the actual costs, before the speed of a device and the noise of a job.
        tasks_per_job: see SchedulerOptions.
        start_seconds: from a worker's start to its being ready.
        timeouts: of its workers.
        sizes: of the tasks for this source; None for those of the run.
        chances: the source divides its time by them; None: all tasks climb the same levels.
        alone: see arc_submit.scheduling.gain_scheduler.GainOptions.
        owner, share: see arc_submit.scheduling.lane_time.LaneMember.
        views: of each task, for a source without levels whose workers end their jobs at the soft deadline by themselves (the judge). Its
            jobs begin in the order of the tasks' uncertainty.
        cards: devices of each worker.
    """

    name: str
    ladder: Ladder | None
    initial_costs: Callable[[], CostModel]
    true_costs: CostModel
    tasks_per_job: int = 1
    start_seconds: float = 40.0
    timeouts: Timeouts = field(default_factory=Timeouts)
    sizes: Mapping[str, TaskSize] | None = None
    chances: SolveChances | None = None
    alone: bool = False
    views: int = 0
    owner: str = ""
    share: float | None = None
    cards: int = 1


@dataclass(frozen=True)
class SimulationSetup:
    """Tasks, sources, machine and time of a simulated run.

    Attributes:
        sizes: of the tasks.
        lanes: sources by lane, in their order.
        allocate_workers: returns the workers of each running lane.
        devices: number of workers of the accounted lane.
        budget: seconds of the run.
        reserve: seconds of these for the end.
        accounted_lane: the lane whose device time is recorded.
        cost_log_std: standard deviation of the logarithm of the factor between initial and true costs, drawn for each run.
        speed_log_std: the same between devices.
        job_log_std: the same between jobs.
        faults: what goes wrong.
        worth: the chances by which the levels that tasks have reached are worth solved outputs; None: they are not counted.
        judge: works in the accounted lane once all sources have ended.
        judge_seconds: kept for it.
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
    worth: SolveChances | None = None
    judge: SimulatedSource | None = None
    judge_seconds: float = 0.0

    @property
    def horizon(self) -> float:
        """End of the recording of device time: a fiftieth of the budget before its end."""
        return 0.98 * self.budget


@dataclass
class SimulatedOutcome:
    """The outcome of a simulated run.

    Attributes:
        ended: seconds until the submission was final.
        overrun: whether that was later than the budget.
        invalid: errors found in the submission at any time.
        device_seconds: of the accounted devices up to SimulationSetup.horizon. In use: work, lost (work lost with its worker), hung, start.
            Idle: dead (a lost GPU), down (the parent was dead), waiting (for other workers at the end of a source, or for a retry), nothing
            fits (into the remaining time), nothing left (all tasks are at the highest level).
        levels: number of tasks by source and level at the end.
        ends: seconds until each source ended.
        counts: events by kind, faults included.
        events: the timeline in the form of events.jsonl, if recorded.
        solved: by source, expected outputs that it solves and no other source, where SimulationSetup.worth is given.
    """

    ended: float = 0.0
    overrun: bool = False
    invalid: list[str] = field(default_factory=list)
    device_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    levels: dict[str, Counter[str]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    events: list[dict[str, Any]] = field(default_factory=list)
    solved: dict[str, float] = field(default_factory=dict)


class SubmissionCheck:
    """Receives every answer and checks the submission; arc_submit.run.simulate has the real one."""

    def check_task(self, task_id: str) -> str:
        """Update the entries of a task with a new answer; returns their error, else ""."""
        return ""

    def check_all(self) -> str:
        """Return the error of the final submission, else ""."""
        return ""


class RunState:
    """The state of one run outside its lanes: speeds, failing tasks, results on disk, and the outcome so far."""

    def __init__(self, setup: SimulationSetup, rng: random.Random, submission: SubmissionCheck | None = None, record: bool = False):
        faults = setup.faults
        self.setup, self.rng = setup, rng
        self.submission, self.record = submission or SubmissionCheck(), record
        self.outcome = SimulatedOutcome()
        self.cost_factor = {name: math.exp(rng.gauss(0, setup.cost_log_std)) for name in ("train", "predict")}
        self._slowness: dict[tuple[str, int], float] = {}
        task_ids = list(setup.sizes)
        self.poison = {task_id for task_id in task_ids if rng.random() < faults.poison}
        self.misfit = {task_id for task_id in task_ids if rng.random() < faults.misfit}
        self.uncertainty = {task_id: rng.random() for task_id in task_ids}
        # Drawn in every run, so that the other draws of a seed do not depend on this fault.
        self.lost_device, lost_at = rng.randrange(setup.devices), rng.uniform(0, setup.budget)
        self.lost_at = lost_at if rng.random() < faults.lost_gpu and setup.devices > 1 else math.inf
        self.killed_at = rng.uniform(0, setup.budget) if rng.random() < faults.killed else math.inf
        self.unkillable = rng.random() < faults.unkillable
        # A stream of its own: the other draws of a seed do not depend on these faults.
        own = random.Random(rng.getrandbits(64))
        self.lost_refuses = own.random() < 0.5
        outage_at, self.outage_seconds = own.uniform(0, setup.budget), own.uniform(60, 1500)
        self.outage_at = outage_at if own.random() < faults.outage else math.inf
        # What the search has settled, and how far each task is easier or harder than its size and the search say (log-odds). The scheduler
        # is told the former alone.
        self.settled = {task_id: own.choices((0.9, 0.05), (0.4, 0.6))[0] for task_id in task_ids}
        self.hidden = {task_id: own.gauss(0, _HIDDEN_STD) for task_id in task_ids}
        self.trained: dict[tuple[str, str], int] = {}  # steps of the adapter on disk, by source and task
        self.predicted: dict[tuple[str, str], int] = {}  # views on disk, by source and task
        self.reached: dict[str, dict[str, Level]] = {}  # by source and task
        self.done: dict[str, list[Event]] = {}  # done jobs by source, as the timeline of a real run holds them

    def slowness(self, lane: str, worker_id: int) -> float:
        """Return the factor of a device on the seconds of its jobs."""
        key = (lane, worker_id)
        if key not in self._slowness:
            self._slowness[key] = math.exp(self.rng.gauss(0, self.setup.speed_log_std))
        return self._slowness[key]

    def is_lost(self, lane: str, device: int, now: float) -> bool:
        """Return whether the device of a worker has been lost."""
        return lane == self.setup.accounted_lane and device == self.lost_device and now >= self.lost_at

    def is_out(self, lane: str, now: float) -> bool:
        """Return whether no worker of the lane can read what it needs."""
        return lane == self.setup.accounted_lane and self.outage_at <= now < self.outage_at + self.outage_seconds
