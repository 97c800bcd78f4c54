"""The scheduler: chooses the next task for a free worker and its level, so that the work fills the time and never exceeds it.

A task climbs a ladder of levels, each with a number of fine-tuning steps and of views to predict under. One level is the plan: every task
reaches it where the time suffices. Remaining time buys levels above the plan, first more steps, then more views, for the tasks whose votes
are least certain. Where the time does not suffice for the plan, work is dropped in the order of least loss: views first, then steps, then
whole tasks, the most expensive first. Every decision carries its reason. The scheduler receives the time and starts nothing. Does not know
models, processes or files.

The result of a level depends on the task and the level alone: fine-tuning by another number of steps starts from scratch, and the first n
of more views are the n views. So where the time suffices for the plan, the order of decisions changes none of the plan's predictions.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_job
from arc_submit.workers.supervisor import Event, Job

# Factor on the estimated seconds of all tasks together. Job errors mostly cancel in that sum, so a small margin suffices; without one, the
# first tasks would get a level that turns out too expensive for the last ones. It applies once a job has been measured: before that the
# estimate may be wrong by a multiple, which no margin of this kind covers.
_ALLOWANCE = 1.05

# Share of the remaining time that a source may take at least, before the sources behind it. An estimate without measurements may be far too
# low, and a source that ends early passes its time on anyway.
LEAST = 0.5
# Before a source whose time goes by expected gain: first answers are worth a fifth, more views of the base model are worth less than what
# fine-tuning does in the same time (docs/experiments/2026-11-30-expected-gain.md).
LEAST_BEFORE_GAIN = 0.2


@dataclass(frozen=True, order=True)
class Level:
    """How much work a task gets.

    Attributes:
        steps: of the fine-tuning before the predictions that this level adds; 0 for none.
        views: total predictions for each test input.
    """

    steps: int
    views: int

    def __str__(self) -> str:
        return f"{self.steps} steps and {self.views} views" if self.steps else f"{self.views} views"


def read_level(value: Any) -> Level | None:
    """A level from a timeline, which a user may have edited; None where it is none."""
    numbers = isinstance(value, list) and len(value) == 2 and all(type(number) is int and number >= 0 for number in value)
    return Level(*value) if numbers else None


@dataclass(frozen=True)
class Ladder:
    """The levels of a task from low to high, and the index of the plan among them."""

    levels: tuple[Level, ...]
    plan: int

    def above(self, reached: Level | None) -> int | None:
        """Return the index of the lowest level with more views than `reached`, or None."""
        if reached is None:
            return 0
        return next((i for i, level in enumerate(self.levels) if level.views > reached.views), None)


def make_ladder(steps: int, views: int, most_steps: int | None = None, most_views: int | None = None) -> Ladder:
    """Return the levels below and above a plan.

    Below the plan: a quarter of the views with a quarter, half and all of the steps, then half of the views with all steps. More views add
    less than more steps (docs/budget.md), so they are dropped first. Above: the steps double repeatedly, each time with as many additional
    views as the plan has; then the views double.

    Args:
        steps: of fine-tuning in the plan; 0 for a source without fine-tuning.
        views: predictions for each test input in the plan; 0 for fine-tuning alone, which has the plan as its only level.
        most_steps, most_views: limits of the levels above the plan; None for the plan's own.
    """
    most_steps, most_views = max(steps, most_steps or 0), max(views, most_views or 0)
    few, half = max(1, views // 4), max(1, views // 2)
    levels = [Level(max(1, steps // 4), few), Level(max(1, steps // 2), few)] if steps else []
    levels += [Level(steps, few), Level(steps, half)]
    plan = Level(steps, views)
    levels = [level for level in dict.fromkeys(levels) if level != plan] if views else []
    levels.append(plan)
    plan_index, last = len(levels) - 1, plan
    while steps and last.steps * 2 <= most_steps and last.views + views <= most_views:
        last = Level(last.steps * 2, last.views + views)
        levels.append(last)
    while last.views < most_views:
        last = Level(last.steps, min(most_views, last.views * 2))
        levels.append(last)
    return Ladder(tuple(levels), plan_index)


@dataclass(frozen=True)
class NextJob:
    """The scheduler's choice.

    Attributes:
        task_ids: one task, or a few for a source that does several in one job.
        level: that the tasks will reach.
        seconds: estimate for the job.
        reason: of the choice, for the timeline.
    """

    task_ids: tuple[str, ...]
    level: Level
    seconds: float
    reason: str


@dataclass(frozen=True)
class SchedulerOptions:
    """Properties of a source that the scheduler needs.

    Attributes:
        uncertainty: of the answer to a task, from 0 (all votes agree) to 1.
        tasks_per_job: for tasks without a result; every later job has one task.
        adapters_kept: adapters stay on disk. Otherwise further views of a task require its fine-tuning again.
    """

    uncertainty: Callable[[str], float] = lambda task_id: 1.0
    tasks_per_job: int = 1
    adapters_kept: bool = True


class _Climber(NamedTuple):
    """A task with a result that can reach a higher level. The order of the fields is the order of preference.

    A lower next level comes first, so that all tasks climb in waves and none gets far ahead; then a task that failed less often, then
    (above the plan) the less certain one, then the cheaper one, which yields more results for the same time. The id makes the order total.
    """

    level: int  # index of the next level
    failures: int
    certainty: float  # the negative of the uncertainty
    cost: float
    task_id: str


class _InProgress(NamedTuple):
    """A task in a job that runs."""

    level: Level
    estimated_end: float
    tasks_in_job: int


class Scheduler:
    """Chooses the jobs of one source; an arc_submit.workers.supervisor.JobSource.

    A task without a result waits in one of three queues; a task with a result that can climb is in a heap.

    Args:
        sizes: of all tasks, by id.
        ladder: the levels.
        costs: estimates; each done job corrects them.
        deadline: end of the work, on the clock of `now`.
        reached: levels of tasks that have results already.
        options: properties of the source.
    """

    def __init__(
        self,
        sizes: Mapping[str, TaskSize],
        ladder: Ladder,
        costs: CostModel,
        deadline: float,
        reached: Mapping[str, Level] | None = None,
        options: SchedulerOptions | None = None,
    ):
        self.sizes, self.ladder, self.costs, self.deadline = sizes, ladder, costs, deadline
        self.options = options or SchedulerOptions()
        self.reached: dict[str, Level] = dict(reached or {})
        self.closed: dict[str, str] = {}  # tasks that get no further job, with the reason
        self._failures: dict[str, int] = {}
        self._in_progress: dict[str, _InProgress] = {}
        plan = ladder.levels[ladder.plan]
        # The order of tasks by cost uses the sizes, not the measured costs, which depend on the order in which jobs end.
        self._cost_key = {task_id: plan.steps * size.train + plan.views * size.predict * size.outputs for task_id, size in sizes.items()}
        # Jobs are formed from all tasks and only then lose the tasks with a result: a resumed run forms the same jobs.
        size = self.options.tasks_per_job
        ordered = sorted(sizes, key=lambda task_id: (self._cost_key[task_id], task_id))
        jobs = [tuple(task_id for task_id in ordered[i : i + size] if task_id not in self.reached) for i in range(0, len(ordered), size)]
        # Tasks without a result, as jobs. A job of several tasks that was lost comes back task by task at the front, since most of its
        # tasks are sound. A single task that was lost comes back behind all others, since it is probably at fault itself.
        self._retry_first: deque[tuple[str, ...]] = deque()
        self._unstarted = deque(job for job in jobs if job)  # from cheap to expensive
        self._retry_last: deque[tuple[str, ...]] = deque()
        # Sums over these three queues make an estimate for all waiting tasks O(1).
        self._waiting, self._train_units, self._predict_units = 0, 0.0, 0.0
        for task_id in sizes:
            if task_id not in self.reached:
                self._count_waiting(task_id, 1)
        self._climbers: list[_Climber] = []  # a heap
        # A pool asks several times in one turn. The answer None stays valid without a state change, since the remaining time only shrinks.
        self._cached_choice: tuple[float, int, NextJob | None] | None = None
        self._nothing_fits_for = 0  # the number of workers of that answer, else 0
        for task_id in self.reached:
            self._add_climber(task_id)

    @property
    def complete(self) -> bool:
        """Whether every task has reached the highest level or is closed."""
        return not (self._waiting or self._climbers or self._in_progress)

    # The JobSource protocol.

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        choice = self.choose(workers, now)
        if choice is None:
            return None
        for task_id in choice.task_ids:
            self._remove(task_id)
            self._in_progress[task_id] = _InProgress(choice.level, now + choice.seconds, len(choice.task_ids))
        self._invalidate()
        params = {"steps": choice.level.steps, "views": choice.level.views}
        return Job(choice.task_ids, failures=self._failures.get(choice.task_ids[0], 0), params=params, reason=choice.reason)

    def available(self, workers: int, now: float) -> int:
        if self.choose(workers, now) is None:
            return 0
        return max(1, len(self._retry_first) + len(self._unstarted) + len(self._retry_last) + len(self._climbers))

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        for job in jobs:
            for task_id in job.task_ids:
                self._in_progress.pop(task_id, None)
                self._failures[task_id] = job.failures
                if task_id in self.reached:
                    self._add_climber(task_id)
                else:
                    (self._retry_first if first else self._retry_last).append((task_id,))
                    self._count_waiting(task_id, 1)
        self._invalidate()

    def pending(self) -> list[str]:
        below_plan = sorted(climber.task_id for climber in self._climbers if climber.level <= self.ladder.plan)
        return [*(task_id for job in (*self._retry_first, *self._unstarted, *self._retry_last) for task_id in job), *below_plan]

    def reopen(self, task_ids: Sequence[str]) -> Scheduler:
        for task_id in task_ids:
            self.closed.pop(task_id, None)
        self.requeue([Job((task_id,)) for task_id in task_ids], first=True)
        return self

    def on_event(self, event: Event) -> None:
        """Learn the costs from a done job, and let its tasks climb."""
        if event.kind == "given_up":
            for task_id in event.task_ids:
                self._in_progress.pop(task_id, None)
                self.closed[task_id] = event.reason
            self._invalidate()
        if event.kind != "done":
            return
        results = event.result.get("tasks", {})
        learn_from_job(self.costs, results, event.seconds, self.sizes)
        for task_id in event.task_ids:
            level = self._in_progress.pop(task_id).level
            result = results.get(task_id, {})
            self._failures.pop(task_id, None)
            if reason := closing_reason(result):
                self.closed[task_id] = reason
            else:
                self.reached[task_id] = level
                self._add_climber(task_id)
        self._invalidate()

    # Decisions.

    def choose(self, workers: int, now: float) -> NextJob | None:
        """Return the next job of a free worker, with this number of usable workers; None where nothing fits the remaining time."""
        if self._nothing_fits_for == workers:
            return None
        if self._cached_choice is None or self._cached_choice[:2] != (now, workers):
            choice = self._choose(workers, now)
            self._cached_choice = (now, workers, choice)
            self._nothing_fits_for = workers if choice is None else 0
        return self._cached_choice[2]

    def _choose(self, workers: int, now: float) -> NextJob | None:
        left = self.deadline - now
        if left <= 0:
            return None
        busy = sum(max(0.0, job.estimated_end - now) / job.tasks_in_job for job in self._in_progress.values())
        capacity = max(0.0, workers * left - busy)  # worker seconds that no job uses yet
        # A first answer to another task is worth more than a better answer to one that has an answer.
        return (self._choose_waiting(workers, left, capacity) if self._waiting else None) or self._choose_climber(left, capacity)

    def _choose_waiting(self, workers: int, left: float, capacity: float) -> NextJob | None:
        """Choose a task without a result, at the highest level up to the plan that all such tasks can still reach."""
        plan = self.ladder.plan
        fits, index = False, plan
        for index in range(plan, -1, -1):
            fits = self._latest_end(self.ladder.levels[index], workers, left, capacity) <= left
            if fits:
                break
        # Cheapest first gives the most results soonest, and fewest tasks are left out where the time ends early. Longest first (LPT)
        # shortens the total time instead. It pays only where all tasks get the plan anyway and no higher level could use the idle workers
        # at the end, and it needs estimates that rest on measurements.
        plan_is_top = plan == len(self.ladder.levels) - 1
        longest_first = fits and plan_is_top and index == plan and self.costs.measured_jobs >= 2 * workers and not self._retry_first
        fitting = self._first_fitting(left, index, longest_first)
        if fitting is None:
            return None
        task_ids, index, seconds, is_longest = fitting
        level = self.ladder.levels[index]
        if not fits:
            reason = f"the time does not suffice for all {self._waiting} waiting tasks even at {level}: cheapest first"
        elif index < plan:
            reason = (
                f"the time suffices for {level} of all {self._waiting} waiting tasks, not for {self.ladder.levels[plan]}: cheapest first"
            )
        elif is_longest:
            reason = (
                f"all {self._waiting} waiting tasks fit at {level}, the highest level: longest first, so that none runs alone at the end"
            )
        else:
            reason = f"all {self._waiting} waiting tasks fit at {level}: cheapest first"
        return NextJob(task_ids, level, seconds, reason)

    def _choose_climber(self, left: float, capacity: float) -> NextJob | None:
        """Choose a task for a higher level: first those below the plan, then the least certain of those that have climbed least."""
        skipped, choice = [], None
        plan = self.ladder.plan
        # The count is needed only where the first climber is below the plan, which the heap shows at once.
        below_plan = sum(climber.level <= plan for climber in self._climbers) if self._climbers and self._climbers[0].level <= plan else 0
        while self._climbers and choice is None:
            climber = heapq.heappop(self._climbers)
            skipped.append(climber)
            # A task below the plan goes straight to the plan: each level in between would cost a fine-tuning of its own.
            reached, index = self.reached[climber.task_id], max(climber.level, plan)
            level = self.ladder.levels[index]
            seconds = self._seconds(climber.task_id, reached, level)
            # It goes less far where the remaining capacity does not take all tasks below the plan that far.
            while index > climber.level and (seconds * below_plan * _ALLOWANCE > capacity or self.costs.upper_bound(seconds) > left):
                index -= 1
                level = self.ladder.levels[index]
                seconds = self._seconds(climber.task_id, reached, level)
            if self.costs.upper_bound(seconds) > left:
                continue
            if index <= plan:
                reason = f"time remains: from {reached} up to {level}, of the plan's {self.ladder.levels[plan]}"
            else:
                reason = (
                    f"time remains: from {reached} to {level}, the most uncertain ({-climber.certainty:.2f}) of the tasks at this level"
                )
            choice = NextJob((climber.task_id,), level, seconds, reason)
        for climber in skipped:
            heapq.heappush(self._climbers, climber)
        return choice or self._fill_up(skipped, left)

    def _fill_up(self, climbers: Sequence[_Climber], left: float) -> NextJob | None:
        """Choose a few more views with the adapter that a task has, where no whole level fits any more."""
        for climber in climbers:
            reached, target = self.reached[climber.task_id], self.ladder.levels[climber.level]
            most = target.views - reached.views
            first_view = self.costs.upper_bound(self._seconds(climber.task_id, reached, Level(reached.steps, reached.views + 1)))
            all_views = self.costs.upper_bound(self._seconds(climber.task_id, reached, Level(reached.steps, target.views)))
            if first_view > left:
                continue
            # Seconds are linear in views after the first one, which carries the fixed part.
            per_view = (all_views - first_view) / max(1, most - 1)
            views = most if per_view <= 0 else min(most, 1 + int((left - first_view) / per_view))
            level = Level(reached.steps, reached.views + views)
            reason = f"the time does not suffice for {target} of any task: from {reached} to {level} without more fine-tuning"
            return NextJob((climber.task_id,), level, self._seconds(climber.task_id, reached, level), reason)
        return None

    def _first_fitting(self, left: float, highest: int, longest_first: bool) -> tuple[tuple[str, ...], int, float, bool] | None:
        """Return the first waiting job that ends in time, at the highest level up to `highest` at which it does.

        Returns:
            task ids, index of the level, estimated seconds, and whether it is the longest job; None where no job fits.
        """
        # The head of each queue is its cheapest job (in the retry queues, the oldest): where it does not fit, the others hardly do. Of a
        # job of several tasks the first task alone may still fit.
        candidates = [queue[0] for queue in (self._retry_first, self._unstarted, self._retry_last) if queue]
        candidates += [candidates[-1][:1]] if len(candidates[-1]) > 1 else []
        if self._unstarted and longest_first:
            candidates.insert(0, self._unstarted[-1])
        for position, task_ids in enumerate(candidates):
            for index in range(highest, -1, -1):
                seconds = self._job_seconds(task_ids, self.ladder.levels[index])
                if self.costs.upper_bound(seconds) <= left:
                    return task_ids, index, seconds, longest_first and position == 0
        if self.costs.measured_jobs:
            return None
        # An estimate without any measurement must not end a run before its first job, which is what measures the costs.
        return candidates[0], 0, self._job_seconds(candidates[0], self.ladder.levels[0]), False

    # Estimates.

    def _seconds(self, task_id: str, reached: Level | None, level: Level) -> float:
        """Estimate the seconds of a task from one level to another."""
        steps_done, views_done = (reached.steps, reached.views) if reached else (0, 0)
        # Fine-tuning by another number of steps starts from scratch; the same number needs none while the adapter is on disk.
        steps = level.steps if level.steps != steps_done or not self.options.adapters_kept else 0
        return self.costs.seconds(steps, level.views - views_done, self.sizes[task_id])

    def _latest_end(self, level: Level, workers: int, left: float, capacity: float) -> float:
        """Return an upper bound on the seconds until all waiting tasks have reached a level.

        With more jobs than idle workers this is the bound of Graham 1966 for list scheduling. When the last job begins, all workers are
        busy with the other work, so it begins no later than (busy + total - longest) / workers, and it ends at most `longest` later. The
        bound holds for every order of the jobs, so the order may follow other aims.
        """
        # The queue of unstarted jobs is sorted, so its last job is its longest; the retry queues have no order.
        jobs = (*self._retry_first, *self._retry_last, *([self._unstarted[-1]] if self._unstarted else []))
        longest = max(self._job_seconds(task_ids, level) for task_ids in jobs)
        idle = workers - sum(1 / job.tasks_in_job for job in self._in_progress.values())
        if len(self._retry_first) + len(self._unstarted) + len(self._retry_last) <= idle + 0.01:  # the sum of 1/n is not exact
            return longest  # all jobs begin at once
        allowance = _ALLOWANCE if self.costs.measured_jobs else 1.0
        busy = workers * left - capacity
        return (busy + allowance * self._total_seconds(level) + (workers - 1) * longest) / workers

    def _job_seconds(self, task_ids: Sequence[str], level: Level) -> float:
        """Estimate the seconds of a job that takes waiting tasks to a level."""
        # The tasks of a job are predicted together, at the fixed cost of one prediction job.
        shared = self.costs.predict.fixed if level.views else 0.0
        return sum(self._seconds(task_id, None, level) for task_id in task_ids) - (len(task_ids) - 1) * shared

    def _total_seconds(self, level: Level) -> float:
        """Estimate the seconds of all waiting tasks to a level, on one worker."""
        train, predict = self.costs.train, self.costs.predict
        seconds = self._waiting * train.fixed + self._train_units * level.steps * train.rate if level.steps else 0.0
        jobs = self._waiting / self.options.tasks_per_job
        return seconds + (jobs * predict.fixed + self._predict_units * level.views * predict.rate if level.views else 0.0)

    # State.

    def _add_climber(self, task_id: str) -> None:
        """Let a task with a result climb, where there is a higher level and the task is not closed."""
        index = self.ladder.above(self.reached[task_id])
        if index is None or task_id in self.closed:
            return
        # Every task is entitled to the plan: up to there the uncertainty plays no part, and the cheaper task comes first.
        uncertainty = self.options.uncertainty(task_id) if index > self.ladder.plan else 0.0
        climber = _Climber(index, self._failures.get(task_id, 0), -uncertainty, self._cost_key[task_id], task_id)
        heapq.heappush(self._climbers, climber)

    def _remove(self, task_id: str) -> None:
        """Remove a chosen task from its queue or from the climbers."""
        if task_id in self.reached:
            if self._climbers[0].task_id == task_id:
                heapq.heappop(self._climbers)
                return
            self._climbers = [climber for climber in self._climbers if climber.task_id != task_id]
            heapq.heapify(self._climbers)
            return
        # Choices come only from the ends of the queues.
        for queue in (self._retry_first, self._unstarted, self._retry_last):
            for end in (0, -1):
                if queue and task_id in queue[end]:
                    queue[end] = tuple(other for other in queue[end] if other != task_id)
                    if not queue[end]:
                        del queue[end]
                    self._count_waiting(task_id, -1)
                    return
        raise AssertionError(f"{task_id} does not wait")

    def _count_waiting(self, task_id: str, sign: int) -> None:
        self._waiting += sign
        self._train_units += sign * self.sizes[task_id].train
        self._predict_units += sign * self.sizes[task_id].predict * self.sizes[task_id].outputs

    def _invalidate(self) -> None:
        self._cached_choice, self._nothing_fits_for = None, 0


def closing_reason(result: Mapping[str, Any]) -> str:
    """Why a task gets no further job after a result as its worker reports it; "" where it may climb."""
    return str(result.get("failed") or ("the time ended during the job" if result.get("unfinished") else ""))


def estimated_seconds(sizes: Mapping[str, TaskSize], ladder: Ladder, costs: CostModel) -> float:
    """Estimate the seconds of the plan for all tasks on one device."""
    plan = ladder.levels[ladder.plan]
    return sum(costs.seconds(plan.steps, plan.views, size) for size in sizes.values())


def choose_deadline(now: float, deadline: float, seconds: float, later: Mapping[str, float], least: float = LEAST) -> tuple[float, str]:
    """Return when a source must leave its devices to the sources after it, and the reason.

    It gets the time in proportion to the estimates, but at least a share.

    Args:
        deadline: of all sources together, on the clock of `now`.
        seconds: estimate of its plan on one device.
        later: estimates of the sources after it, by name.
        least: the share that it gets at least.
    """
    if not later:
        return deadline, "no source follows: it may work to the end"
    total = seconds + sum(later.values())
    share = max(least, seconds / total if total else 0.0)
    reason = f"before {', '.join(later)}: it may take at most {100 * share:.0f} % of the remaining time"
    return now + share * max(0.0, deadline - now), reason


def choose_soft_deadline(now: float, deadline: float) -> float:
    """Return when workers should end their jobs by themselves and save the results: a fiftieth of the time, at most a minute, before."""
    return deadline - min(60.0, 0.02 * max(0.0, deadline - now))
