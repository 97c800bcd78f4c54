"""The pool: workers, each a process in its own session, watched, killed when silent, restarted, and their jobs given out again.

What to do when is decided by arc_submit.workers.supervisor; here are the processes, their pipes and the clock. Knows nothing about what a job is.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Supervisor, Timeouts, WorkerQuota

__all__ = ["Backend", "Event", "Job", "Launch", "PoolError", "ProcessConfig", "Timeouts", "WorkerQuota", "launch_locally", "run_jobs"]

# From the Python arguments that make a worker, and the variables to set for it, those of the process to start on this machine: it is the
# worker, or what passes everything on to one elsewhere.
Launch = Callable[[Sequence[str], Mapping[str, str]], Sequence[str]]


def launch_locally(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """Run the worker on this machine."""
    return arguments


@dataclass(frozen=True)
class Backend:
    """One implementation of the jobs.

    Attributes:
        name: for messages, and for its folder of logs where there are several.
        entry: "package.module:function", see arc_submit.workers.worker.
        settings_for: returns the settings of the worker with a number, as JSON values.
        timeouts: of its workers.
    """

    name: str
    entry: str
    settings_for: Callable[[int], dict[str, Any]]
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True)
class ProcessConfig:
    """Where and how worker processes run.

    Attributes:
        log_folder: receives one log for each worker, with what it prints.
        environment_for: returns the environment variables to set for the worker with a number.
        launch: places the process, see arc_submit.workers.ray_cluster for another place than this machine.
    """

    log_folder: Path
    environment_for: Callable[[int], dict[str, str]] | None = None
    launch: Launch = launch_locally


@dataclass
class _Process:
    """A worker's process, its log, and what it has said of a line that is not whole yet."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    buffer: bytes = b""


def run_jobs(
    jobs: Sequence[Job] | JobSource,
    backend: Backend,
    processes: ProcessConfig,
    quota: WorkerQuota,
    deadline: float,
    soft_deadline: float | None = None,
) -> Iterator[Event]:
    """Run jobs in worker processes until each is done or given up, or the deadline has passed.

    However this generator ends (exhausted, closed, an exception), no worker outlives it.

    Args:
        jobs: in the order in which they begin; or a source that chooses the next job during the run (arc_submit.scheduling.scheduler).
        backend: does the jobs.
        processes: where and how the workers run.
        quota: the number of workers, which the caller may change during the run.
        deadline: on the monotonic clock; all workers are killed then.
        soft_deadline: on the monotonic clock, before the deadline. Each job carries it to its worker as "until", so that the worker can end
            by itself and save its results.

    Raises:
        PoolError: where a worker refuses its settings, or no worker gets ready in `timeouts.max_failed_starts` starts.
    """
    supervisor = Supervisor(JobQueue(jobs) if isinstance(jobs, Sequence) else jobs, backend.timeouts, quota, deadline)
    workers: dict[int, _Process] = {}
    processes.log_folder.mkdir(parents=True, exist_ok=True)
    try:
        while not supervisor.finished(time.monotonic()):
            now = time.monotonic()
            if over := supervisor.check_deadline(now):
                yield over
                return
            for number in supervisor.workers_to_start(now):
                workers[number] = _start(number, backend, processes)
                yield supervisor.on_start(number, workers[number].process.pid, time.monotonic())
            for number in list(supervisor.workers):
                if begun := supervisor.assign(number, time.monotonic()):
                    _send(workers[number], supervisor.workers[number].job, soft_deadline)
                    yield begun
            _wait(workers, min(0.2, max(0.0, deadline - now)))
            for number in list(supervisor.workers):
                # What a worker said is read before it is judged, and nothing is yielded in between: a caller that took its time
                # over an event must not make a healthy worker look silent.
                worker = workers[number]
                code = worker.process.poll()
                events = [event for message in _read(worker) for event in supervisor.on_message(number, message, time.monotonic())]
                reason = supervisor.find_fault(number, code, time.monotonic())
                yield from events
                if not reason:
                    continue
                _kill(worker)
                del workers[number]
                events, fatal = supervisor.on_exit(number, reason, time.monotonic())
                yield from events
                if fatal:
                    raise PoolError(f"{fatal}; see {processes.log_folder}")
    finally:
        idle = [workers[n] for n, state in supervisor.workers.items() if state.ready and state.job is None]
        _end(list(workers.values()), idle)


def _start(number: int, backend: Backend, config: ProcessConfig) -> _Process:
    environment = config.environment_for(number) if config.environment_for else {}
    settings = backend.settings_for(number)
    log = (config.log_folder / f"worker-{number}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, *config.launch(["-m", "arc_submit.workers.worker", backend.entry], environment)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    worker = _Process(process, log)
    _write(worker, settings)
    return worker


def _send(worker: _Process, job: Job | None, soft_deadline: float | None) -> None:
    assert job is not None
    seconds = {} if soft_deadline is None else {"seconds": soft_deadline - time.monotonic()}
    _write(worker, {"id": 0, "payload": {job.key: list(job.task_ids), **job.params}, **seconds})


def _write(worker: _Process, value: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    # A worker that died is noticed by its exit, with the job still in its name.
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(value).encode() + b"\n")
        worker.process.stdin.flush()


def _wait(workers: dict[int, _Process], seconds: float) -> None:
    """Wait until a worker says something, or for some seconds."""
    with selectors.DefaultSelector() as selector:
        for worker in workers.values():
            selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        if workers:
            selector.select(timeout=seconds)


def _read(worker: _Process) -> list[dict[str, Any]]:
    """Everything that a worker has said by now."""
    assert worker.process.stdout is not None
    with contextlib.suppress(BlockingIOError):
        while data := os.read(worker.process.stdout.fileno(), 1 << 20):
            worker.buffer += data
    *lines, worker.buffer = worker.buffer.split(b"\n")
    return [json.loads(line) for line in lines if line]


def _kill(worker: _Process, patience: float = 5.0) -> None:
    """End a worker and whatever it started.

    A process that the kernel holds (a driver, a network mount) cannot be waited for; the deadline must not wait with it.
    """
    _signal(worker)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=patience)
    for stream in (worker.process.stdin, worker.process.stdout, worker.log):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _signal(worker: _Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)


def _end(workers: list[_Process], idle: list[_Process]) -> None:
    """Let idle workers go by closing their input, then kill what is left; all together have the time that one would have."""
    for worker in workers:
        if worker not in idle:
            _signal(worker)
        elif worker.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
    patience = time.monotonic() + 2.0
    for worker in idle:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=max(0.0, patience - time.monotonic()))
    patience = time.monotonic() + 5.0
    for worker in workers:
        _kill(worker, max(0.0, patience - time.monotonic()))
