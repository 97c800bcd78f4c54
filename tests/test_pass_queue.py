"""Passes: every task before any task again, lost jobs, a time limit over all passes of a task, and a source that goes on in the middle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from arc_submit.arc.datasets import Challenges
from arc_submit.run.orchestrator import load_progress
from arc_submit.run.simulate import _jobs_line
from arc_submit.run.source import CPU_LANE, Source
from arc_submit.scheduling.costs import TaskSize
from arc_submit.scheduling.pass_queue import PassQueue
from arc_submit.workers.supervisor import Event, Job, Supervisor, Timeouts, WorkerQuota

COSTS = {"large": 3.0, "small": 1.0, "middle": 2.0}


def work(queue: PassQueue, passes: dict[str, int], workers: int = 1) -> list[tuple[str, int]]:
    """Do all jobs, `workers` at a time; a task has so many passes."""
    begun: list[tuple[str, int]] = []
    running: list[Job] = []
    while True:
        while len(running) < workers and (job := queue.next_job(workers, 0.0)):
            running.append(job)
            begun.append((job.task_ids[0], job.params["pass"]))
        if not running:
            return begun
        queue.on_event(done(running.pop(0), passes))


def done(job: Job, passes: dict[str, int], seconds: float = 1.0) -> Event:
    (task_id,), following = job.task_ids, job.params["pass"] + 1
    value = {"next_pass": following} if following < passes[task_id] else {}
    return Event("done", 0, job.task_ids, result={"tasks": {task_id: value}}, seconds=seconds, params=job.params)


def test_every_task_has_its_first_pass_before_any_has_its_second() -> None:
    passes = {"small": 3, "middle": 1, "large": 2}
    expected = [("small", 0), ("middle", 0), ("large", 0), ("small", 1), ("large", 1), ("small", 2)]
    assert work(PassQueue(COSTS), passes) == expected
    two = work(PassQueue(COSTS), passes, workers=2)
    assert sorted(two) == sorted(expected)
    assert two[:3] == expected[:3]


def test_it_goes_on_with_the_pass_that_follows() -> None:
    passes = dict.fromkeys(COSTS, 3)
    assert work(PassQueue(COSTS, {"small": 2, "large": 1}), passes) == [
        ("middle", 0),
        ("middle", 1),
        ("large", 1),
        ("small", 2),
        ("middle", 2),
        ("large", 2),
    ]


def test_a_lost_pass_comes_again_behind_all_others_and_a_failed_one_has_no_successor() -> None:
    queue = PassQueue(COSTS)
    lost = queue.next_job(1, 0.0)
    assert lost is not None
    queue.requeue([Job(lost.task_ids, failures=1, params=lost.params)], first=False)
    assert queue.pending() == ["middle", "large", "small"]
    middle = queue.next_job(1, 0.0)
    assert middle is not None
    result = {"tasks": {"middle": {"failed": "memory", "next_pass": 1}}}
    queue.on_event(Event("done", 0, middle.task_ids, result=result, params=middle.params))
    assert queue.pending() == ["large", "small"]
    queue.reopen(["middle"])
    again = [queue.next_job(1, 0.0) for _ in range(3)]
    assert [(job.task_ids[0], job.failures) for job in again if job] == [("middle", 0), ("large", 0), ("small", 0)]


def test_no_pass_begins_after_the_end() -> None:
    queue = PassQueue(COSTS, until=5.0)
    assert queue.available(1, 4.0) == 3
    assert queue.next_job(1, 5.0) is None
    assert queue.available(1, 5.0) == 0


def test_the_time_limit_of_a_task_holds_for_all_its_passes() -> None:
    queue = PassQueue({"t": 1.0})
    supervisor = Supervisor(queue, Timeouts(heartbeat_timeout=1e9, job_timeout=10.0), WorkerQuota(1), 1e9)
    supervisor.on_start(0, 1, 0.0)
    supervisor.on_message(0, {"event": "ready"}, 0.0)
    supervisor.assign(0, 0.0)
    supervisor.on_message(0, {"event": "done", "result": {"tasks": {"t": {"next_pass": 1}}}}, 7.0)
    supervisor.assign(0, 7.0)
    assert supervisor.find_fault(0, None, 9.9) == ""
    assert "over the time limit of 10 s" in supervisor.find_fault(0, None, 10.1)


def test_a_worker_goes_on_with_its_own_tasks_and_takes_others_over_last() -> None:
    queue = PassQueue(COSTS)
    for worker in (0, 1, 0):  # small and large by worker 0, middle by worker 1
        job = queue.next_job(2, 0.0, worker)
        assert job is not None
        queue.on_event(replace(done(job, dict.fromkeys(COSTS, 3)), worker=worker))
    chosen = [queue.next_job(2, 0.0, 1) for _ in range(3)]
    assert [job.task_ids[0] for job in chosen if job] == ["middle", "small", "large"]
    assert [job.spent for job in chosen if job] == [1.0, 0.0, 0.0], "a task that is taken over begins with its first pass"


def test_the_process_that_follows_a_lost_one_holds_nothing() -> None:
    queue, passes = PassQueue({"a": 1.0, "b": 2.0}), {"a": 3, "b": 3}
    for _ in range(2):
        job = queue.next_job(1, 0.0)
        assert job is not None
        queue.on_event(done(job, passes))
    lost = queue.next_job(1, 0.0)
    assert lost is not None
    assert lost.spent == 1.0
    queue.requeue([Job(lost.task_ids, failures=1, params=lost.params)], first=True)
    assert [job.spent for job in (queue.next_job(1, 0.0), queue.next_job(1, 0.0)) if job] == [0.0, 0.0]


class Resolved:
    """What `load_progress` reads of a resolved run."""

    def __init__(self) -> None:
        self.data = self
        self.tasks = Challenges({}, {}, {}).tasks
        self.chosen = ["ended", "earlier version", "open", "new"]
        self.done_event = "task"


def test_a_resumed_source_goes_on_with_the_passes_that_follow() -> None:
    def event(task: str, **result: Any) -> dict[str, Any]:
        return {"event": "task_done", "source": "search", "task": task, "level": [0, 0], **result}

    source = Source("search", CPU_LANE, (), lambda _: {}, passes=3)
    events = [event("ended", next_pass=1), event("open", next_pass=1), event("ended"), event("earlier version"), event("open", next_pass=2)]
    one = load_progress(source, Resolved(), events)  # type: ignore[arg-type]
    assert one.next_passes == {"open": 2}
    assert one.done == {"ended", "earlier version", "open"}
    assert one.below_plan == {"open", "new"}
    counts = one.counts
    assert (counts.ended, counts.tasks) == (2, 4)
    assert counts.done == 2 + 2 / 3


@pytest.mark.parametrize("end", ["task_failed", "task_cut"])
def test_a_resume_does_not_repeat_a_pass_that_was_given_up(end: str) -> None:
    source = Source("search", CPU_LANE, (), lambda _: {}, passes=3)
    events = [{"event": "task_done", "source": "search", "task": "open", "level": [0, 0], "next_pass": 1}]
    events.append({"event": end, "source": "search", "task": "open", "reason": "memory"})
    one = load_progress(source, Resolved(), events)  # type: ignore[arg-type]
    assert one.next_passes == {}
    assert one.below_plan == {"ended", "earlier version", "new"}


def test_a_simulation_sees_all_passes_of_a_task_as_one_search() -> None:
    def event(task: str, seconds: float) -> dict[str, Any]:
        return {"event": "worker_done", "source": "search", "tasks": [task], "seconds": seconds}

    events = [event("a", 1.0), event("b", 1.0), event("a", 3.0), event("b", 3.0)]
    line = _jobs_line(events, "search", dict.fromkeys("ab", TaskSize(1.0, 1.0, 1)))
    assert line.jobs == 2
    assert abs(line.seconds(1.0) - 4.0) < 0.2
