"""Simulated runs: the decisions of real ones, in time and with a valid submission, whatever goes wrong."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges, source_named
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pool import ENTRY

from arc_submit.cli import main
from arc_submit.run.config import ALLOCATIONS, RunConfig
from arc_submit.run.presets import make_config
from arc_submit.run.simulate import Rig, SimulatedSubmission, ends_of, figures_of, rig_setup, simulate_runs, text_of
from arc_submit.scheduling.chances import SolveChances
from arc_submit.scheduling.costs import CostModel, LinearCost, initial_costs
from arc_submit.scheduling.simulated_run import Faults, RunState, SimulatedOutcome, SimulatedSource, SimulationSetup
from arc_submit.scheduling.simulation import PlannedJob, SimulatedLane, simulate_run
from arc_submit.workers.pool import Backend, ProcessConfig, run_jobs
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, Timeouts, WorkerQuota

JOBS = [("ok-1", "die-1", "ok-2"), ("hangonce-1",), ("refuse-1",), ("raise-1",), ("dieonce-1",), ("ok-3",)]
# Long enough for a busy machine; one task waits for it.
TIMEOUTS = Timeouts(startup_timeout=60.0, heartbeat_timeout=6.0, max_failures=2, max_failed_starts=2)
NO_FAULTS = Faults(**dict.fromkeys(vars(Faults()), 0.0))


def rig(devices: int = 2, tasks: int = 30, hours: float = 2.0, faults: float = 5.0, seed: int = 0, **changes: Any) -> SimulationSetup:
    given = {"model": Path("simulated"), "budget": hours * 3600, "seed": seed, "sources": ("frozen", "ttft"), **changes}
    config = make_config("t4x2-qwen2.5-1.5b", **given)
    return rig_setup(config, Rig(devices, "T4", 1.5e9, faults=faults), tasks)


class ScriptedLane(SimulatedLane):
    """A lane whose workers behave as the tasks' names say, like those of test_pool."""

    def _make_job_source(self, now: float) -> JobSource:
        self.attempts: Counter[str] = Counter()
        self.run.reached.setdefault(self.source.name, {})
        return JobQueue(Job(task_ids) for task_ids in JOBS)

    def _start(self, worker_id: int, now: float) -> None:
        self._serial += 1
        self.processes[worker_id] = self._serial
        self._on_event(self.supervisor.on_start(worker_id, self._serial, now), now)
        self._set_timer(1.0, worker_id, now, "ready")

    def _begin(self, worker_id: int, begun: Event, now: float) -> None:
        self._on_event(begun, now)
        self.jobs[worker_id] = planned = PlannedJob(now, now + 0.1, {"event": "done", "result": {"tasks": {}}})
        for task_id in begun.task_ids:
            self.attempts[task_id] += 1
            kind = task_id.split("-")[0]
            first = self.attempts[task_id] == 1
            if kind == "die" or (kind == "dieonce" and first):
                return self._set_timer(0.1, worker_id, now, "crash")
            if kind == "hangonce" and first:
                planned.hung = now + 0.05
                return self._set_timer(0.05, worker_id, now, "beat")
            if kind in ("refuse", "raise"):
                reason = "this task cannot be done" if kind == "refuse" else "ValueError: broken task"
                planned.message = {"event": "failed", "reason": reason, "exits": kind == "raise"}
                return self._set_timer(0.1, worker_id, now, "end")
        return self._set_timer(0.1, worker_id, now, "end")

    def _on_event(self, event: Event, now: float) -> None:
        super()._on_event(event, now)
        self.outcome.events.append({"event": event})


def test_the_simulation_decides_as_the_pool_does(tmp_path: Path) -> None:
    """One worker, and tasks that hang, die, are refused and raise: the same events in the same order, for the same reasons."""
    (tmp_path / "behaviours.py").write_text(ENTRY)
    (tmp_path / "jobs").mkdir()
    backend = Backend("scripted", "behaviours:open_worker", lambda _: {"folder": str(tmp_path / "jobs")}, TIMEOUTS)
    config = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    jobs = [Job(task_ids) for task_ids in JOBS]
    real = [(e.kind, e.task_ids, e.reason) for e in run_jobs(jobs, backend, config, WorkerQuota(1), time.monotonic() + 240)]
    source = SimulatedSource("scripted", None, lambda: initial_costs("T4", 1e9), initial_costs("T4", 1e9), timeouts=TIMEOUTS)
    setup = SimulationSetup({}, {"model": [source]}, lambda running: {"model": 1}, 1, 1000.0, 10.0, faults=NO_FAULTS)
    lane = ScriptedLane([source], "model", RunState(setup, random.Random(0)), WorkerQuota(1), (0.0, 990.0))
    while not lane.ended:
        lane.step(lane.next_time)
    simulated = [(entry["event"].kind, entry["event"].task_ids, entry["event"].reason) for entry in lane.outcome.events]
    assert simulated == real
    assert {kind for kind, _, _ in real} == {"started", "ready", "begun", "done", "lost", "given_up"}


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_goes_wrong_a_run_is_in_time_and_its_submission_valid(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    seed, devices, tasks = data.draw(st.integers(0, 10_000)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    method = data.draw(st.sampled_from(["probability", "product", "selection"]))
    setup = rig(devices, tasks, data.draw(st.floats(0.05, 14)), data.draw(st.floats(0, 40)), method=method)
    answers = SimulatedSubmission(list(setup.sizes), tmp_path_factory.mktemp("answers"))
    answers.begin(seed * 500)  # this seed writes the submission and reads it back
    outcome = simulate_run(setup, seed * 500, answers)
    assert not outcome.overrun
    assert not outcome.invalid
    assert sum(outcome.device_seconds.values()) == pytest.approx(
        devices * setup.horizon, rel=0.02, abs=10.0 * devices
    )  # jobs end where they end
    assert all(sum(levels.values()) == tasks for levels in outcome.levels.values())


def test_a_judge_works_after_the_sources_in_its_share_and_in_what_they_leave() -> None:
    setup = rig(faults=0.0, method="product")
    outcome = simulate_run(setup, 1)
    assert list(outcome.ends) == ["frozen", "ttft", "judge"]
    assert outcome.ends["ttft"] <= setup.budget - setup.reserve - setup.judge_seconds
    assert outcome.levels["judge"] == {"4 views": 30}
    # A judge without time of its own, and as slow as fine-tuning: it is cut at the soft deadline, and has judged as far as that.
    costs = initial_costs("T4", 60e9)
    assert setup.judge is not None
    cut = simulate_run(replace(setup, judge=replace(setup.judge, true_costs=costs), judge_seconds=300.0), 1)
    assert 0 < cut.levels["judge"]["4 views"] < 30
    assert not cut.overrun


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    runs = [simulate_run(rig(), seed, record=True) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0].events != runs[2].events


def test_where_the_time_suffices_faults_and_workers_change_no_level() -> None:
    """Each task without a fault of its own reaches the plan."""
    plan = {"ttft_max_steps": 100, "ttft_max_views": 32}
    assert simulate_run(rig(2, 30, 3.0, 0.0, **plan), 1).levels["ttft"] == {"100 steps and 32 views": 30}
    faults = replace(NO_FAULTS, hang=1.0, crash=1.0, error=1.0, killed=1.0, slow_start=0.3)
    runs = [simulate_run(replace(rig(4, 30, 2.0, 0.0, **plan), faults=faults), seed) for seed in range(12)]
    assert sum(run.counts["lost"] for run in runs) > 20
    assert sum(run.counts["killed"] for run in runs) >= 2
    given_up = sum(run.counts["given_up"] for run in runs)  # lost twice in a row
    assert sum(run.levels["ttft"]["100 steps and 32 views"] for run in runs) >= 12 * 30 - given_up
    assert given_up < 15


def test_a_lost_gpu_is_retired_and_the_others_do_the_work() -> None:
    setup = replace(rig(4, 60, 6.0, 0.0), faults=replace(NO_FAULTS, lost_gpu=1.0))
    outcome = simulate_run(setup, 5)
    assert outcome.counts["retired"] >= 1
    assert outcome.device_seconds["dead"] > 0
    assert outcome.levels["ttft"].get("nothing", 0) == 0
    assert outcome.device_seconds["work"] + outcome.device_seconds["dead"] > 0.95 * setup.devices * setup.horizon


@pytest.mark.parametrize("fault", ["lost_gpu", "outage"])
def test_a_refusal_ends_no_source_after_a_worker_was_ready(fault: str) -> None:
    """Every start on a lost device is refused in half of the runs, and in an outage every start on all devices."""
    setup = replace(rig(4, 60, 6.0, 0.0), faults=replace(NO_FAULTS, **{fault: 1.0}))
    runs = [simulate_run(setup, seed) for seed in range(10)]
    assert sum(run.counts["source_hopeless"] for run in runs) == 0
    assert sum(run.counts["retired"] for run in runs) >= 5
    assert all(run.levels["ttft"].get("nothing", 0) == 0 for run in runs)
    assert not any(run.overrun or run.invalid for run in runs)


def test_devices_are_busy_to_the_end_and_a_resident_worker_buys_levels() -> None:
    """A new process for each task costs 54 s twice a task."""
    config = make_config("t4x2-qwen2.5-1.5b", model=Path("simulated"), sources=("frozen", "ttft"))
    figures = {}
    for fixed in (0.1, 54.0):
        setup = rig_setup(config, Rig(2, "T4", 1.5e9, overhead=fixed), 400)
        figures[fixed] = figures_of(setup, simulate_runs(setup, 6, 0))
        assert figures[fixed]["busy_median"] > 0.95
        assert figures[fixed]["overruns"] == figures[fixed]["invalid"] == 0

    def at_plan(fixed: float) -> float:
        return sum(n for level, n in figures[fixed]["levels"]["ttft"].items() if level != "nothing" and int(level.split()[0]) >= 100)

    assert at_plan(0.1) > 1.5 * at_plan(54.0)
    assert "runs of 12h00m" in text_of(figures[0.1])


def test_the_command_prints_its_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    args = ["simulate", "--runs", "5", "--tasks", "20", "--budget", "1h", "--rig", "4xL4", "--plot", str(picture), "--json"]
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert {"runs", "overruns", "invalid", "busy_median", "levels", "device_time"} <= set(figures)
    assert (figures["runs"], figures["overruns"], figures["invalid"]) == (5, 0, 0)
    assert any("devices at work" in line for line in lines)
    assert picture.stat().st_size > 2000
    assert main(["simulate", "--rig", "2xAbacus"]) == 1
    assert "write a number and one of" in capsys.readouterr().err


def write_run(folder: Path, outcome: SimulatedOutcome, config: RunConfig, challenges: dict[str, Any]) -> None:
    """A run directory as a real run would leave it."""
    (folder / "tasks").mkdir(parents=True)
    for task_id, task in challenges.items():
        (folder / "tasks" / f"{task_id}.json").write_text(json.dumps({task_id: task}))
    events = [{"time": 0.0, "event": "run_started"}, *outcome.events, {"time": outcome.ended, "event": "submission_final"}]
    (folder / "events.jsonl").write_text("".join(json.dumps({**event, "time": event["time"] + 1.7e9}) + "\n" for event in events))
    identity = {"sources": list(config.sources), "views": config.views, "ttft_views": config.ttft_views, "ttft_steps": config.ttft.steps}
    (folder / "config.json").write_text(json.dumps(identity))


def test_a_run_is_predicted_from_another_one_on_the_same_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are simulated at 2.5 times the initial costs; the forecast is for the second."""
    from arc_submit.arc.task import task_from_json
    from arc_submit.run.host import estimate_costs
    from arc_submit.run.source import task_size

    config = make_config("cpu-pocket", sources=("search", "frozen", "ttft"), workers=2, budget=3600.0)
    names = {"search": ["search"], "model": ["frozen", "ttft"]}
    outcomes = {}
    for name, count in (("calibration", 8), ("target", 30)):
        challenges, _ = make_challenges(count, seed=count, side=12)
        tasks = {task_id: task_from_json(task_id, task) for task_id, task in challenges.items()}
        lanes: dict[str, list[SimulatedSource]] = {}
        for lane, sources in names.items():
            for source in (source_named(one, config) for one in sources):
                costs = estimate_costs(config.model, config.devices)[0]
                true_costs = CostModel(*(LinearCost(cost.fixed + 0.3, 2.5 * cost.rate) for cost in (costs.train, costs.predict)))
                lanes.setdefault(lane, []).append(
                    SimulatedSource(
                        source.name,
                        source.ladder,
                        lambda: estimate_costs(config.model, config.devices)[0],
                        true_costs,
                        source.tasks_per_job,
                        5.0,
                        source.backends[0].timeouts,
                    )
                )
        sizes = {task_id: task_size(task, True, 1024, 2048) for task_id, task in tasks.items()}

        def workers(running: Sequence[str]) -> dict[str, int]:
            return dict.fromkeys(running, 2 // len(running))

        setup = SimulationSetup(
            sizes, lanes, workers, 1, 3600.0, 100.0, cost_log_std=0.0, speed_log_std=0.0, job_log_std=0.1, faults=NO_FAULTS
        )
        outcomes[name] = simulate_run(setup, 7, record=True)
        write_run(tmp_path / name, outcomes[name], config, challenges)
        (tmp_path / f"{name}.json").write_text(json.dumps(challenges))
    args = ["simulate", "--like", str(tmp_path / "calibration"), "--against", str(tmp_path / "target"), "--runs", "20", "--budget", "1h"]
    assert main([*args, "--challenges", str(tmp_path / "target.json"), "--workers", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["tasks"] == 30
    really = ends_of(tmp_path / "target")
    for source in ("frozen", "ttft"):
        forecast = figures["ends"][source]
        assert forecast["really"] == pytest.approx(really[source], abs=0.1)
        assert math.isclose(forecast["ratio"], 1.0, rel_tol=0.15), figures
    assert main(["simulate", "--like", str(tmp_path)]) == 1
    assert "not the configuration of a run" in capsys.readouterr().err
    assert main([*args, "--allocation", "gain", "--chances", "chances.json"]) == 1
    assert "leave --chances and --allocation out, or --like" in capsys.readouterr().err


def test_gain_solves_more_than_equal_levels_and_is_in_time_whatever_goes_wrong() -> None:
    """Time for a part of the tasks, and many faults."""
    worth = SolveChances(constant=-4.0, cells=-0.7, steps=0.45, views=0.2)
    config = make_config("t4x2-qwen2.5-1.5b", model=Path("simulated"), budget=3600.0, sources=("frozen", "ttft"))
    solved = {}
    for allocation in ALLOCATIONS:
        setup = rig_setup(config, Rig(2, "T4", 1.5e9, faults=5.0), 30, worth, allocation)
        outcomes = simulate_runs(setup, 10, 0)
        assert not any(outcome.overrun or outcome.invalid for outcome in outcomes)
        solved[allocation] = sum(outcome.solved["ttft"] for outcome in outcomes)
    assert solved["gain"] > 1.1 * solved["equal"]
    assert solved["gain"] > solved["alone"]
