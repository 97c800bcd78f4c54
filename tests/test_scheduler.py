"""The scheduler: nothing planned past the end, nobody left behind, work given up in the order of least loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.scheduling.costs import CostModel, LinearCost, TaskSize, initial_costs, learn_from_events
from arc_submit.scheduling.scheduler import Ladder, Level, Scheduler, SchedulerOptions, choose_deadline, choose_soft_deadline, make_ladder
from arc_submit.workers.supervisor import Event, Job

STEPS, VIEWS = 8, 4


def costs(train: float = 1.0, predict: float = 0.5, fixed: float = 0.1, measured: int = 10) -> CostModel:
    """A model that is certain."""
    return CostModel(LinearCost(fixed, train, measured, 0.0), LinearCost(fixed, predict, measured, 0.0))


def sizes(kilo: list[float]) -> dict[str, TaskSize]:
    return {f"t{i}": TaskSize(k, k, 1 + i % 2) for i, k in enumerate(kilo)}


class Played:
    """A scheduler gone through with workers that take exactly what is foretold.

    Attributes:
        begun: every job with when it began and ended and what each task not in hand had reached then.
    """

    def __init__(self, scheduler: Scheduler, workers: int, now: float = 0.0):
        self.scheduler, self.ended = scheduler, now
        self.begun: list[tuple[float, float, Job, dict[str, Level | None]]] = []
        running: list[tuple[float, Job]] = []
        while True:
            while len(running) < workers and (job := scheduler.next_job(workers, now)):
                hand = {task for _, other in running for task in other.task_ids}
                others = {task: scheduler.reached.get(task) for task in scheduler.sizes if task not in hand}
                level = Level(job.params["steps"], job.params["views"])
                seconds = sum(scheduler._seconds(task, scheduler.reached.get(task), level) for task in job.task_ids)
                seconds -= (len(job.task_ids) - 1) * scheduler.costs.predict.fixed  # they are predicted together
                running.append((now + seconds, job))
                self.begun.append((now, now + seconds, job, others))
            if not running:
                break
            running.sort(key=lambda entry: entry[0])
            now, job = running.pop(0)
            results = {task: {"failed": "", "made": 0, "steps": 0} for task in job.task_ids}
            scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": results}, seconds=0.0, params=job.params))
            self.ended = now


def play(kilo: list[float], left: float, workers: int, ladder: Ladder | None = None, group: int = 1, **kinds: float) -> Played:
    ladder = ladder or make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    return Played(Scheduler(sizes(kilo), ladder, costs(**kinds), left, None, SchedulerOptions(tasks_per_job=group)), workers)


tasks = st.lists(st.floats(0.05, 3.5), min_size=1, max_size=12)


@given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 3000), st.integers(1, 3000))
def test_a_ladder_gives_up_views_first_and_buys_steps_first(steps: int, views: int, most_steps: int, most_views: int) -> None:
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


@given(tasks, st.floats(0.1, 500), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_nothing_is_begun_that_would_end_too_late(kilo: list[float], left: float, workers: int, group: int) -> None:
    played = play(kilo, left, workers, group=group)
    assert all(ends <= left + 1e-6 for _, ends, _, _ in played.begun)


@given(tasks, st.integers(1, 4), st.floats(1, 30))
@settings(max_examples=150, deadline=None)
def test_no_task_starves(kilo: list[float], workers: int, more: float) -> None:
    """Where the lowest level of all fits with room to spare, each gets one; and none runs ahead of the others by more than a wave."""
    ladder = make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    model = costs()
    least = [model.seconds(ladder.levels[0].steps, ladder.levels[0].views, size) for size in sizes(kilo).values()]
    left = more * (1.06 * sum(least) / workers + max(least))
    played = play(kilo, left, workers, ladder)
    assert set(played.scheduler.reached) == set(played.scheduler.sizes)
    for _, _, job, others in played.begun:
        level, own = Level(job.params["steps"], job.params["views"]), played.scheduler.sizes
        assert set(job.task_ids) <= set(own)
        if level in ladder.levels and (place := ladder.levels.index(level)) > ladder.plan:
            behind = [task for task, reached in others.items() if reached is None or ladder.above(reached) not in (None, place)]
            lower = [task for task in behind if (ladder.above(others[task]) or 0) < place]
            left_then = played.scheduler.deadline - next(begun for begun, _, other, _ in played.begun if other is job)
            for task in lower:
                reached = others[task]
                goal = ladder.levels[ladder.above(reached) or 0]
                assert played.scheduler._seconds(task, reached, goal) > left_then - 1e-6, "one that could climb was passed over"


@given(tasks, st.floats(0.5, 300), st.floats(1.0, 10.0), st.integers(1, 4))
def test_more_time_never_means_less_for_the_first(kilo: list[float], left: float, factor: float, workers: int) -> None:
    ladder = make_ladder(STEPS, VIEWS, 4 * STEPS, 8 * VIEWS)
    chosen = [Scheduler(sizes(kilo), ladder, costs(), end).choose(workers, 0.0) for end in (left, left * factor)]
    if chosen[0] is not None:
        assert chosen[1] is not None
        assert chosen[1].level >= chosen[0].level
        if chosen[1].level > chosen[0].level:
            each = [costs().seconds(chosen[1].level.steps, chosen[1].level.views, size) for size in sizes(kilo).values()]
            assert 1.05 * sum(each) + (workers - 1) * max(each) > workers * left or max(each) > left, "it was lowered without need"


@given(tasks, st.floats(5, 100), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_larger_budget_answers_no_fewer_tasks(kilo: list[float], left: float, workers: int) -> None:
    """And where the smaller one suffices for the plan of all, so does the larger."""
    small, large = (play(kilo, end, workers).scheduler for end in (left, 2.5 * left))
    assert set(small.reached) <= set(large.reached)
    if len(small.reached) == len(kilo) and min(level.views for level in small.reached.values()) >= VIEWS:
        assert min(level.views for level in large.reached.values()) >= VIEWS


@given(tasks, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_with_time_enough_everybody_gets_the_plan_whatever_the_workers(kilo: list[float], workers: int, other: int, group: int) -> None:
    ladder = make_ladder(STEPS, VIEWS)
    ends = [play(kilo, 10_000, number, ladder, group=group).scheduler for number in (workers, other)]
    assert ends[0].reached == ends[1].reached == dict.fromkeys(sizes(kilo), Level(STEPS, VIEWS))
    assert ends[0].complete


def test_time_left_over_is_spent_to_the_end_and_first_on_what_is_least_settled() -> None:
    doubts = {"t0": 0.1, "t1": 0.9, "t2": 0.5}
    ladder = make_ladder(STEPS, VIEWS, 2 * STEPS, 2 * VIEWS)
    scheduler = Scheduler(sizes([1.0, 1.0, 1.0]), ladder, costs(), 1000.0, None, SchedulerOptions(doubts.__getitem__))
    jobs = [job for _, _, job, _ in Played(scheduler, 1).begun]
    assert [job.task_ids[0] for job in jobs[3:]] == ["t1", "t2", "t0"]
    assert all("least settled" in job.reason for job in jobs[3:])
    busy = play([1.0] * 6, 150.0, 2)
    assert busy.ended > 149, "time was left over although there was something to buy"


def test_what_does_not_fit_is_given_up_in_the_order_of_least_loss() -> None:
    """The same eight tasks with ever less time: views go first, then steps, then tasks, the costliest first."""
    kilo = [0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 3.0]
    ladder = make_ladder(STEPS, VIEWS)
    firsts = []
    for left in (120, 90, 80, 45, 25, 8):
        choice = Scheduler(sizes(kilo), ladder, costs(), left).choose(1, 0.0)
        assert choice is not None
        firsts.append(choice.level)
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[0] == Level(8, 4)
    assert firsts[-1] == Level(2, 1)
    assert any(level.steps == 8 and level.views < 4 for level in firsts), "views go before steps"
    short = play(kilo, 8.0, 1, ladder).scheduler
    answered = [int(task[1:]) for task in short.reached]
    assert answered
    assert sorted(answered) == list(range(len(answered))), "the costliest are the ones left out"
    assert set(short.pending()) >= {f"t{i}" for i in range(len(answered), 8)}


def test_a_task_cut_short_climbs_when_there_is_time_after_all() -> None:
    scheduler = Scheduler(sizes([1.0, 1.0]), make_ladder(STEPS, VIEWS), costs(), 1000.0, reached={"t0": Level(2, 1)})
    jobs = [(job.task_ids, job.params) for _, _, job, _ in Played(scheduler, 1).begun]
    assert jobs == [(("t1",), {"steps": 8, "views": 4}), (("t0",), {"steps": 8, "views": 4})]
    assert Scheduler(sizes([1.0]), make_ladder(STEPS, VIEWS), costs(), 9.0, reached={"t0": Level(8, 4)}).available(1, 0.0) == 0


def test_a_lost_job_comes_after_the_others_and_a_lost_group_part_by_part() -> None:
    scheduler = Scheduler(
        sizes([1.0, 1.1, 1.2, 1.3]), make_ladder(0, VIEWS, 0, 2 * VIEWS), costs(), 1000.0, None, SchedulerOptions(tasks_per_job=2)
    )
    first = scheduler.next_job(1, 0.0)
    assert first is not None
    assert first.task_ids == ("t0", "t2")
    scheduler.requeue([Job((part,)) for part in first.task_ids], first=True)
    single = scheduler.next_job(1, 0.0)
    assert single is not None
    assert single.task_ids == ("t0",)
    scheduler.requeue([Job(("t0",), failures=1)], first=False)
    order = []
    while job := scheduler.next_job(1, 0.0):
        order.append((job.task_ids, job.failures))
    assert order == [(("t2",), 0), (("t1", "t3"), 0), (("t0",), 1)]
    assert scheduler.pending() == []


def test_a_level_that_is_given_up_leaves_the_one_before() -> None:
    ladder = make_ladder(STEPS, VIEWS, 2 * STEPS, 2 * VIEWS)
    scheduler = Scheduler(sizes([1.0]), ladder, costs(), 1000.0, reached={"t0": Level(STEPS, VIEWS)})
    job = scheduler.next_job(1, 0.0)
    assert job is not None
    assert job.params == {"steps": 16, "views": 8}
    scheduler.on_event(Event("given_up", 0, ("t0",), "killed by signal 9", params=job.params))
    assert scheduler.reached == {"t0": Level(STEPS, VIEWS)}
    assert scheduler.next_job(1, 1.0) is None
    assert scheduler.pending() == []


@pytest.mark.parametrize("result", [{"failed": "no prompt fits"}, {"failed": "", "unfinished": 3}])
def test_what_failed_or_was_cut_is_not_begun_again(result: dict[str, Any]) -> None:
    scheduler = Scheduler(sizes([1.0]), make_ladder(0, VIEWS), costs(), 1000.0)
    job = scheduler.next_job(1, 0.0)
    assert job is not None
    scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": {"t0": result}}, seconds=1.0, params=job.params))
    assert scheduler.next_job(1, 2.0) is None
    assert "t0" not in scheduler.reached


def test_unmeasured_costs_keep_nobody_from_trying() -> None:
    """A guess that is a thousand times too high must not end a run before it has begun."""
    scheduler = Scheduler(sizes([1.0, 2.0]), make_ladder(STEPS, VIEWS), initial_costs("cpu", 1e12), 60.0)
    job = scheduler.next_job(2, 0.0)
    assert job is not None
    results = {"t0": {"failed": "", "steps": job.params["steps"], "made": 1, "train_seconds": 0.4}}
    scheduler.on_event(Event("done", 0, ("t0",), result={"tasks": results}, seconds=0.5, params=job.params))
    second = scheduler.next_job(2, 1.0)
    assert second is not None
    assert second.params == {"steps": STEPS, "views": VIEWS}, "one job was measured, and now all is known to fit"


@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=30), st.floats(0, 20), st.floats(0.01, 20))
def test_costs_are_corrected_by_what_is_measured(units: list[float], fixed: float, rate: float) -> None:
    line = LinearCost(1.0, 1.0)
    for unit in units:
        line.observe(unit, fixed + rate * unit)
    assert line.fixed >= 0
    assert line.rate >= 0
    foretold, measured = sum(map(line.seconds, units)), sum(fixed + rate * unit for unit in units)
    assert foretold == pytest.approx(measured, rel=0.2)
    line.observe(1.0, -3.0)
    assert line.jobs == len(units)


def timeline(source: str) -> Iterator[dict[str, Any]]:
    for i, kilo in enumerate([1.0, 2.0, 3.0]):
        results = {"steps": 10, "made": 4, "train_seconds": 20 * kilo}
        yield {"event": "task_done", "source": source, "task": f"t{i}", **results}
        yield {"event": "worker_done", "source": source, "tasks": [f"t{i}"], "seconds": 20 * kilo + 8 * kilo}
    yield {"event": "worker_done", "source": source, "tasks": ["t9"], "seconds": 1e9}


def test_costs_are_learnt_from_a_timeline() -> None:
    model = initial_costs("T4", 1.5e9)
    known = {f"t{i}": TaskSize(kilo, kilo) for i, kilo in enumerate([1.0, 2.0, 3.0])}
    learn_from_events(model, timeline("ttft"), "ttft", known)
    assert model.train.seconds(10) == pytest.approx(20, rel=0.02)
    assert model.predict.seconds(4) == pytest.approx(8, rel=0.02)
    learn_from_events(model, timeline("frozen"), "ttft", known)
    assert model.train.jobs == 3


def test_a_source_makes_way_for_those_behind_it() -> None:
    assert choose_deadline(100.0, 300.0, 5.0, {"ttft": 95.0})[0] == 200, "half at most, however little those behind it need"
    assert choose_deadline(100.0, 300.0, 80.0, {"ttft": 20.0})[0] == 260, "unless its own work is the larger part"
    assert choose_deadline(100.0, 300.0, 0.0, {})[0] == 300
    assert "ttft" in choose_deadline(100.0, 300.0, 0.0, {"ttft": 0.0})[1]
    assert choose_soft_deadline(0.0, 43_200.0) == 43_140
    assert choose_soft_deadline(0.0, 100.0) == 98
