"""Fallback backends, progress, soft deadlines and timeouts that follow a worker's own pace, with real processes."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arc_submit.workers.fallback import run_with_fallback
from arc_submit.workers.pool import Backend, Event, Job, PoolError, ProcessConfig, Timeouts, WorkerQuota, run_jobs

# A worker's settings determine its behaviour. "weak" fails at tasks named "hard..."; "choosy" reports that it does not support them.
ENTRY = textwrap.dedent(
    """
    import time

    def open_worker(settings, beat):
        kind = settings["kind"]
        if kind == "never":
            time.sleep(60)

        def do_job(job):
            made = 0
            if kind == "choosy":
                hard = {task_id: "not for me" for task_id in job["tasks"] if task_id.startswith("hard")}
                return {"tasks": {task_id: {"kind": kind} for task_id in job["tasks"] if task_id not in hard}, "cannot": hard}
            for task_id in job["tasks"]:
                if kind == "weak" and task_id.startswith("hard"):
                    raise RuntimeError("too hard")
                steps = 40 if kind in ("steady", "cut_short") else 8 if kind == "slow" else 1
                for step in range(steps):
                    if kind == "cut_short" and time.monotonic() >= job["soft_deadline"]:
                        return {"tasks": {task_id: {"steps": step}}}
                    time.sleep(1.2 if kind == "slow" else 0.6 if kind in ("steady", "cut_short") else 0.0)
                    if kind == "steady" and step == 7:
                        time.sleep(60)
                    beat({"made": made})
                made += 1
            return {"tasks": {task_id: {"kind": kind} for task_id in job["tasks"]}}
        return do_job
    """
)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Returns a function that runs tasks with backends of the kinds above."""
    (tmp_path / "fallback_behaviours.py").write_text(ENTRY)
    path = os.pathsep.join([str(tmp_path), *sys.path])

    def run(
        kinds: list[str], jobs: list[tuple[str, ...]], timeouts: Timeouts | None = None, soft_deadline: float | None = None
    ) -> Iterator[Event]:
        timeouts = timeouts or Timeouts(startup_timeout=20.0, heartbeat_timeout=20.0, max_failures=1, max_failed_starts=1)
        backends = [Backend(kind, "fallback_behaviours:open_worker", lambda _, kind=kind: {"kind": kind}, timeouts) for kind in kinds]  # type: ignore[misc]
        config = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": path})
        return run_with_fallback(
            [Job(task_ids) for task_ids in jobs], backends, config, WorkerQuota(1), time.monotonic() + 60, soft_deadline
        )

    return run


def kind_by_task(events: list[Event]) -> dict[str, str]:
    return {task_id: result["kind"] for e in events if e.kind == "done" for task_id, result in e.result["tasks"].items()}


def test_tasks_that_a_backend_gives_up_go_to_the_next(start: Any) -> None:
    events = list(start(["weak", "strong"], [("easy-1", "hard-1"), ("easy-2",), ("hard-2",)]))
    assert kind_by_task(events) == {"easy-1": "weak", "easy-2": "weak", "hard-1": "strong", "hard-2": "strong"}
    handed_on = [e for e in events if e.kind == "handed_on"]
    assert sorted(e.task_ids[0] for e in handed_on) == ["hard-1", "hard-2"]
    assert all("weak: RuntimeError: too hard" in e.reason for e in handed_on)
    assert not [e for e in events if e.kind == "given_up"]


def test_unsupported_tasks_go_to_the_next_backend_without_a_retry(start: Any) -> None:
    events = list(
        start(
            ["choosy", "strong"],
            [("easy-1", "hard-1"), ("hard-2",)],
            Timeouts(startup_timeout=20.0, heartbeat_timeout=20.0, max_failures=5),
        )
    )
    assert kind_by_task(events) == {"easy-1": "choosy", "hard-1": "strong", "hard-2": "strong"}
    assert [e.reason for e in events if e.kind == "handed_on"] == ["choosy: not for me"] * 2
    assert len([e for e in events if e.kind == "begun"]) == 4
    last = list(start(["choosy"], [("hard-1", "easy-1")]))
    assert [(e.task_ids, e.reason) for e in last if e.kind == "given_up"] == [(("hard-1",), "not for me")]


def test_all_tasks_of_a_backend_that_never_starts_go_to_the_next(start: Any) -> None:
    events = list(start(["never", "strong"], [("a", "b"), ("c",)], Timeouts(startup_timeout=2.0, max_failed_starts=1)))
    assert kind_by_task(events) == {"a": "strong", "b": "strong", "c": "strong"}
    assert sorted(e.task_ids[0] for e in events if e.kind == "handed_on") == ["a", "b", "c"]


def test_the_last_backend_gives_up_with_its_reason(start: Any) -> None:
    events = list(start(["weak", "weak"], [("hard-1", "easy-1")]))
    assert [(e.task_ids, "too hard" in e.reason) for e in events if e.kind == "given_up"] == [(("hard-1",), True)]
    assert kind_by_task(events) == {"easy-1": "weak"}
    with pytest.raises(PoolError, match="no worker got ready"):
        list(start(["never"], [("a",)], Timeouts(startup_timeout=1.0, max_failed_starts=1)))


def test_a_steady_worker_that_hangs_is_noticed_by_its_own_pace(start: Any) -> None:
    """Long before the heartbeat timeout."""
    began = time.monotonic()
    events = list(
        start(
            ["steady", "strong"],
            [("a",)],
            Timeouts(startup_timeout=20.0, heartbeat_timeout=50.0, pause_factor=3.0, min_heartbeat_timeout=1.0, max_failures=1),
        )
    )
    lost = [e for e in events if e.kind == "lost"]
    assert len(lost) == 1
    assert "silent for" in lost[0].reason
    assert time.monotonic() - began < 30
    assert kind_by_task(events) == {"a": "strong"}


def test_slow_work_extends_its_own_timeout(start: Any) -> None:
    """More than a second between heartbeats, with a minimum timeout of one second, is no hang."""
    events = list(
        start(["slow"], [("a",)], Timeouts(startup_timeout=20.0, heartbeat_timeout=30.0, pause_factor=5.0, min_heartbeat_timeout=1.0))
    )
    assert kind_by_task(events) == {"a": "slow"}
    assert not [e for e in events if e.kind == "lost"]
    assert [e.result for e in events if e.kind == "progress"]


def test_the_soft_deadline_reaches_the_workers(start: Any) -> None:
    events = list(start(["cut_short"], [("a",)], soft_deadline=time.monotonic() + 3.0))
    (done,) = [e for e in events if e.kind == "done"]
    assert 0 <= done.result["tasks"]["a"]["steps"] < 40


def test_the_deadline_event_names_tasks_that_were_handed_on(tmp_path: Path, start: Any) -> None:
    (tmp_path / "fallback_behaviours.py").write_text(ENTRY)
    backends = [
        Backend(kind, "fallback_behaviours:open_worker", lambda _, kind=kind: {"kind": kind}, Timeouts(max_failures=1))  # type: ignore[misc]
        for kind in ("weak", "never")
    ]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    config = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": path})
    events = list(run_with_fallback([Job(("hard-1",))], backends, config, WorkerQuota(1), time.monotonic() + 6))
    assert (events[-1].kind, events[-1].task_ids) == ("deadline", ("hard-1",))


def test_a_pool_without_fallback_reports_progress(tmp_path: Path) -> None:
    (tmp_path / "fallback_behaviours.py").write_text(ENTRY)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    backend = Backend("slow", "fallback_behaviours:open_worker", lambda _: {"kind": "slow"})
    config = ProcessConfig(tmp_path, lambda _: {"PYTHONPATH": path})
    stream = run_jobs([Job(("a",))], backend, config, WorkerQuota(1), time.monotonic() + 60)
    assert {"made": 0} in [e.result for e in stream if e.kind == "progress"]
