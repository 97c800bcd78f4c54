"""Stages, progress, soft deadlines and limits that follow a worker's own pace, with real processes."""

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

# A worker's settings say how it behaves; "weak" can do no part whose name begins with "hard", and "choosy" says so of itself.
ENTRY = textwrap.dedent(
    """
    import time

    def open_worker(settings, beat):
        kind = settings["kind"]
        if kind == "never":
            time.sleep(60)

        def do(job):
            made = 0
            if kind == "choosy":
                hard = {part: "not for me" for part in job["tasks"] if part.startswith("hard")}
                return {"tasks": {part: {"kind": kind} for part in job["tasks"] if part not in hard}, "cannot": hard}
            for part in job["tasks"]:
                if kind == "weak" and part.startswith("hard"):
                    raise RuntimeError("too hard")
                steps = 40 if kind in ("steady", "cut_short") else 8 if kind == "slow" else 1
                for step in range(steps):
                    if kind == "cut_short" and time.monotonic() >= job["soft_deadline"]:
                        return {"tasks": {part: {"steps": step}}}
                    time.sleep(1.2 if kind == "slow" else 0.6 if kind in ("steady", "cut_short") else 0.0)
                    if kind == "steady" and step == 7:
                        time.sleep(60)
                    beat({"made": made})
                made += 1
            return {"tasks": {part: {"kind": kind} for part in job["tasks"]}}
        return do
    """
)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """A function that runs parts through stages of the kinds above."""
    (tmp_path / "stage_behaviours.py").write_text(ENTRY)
    path = os.pathsep.join([str(tmp_path), *sys.path])

    def run(kinds: list[str], jobs: list[tuple[str, ...]], limits: Timeouts | None = None, soft: float | None = None) -> Iterator[Event]:
        limits = limits or Timeouts(startup_timeout=20.0, heartbeat_timeout=20.0, max_failures=1, max_failed_starts=1)
        stages = [Backend(kind, "stage_behaviours:open_worker", lambda _, kind=kind: {"kind": kind}, limits) for kind in kinds]  # type: ignore[misc]
        listed = [Job(task_ids) for task_ids in jobs]
        processes = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": path})
        return run_with_fallback(listed, stages, processes, WorkerQuota(1), time.monotonic() + 60, soft)

    return run


def by_part(events: list[Event]) -> dict[str, str]:
    return {part: told["kind"] for e in events if e.kind == "done" for part, told in e.result["tasks"].items()}


def test_what_a_stage_gives_up_is_done_by_the_next(start: Any) -> None:
    events = list(start(["weak", "strong"], [("easy-1", "hard-1"), ("easy-2",), ("hard-2",)]))
    assert by_part(events) == {"easy-1": "weak", "easy-2": "weak", "hard-1": "strong", "hard-2": "strong"}
    handed = [e for e in events if e.kind == "handed_on"]
    assert sorted(e.task_ids[0] for e in handed) == ["hard-1", "hard-2"]
    assert all("weak: RuntimeError: too hard" in e.reason for e in handed)
    assert not [e for e in events if e.kind == "given_up"]


def test_what_a_worker_says_it_cannot_do_is_done_by_the_next_without_another_try(start: Any) -> None:
    events = list(
        start(
            ["choosy", "strong"],
            [("easy-1", "hard-1"), ("hard-2",)],
            Timeouts(startup_timeout=20.0, heartbeat_timeout=20.0, max_failures=5),
        )
    )
    assert by_part(events) == {"easy-1": "choosy", "hard-1": "strong", "hard-2": "strong"}
    assert [e.reason for e in events if e.kind == "handed_on"] == ["choosy: not for me"] * 2
    assert len([e for e in events if e.kind == "begun"]) == 4
    last = list(start(["choosy"], [("hard-1", "easy-1")]))
    assert [(e.task_ids, e.reason) for e in last if e.kind == "given_up"] == [(("hard-1",), "not for me")]


def test_a_stage_that_never_starts_leaves_everything_to_the_next(start: Any) -> None:
    events = list(start(["never", "strong"], [("a", "b"), ("c",)], Timeouts(startup_timeout=2.0, max_failed_starts=1)))
    assert by_part(events) == {"a": "strong", "b": "strong", "c": "strong"}
    assert sorted(e.task_ids[0] for e in events if e.kind == "handed_on") == ["a", "b", "c"]


def test_the_last_stage_gives_up_with_its_reason(start: Any) -> None:
    events = list(start(["weak", "weak"], [("hard-1", "easy-1")]))
    assert [(e.task_ids, "too hard" in e.reason) for e in events if e.kind == "given_up"] == [(("hard-1",), True)]
    assert by_part(events) == {"easy-1": "weak"}
    with pytest.raises(PoolError, match="no worker got ready"):
        list(start(["never"], [("a",)], Timeouts(startup_timeout=1.0, max_failed_starts=1)))


def test_a_steady_worker_that_stops_is_noticed_by_its_own_pace(start: Any) -> None:
    """Long before the silence that is allowed at first."""
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
    assert by_part(events) == {"a": "strong"}


def test_slow_work_makes_its_own_limit_longer(start: Any) -> None:
    """A second and more between two beats, and only one second at least: it is not taken for a hang."""
    events = list(
        start(["slow"], [("a",)], Timeouts(startup_timeout=20.0, heartbeat_timeout=30.0, pause_factor=5.0, min_heartbeat_timeout=1.0))
    )
    assert by_part(events) == {"a": "slow"}
    assert not [e for e in events if e.kind == "lost"]
    assert [e.result for e in events if e.kind == "progress"]


def test_the_soft_deadline_reaches_the_workers(start: Any) -> None:
    events = list(start(["cut_short"], [("a",)], soft=time.monotonic() + 3.0))
    (done,) = [e for e in events if e.kind == "done"]
    assert 0 <= done.result["tasks"]["a"]["steps"] < 40


def test_the_deadline_names_what_was_handed_on(tmp_path: Path, start: Any) -> None:
    (tmp_path / "stage_behaviours.py").write_text(ENTRY)
    stages = [
        Backend(kind, "stage_behaviours:open_worker", lambda _, kind=kind: {"kind": kind}, Timeouts(max_failures=1))  # type: ignore[misc]
        for kind in ("weak", "never")
    ]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    processes = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": path})
    events = list(run_with_fallback([Job(("hard-1",))], stages, processes, WorkerQuota(1), time.monotonic() + 6))
    assert (events[-1].kind, events[-1].task_ids) == ("deadline", ("hard-1",))


def test_a_pool_alone_tells_progress(tmp_path: Path) -> None:
    (tmp_path / "stage_behaviours.py").write_text(ENTRY)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    backend = Backend("slow", "stage_behaviours:open_worker", lambda _: {"kind": "slow"})
    processes = ProcessConfig(tmp_path, lambda _: {"PYTHONPATH": path})
    stream = run_jobs([Job(("a",))], backend, processes, WorkerQuota(1), time.monotonic() + 60)
    assert {"made": 0} in [e.result for e in stream if e.kind == "progress"]
