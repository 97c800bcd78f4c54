"""Simulated runs: the same decisions as with real processes, in time, with a valid submission, whatever goes wrong."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pool import ENTRY

from arc_submit.cli import main
from arc_submit.run.config import RunConfig, make_config
from arc_submit.run.simulate import SimulatedSubmission, ends_of, figures_of, rig_setup, simulate_runs, text_of
from arc_submit.scheduling.costs import CostModel, LinearCost, initial_costs
from arc_submit.scheduling.simulation import (
    Faults,
    PlannedJob,
    RunState,
    SimulatedLane,
    SimulatedOutcome,
    SimulatedSource,
    SimulationSetup,
    simulate_run,
)
from arc_submit.workers.pool import Backend, ProcessConfig, run_jobs
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, Timeouts, WorkerQuota

JOBS = [("ok-1", "die-1", "ok-2"), ("hangonce-1",), ("refuse-1",), ("raise-1",), ("dieonce-1",), ("ok-3",)]
# Long enough for a busy machine; hanging costs it once.
LIMITS = Timeouts(startup_timeout=60.0, heartbeat_timeout=6.0, max_failures=2, max_failed_starts=2)
QUIET = Faults(**dict.fromkeys(vars(Faults()), 0.0))


def rig(devices: int = 2, tasks: int = 30, hours: float = 2.0, faults: float = 5.0, seed: int = 0, **changes: Any) -> SimulationSetup:
    given = {"model": Path("simulated"), "budget": hours * 3600, "seed": seed, "sources": ("frozen", "ttft"), **changes}
    config = make_config("t4x2-qwen2.5-1.5b", **given)
    return rig_setup(config, (devices, "T4"), 1.5e9, tasks, 0.1, 40.0, faults)


class ScriptedLane(SimulatedLane):
    """A lane whose workers behave as the parts' names say, as those of test_pool do."""

    def _make_job_source(self, now: float) -> JobSource:
        self.tries: dict[str, int] = {}
        self.run.reached.setdefault(self.source.name, {})
        return JobQueue(Job(task_ids) for task_ids in JOBS)

    def _start(self, number: int, now: float) -> None:
        self.serial += 1
        self.born[number] = self.serial
        self._take_note(self.supervisor.on_start(number, self.serial, now), now)
        self._at(1.0, number, now, "ready")

    def _begin(self, number: int, begun: Event, now: float) -> None:
        self._take_note(begun, now)
        self.plans[number] = plan = PlannedJob(now, now + 0.1, {"event": "done", "result": {"tasks": {}}})
        for part in begun.task_ids:
            self.tries[part] = self.tries.get(part, 0) + 1
            kind = part.split("-")[0]
            first = self.tries[part] == 1
            if kind == "die" or (kind == "dieonce" and first):
                return self._at(0.1, number, now, "crash")
            if kind == "hangonce" and first:
                plan.hung = now + 0.05
                return self._at(0.05, number, now, "beat")
            if kind in ("refuse", "raise"):
                reason = "this task cannot be done" if kind == "refuse" else "ValueError: broken part"
                plan.message = {"event": "failed", "reason": reason, "exits": kind == "raise"}
                return self._at(0.1, number, now, "end")
        return self._at(0.1, number, now, "end")

    def _take_note(self, event: Event, now: float) -> None:
        super()._take_note(event, now)
        self.outcome.events.append({"event": event})


def test_the_simulation_decides_as_the_pool_does(tmp_path: Path) -> None:
    """One worker, and parts that hang, die, are refused and raise: the same events in the same order, for the same reasons."""
    (tmp_path / "behaviours.py").write_text(ENTRY)
    (tmp_path / "parts").mkdir()
    backend = Backend("scripted", "behaviours:open_worker", lambda _: {"folder": str(tmp_path / "parts")}, LIMITS)
    processes = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    real = run_jobs([Job(task_ids) for task_ids in JOBS], backend, processes, WorkerQuota(1), time.monotonic() + 240)
    really = [(event.kind, event.task_ids, event.reason) for event in real]
    source = SimulatedSource("scripted", None, lambda: initial_costs("T4", 1e9), initial_costs("T4", 1e9), timeouts=LIMITS)
    setup = SimulationSetup({}, {"model": [source]}, lambda running: {"model": 1}, 1, 1000.0, 10.0, faults=QUIET)
    lane = ScriptedLane("model", RunState(setup, random.Random(0)), WorkerQuota(1), 0.0, 990.0)
    while not lane.ended:
        lane.step(lane.next_moment)
    simulated = [(one["event"].kind, one["event"].task_ids, one["event"].reason) for one in lane.outcome.events]
    assert simulated == really
    assert {kind for kind, _, _ in really} == {"started", "ready", "begun", "done", "lost", "given_up"}


@given(seed=st.integers(0, 10_000), devices=st.integers(1, 5), tasks=st.integers(1, 30), hours=st.floats(0.05, 14), faults=st.floats(0, 40))
@settings(max_examples=25, deadline=None)
def test_whatever_goes_wrong_a_run_is_in_time_and_its_submission_valid(
    seed: int, devices: int, tasks: int, hours: float, faults: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    setup = rig(devices, tasks, hours, faults)
    answers = SimulatedSubmission(list(setup.sizes), tmp_path_factory.mktemp("answers"))
    answers.begin(seed * 500)  # written and read back
    outcome = simulate_run(setup, seed * 500, answers)
    assert not outcome.overrun
    assert not outcome.invalid
    assert sum(outcome.device_seconds.values()) == pytest.approx(
        devices * setup.horizon, rel=0.02, abs=10.0 * devices
    )  # jobs end where they end
    assert all(sum(levels.values()) == tasks for levels in outcome.levels.values())


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    runs = [simulate_run(rig(), seed, record=True) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0].events != runs[2].events


def test_where_time_suffices_faults_and_workers_change_no_level() -> None:
    """All that no fault of its own keeps from it comes as far as was planned."""
    plan = {"ttft_max_steps": 100, "ttft_max_views": 32}
    assert simulate_run(rig(2, 30, 3.0, 0.0, **plan), 1).levels["ttft"] == {"100 steps and 32 views": 30}
    faults = replace(QUIET, hang=1.0, crash=1.0, error=1.0, killed=1.0, slow_start=0.3)
    runs = [simulate_run(replace(rig(4, 30, 2.0, 0.0, **plan), faults=faults), seed) for seed in range(12)]
    assert sum(run.counts["lost"] for run in runs) > 20
    assert sum(run.counts["killed"] for run in runs) >= 2
    given_up = sum(run.counts["given_up"] for run in runs)  # lost twice in a row
    assert sum(run.levels["ttft"]["100 steps and 32 views"] for run in runs) >= 12 * 30 - given_up
    assert given_up < 15


def test_a_lost_gpu_is_given_up_and_the_others_do_the_work() -> None:
    setup = replace(rig(4, 60, 6.0, 0.0), faults=replace(QUIET, lost_gpu=1.0))
    outcome = simulate_run(setup, 5)
    assert outcome.counts["retired"] >= 1
    assert outcome.device_seconds["dead"] > 0
    assert outcome.levels["ttft"].get("nothing", 0) == 0
    assert outcome.device_seconds["work"] + outcome.device_seconds["dead"] > 0.95 * setup.devices * setup.horizon


def test_devices_are_busy_to_the_end_and_a_resident_worker_buys_levels() -> None:
    """The method's own times: a process for each task pays 54 s twice a task."""
    config = make_config("t4x2-qwen2.5-1.5b", model=Path("simulated"), sources=("frozen", "ttft"))
    figures = {}
    for fixed in (0.1, 54.0):
        setup = rig_setup(config, (2, "T4"), 1.5e9, 400, fixed, 40.0, 1.0)
        figures[fixed] = figures_of(setup, simulate_runs(setup, 6, 0))
        assert figures[fixed]["busy_median"] > 0.95
        assert figures[fixed]["overruns"] == figures[fixed]["invalid"] == 0

    def at_plan(fixed: float) -> float:
        return sum(n for level, n in figures[fixed]["levels"]["ttft"].items() if level != "nothing" and int(level.split()[0]) >= 100)

    assert at_plan(0.1) > 1.5 * at_plan(54.0)
    assert "runs of 12h00m" in text_of(figures[0.1])


def test_the_command_prints_its_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    words = ["simulate", "--runs", "5", "--tasks", "20", "--budget", "1h", "--rig", "4xL4", "--plot", str(picture), "--json"]
    assert main(words) == 0
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


def test_a_run_is_foretold_from_another_of_the_same_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both were made by one world, in which everything takes 2.5 times what would be guessed; the forecast is of the second."""
    from arc_submit.arc.task import task_from_json
    from arc_submit.run.sources import guess_costs, make_source, size

    config = make_config("cpu-pocket", sources=("search", "frozen", "ttft"), workers=2, budget=3600.0)
    names = {"search": ["search"], "model": ["frozen", "ttft"]}
    outcomes = {}
    for name, count in (("calibration", 8), ("target", 30)):
        challenges, _ = make_challenges(count, seed=count, side=12)
        tasks = {task_id: task_from_json(task_id, task) for task_id, task in challenges.items()}
        lanes: dict[str, list[SimulatedSource]] = {}
        for lane, sources in names.items():
            for source in (make_source(one, tmp_path, config) for one in sources):
                truth = guess_costs(config)[0]
                true = CostModel(*(LinearCost(line.fixed + 0.3, 2.5 * line.rate) for line in (truth.train, truth.predict)))
                lanes.setdefault(lane, []).append(
                    SimulatedSource(source.name, source.ladder, lambda: guess_costs(config)[0], true, source.group, 5.0, source.limits)
                )
        sizes = {task_id: size("ttft", task, 1024, 2048) for task_id, task in tasks.items()}

        def workers(running: Sequence[str]) -> dict[str, int]:
            return dict.fromkeys(running, 2 // len(running))

        setup = SimulationSetup(sizes, lanes, workers, 1, 3600.0, 100.0, cost_log_std=0.0, speed_log_std=0.0, job_log_std=0.1, faults=QUIET)
        outcomes[name] = simulate_run(setup, 7, record=True)
        write_run(tmp_path / name, outcomes[name], config, challenges)
        (tmp_path / f"{name}.json").write_text(json.dumps(challenges))
    words = ["simulate", "--like", str(tmp_path / "calibration"), "--against", str(tmp_path / "target"), "--runs", "20", "--budget", "1h"]
    assert main([*words, "--challenges", str(tmp_path / "target.json"), "--workers", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["tasks"] == 30
    really = ends_of(tmp_path / "target")
    for source in ("frozen", "ttft"):
        told = figures["ends"][source]
        assert told["really"] == pytest.approx(really[source], abs=0.1)
        assert math.isclose(told["ratio"], 1.0, rel_tol=0.15), figures
    assert main(["simulate", "--like", str(tmp_path)]) == 1
    assert "not the configuration of a run" in capsys.readouterr().err
