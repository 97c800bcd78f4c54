"""The scheduler: nothing ends after the deadline, no task starves, work is dropped in the order of least loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.scheduling.costs import CostModel, LinearCost, TaskSize, initial_costs, learn_from_events
from arc_submit.scheduling.scheduler import (
    Ladder,
    Level,
    Scheduler,
    SchedulerOptions,
    choose_deadline,
    choose_soft_deadline,
    make_ladder,
)
from arc_submit.workers.supervisor import Event, Job

STEPS, VIEWS = 8, 4


def exact_costs(train: float = 1.0, predict: float = 0.5, fixed: float = 0.1, jobs: int = 10) -> CostModel:
    """Costs without uncertainty."""
    return CostModel(LinearCost(fixed, train, jobs, 0.0), LinearCost(fixed, predict, jobs, 0.0))


def make_sizes(kilocells: list[float]) -> dict[str, TaskSize]:
    return {f"t{i}": TaskSize(size, size, 1 + i % 2) for i, size in enumerate(kilocells)}


class Replay:
    """Runs a scheduler to its end, with workers whose jobs take exactly the estimated seconds.

    Attributes:
        begun: every job with its start, its end and the levels of all tasks that were in no job at its start.
        ended: time of the last end.
    """

    def __init__(self, scheduler: Scheduler, workers: int, now: float = 0.0):
        self.scheduler, self.ended = scheduler, now
        self.begun: list[tuple[float, float, Job, dict[str, Level | None]]] = []
        running: list[tuple[float, Job]] = []
        while True:
            while len(running) < workers and (job := scheduler.next_job(workers, now)):
                in_progress = {task_id for _, other in running for task_id in other.task_ids}
                others = {task_id: scheduler.reached.get(task_id) for task_id in scheduler.sizes if task_id not in in_progress}
                level = Level(job.params["steps"], job.params["views"])
                seconds = sum(scheduler._seconds(task_id, scheduler.reached.get(task_id), level) for task_id in job.task_ids)
                seconds -= (len(job.task_ids) - 1) * scheduler.costs.predict.fixed  # the tasks are predicted together
                running.append((now + seconds, job))
                self.begun.append((now, now + seconds, job, others))
            if not running:
                break
            running.sort(key=lambda entry: entry[0])
            now, job = running.pop(0)
            results = {task_id: {"failed": "", "made": 0, "steps": 0} for task_id in job.task_ids}
            scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": results}, seconds=0.0, params=job.params))
            self.ended = now


def replay(kilocells: list[float], deadline: float, workers: int, ladder: Ladder | None = None, tasks_per_job: int = 1) -> Replay:
    ladder = ladder or make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    options = SchedulerOptions(tasks_per_job=tasks_per_job)
    return Replay(Scheduler(make_sizes(kilocells), ladder, exact_costs(), deadline, None, options), workers)


kilocell_lists = st.lists(st.floats(0.05, 3.5), min_size=1, max_size=12)


@given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 3000), st.integers(1, 3000))
def test_a_ladder_drops_views_first_and_adds_steps_first(steps: int, views: int, most_steps: int, most_views: int) -> None:
    ladder = make_ladder(steps, views, most_steps, most_views)
    levels = ladder.levels
    assert levels[ladder.plan] == Level(steps, views)
    assert len(set(levels)) == len(levels)
    assert all(a.views <= b.views and a.steps <= b.steps for a, b in pairwise(levels))
    below = levels[: ladder.plan + 1]
    assert all(level.steps == steps for level in below if level.views > min(level.views for level in below)), "steps went before views"
    assert levels[-1].views == max(views, most_views) or (steps == 0 and most_views <= views)
    assert levels[-1].steps <= max(steps, most_steps)
    if 2 * steps <= most_steps and 2 * views <= most_views and steps:
        assert levels[ladder.plan + 1] == Level(2 * steps, 2 * views)


@given(kilocell_lists, st.floats(0.1, 500), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_no_job_begins_that_would_end_too_late(kilocells: list[float], deadline: float, workers: int, tasks_per_job: int) -> None:
    begun = replay(kilocells, deadline, workers, tasks_per_job=tasks_per_job).begun
    assert all(ends <= deadline + 1e-6 for _, ends, _, _ in begun)


@given(kilocell_lists, st.integers(1, 4), st.floats(1, 30))
@settings(max_examples=150, deadline=None)
def test_no_task_starves(kilocells: list[float], workers: int, factor: float) -> None:
    """Where the lowest level of all tasks fits, each task reaches it; and no task is more than a wave ahead of another."""
    ladder = make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    costs = exact_costs()
    lowest = [costs.seconds(ladder.levels[0].steps, ladder.levels[0].views, size) for size in make_sizes(kilocells).values()]
    deadline = factor * (1.06 * sum(lowest) / workers + max(lowest))
    run = replay(kilocells, deadline, workers, ladder)
    assert set(run.scheduler.reached) == set(run.scheduler.sizes)
    for _, _, job, others in run.begun:
        level, sizes = Level(job.params["steps"], job.params["views"]), run.scheduler.sizes
        assert set(job.task_ids) <= set(sizes)
        if level in ladder.levels and (index := ladder.levels.index(level)) > ladder.plan:
            behind = [task_id for task_id, reached in others.items() if reached is None or ladder.above(reached) not in (None, index)]
            lower = [task_id for task_id in behind if (ladder.above(others[task_id]) or 0) < index]
            left = run.scheduler.deadline - next(begun for begun, _, other, _ in run.begun if other is job)
            for task_id in lower:
                reached = others[task_id]
                goal = ladder.levels[ladder.above(reached) or 0]
                assert run.scheduler._seconds(task_id, reached, goal) > left - 1e-6, "a task that could climb was skipped"


@given(kilocell_lists, st.floats(0.5, 300), st.floats(1.0, 10.0), st.integers(1, 4))
def test_more_time_never_lowers_the_level_of_the_first_job(kilocells: list[float], deadline: float, factor: float, workers: int) -> None:
    ladder = make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    sizes, costs = make_sizes(kilocells), exact_costs()
    chosen = [Scheduler(sizes, ladder, costs, end).choose(workers, 0.0) for end in (deadline, deadline * factor)]
    if chosen[0] is not None:
        assert chosen[1] is not None
        assert chosen[1].level >= chosen[0].level
        if chosen[1].level > chosen[0].level:
            each = [costs.seconds(chosen[1].level.steps, chosen[1].level.views, size) for size in sizes.values()]
            too_long = 1.05 * sum(each) + (workers - 1) * max(each) > workers * deadline or max(each) > deadline
            assert too_long, "the level was lowered without need"


@given(kilocell_lists, st.floats(5, 100), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_larger_budget_answers_no_fewer_tasks(kilocells: list[float], deadline: float, workers: int) -> None:
    """And where the smaller one suffices for the plan of all tasks, so does the larger."""
    small, large = (replay(kilocells, end, workers).scheduler for end in (deadline, 2.5 * deadline))
    assert set(small.reached) <= set(large.reached)
    if len(small.reached) == len(kilocells) and min(level.views for level in small.reached.values()) >= VIEWS:
        assert min(level.views for level in large.reached.values()) >= VIEWS


@given(kilocell_lists, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_with_enough_time_every_task_reaches_the_plan_with_any_number_of_workers(
    kilocells: list[float], workers: int, other_workers: int, tasks_per_job: int
) -> None:
    ladder = make_ladder(STEPS, VIEWS)
    schedulers = [replay(kilocells, 10_000, number, ladder, tasks_per_job).scheduler for number in (workers, other_workers)]
    assert schedulers[0].reached == schedulers[1].reached == dict.fromkeys(make_sizes(kilocells), Level(STEPS, VIEWS))
    assert schedulers[0].complete


def test_remaining_time_is_spent_to_the_end_and_first_on_the_most_uncertain_task() -> None:
    uncertainty = {"t0": 0.1, "t1": 0.9, "t2": 0.5}
    ladder = make_ladder(STEPS, VIEWS, 2 * STEPS, 2 * VIEWS)
    options = SchedulerOptions(uncertainty.__getitem__)
    scheduler = Scheduler(make_sizes([1.0, 1.0, 1.0]), ladder, exact_costs(), 1000.0, None, options)
    jobs = [job for _, _, job, _ in Replay(scheduler, 1).begun]
    assert [job.task_ids[0] for job in jobs[3:]] == ["t1", "t2", "t0"]
    assert all("most uncertain" in job.reason for job in jobs[3:])
    assert replay([1.0] * 6, 150.0, 2).ended > 149, "time remained although there was work to do"


def test_work_that_does_not_fit_is_dropped_in_the_order_of_least_loss() -> None:
    """The same eight tasks with less and less time: views are dropped first, then steps, then tasks, the most expensive first."""
    kilocells = [0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 3.0]
    ladder = make_ladder(STEPS, VIEWS)
    levels = []
    for deadline in (120, 90, 80, 45, 25, 8):
        choice = Scheduler(make_sizes(kilocells), ladder, exact_costs(), deadline).choose(1, 0.0)
        assert choice is not None
        levels.append(choice.level)
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == Level(8, 4)
    assert levels[-1] == Level(2, 1)
    assert any(level.steps == 8 and level.views < 4 for level in levels), "views are dropped before steps"
    short = replay(kilocells, 8.0, 1, ladder).scheduler
    answered = [int(task_id[1:]) for task_id in short.reached]
    assert answered
    assert sorted(answered) == list(range(len(answered))), "the most expensive tasks are left out"
    assert set(short.pending()) >= {f"t{i}" for i in range(len(answered), 8)}


def test_a_task_below_the_plan_climbs_when_time_remains() -> None:
    ladder = make_ladder(STEPS, VIEWS)
    scheduler = Scheduler(make_sizes([1.0, 1.0]), ladder, exact_costs(), 1000.0, {"t0": Level(2, 1)})
    jobs = [(job.task_ids, job.params) for _, _, job, _ in Replay(scheduler, 1).begun]
    assert jobs == [(("t1",), {"steps": 8, "views": 4}), (("t0",), {"steps": 8, "views": 4})]
    assert Scheduler(make_sizes([1.0]), ladder, exact_costs(), 9.0, {"t0": Level(8, 4)}).available(1, 0.0) == 0


def test_a_lost_task_comes_after_the_others_and_a_lost_job_task_by_task() -> None:
    options = SchedulerOptions(tasks_per_job=2)
    scheduler = Scheduler(make_sizes([1.0, 1.1, 1.2, 1.3]), make_ladder(0, VIEWS, 0, 2 * VIEWS), exact_costs(), 1000.0, None, options)
    first = scheduler.next_job(1, 0.0)
    assert first is not None
    assert first.task_ids == ("t0", "t2")
    scheduler.requeue([Job((task_id,)) for task_id in first.task_ids], first=True)
    single = scheduler.next_job(1, 0.0)
    assert single is not None
    assert single.task_ids == ("t0",)
    scheduler.requeue([Job(("t0",), failures=1)], first=False)
    order = []
    while job := scheduler.next_job(1, 0.0):
        order.append((job.task_ids, job.failures))
    assert order == [(("t2",), 0), (("t1", "t3"), 0), (("t0",), 1)]
    assert scheduler.pending() == []


def test_a_task_whose_next_level_is_given_up_keeps_its_level() -> None:
    ladder = make_ladder(STEPS, VIEWS, 2 * STEPS, 2 * VIEWS)
    scheduler = Scheduler(make_sizes([1.0]), ladder, exact_costs(), 1000.0, {"t0": Level(STEPS, VIEWS)})
    job = scheduler.next_job(1, 0.0)
    assert job is not None
    assert job.params == {"steps": 16, "views": 8}
    scheduler.on_event(Event("given_up", 0, ("t0",), "killed by signal 9", params=job.params))
    assert scheduler.reached == {"t0": Level(STEPS, VIEWS)}
    assert scheduler.next_job(1, 1.0) is None
    assert scheduler.pending() == []


@pytest.mark.parametrize("result", [{"failed": "no prompt fits"}, {"failed": "", "unfinished": 3}])
def test_a_failed_or_unfinished_task_does_not_begin_again(result: dict[str, Any]) -> None:
    scheduler = Scheduler(make_sizes([1.0]), make_ladder(0, VIEWS), exact_costs(), 1000.0)
    job = scheduler.next_job(1, 0.0)
    assert job is not None
    scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": {"t0": result}}, seconds=1.0, params=job.params))
    assert scheduler.next_job(1, 2.0) is None
    assert "t0" not in scheduler.reached


def test_unmeasured_costs_prevent_no_first_job() -> None:
    """An estimate that is a thousand times too high must not end a run before its first job."""
    scheduler = Scheduler(make_sizes([1.0, 2.0]), make_ladder(STEPS, VIEWS), initial_costs("cpu", 1e12), 60.0)
    job = scheduler.next_job(2, 0.0)
    assert job is not None
    results = {"t0": {"failed": "", "steps": job.params["steps"], "made": 1, "train_seconds": 0.4}}
    scheduler.on_event(Event("done", 0, ("t0",), result={"tasks": results}, seconds=0.5, params=job.params))
    second = scheduler.next_job(2, 1.0)
    assert second is not None
    assert second.params == {"steps": STEPS, "views": VIEWS}, "after one measured job the plan is known to fit"


@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=30), st.floats(0, 20), st.floats(0.01, 20))
def test_measured_jobs_correct_the_costs(units: list[float], fixed: float, rate: float) -> None:
    cost = LinearCost(1.0, 1.0)
    for unit in units:
        cost.observe(unit, fixed + rate * unit)
    assert cost.fixed >= 0
    assert cost.rate >= 0
    estimated, measured = sum(map(cost.seconds, units)), sum(fixed + rate * unit for unit in units)
    assert estimated == pytest.approx(measured, rel=0.2)
    cost.observe(1.0, -3.0)
    assert cost.jobs == len(units)


def timeline(source: str) -> Iterator[dict[str, Any]]:
    for i, kilocells in enumerate([1.0, 2.0, 3.0]):
        results = {"steps": 10, "made": 4, "train_seconds": 20 * kilocells}
        yield {"event": "task_done", "source": source, "task": f"t{i}", **results}
        yield {"event": "worker_done", "source": source, "tasks": [f"t{i}"], "seconds": 20 * kilocells + 8 * kilocells}
    yield {"event": "worker_done", "source": source, "tasks": ["t9"], "seconds": 1e9}


def test_costs_are_learned_from_a_timeline() -> None:
    costs = initial_costs("T4", 1.5e9)
    sizes = {f"t{i}": TaskSize(kilocells, kilocells) for i, kilocells in enumerate([1.0, 2.0, 3.0])}
    learn_from_events(costs, timeline("ttft"), "ttft", sizes)
    assert costs.train.seconds(10) == pytest.approx(20, rel=0.02)
    assert costs.predict.seconds(4) == pytest.approx(8, rel=0.02)
    learn_from_events(costs, timeline("frozen"), "ttft", sizes)
    assert costs.train.jobs == 3


def test_a_source_leaves_time_to_the_sources_after_it() -> None:
    assert choose_deadline(100.0, 300.0, 5.0, {"ttft": 95.0})[0] == 200, "half of the time at least, however short its own work is"
    assert choose_deadline(100.0, 300.0, 80.0, {"ttft": 20.0})[0] == 260, "more where its own work is the larger part"
    assert choose_deadline(100.0, 300.0, 5.0, {"ttft": 95.0}, 0.2)[0] == 140, "a fifth where that is the least"
    assert choose_deadline(100.0, 300.0, 0.0, {})[0] == 300
    assert "ttft" in choose_deadline(100.0, 300.0, 0.0, {"ttft": 0.0})[1]
    assert choose_soft_deadline(0.0, 43_200.0) == 43_140
    assert choose_soft_deadline(0.0, 100.0) == 98
