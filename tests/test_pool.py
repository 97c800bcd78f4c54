"""The pool with real worker processes that hang, die, fail and refuse."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import is_alive

from arc_submit.workers.pool import Backend, ProcessConfig, run_jobs
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Supervisor, Timeouts, WorkerQuota

# A task's name determines how the worker behaves; the folder records each attempt.
ENTRY = textwrap.dedent(
    """
    import os, signal, sys, time
    from pathlib import Path
    from arc_submit.errors import ConfigError

    def open_worker(settings, beat):
        folder = Path(settings["folder"])
        if settings.get("refuse") or (folder / "device lost").exists():
            raise ConfigError("no model there; give --model")
        if settings.get("never_ready"):
            time.sleep(60)
        if settings.get("bad_worker"):
            try:
                (folder / "good").touch(exist_ok=False)  # atomic: exactly one of two workers succeeds
            except FileExistsError:
                raise RuntimeError("CUDA error: device is busy")
        if settings.get("dies_at_start"):
            os.kill(os.getpid(), signal.SIGKILL)
        print("a library prints on standard output")

        broken = []

        def do_job(job):
            for task_id in job["tasks"]:
                with (folder / task_id).open("a") as file:
                    file.write(f"{os.getpid()}\\n")
                attempts = len((folder / task_id).read_text().splitlines())
                kind = task_id.split("-")[0]
                if kind == "hang" or (kind == "hangonce" and attempts == 1):
                    time.sleep(60)
                if kind == "die" or (kind == "dieonce" and attempts == 1):
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "lose":
                    while not list(folder.glob("slow-*")):  # until the other worker is at work
                        time.sleep(0.05)
                        beat()
                    (folder / "device lost").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "poison":
                    broken.append(task_id)
                if broken:
                    raise RuntimeError("CUDA error: device-side assert triggered")
                if kind == "refuse":
                    raise ConfigError("this task cannot be done")
                if kind == "raise":
                    raise ValueError("broken task")
                if kind == "orphan":
                    if os.fork() == 0:
                        time.sleep(60)
                    (folder / "orphaned").touch()
                    time.sleep(60)
                if kind == "slow":
                    for _ in range(8):
                        time.sleep(0.25)
                        beat()
                beat()
            return {"pid": os.getpid()}
        return do_job
    """
)
FAST = Timeouts(startup_timeout=20.0, heartbeat_timeout=1.5, max_failures=2, max_failed_starts=2)


@pytest.fixture
def pool(tmp_path: Path) -> Any:
    """Returns a function that runs jobs with the behaviours above and yields the events."""
    (tmp_path / "behaviours.py").write_text(ENTRY)
    (tmp_path / "jobs").mkdir()

    def start(
        jobs: list[tuple[str, ...]],
        seconds: float = 60.0,
        workers: int | WorkerQuota = 2,
        timeouts: Timeouts = FAST,
        source: JobSource | None = None,
        **settings: Any,
    ) -> Iterator[Event]:
        backend = Backend("behaviours", "behaviours:open_worker", lambda _: {"folder": str(tmp_path / "jobs"), **settings}, timeouts)
        config = ProcessConfig(tmp_path / "logs", lambda _: {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
        quota = workers if isinstance(workers, WorkerQuota) else WorkerQuota(workers)
        return run_jobs(source or [Job(task_ids) for task_ids in jobs], backend, config, quota, time.monotonic() + seconds)

    return start


def attempts(tmp_path: Path, task_id: str) -> int:
    return len((tmp_path / "jobs" / task_id).read_text().splitlines())


def done(events: list[Event]) -> list[str]:
    return sorted(task_id for e in events if e.kind == "done" for task_id in e.task_ids)


def no_process_left(events: list[Event]) -> bool:
    return not any(is_alive(e.pid) for e in events if e.pid)


def test_each_job_is_done_once_by_workers_that_load_once(pool: Any, tmp_path: Path) -> None:
    events = list(pool([(f"ok-{i}",) for i in range(12)]))
    assert done(events) == sorted(f"ok-{i}" for i in range(12))
    assert all(attempts(tmp_path, f"ok-{i}") == 1 for i in range(12))
    pids = {e.result["pid"] for e in events if e.kind == "done"}
    assert len(pids) <= 2
    assert no_process_left(events)
    assert "a library prints" in "".join(p.read_text() for p in (tmp_path / "logs").iterdir())


@pytest.mark.parametrize("kind", ["hangonce", "dieonce"])
def test_a_job_that_is_lost_once_is_retried_and_the_others_are_untouched(pool: Any, tmp_path: Path, kind: str) -> None:
    events = list(pool([("ok-1",), (f"{kind}-1",), ("ok-2",), ("ok-3",)]))
    assert done(events) == sorted(["ok-1", "ok-2", "ok-3", f"{kind}-1"])
    assert attempts(tmp_path, f"{kind}-1") == 2
    assert all(attempts(tmp_path, f"ok-{i}") == 1 for i in (1, 2, 3))
    lost = [e for e in events if e.kind == "lost"]
    assert [e.task_ids for e in lost] == [(f"{kind}-1",)]
    assert ("silent" if kind == "hangonce" else "signal 9") in lost[0].reason


@pytest.mark.parametrize(("kind", "reason"), [("hang", "silent"), ("die", "signal 9"), ("raise", "ValueError: broken task")])
def test_a_task_that_always_fails_is_given_up_alone(pool: Any, tmp_path: Path, kind: str, reason: str) -> None:
    """It shares its job with three sound tasks, which are done."""
    events = list(pool([("ok-1", f"{kind}-1", "ok-2", "ok-3")]))
    assert done(events) == ["ok-1", "ok-2", "ok-3"]
    given_up = [e for e in events if e.kind == "given_up"]
    assert [e.task_ids for e in given_up] == [(f"{kind}-1",)]
    assert reason in given_up[0].reason
    assert attempts(tmp_path, f"{kind}-1") == 3  # once with the others, then twice alone
    assert no_process_left(events)


def test_a_worker_broken_by_a_job_is_replaced_before_the_next_job(pool: Any, tmp_path: Path) -> None:
    """After a CUDA error every call in the process fails: the sound tasks after it must not fail with it."""
    events = list(pool([("poison-1",), *((f"ok-{i}",) for i in range(8))], workers=1))
    assert done(events) == sorted(f"ok-{i}" for i in range(8))
    assert [e.task_ids for e in events if e.kind == "given_up"] == [("poison-1",)]
    assert all(attempts(tmp_path, f"ok-{i}") == 1 for i in range(8))


def test_a_task_that_is_refused_does_not_end_its_worker(pool: Any) -> None:
    events = list(pool([("refuse-1",), ("ok-1",)], workers=1))
    assert done(events) == ["ok-1"]
    assert [e.reason for e in events if e.kind == "given_up"] == ["this task cannot be done"]
    assert not [e for e in events if e.kind == "lost"]


def test_a_worker_that_cannot_start_does_not_affect_the_others(pool: Any) -> None:
    jobs = [(f"slow-{i}",) for i in range(7)]  # enough work that the other worker fails to start twice meanwhile, on a busy machine too
    events = list(pool(jobs, bad_worker=True))
    assert done(events) == sorted(task_id for (task_id,) in jobs)
    retired = [e for e in events if e.kind == "retired"]
    assert len(retired) == 1
    assert "CUDA error: device is busy" in retired[0].reason


def test_a_retired_worker_starts_again_after_a_delay() -> None:
    """A GPU that is busy for a while must not be lost for the rest of the run. The clock is the test's."""
    timeouts = Timeouts(max_failed_starts=2, restart_delay=100.0)
    supervisor = Supervisor(JobQueue([Job((f"ok-{i}",)) for i in range(9)]), timeouts, WorkerQuota(2), 10_000.0)
    assert supervisor.workers_to_start(0.0) == [0, 1]
    supervisor.on_start(0, 1, 0.0)
    supervisor.on_message(0, {"event": "ready"}, 1.0)
    starts, now = [], 0.0
    while now < 1000:
        if 1 in supervisor.workers_to_start(now):
            starts.append(now)
            supervisor.on_start(1, 2, now)
            events, fatal = supervisor.on_exit(1, "CUDA error", now)
            assert not fatal
            assert (events[-1].kind == "retired") == (len(starts) > 1)
            assert supervisor.usable_workers == (1 if len(starts) > 1 else 2)
        now += 10.0
    assert starts == [0.0, 10.0, 110.0, 310.0, 710.0]
    assert 1 in supervisor.workers_to_start(1600.0)
    supervisor.on_start(1, 3, 1600.0)
    supervisor.on_message(1, {"event": "ready"}, 1601.0)
    assert supervisor.usable_workers == 2


def test_an_unsupported_task_is_given_up_without_a_retry() -> None:
    supervisor = Supervisor(JobQueue([Job(("a", "b"), params={"views": 2})]), Timeouts(), WorkerQuota(1), 100.0)
    supervisor.on_start(0, 1, 0.0)
    supervisor.on_message(0, {"event": "ready"}, 1.0)
    assert supervisor.assign(0, 1.0) is not None
    message = {"event": "done", "result": {"tasks": {"a": {}}, "cannot": {"b": "not served"}}}
    events = supervisor.on_message(0, message, 5.0)
    assert [(event.kind, event.task_ids, event.reason, event.params) for event in events] == [
        ("done", ("a",), "", {"views": 2}),
        ("given_up", ("b",), "not served", {"views": 2}),
    ]
    assert events[0].seconds == 4.0
    assert supervisor.finished(5.0)


def test_a_slow_caller_does_not_make_workers_look_silent(pool: Any) -> None:
    events = []
    for event in pool([(f"slow-{i}",) for i in range(2)]):
        events.append(event)
        if event.kind in ("begun", "done"):
            time.sleep(2.2)  # longer than the heartbeat timeout
    assert done(events) == sorted(f"slow-{i}" for i in range(2))
    assert not [e for e in events if e.kind in ("lost", "given_up")]


def test_heartbeats_keep_a_slow_worker_alive(pool: Any, tmp_path: Path) -> None:
    events = list(pool([("slow-1",)]))
    assert done(events) == ["slow-1"]
    assert attempts(tmp_path, "slow-1") == 1


def test_no_worker_outlasts_the_deadline(pool: Any) -> None:
    began = time.monotonic()
    events = list(pool([("hang-1",), ("ok-1",), ("hang-2",), ("ok-2",), ("hang-3",)], seconds=3.0, timeouts=Timeouts(heartbeat_timeout=60)))
    assert time.monotonic() - began < 5.5
    assert events[-1].kind == "deadline"
    assert sorted([*events[-1].task_ids, *done(events)]) == ["hang-1", "hang-2", "hang-3", "ok-1", "ok-2"]
    assert no_process_left(events)


def test_a_child_of_a_worker_dies_with_it(pool: Any, tmp_path: Path) -> None:
    events = []
    stream = pool([("orphan-1",)], timeouts=Timeouts(heartbeat_timeout=60))
    for event in stream:
        events.append(event)
        if event.kind == "ready":
            break
    deadline = time.monotonic() + 10
    # The pool assigns the job when the generator continues, which it does in the background here.
    import threading

    thread = threading.Thread(target=lambda: events.extend(stream), daemon=True)
    thread.start()
    while not (tmp_path / "jobs" / "orphaned").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = psutil.Process(events[0].pid)
    children = worker.children()
    assert children
    os.kill(worker.pid, signal.SIGKILL)
    psutil.wait_procs(children, timeout=5)
    assert not any(is_alive(child.pid) for child in children)


def test_a_growing_quota_gets_more_workers_and_a_stopped_one_ends_the_pool(pool: Any) -> None:
    quota = WorkerQuota(1)
    stream = pool([(f"slow-{i}",) for i in range(4)] + [("hang-1",), ("hang-2",)], workers=quota, timeouts=Timeouts(heartbeat_timeout=60))
    events = []
    for event in stream:
        events.append(event)
        if event.kind == "done":
            quota.workers = 2
        if event.kind == "begun" and event.task_ids == ("hang-2",):
            quota.stopped = True
    assert done(events) == [f"slow-{i}" for i in range(4)]
    assert [e.worker for e in events if e.kind == "started"] == [0, 1]
    assert [e.kind for e in events].index("done") < [e.worker for e in events].index(1), "the second worker started too early"
    assert (events[-1].kind, sorted(events[-1].task_ids), events[-1].reason) == ("deadline", ["hang-1", "hang-2"], "stopped")
    assert no_process_left(events)


class LastFirst(JobQueue):
    """Chooses the last pending job, with a reason."""

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        job = self._jobs.pop()
        return Job(job.task_ids, params={"views": len(self._jobs)}, reason="it is the last")


def test_a_job_source_determines_the_order(pool: Any) -> None:
    source = LastFirst(Job((f"ok-{i}",)) for i in range(5))
    begun = [e for e in pool([], workers=1, source=source) if e.kind == "begun"]
    assert [e.task_ids[0] for e in begun] == [f"ok-{i}" for i in (4, 3, 2, 1, 0)]
    assert [(e.params, e.reason) for e in begun] == [({"views": i}, "it is the last") for i in (4, 3, 2, 1, 0)]


def test_closing_the_generator_ends_the_workers(pool: Any) -> None:
    stream = pool([("hang-1",), ("hang-2",)], timeouts=Timeouts(heartbeat_timeout=60))
    events = [next(stream) for _ in range(2)]
    stream.close()
    assert all(e.kind == "started" for e in events)
    assert no_process_left(events)


def test_settings_that_a_worker_refuses_end_the_pool_with_the_reason(pool: Any) -> None:
    with pytest.raises(PoolError, match="no model there; give --model"):
        list(pool([("ok-1",)], refuse=True))


def test_a_refusal_after_a_lost_device_leaves_the_other_worker_at_work(pool: Any) -> None:
    """The worker that restarts does not find its device any more; the other one does all that is left."""
    events = list(pool([("lose-1",), *((f"slow-{i}",) for i in range(4))], timeouts=replace(FAST, max_failures=1)))
    assert done(events) == [f"slow-{i}" for i in range(4)]
    assert [e.task_ids for e in events if e.kind == "given_up"] == [("lose-1",)]
    assert any("no model there" in e.reason for e in events if e.kind == "lost")
    assert [e.kind for e in events].count("retired") <= 1


def supervisor(workers: int, **limits: Any) -> Supervisor:
    timeouts = Timeouts(max_failed_starts=2, restart_delay=100.0, **limits)
    return Supervisor(JobQueue([Job((f"ok-{i}",)) for i in range(9)]), timeouts, WorkerQuota(workers), 10_000.0)


def refuse(pool: Supervisor, worker_id: int, now: float) -> str:
    """A worker starts and refuses; returns why the whole pool cannot continue."""
    if worker_id not in pool.workers:
        pool.on_start(worker_id, 1, now)
    pool.on_message(worker_id, {"event": "refused", "reason": "no device"}, now)
    return pool.on_exit(worker_id, pool.find_fault(worker_id, 2, now), now)[1]


@pytest.mark.parametrize("ready", [False, True])
def test_a_refusal_is_not_final_while_another_worker_starts(ready: bool) -> None:
    pool = supervisor(3)
    for worker_id in pool.workers_to_start(0.0):
        pool.on_start(worker_id, worker_id, 0.0)
    assert refuse(pool, 1, 1.0) == ""
    assert pool.workers_to_start(2.0) == [], "the refused one waits"
    if ready:
        pool.on_message(0, {"event": "ready"}, 3.0)
    assert refuse(pool, 2, 4.0) == ""
    assert refuse(pool, 0, 5.0) == ("" if ready else "no device")
    assert pool.workers_to_start(500.0) == [0, 1, 2], "after the outage all begin again"


def test_a_pool_whose_devices_are_all_lost_waits_for_them_unless_another_backend_is_there() -> None:
    for waits in (True, False):
        pool = supervisor(1, wait_for_retired=waits)
        pool.on_start(0, 1, 0.0)
        pool.on_message(0, {"event": "ready"}, 1.0)
        pool.on_exit(0, "killed by signal 9", 2.0)
        assert [bool(refuse(pool, 0, now)) for now in (3.0, 4.0)] == [False, not waits]
        assert not pool.finished(5.0)
        if waits:
            assert (pool.workers_to_start(50.0), pool.workers_to_start(110.0)) == ([], [0])
            assert pool.check_deadline(10_000.0) is not None


@pytest.mark.parametrize("behaviour", ["never_ready", "dies_at_start"])
def test_a_worker_that_never_gets_ready_ends_the_pool_with_the_reason(pool: Any, behaviour: str) -> None:
    began = time.monotonic()
    with pytest.raises(PoolError, match=r"no worker got ready in 2 starts: (not ready after 2 s|killed by signal 9)"):
        list(pool([("ok-1",)], workers=1, timeouts=Timeouts(startup_timeout=2.0, max_failed_starts=2), **{behaviour: True}))
    assert time.monotonic() - began < 15


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """A hanging worker ends when its parent is killed."""
    (tmp_path / "behaviours.py").write_text(ENTRY)
    (tmp_path / "jobs").mkdir()
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from arc_submit.workers.pool import Backend, Job, ProcessConfig, WorkerQuota, run_jobs
        backend = Backend("behaviours", "behaviours:open_worker", lambda _: {{"folder": {str(tmp_path / "jobs")!r}}})
        processes = ProcessConfig(Path({str(tmp_path / "logs")!r}))
        for event in run_jobs([Job(("hang-1",))], backend, processes, WorkerQuota(1), time.monotonic() + 60):
            print(event.pid, flush=True)
        """
    )
    import subprocess

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    while not (tmp_path / "jobs" / "hang-1").exists():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while is_alive(worker):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)
