"""The gain scheduler: gives each second of the devices to the task and level that are expected to add most solved outputs.

For each task and level it knows the seconds (arc_submit.scheduling.costs) and the expected gain: the chance that the level solves what the
task's level so far has not, times the chance that no answer of any source is right already (this factor is left out where the source is
to solve as much as it can alone). A second has one price for all tasks: the lowest at which the levels that are worth it fit into the
time. A task for which no level is worth the price gets none. Of the levels that are worth it the one with the largest gain for each second
begins first. The scheduler receives the time and starts nothing. Does not know models, processes or files.

One price for all is the solution of the continuous multiple-choice knapsack problem (Sinha and Zoltners, 1979). As in
arc_submit.scheduling.scheduler, the result of a level depends on the task and the level alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.scheduling.chances import UNKNOWN_EASE, SolveChances
from arc_submit.scheduling.costs import CostModel, TaskSize, learn_from_job
from arc_submit.scheduling.scheduler import Ladder, Level, NextJob, closing_reason
from arc_submit.workers.supervisor import Event, Job

# Seconds after which the answers of other sources are read again.
REFRESH_SECONDS = 5.0
_NO_PROMPT = 1e-9  # the gain of a task that no prompt fits
_CHOICE_SECONDS = 1.0  # for which a choice holds while nothing happens
# Factor on the gain of a task for each time that its job was lost: such a task is probably at fault itself.
_LOST = 0.5
# The least that a doubling of the steps or of the views adds to the log-odds. Runs of few levels are often fitted without any slope, by
# which the lowest level would be worth as much as any other and the rest of the time nothing.
_LEAST_SLOPE = 0.01
# The price lies within this many doublings below the highest rate; the interval of its logarithm is halved so often.
_DOUBLINGS, _HALVINGS = 40, 25


@dataclass(frozen=True)
class Standing:
    """How one task stands with all sources.

    Attributes:
        settled: for each test input, the chance that one of the two best answers is right.
        ease: for each test input, the probability of the search's best answer; UNKNOWN_EASE where the search has not answered.
    """

    settled: tuple[float, ...] = ()
    ease: tuple[float, ...] = ()


@dataclass(frozen=True)
class GainOptions:
    """Properties of a source that the scheduler needs.

    Attributes:
        standings: of tasks, from the answers so far.
        shift: correction of the chances by this run, in log-odds, from the levels that tasks have reached.
        adapters_kept: adapters stay on disk. Otherwise further views of a task require its fine-tuning again.
        alone: an output that other answers have already counts as much as any other.
    """

    standings: Callable[[Sequence[str]], Mapping[str, Standing]] = lambda task_ids: {}
    shift: Callable[[Mapping[str, Level]], float] = lambda reached: 0.0
    adapters_kept: bool = True
    alone: bool = False


@dataclass(frozen=True)
class _Table:
    """Every open task (rows) at every level (columns).

    Attributes:
        tasks: ids, by row.
        seconds: estimated, from the level that a task has reached, (tasks, levels), float.
        gain: expected number of outputs solved by it and by nothing else, (tasks, levels), float; 0 where a level adds nothing.
        chance: that an output of the task is solved at the level by this source, (tasks, levels), float.
        settled: chance that an output is solved already, mean over the outputs, (tasks,), float.
    """

    tasks: list[str]
    seconds: np.ndarray
    gain: np.ndarray
    chance: np.ndarray
    settled: np.ndarray


class GainScheduler:
    """Chooses the jobs of one source; an arc_submit.workers.supervisor.JobSource.

    Args:
        sizes: of all tasks, by id.
        ladder: its numbers of steps and of views, in every combination, are the levels; the plan plays no part.
        costs: estimates; each done job corrects them.
        deadline: end of the work, on the clock of `now`.
        chances: of solving an output at a level.
        reached: levels of tasks that have results already.
        options: properties of the source.
    """

    def __init__(
        self,
        sizes: Mapping[str, TaskSize],
        ladder: Ladder,
        costs: CostModel,
        deadline: float,
        chances: SolveChances,
        reached: Mapping[str, Level] | None = None,
        options: GainOptions | None = None,
    ):
        self.sizes, self.ladder, self.costs, self.deadline = sizes, ladder, costs, deadline
        self.chances = replace(chances, steps=max(_LEAST_SLOPE, chances.steps), views=max(_LEAST_SLOPE, chances.views))
        self.options = options or GainOptions()
        self._what = "solved outputs" if self.options.alone else "more solved outputs"
        self.reached: dict[str, Level] = dict(reached or {})
        self.closed: dict[str, str] = {}  # tasks that get no further job, with the reason
        # Every number of steps with every number of views of the ladder.
        numbers = ({level.steps for level in ladder.levels}, {level.views for level in ladder.levels})
        self._levels = [Level(steps, views) for steps, views in itertools.product(*map(sorted, numbers))]
        self._failures: dict[str, int] = {}
        self._in_progress: dict[str, tuple[Level, float, float]] = {}  # each job's level, estimated end and expected gain
        self._gained = 0.0  # the sum of the expected gains of done jobs
        self._gainers: set[str] = set()  # the tasks of these jobs
        self._cut: set[str] = set()  # tasks that are closed because the time ended
        self._standings: Mapping[str, Standing] = {}
        self._shift = 0.0
        self._read_at = -math.inf
        self._choice: tuple[float, int, NextJob | None] | None = None  # the last one, with its time and number of workers
        self._choice_gain = 0.0  # of the last choice

    @property
    def complete(self) -> bool:
        """Whether every task has reached the highest level or is closed."""
        top = self.ladder.levels[-1]
        return not self._in_progress and all(i in self.closed or self.reached.get(i) == top for i in self.sizes)

    # The JobSource protocol.

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        choice = self.choose(workers, now)
        if choice is None:
            return None
        (task_id,) = choice.task_ids
        self._in_progress[task_id] = (choice.level, now + choice.seconds, self._choice_gain)
        self._choice = None
        params = {"steps": choice.level.steps, "views": choice.level.views}
        return Job(choice.task_ids, failures=self._failures.get(task_id, 0), params=params, reason=choice.reason)

    def available(self, workers: int, now: float) -> int:
        if self.choose(workers, now) is None:
            return 0
        return sum(
            i not in self.closed and i not in self._in_progress and self.reached.get(i) != self.ladder.levels[-1] for i in self.sizes
        )

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        for job in jobs:
            for task_id in job.task_ids:
                self._in_progress.pop(task_id, None)
                self._failures[task_id] = job.failures
        self._choice = None

    def pending(self) -> list[str]:
        return sorted(i for i in self.sizes if i not in self.reached and i not in self.closed and i not in self._in_progress)

    def reopen(self, task_ids: Sequence[str]) -> GainScheduler:
        for task_id in task_ids:
            self.closed.pop(task_id, None)
        self.requeue([Job((task_id,)) for task_id in task_ids], first=True)
        return self

    def on_event(self, event: Event) -> None:
        """Learn the costs from a done job, and note the levels of its tasks."""
        self._choice = None
        if event.kind == "given_up":
            for task_id in event.task_ids:
                self._in_progress.pop(task_id, None)
                self.closed[task_id] = event.reason
        if event.kind != "done":
            return
        results = event.result.get("tasks", {})
        learn_from_job(self.costs, results, event.seconds, self.sizes)
        self._read_at = -math.inf  # a task's own new answers count at once
        for task_id in event.task_ids:
            level, _, gain = self._in_progress.pop(task_id)
            self._failures.pop(task_id, None)
            if reason := closing_reason(results.get(task_id, {})):
                self.closed[task_id] = reason
                if not results.get(task_id, {}).get("failed"):
                    self._cut.add(task_id)
            else:
                self.reached[task_id] = level
                self._gained += gain
                self._gainers.add(task_id)

    def outlook(self, seconds: float) -> str:
        """What the time has bought, and what as many seconds more of all devices together would buy.

        A task whose job the end of the time cut is open again in these.
        """
        cut = self._cut | set(self._in_progress)
        self._read_standings([*cut, *(task_id for task_id in self.sizes if task_id not in self.closed)])
        table, more = self._table(cut), 0.0
        if table is not None:
            price, columns = find_price(table.gain, table.seconds, seconds)
            rows = np.arange(len(columns))
            gain = table.gain[rows, columns]
            more = float(gain[gain > price * table.seconds[rows, columns]].sum())
        return (
            f"{len(self._gainers)} of {len(self.sizes)} tasks were worth their time, {self._gained:.2f} {self._what} were expected of it; "
            f"as much time again is expected to solve {more:.2f} more"
        )

    # Decisions.

    def choose(self, workers: int, now: float) -> NextJob | None:
        """The next job of a free worker, with this number of usable workers; None where nothing fits the remaining time."""
        if self._choice is not None:
            time, for_workers, choice = self._choice
            # A pool asks several times in one turn, and turns every moment.
            recent = for_workers == workers and time <= now < time + _CHOICE_SECONDS
            if recent and (choice is None or self.costs.upper_bound(choice.seconds) <= self.deadline - now):
                return choice
        choice = self._choose(workers, now)
        self._choice = (now, workers, choice)
        return choice

    def _choose(self, workers: int, now: float) -> NextJob | None:
        left = self.deadline - now
        if left <= 0:
            return None
        if now - self._read_at >= REFRESH_SECONDS:
            self._read_at = now
            self._read_standings([task_id for task_id in self.sizes if task_id not in self.closed])
        table = self._table()
        if table is None or not table.gain.any():
            return None
        busy = sum(max(0.0, end - now) for _, end, _ in self._in_progress.values())
        capacity = max(0.0, workers * left - busy)
        gain = np.where(self.costs.upper_bound(table.seconds) <= left, table.gain, 0.0)
        if not gain.any():
            # An estimate without any measurement must not end a run before its first job, which is what measures the costs.
            return self._job(table, *_cheapest(table), 0.0) if not self.costs.measured_jobs else None
        price, columns = find_price(gain, table.seconds, capacity)
        rows = np.arange(len(columns))
        value = gain[rows, columns] - price * table.seconds[rows, columns]
        rates = np.where(value > 0, gain[rows, columns] / table.seconds[rows, columns], 0.0)
        if not rates.any():  # the time left is less than any level that is worth it: the best rate of what fits
            all_rates = gain / table.seconds
            row, column = divmod(int(np.argmax(all_rates)), all_rates.shape[1])
        else:
            row = int(np.argmax(rates))
            column = int(columns[row])
        return self._job(table, row, column, price)

    def _job(self, table: _Table, row: int, column: int, price: float) -> NextJob:
        task_id = table.tasks[row]
        level = self._levels[column]
        seconds, gain = float(table.seconds[row, column]), float(table.gain[row, column])
        self._choice_gain = gain
        reached = self.reached.get(task_id)
        known = "" if self.options.alone else f"; solved already {float(table.settled[row]):.2f}"
        reason = (
            f"{f'from {reached} to ' if reached else ''}{level}: {gain:.4f} {self._what} expected for {seconds:.0f} s "
            f"(chance {float(table.chance[row, column]):.3f}{known}), "
            f"{3600 * gain / seconds:.3g} an hour, at a price of {3600 * price:.3g} an hour"
        )
        return NextJob((task_id,), level, seconds, reason)

    def _read_standings(self, task_ids: Sequence[str]) -> None:
        self._standings = self.options.standings(task_ids)
        self._shift = self.options.shift(self.reached)

    def _table(self, cut: Collection[str] = ()) -> _Table | None:
        """All open tasks at all levels, with tasks that were cut."""
        tasks = sorted({i for i in self.sizes if i not in self.closed and i not in self._in_progress}.union(cut))
        if not tasks:
            return None
        sizes = [self.sizes[i] for i in tasks]
        reached = [self.reached.get(i, Level(0, 0)) for i in tasks]
        done_steps, done_views = (np.array([getattr(level, name) for level in reached])[:, None] for name in ("steps", "views"))
        steps, views = (np.array([[getattr(level, name) for level in self._levels]]) for name in ("steps", "views"))
        new_views = np.maximum(0, views - done_views)
        seconds = self._seconds(steps, new_views, done_steps, sizes)
        # From here on a third axis: the test inputs. A task with fewer than another has some that are settled with certainty.
        ease, settled = self._standing_arrays(tasks)
        cells = 1000 * np.array([size.predict for size in sizes])[:, None, None]
        chance = self.chances.at(steps[..., None], views[..., None], cells, ease[:, None], self._shift)
        done = self.chances.at(done_steps[..., None], done_views[..., None], cells, ease[:, None], self._shift)
        done = np.where(done_views[..., None] > 0, done, 0.0)
        # What the level so far has not solved, a higher level solves with this chance.
        more = np.maximum(0.0, chance - done) / np.maximum(1e-9, 1.0 - done)
        lost = np.array([_LOST ** self._failures.get(i, 0) for i in tasks])[:, None]
        gain = lost * (more * (1.0 - settled[:, None])).sum(axis=2)
        fits = np.array([size.fits for size in sizes])[:, None]
        outputs = np.array([size.outputs for size in sizes])
        return _Table(
            tasks,
            seconds,
            # A task that no prompt fits is begun when nothing better is left: its job takes no time and says why.
            np.where(new_views > 0, np.where(fits, gain, _NO_PROMPT), 0.0),
            np.where(fits, chance[:, :, 0], 0.0),
            1.0 - (1.0 - settled).sum(axis=1) / outputs,
        )

    def _standing_arrays(self, tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ease and settled chance of each test input, (tasks, test inputs)."""
        shape = (len(tasks), max(self.sizes[i].outputs for i in tasks))
        ease, settled = np.full(shape, UNKNOWN_EASE), np.ones(shape)
        for row, task_id in enumerate(tasks):
            standing, outputs = self._standings.get(task_id, Standing()), self.sizes[task_id].outputs
            settled[row, :outputs] = 0.0
            if not self.options.alone:
                settled[row, : len(standing.settled)] = standing.settled
            ease[row, : len(standing.ease)] = standing.ease
        return ease, settled

    def _seconds(self, steps: np.ndarray, new_views: np.ndarray, done_steps: np.ndarray, sizes: Sequence[TaskSize]) -> np.ndarray:
        train, predict = self.costs.train, self.costs.predict
        train_size = np.array([size.train for size in sizes])[:, None]
        predict_size = np.array([size.predict * size.outputs for size in sizes])[:, None]
        # Fine-tuning by another number of steps starts from scratch; the same number needs none while the adapter is on disk.
        trains = (steps > 0) & ((steps != done_steps) | (not self.options.adapters_kept))
        seconds: np.ndarray = np.where(trains, train.fixed + train.rate * steps * train_size, 0.0)
        return seconds + np.where(new_views > 0, predict.fixed + predict.rate * new_views * predict_size, 0.0) + 1e-9


def _cheapest(table: _Table) -> tuple[int, int]:
    seconds = np.where(table.gain > 0, table.seconds, np.inf)
    row, column = divmod(int(np.argmin(seconds)), seconds.shape[1])
    return row, column


def find_price(gain: np.ndarray, seconds: np.ndarray, capacity: float) -> tuple[float, np.ndarray]:
    """The lowest price of a second at which the levels that are worth it fit, and each task's level at that price.

    Args:
        gain, seconds: of each task (rows) at each level (columns), (tasks, levels); a gain of 0 is no option.
        capacity: seconds of all devices together.

    Returns:
        the price, and the column with the largest gain minus price times seconds, (tasks,). A task without an option that is worth the
        price has a column whose value is not above 0.
    """
    rows = np.arange(len(gain))

    def at(price: float) -> tuple[np.ndarray, float]:
        net = np.where(gain > 0, gain - price * seconds, -1.0)
        columns = net.argmax(axis=1)
        return columns, float(seconds[rows, columns][net[rows, columns] > 0].sum())

    columns, used = at(0.0)
    if used <= capacity:
        return 0.0, columns
    high = float((gain / seconds).max())  # at the highest rate nothing is worth it
    low = high * 2.0**-_DOUBLINGS
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle)[1] <= capacity else (middle, high)
    return high, at(high)[0]
