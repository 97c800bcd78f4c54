"""The scheduler: which task a free worker takes next, and how far it goes with it, so that the time is spent to the end and never past it.

A task climbs a ladder of levels, each so many steps of fine-tuning and so many views to predict under. One level is the plan: what every
task gets where the time suffices. Time left over buys the levels above it, first more steps, then more views, for the tasks whose votes are
least settled. Where the time does not suffice for the plan, work is given up in the order of least loss: views first, then steps, then
whole tasks, the costliest first. Every decision comes with its reason. It is told the time and starts nothing; knows nothing about
models, processes or files.

What a level gives is a function of the task and the level alone (fine-tuning by another number of steps begins afresh, and the first n of
more views are the n views), so where the time suffices for the plan, the order of decisions changes no prediction of it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_job
from arc_submit.workers.supervisor import Event, Job

_ALLOWANCE = 1.05  # of the time all tasks take together, once something has been measured
_DEVIATIONS = 2.0  # of a job's seconds that must still fit


@dataclass(frozen=True, order=True)
class Level:
    """How far a task has come, or is to come.

    Attributes:
        steps: of the fine-tuning that the views beyond those already made are predicted with; 0 for none.
        views: predictions for each test input, in all.
    """

    steps: int
    views: int

    def __str__(self) -> str:
        return f"{self.steps} steps and {self.views} views" if self.steps else f"{self.views} views"


@dataclass(frozen=True)
class Ladder:
    """Levels a task can climb, and the place of the plan among them."""

    levels: tuple[Level, ...]
    plan: int

    def above(self, reached: Level | None) -> int | None:
        """Place of the next level that makes predictions which are not there yet, or None."""
        if reached is None:
            return 0
        return next((i for i, level in enumerate(self.levels) if level.views > reached.views), None)


def make_ladder(steps: int, views: int, most_steps: int | None = None, most_views: int | None = None) -> Ladder:
    """Levels below and above a plan.

    Below: a quarter of the views and of the steps, then half of the steps, all, half of the views. Above: twice the steps, again and again,
    each time for as many further views as the plan has; then twice the views.

    Args:
        steps: of fine-tuning; 0 for a source that does none.
        views: predictions for each test input; 0 for fine-tuning alone, which has no other level.
        most_steps, most_views: as far as left-over time may go; None is the plan's own.
    """
    most_steps, most_views = max(steps, most_steps or 0), max(views, most_views or 0)
    few, half = max(1, views // 4), max(1, views // 2)
    levels = [Level(max(1, steps // 4), few), Level(max(1, steps // 2), few)] if steps else []
    levels += [Level(steps, few), Level(steps, half)]
    plan = Level(steps, views)
    levels = [level for level in dict.fromkeys(levels) if level != plan] if views else []
    levels.append(plan)
    place, last = len(levels) - 1, plan
    while steps and last.steps * 2 <= most_steps and last.views + views <= most_views:
        last = Level(last.steps * 2, last.views + views)
        levels.append(last)
    while last.views < most_views:
        last = Level(last.steps, min(most_views, last.views * 2))
        levels.append(last)
    return Ladder(tuple(levels), place)


@dataclass(frozen=True)
class NextJob:
    """What to begin next.

    Attributes:
        task_ids: one, or a few for a source that takes several at once.
        level: the level that they are to reach.
        seconds: that this is expected to take.
        reason: for people.
    """

    task_ids: tuple[str, ...]
    level: Level
    seconds: float
    reason: str


@dataclass(frozen=True)
class SchedulerOptions:
    """How a scheduler treats its tasks.

    Attributes:
        uncertainty: of an answered task, from 0 (its votes agree) to 1.
        tasks_per_job: of tasks without a result; later jobs have one task.
        adapters_kept: adapters stay on disk. Otherwise further views of a task need its fine-tuning once more.
    """

    uncertainty: Callable[[str], float] = lambda task_id: 1.0
    tasks_per_job: int = 1
    adapters_kept: bool = True


class Scheduler:
    """The supply of one source's jobs (arc_submit.workers.supervisor.JobSource).

    Args:
        sizes: of the tasks.
        ladder: how far tasks can come.
        costs: what work costs; corrected here by what is done.
        deadline: when work is to end, on the clock whose `now` is given.
        reached: levels of tasks worked on before.
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
        self.closed: dict[str, str] = {}  # tasks that nothing more is done about, with the reason
        self._failures: dict[str, int] = {}
        self._in_progress: dict[str, tuple[Level, float, int]] = {}  # level, estimated end, tasks in the job
        plan = ladder.levels[ladder.plan]
        self._order = {  # from cheap to costly, whatever has been measured
            task: plan.steps * size.train + plan.views * size.predict * size.outputs for task, size in sizes.items()
        }
        # Tasks that nothing has been done about, as jobs: those to be tried at once, by size, and those to be tried last. Jobs are made of
        # all tasks and only then lose those that are done, so that a run that goes on has the same tasks in one.
        group = self.options.tasks_per_job
        line = sorted(sizes, key=lambda task: (self._order[task], task))
        jobs = [tuple(task for task in line[i : i + group] if task not in self.reached) for i in range(0, len(line), group)]
        self._first: deque[tuple[str, ...]] = deque()
        self._fresh = deque(job for job in jobs if job)
        self._last: deque[tuple[str, ...]] = deque()
        self._count, self._samples, self._answers = 0, 0.0, 0.0  # of these three: tasks, units of a step, units of a view
        for task in sizes:
            if task not in self.reached:
                self._weigh(task, 1)
        self._rising: list[tuple[int, int, float, float, str]] = []  # heap of tasks that may climb on
        self._known: tuple[float, int, NextJob | None] | None = None
        self._stuck = 0  # the number of workers for which nothing fitted, and nothing has changed since
        for task in self.reached:
            self._climb(task)

    @property
    def complete(self) -> bool:
        """Whether every task has come as far as it can."""
        return not (self._count or self._rising or self._in_progress)

    # What a crew asks.

    def next_job(self, workers: int, now: float) -> Job | None:
        choice = self.choose(workers, now)
        if choice is None:
            return None
        for task in choice.task_ids:
            self._remove(task)
            self._in_progress[task] = (choice.level, now + choice.seconds, len(choice.task_ids))
        self._changed()
        params = {"steps": choice.level.steps, "views": choice.level.views}
        return Job(choice.task_ids, failures=self._failures.get(choice.task_ids[0], 0), params=params, reason=choice.reason)

    def available(self, workers: int, now: float) -> int:
        if self.choose(workers, now) is None:
            return 0
        return max(1, len(self._first) + len(self._fresh) + len(self._last) + len(self._rising))

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        for job in jobs:
            for task in job.task_ids:
                self._in_progress.pop(task, None)
                self._failures[task] = job.failures
                if task in self.reached:
                    self._climb(task)
                else:
                    (self._first if first else self._last).append((task,))
                    self._weigh(task, 1)
        self._changed()

    def pending(self) -> list[str]:
        low = sorted(task for place, _, _, _, task in self._rising if place <= self.ladder.plan)
        return [*(task for job in (*self._first, *self._fresh, *self._last) for task in job), *low]

    def reopen(self, task_ids: Sequence[str]) -> Scheduler:
        for task in task_ids:
            self.closed.pop(task, None)
        self.requeue([Job((task,)) for task in task_ids], first=True)
        return self

    def on_event(self, event: Event) -> None:
        """Learn from a job that is done, and see what its tasks can do next."""
        if event.kind == "given_up":
            for task in event.task_ids:
                self._in_progress.pop(task, None)
                self.closed[task] = event.reason
            self._changed()
        if event.kind != "done":
            return
        results = event.result.get("tasks", {})
        learn_from_job(self.costs, results, event.seconds, self.sizes)
        for task in event.task_ids:
            level = self._in_progress.pop(task)[0]
            result = results.get(task, {})
            self._failures.pop(task, None)
            if result.get("failed"):
                self.closed[task] = result["failed"]
            elif result.get("unfinished"):
                self.closed[task] = "the time was up in the middle of it"
            else:
                self.reached[task] = level
                self._climb(task)
        self._changed()

    # Decisions.

    def choose(self, workers: int, now: float) -> NextJob | None:
        """What a free worker is to begin now, with so many workers at work; None where nothing fits the time that is left."""
        if self._stuck == workers:
            return None
        if self._known is None or self._known[:2] != (now, workers):
            choice = self._choose(workers, now)
            self._known = (now, workers, choice)
            self._stuck = workers if choice is None else 0
        return self._known[2]

    def _choose(self, workers: int, now: float) -> NextJob | None:
        left = self.deadline - now
        if left <= 0:
            return None
        busy = sum(max(0.0, end - now) / tasks for _, end, tasks in self._in_progress.values())
        capacity = max(0.0, workers * left - busy)
        return (self._choose_below(workers, left, capacity) if self._count else None) or self._choose_above(left, capacity)

    def _choose_below(self, workers: int, left: float, capacity: float) -> NextJob | None:
        """A task about which nothing has been done: at the highest level up to the plan that all such tasks can still get."""
        plan = self.ladder.plan
        fits, place = False, plan
        for place in range(plan, -1, -1):
            fits = self._latest(self.ladder.levels[place], workers, left, capacity) <= left
            if fits:
                break
        ends = plan == len(self.ladder.levels) - 1
        longest = fits and ends and place == plan and self.costs.measured_jobs >= 2 * workers and not self._first
        picked = self._fitting(left, place, longest)
        if picked is None:
            return None
        tasks, place, seconds, longest = picked
        level = self.ladder.levels[place]
        if not fits:
            reason = f"the time does not suffice for all {self._count} tasks even at {level}: cheapest first"
        elif place < plan:
            reason = (
                f"the time suffices for {level} of all {self._count} tasks that wait, not for {self.ladder.levels[plan]}: cheapest first"
            )
        elif longest:
            reason = f"all {self._count} tasks that wait fit at {level}, the last there is: longest first, that none runs alone at the end"
        else:
            reason = f"all {self._count} tasks that wait fit at {level}: cheapest first"
        return NextJob(tasks, level, seconds, reason)

    def _choose_above(self, left: float, capacity: float) -> NextJob | None:
        """A task that can climb on: those below the plan first, then the least settled of those that have climbed least."""
        passed, found = [], None
        plan = self.ladder.plan
        low = sum(place <= plan for place, *_ in self._rising) if self._rising and self._rising[0][0] <= plan else 0
        while self._rising and found is None:
            entry = heapq.heappop(self._rising)
            passed.append(entry)
            lowest, _, settled, _, task = entry
            reached, place = self.reached[task], max(lowest, plan)
            level, seconds = self.ladder.levels[place], self._seconds(task, reached, self.ladder.levels[place])
            while place > lowest and (seconds * low * _ALLOWANCE > capacity or self._surely(seconds) > left):
                place -= 1  # all that are below the plan are to climb as far
                level, seconds = self.ladder.levels[place], self._seconds(task, reached, self.ladder.levels[place])
            if self._surely(seconds) > left:
                continue
            if place <= plan:
                reason = f"time is left over: from {reached} up to {level}, of the plan's {self.ladder.levels[plan]}"
            else:
                reason = f"time is left over: from {reached} on to {level}, the least settled ({-settled:.2f}) of those so far"
            found = NextJob((task,), level, seconds, reason)
        for entry in passed:
            heapq.heappush(self._rising, entry)
        return found or self._fill(passed, left)

    def _fill(self, entries: Sequence[tuple[int, int, float, float, str]], left: float) -> NextJob | None:
        """A few more views with what a task has, where no whole level fits any more."""
        for place, _, _, _, task in entries:
            reached, target = self.reached[task], self.ladder.levels[place]
            most = target.views - reached.views
            fixed = self._surely(self._seconds(task, reached, Level(reached.steps, reached.views + 1)))
            all_seconds = self._surely(self._seconds(task, reached, Level(reached.steps, target.views)))
            if fixed > left:
                continue
            one = (all_seconds - fixed) / max(1, most - 1)
            views = most if one <= 0 else min(most, 1 + int((left - fixed) / one))
            level = Level(reached.steps, reached.views + views)
            reason = f"the time does not suffice for {target} of any task: from {reached} on to {level} with what there is"
            return NextJob((task,), level, self._seconds(task, reached, level), reason)
        return None

    # What it is based on.

    def _fitting(self, left: float, place: int, longest: bool) -> tuple[tuple[str, ...], int, float, bool] | None:
        """The first in line that can be done in the time that is left, its level lowered where it must be.

        Returns tasks, the place of their level, seconds, and whether it is the longest; None where nothing fits.
        """
        line = [waiting[0] for waiting in (self._first, self._fresh, self._last) if waiting]
        line += [line[-1][:1]] if len(line[-1]) > 1 else []
        if self._fresh and longest:
            line.insert(0, self._fresh[-1])
        for number, tasks in enumerate(line):
            for lower in range(place, -1, -1):
                level = self.ladder.levels[lower]
                seconds = self._job_seconds(tasks, level)
                if self._surely(seconds) <= left:
                    return tasks, lower, seconds, longest and number == 0
        if self.costs.measured_jobs:
            return None
        # Nothing measured says that it does not fit, and what is not begun cannot be measured.
        return line[0], 0, self._job_seconds(line[0], self.ladder.levels[0]), False

    def _seconds(self, task: str, reached: Level | None, level: Level) -> float:
        """From one level of a task to another."""
        trained, made = (reached.steps, reached.views) if reached else (0, 0)
        steps = level.steps if level.steps != trained or not self.options.adapters_kept else 0
        return self.costs.seconds(steps, level.views - made, self.sizes[task])

    def _latest(self, level: Level, workers: int, left: float, capacity: float) -> float:
        """When at the latest all tasks about which nothing has been done have come to a level, from now on.

        Where there are more jobs than idle workers, that is the bound of Graham 1966 for jobs begun in any order: the last one begins no
        later than when all the others, shared evenly, are done.
        """
        waiting = (*self._first, *self._last, *([self._fresh[-1]] if self._fresh else []))
        longest = max(self._job_seconds(tasks, level) for tasks in waiting)
        idle = workers - sum(1 / tasks for _, _, tasks in self._in_progress.values())
        if len(self._first) + len(self._fresh) + len(self._last) <= idle + 0.01:
            return longest
        allowance = _ALLOWANCE if self.costs.measured_jobs else 1.0
        return (workers * left - capacity + allowance * self._together(level) + (workers - 1) * longest) / workers

    def _job_seconds(self, tasks: Sequence[str], level: Level) -> float:
        """Of a job that takes tasks about which nothing has been done to a level."""
        once = self.costs.predict.fixed if level.views else 0.0  # they are predicted together
        return sum(self._seconds(task, None, level) for task in tasks) - (len(tasks) - 1) * once

    def _together(self, level: Level) -> float:
        """Of all tasks about which nothing has been done, to a level."""
        train, predict = self.costs.train, self.costs.predict
        seconds = self._count * train.fixed + self._samples * level.steps * train.rate if level.steps else 0.0
        jobs = self._count / self.options.tasks_per_job
        return seconds + (jobs * predict.fixed + self._answers * level.views * predict.rate if level.views else 0.0)

    def _surely(self, seconds: float) -> float:
        """What a job takes at most, hardly ever more."""
        return seconds * (1 + _DEVIATIONS * self.costs.rel_std) if self.costs.measured_jobs else seconds

    def _climb(self, task: str) -> None:
        """Put a task where it can be chosen for its next level, where there is one."""
        place = self.ladder.above(self.reached[task])
        if place is None or task in self.closed:
            return
        doubt = self.options.uncertainty(task) if place > self.ladder.plan else 0.0
        heapq.heappush(self._rising, (place, self._failures.get(task, 0), -doubt, self._order[task], task))

    def _remove(self, task: str) -> None:
        """Take a task out of what waits."""
        if task in self.reached:
            if self._rising[0][4] == task:
                heapq.heappop(self._rising)
                return
            self._rising = [entry for entry in self._rising if entry[4] != task]
            heapq.heapify(self._rising)
            return
        for waiting in (self._first, self._fresh, self._last):
            for end in (0, -1):
                if waiting and task in waiting[end]:
                    waiting[end] = tuple(other for other in waiting[end] if other != task)
                    if not waiting[end]:
                        del waiting[end]
                    self._weigh(task, -1)
                    return
        raise AssertionError(f"{task} does not wait")

    def _weigh(self, task: str, sign: int) -> None:
        self._count += sign
        self._samples += sign * self.sizes[task].train
        self._answers += sign * self.sizes[task].predict * self.sizes[task].outputs

    def _changed(self) -> None:
        self._known, self._stuck = None, 0


def estimated_seconds(sizes: Mapping[str, TaskSize], ladder: Ladder, costs: CostModel) -> float:
    """Seconds that one device would take for the plan of all tasks."""
    plan = ladder.levels[ladder.plan]
    return sum(costs.seconds(plan.steps, plan.views, size) for size in sizes.values())


def choose_deadline(now: float, until: float, seconds: float, behind: Mapping[str, float]) -> tuple[float, str]:
    """When a source must make way for those that come behind it on the same devices, and why.

    Args:
        seconds: that its plan is expected to take on one device.
        behind: the same of those that come behind it.
    """
    if not behind:
        return until, "nothing comes behind it: it may work to the end"
    together = seconds + sum(behind.values())
    part = max(0.5, seconds / together if together else 0.0)
    return now + part * max(0.0, until - now), f"{', '.join(behind)} behind it: it may take {100 * part:.0f} % of what is left at most"


def choose_soft_deadline(now: float, until: float) -> float:
    """When workers are to end by themselves, so that they lose nothing: a fiftieth of the time, at most a minute, before the kill."""
    return until - min(60.0, 0.02 * max(0.0, until - now))
