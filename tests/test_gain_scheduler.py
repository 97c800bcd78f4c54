"""The gain scheduler: time goes to the largest expected gain, never past the deadline; chances are fitted to what runs have shown."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.files import write_json
from arc_submit.errors import DataError
from arc_submit.scheduling.chances import (
    UNKNOWN_EASE,
    Observation,
    SolveChances,
    fit_chances,
    log_loss,
    read_chances,
    run_shift,
    write_chances,
)
from arc_submit.scheduling.costs import CostModel, LinearCost, TaskSize
from arc_submit.scheduling.gain_scheduler import GainOptions, GainScheduler, Standing, find_price
from arc_submit.scheduling.scheduler import Level, make_ladder
from arc_submit.workers.supervisor import Event, Job

LADDER = make_ladder(8, 4, 32, 16)
CHANCES = SolveChances(constant=-3.0, cells=-0.8, steps=0.4, views=0.2)


def exact_costs(jobs: int = 10) -> CostModel:
    return CostModel(LinearCost(0.1, 1.0, jobs, 0.0), LinearCost(0.1, 0.5, jobs, 0.0))


def make_scheduler(
    kilocells: list[float], deadline: float, settled: dict[str, float] | None = None, jobs: int = 10, alone: bool = False
) -> GainScheduler:
    known = settled or {}
    options = GainOptions(lambda ids: {i: Standing((known.get(i, 0.0),), (UNKNOWN_EASE,)) for i in ids}, alone=alone)
    sizes = {f"t{i}": TaskSize(size, size) for i, size in enumerate(kilocells)}
    return GainScheduler(sizes, LADDER, exact_costs(jobs), deadline, CHANCES, None, options)


def work_off(scheduler: GainScheduler, workers: int) -> list[tuple[float, float, Job]]:
    """Let jobs take exactly the estimated seconds; returns each with its begin and end."""
    now, running, begun = 0.0, list[tuple[float, Job]](), list[tuple[float, float, Job]]()
    while True:
        while len(running) < workers and (choice := scheduler.choose(workers, now)):
            job = scheduler.next_job(workers, now)
            assert job is not None
            assert job.task_ids == choice.task_ids
            running.append((now + choice.seconds, job))
            begun.append((now, now + choice.seconds, job))
        if not running:
            return begun
        running.sort(key=lambda entry: entry[0])
        now, job = running.pop(0)
        results = {task_id: {"failed": "", "made": 0, "steps": 0} for task_id in job.task_ids}
        scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": results}, seconds=0.0, params=job.params))


kilocell_lists = st.lists(st.floats(0.05, 3.5), min_size=1, max_size=10)


@given(kilocell_lists, st.floats(0.1, 500), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_job_ends_after_the_deadline_and_no_task_goes_back(kilocells: list[float], deadline: float, workers: int) -> None:
    scheduler = make_scheduler(kilocells, deadline)
    begun = work_off(scheduler, workers)
    assert all(ends <= deadline + 1e-6 for _, ends, _ in begun)
    views = dict.fromkeys(scheduler.sizes, 0)
    for _, _, job in begun:
        assert job.params["views"] > views[job.task_ids[0]]
        views[job.task_ids[0]] = job.params["views"]


def test_with_time_to_spare_every_task_reaches_the_top() -> None:
    scheduler = make_scheduler([0.1, 1.0, 3.0], 1e6)
    work_off(scheduler, 2)
    assert set(scheduler.reached.values()) == {LADDER.levels[-1]}
    assert scheduler.complete


def test_a_settled_task_waits_for_all_others() -> None:
    scheduler = make_scheduler([1.0, 1.0, 1.0], 70.0, {"t0": 0.999})
    begun = work_off(scheduler, 1)
    assert [job.task_ids[0] for _, _, job in begun][:2] == ["t1", "t2"]
    assert scheduler.reached.get("t0", Level(0, 0)).steps < scheduler.reached["t1"].steps


def test_short_time_goes_to_small_tasks_at_a_level_that_may_solve_them() -> None:
    """Ten alike tasks and time for a few: some get a level worth having, none gets a scrap that solves nothing."""
    scheduler = make_scheduler([0.2] * 4 + [3.0] * 6, 40.0)
    work_off(scheduler, 1)
    assert set(scheduler.reached) == {"t0", "t1", "t2", "t3"}
    assert min(level.steps for level in scheduler.reached.values()) >= 8


def test_a_lost_task_comes_behind_its_like() -> None:
    scheduler = make_scheduler([1.0, 1.0], 1000.0)
    first = scheduler.next_job(1, 0.0)
    assert first is not None
    assert first.task_ids == ("t0",)
    scheduler.requeue([Job(first.task_ids, failures=1)], first=True)
    second = scheduler.next_job(1, 0.0)
    assert second is not None
    assert second.task_ids == ("t1",)
    third = scheduler.next_job(1, 0.0)
    assert third is not None
    assert third.task_ids == ("t0",)
    assert third.failures == 1


def test_an_unmeasured_estimate_does_not_end_a_run_before_its_first_job() -> None:
    assert make_scheduler([1.0], 0.5, jobs=0).next_job(1, 0.0) is not None
    assert make_scheduler([1.0], 0.5, jobs=1).next_job(1, 0.0) is None


def test_a_given_up_task_gets_no_job_until_it_is_opened_again() -> None:
    scheduler = make_scheduler([1.0], 1000.0)
    assert scheduler.next_job(1, 0.0) is not None
    scheduler.on_event(Event("given_up", 0, ("t0",), reason="crashed twice"))
    assert scheduler.next_job(1, 0.0) is None
    assert scheduler.available(1, 0.0) == 0
    assert scheduler.reopen(["t0"]).next_job(1, 0.0) is not None


def test_a_resumed_run_goes_on_from_the_levels_reached() -> None:
    sizes = {"t0": TaskSize(1.0, 1.0)}
    scheduler = GainScheduler(sizes, LADDER, exact_costs(), 6.7, CHANCES, {"t0": Level(32, 16)})
    assert scheduler.next_job(1, 0.0) is None
    scheduler = GainScheduler(sizes, LADDER, exact_costs(), 6.7, CHANCES, {"t0": Level(8, 4)})
    job = scheduler.next_job(1, 0.0)
    # No other level fits: further views with the adapter that is there need no fine-tuning.
    assert job is not None
    assert job.params == {"steps": 8, "views": 16}


@given(
    st.lists(st.tuples(*[st.tuples(st.floats(0.0, 1.0), st.floats(0.1, 10.0))] * 3), min_size=1, max_size=5),
    st.floats(0.0, 40.0),
)
@settings(max_examples=200, deadline=None)
def test_the_price_divides_the_time_as_well_as_any_division(tasks: list[tuple[tuple[float, float], ...]], capacity: float) -> None:
    gain, seconds = (np.array([[level[part] for level in task] for task in tasks]) for part in (0, 1))
    price, columns = find_price(gain, seconds, capacity)
    rows = np.arange(len(tasks))
    worth = gain[rows, columns] - price * seconds[rows, columns] > 1e-12
    used, gained = seconds[rows, columns][worth].sum(), gain[rows, columns][worth].sum()
    assert used <= capacity + 1e-9
    best = 0.0
    for choice in itertools.product(range(4), repeat=len(tasks)):
        taken = [(row, column) for row, column in enumerate(choice) if column < 3]
        if sum(seconds[at] for at in taken) <= capacity:
            best = max(best, sum(gain[at] for at in taken))
    # What is left of the capacity, at the price, bounds what any other division adds (weak duality).
    assert best <= gained + price * (capacity - used) + 1e-6


@given(kilocell_lists, st.floats(1, 100), st.data())
@settings(max_examples=30, deadline=None)
def test_alone_a_source_works_as_if_nothing_were_solved(kilocells: list[float], deadline: float, data: st.DataObject) -> None:
    settled = {f"t{i}": data.draw(st.floats(0, 1)) for i in range(len(kilocells))}
    jobs = [
        [(begin, job.task_ids, job.params) for begin, _, job in work_off(make_scheduler(kilocells, deadline, known, alone=alone), 2)]
        for known, alone in ((settled, True), ({}, False))
    ]
    assert jobs[0] == jobs[1]


def test_alone_says_nothing_of_other_sources() -> None:
    scheduler = make_scheduler([0.2], 100, {"t0": 0.9}, alone=True)
    choice = scheduler.choose(1, 0.0)
    assert choice is not None
    assert "solved already" not in choice.reason
    assert re.search(r"[0-9] solved outputs expected", choice.reason)
    assert re.search(r"[0-9] solved outputs were expected", scheduler.outlook(10.0))


def test_a_task_that_no_prompt_fits_comes_last_and_nothing_is_expected_of_it() -> None:
    sizes = {"large": TaskSize(1e-3, 1e-3, fits=False), "small": TaskSize(0.3, 0.3)}
    scheduler = GainScheduler(sizes, LADDER, exact_costs(), 1000, CHANCES, None, GainOptions(alone=True))
    begun = [job.task_ids for _, _, job in work_off(scheduler, 1)]
    assert begun[0] == ("small",)
    assert begun[-1] == ("large",)
    scheduler = GainScheduler(sizes, LADDER, exact_costs(), 1000, CHANCES, None, GainOptions(alone=True))
    scheduler.closed["small"] = "done"
    choice = scheduler.choose(1, 0.0)
    assert choice is not None
    assert "0.0000 solved outputs expected" in choice.reason
    assert "chance 0.000" in choice.reason


@pytest.mark.parametrize(("steps", "views"), [(0.0, 0.0), (0.0, 0.2), (0.4, 0.0)])
def test_a_fit_without_slopes_leaves_no_time_unused(steps: float, views: float) -> None:
    sizes = {f"t{i}": TaskSize(0.4, 0.4) for i in range(3)}
    chances = SolveChances(constant=-3.0, steps=steps, views=views)
    work_off(scheduler := GainScheduler(sizes, LADDER, exact_costs(), 1e6, chances), 1)
    assert set(scheduler.reached.values()) == {LADDER.levels[-1]}
    # In short time every task still has its first level before any has its second.
    begun = work_off(GainScheduler(sizes, LADDER, exact_costs(), 12.0, chances), 1)
    assert len({job.task_ids for _, _, job in begun[:3]}) == 3


def draw_observations(truth: SolveChances, count: int) -> list[Observation]:
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(count):
        steps, views, cells, ease = (
            int(rng.choice([25, 50, 100, 200])),
            int(rng.choice([4, 8, 16])),
            rng.uniform(100, 3000),
            rng.uniform(0, 1),
        )
        drawn.append(Observation(steps, views, cells, ease, bool(rng.random() < truth.at(steps, views, cells, ease))))
    return drawn


def test_a_fit_finds_the_chances_that_made_the_observations() -> None:
    truth = SolveChances(constant=-4.0, cells=-0.9, steps=0.6, views=0.3, ease=2.0)
    fitted = fit_chances(draw_observations(truth, 4000))
    assert fitted.observations == 4000
    held_out = draw_observations(truth, 6000)[4000:]
    assert log_loss(fitted, held_out) < log_loss(truth, held_out) + 0.005
    assert fitted.cells == pytest.approx(truth.cells, abs=0.15)
    assert fitted.ease == pytest.approx(truth.ease, abs=0.4)


def test_more_steps_never_lower_a_fitted_chance() -> None:
    drawn = [Observation(steps, 4, 500, UNKNOWN_EASE, steps < 50) for steps in (25, 100) for _ in range(50)]
    fitted = fit_chances(drawn)
    assert fitted.steps == 0.0
    assert fitted.at(25, 4, 500) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(DataError, match="no finished level"):
        fit_chances([])


def test_a_run_corrects_the_chances_by_what_it_sees() -> None:
    assert run_shift(0, 0.0) == 0.0
    assert run_shift(8, 3.0) == pytest.approx(math.log(2))
    shifted = CHANCES.at(8, 4, 500, shift=run_shift(8, 3.0))
    assert shifted / (1 - shifted) == pytest.approx(2 * CHANCES.at(8, 4, 500) / (1 - CHANCES.at(8, 4, 500)))


def test_a_file_of_chances_is_read_back_and_another_refused(tmp_path: Path) -> None:
    path = tmp_path / "chances.json"
    write_chances(path, CHANCES)
    assert read_chances(path) == CHANCES
    for wrong in ([], {"constant": 1.0}, {**vars(CHANCES), "more": 1.0}):
        write_json(path, wrong)
        with pytest.raises(DataError, match="arc-submit chances"):
            read_chances(path)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[("steps", value) for value in ("0.4", None, True, [1.0], math.nan, math.inf, -0.1)],
        *[("constant", value) for value in (1e308, -31, math.nan)],
        pytest.param("constant", 10**400, id="huge"),
        *[("views", -1e-9), ("cells", 50), ("observations", -1), ("observations", 1.5)],
    ],
)
def test_a_value_that_would_break_the_division_of_time_is_refused_by_name(tmp_path: Path, name: str, wrong: object) -> None:
    path = tmp_path / "chances.json"
    write_json(path, {**vars(CHANCES), name: wrong})
    with pytest.raises(DataError, match=rf"chances\.json: {name} is .{{1,40}} and not a .*; arc-submit chances writes the file$"):
        read_chances(path)


def test_the_outlook_says_what_more_time_would_buy() -> None:
    scheduler = make_scheduler([0.2] * 4 + [3.0] * 6, 40.0)
    work_off(scheduler, 1)
    assert scheduler.outlook(40.0).startswith("4 of 10 tasks were worth their time")
    short, long = (float(scheduler.outlook(seconds).split()[-2]) for seconds in (60.0, 4000.0))
    assert 0 < short < long
    work_off(finished := make_scheduler([0.2], 1e6), 1)
    assert finished.outlook(1e6).endswith("solve 0.00 more")


def outlook_figures(scheduler: GainScheduler, seconds: float) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", scheduler.outlook(seconds))]


@pytest.mark.parametrize("ending", ["cut", "killed"])
def test_the_outlook_counts_a_task_that_the_end_of_the_time_has_cut(ending: str) -> None:
    scheduler = make_scheduler([1.0], 30.0)
    job = scheduler.next_job(1, 0.0)
    assert job is not None
    if ending == "cut":
        results = {"t0": {"failed": "", "unfinished": 2, "made": 2, "steps": 8}}
        scheduler.on_event(Event("done", 0, job.task_ids, result={"tasks": results}, seconds=30.0, params=job.params))
    done, tasks, gained, more = outlook_figures(scheduler, 100.0)
    assert (done, tasks, gained) == (0, 1, 0.0)
    assert more > 0


def test_the_outlook_tells_of_this_runs_time_and_of_the_answers_that_are_there() -> None:
    settled = {"t0": 0.0, "t1": 0.0}
    options = GainOptions(lambda ids: {i: Standing((settled[i],), (UNKNOWN_EASE,)) for i in ids})
    sizes = {i: TaskSize(1.0, 1.0) for i in settled}
    scheduler = GainScheduler(sizes, LADDER, exact_costs(), 30.0, CHANCES, {"t0": Level(8, 4)}, options)
    assert outlook_figures(scheduler, 1000.0)[:3] == [0, 2, 0.0]
    scheduler.on_event(Event("given_up", 0, ("t1",), reason="crashed twice"))
    assert outlook_figures(scheduler, 1000.0)[3] > 0
    settled["t0"] = 1.0  # written since the scheduler last looked
    assert outlook_figures(scheduler, 1000.0)[3] == 0


def test_a_run_that_has_done_everything_gets_no_job_before_any_measurement() -> None:
    sizes = {"t0": TaskSize(1.0, 1.0)}
    scheduler = GainScheduler(sizes, LADDER, exact_costs(jobs=0), 1000.0, CHANCES, {"t0": LADDER.levels[-1]})
    assert scheduler.next_job(1, 0.0) is None
    assert scheduler.available(1, 0.0) == 0
