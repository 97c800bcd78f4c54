"""The pool: worker processes, each in its own session, started, watched, killed and restarted.

arc_submit.workers.supervisor decides what to do and when; this module has the processes, their pipes and the clock. Does not know what a
job does.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Quota, Supervisor, Timeouts, WorkerQuota

__all__ = ["Backend", "Event", "Job", "Launch", "PoolError", "ProcessConfig", "Timeouts", "WorkerQuota", "launch_locally", "run_jobs"]

# (Python arguments of a worker, its environment variables) -> Python arguments of the process to start on this machine, which is the worker
# itself or a proxy of a worker on another machine.
Launch = Callable[[Sequence[str], Mapping[str, str]], Sequence[str]]

_POLL_SECONDS = 0.2  # the longest wait for messages
_EXIT_SECONDS = 2.0  # for idle workers to end by themselves
_KILL_SECONDS = 5.0  # for killed workers to be gone
_CLEAN_SECONDS = 3.0  # for what a killed worker has started to end by itself


def launch_locally(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """Run the worker on this machine."""
    return arguments


@dataclass(frozen=True)
class Backend:
    """One implementation of the jobs.

    Attributes:
        name: for messages, and for the folder of its logs where there are several backends.
        entry: "package.module:function", see arc_submit.workers.worker.
        settings_for: returns the settings of the worker with this id, as JSON values.
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
        log_folder: receives one log for each worker, with what its libraries print.
        environment_for: returns the environment variables to set for the worker with this id.
        launch: where the process runs: on this machine, or on a cluster (arc_submit.workers.ray_cluster).
    """

    log_folder: Path
    environment_for: Callable[[int], dict[str, str]] | None = None
    launch: Launch = launch_locally


@dataclass
class _Process:
    """A worker's process, its log, and the beginning of a message that is not yet complete."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    buffer: bytes = b""


def run_jobs(
    jobs: Sequence[Job] | JobSource,
    backend: Backend,
    config: ProcessConfig,
    quota: Quota,
    deadline: float,
    soft_deadline: float | None = None,
) -> Iterator[Event]:
    """Run jobs in worker processes until each is done or given up, or the deadline has passed.

    However this generator ends (exhausted, closed, by an exception), no worker outlives it.

    Args:
        jobs: in the order in which they begin; or a source that chooses the next job during the run (arc_submit.scheduling.scheduler).
        backend: does the jobs.
        config: where and how the workers run.
        quota: number of workers; the caller may change it during the run.
        deadline: on the monotonic clock; all workers are killed then.
        soft_deadline: on the monotonic clock, before the deadline; at that time a worker should end its job by itself and save its results.

    Raises:
        PoolError: where a worker refuses its settings, or no worker gets ready in `timeouts.max_failed_starts` starts.
    """
    supervisor = Supervisor(JobQueue(jobs) if isinstance(jobs, Sequence) else jobs, backend.timeouts, quota, deadline)
    processes: dict[int, _Process] = {}
    config.log_folder.mkdir(parents=True, exist_ok=True)
    try:
        while not supervisor.finished(time.monotonic()):
            now = time.monotonic()
            if end := supervisor.check_deadline(now):
                yield end
                return
            for worker_id in supervisor.workers_to_start(now):
                processes[worker_id] = _start(worker_id, backend, config)
                yield supervisor.on_start(worker_id, processes[worker_id].process.pid, time.monotonic())
            for worker_id, worker in supervisor.workers.items():
                if begun := supervisor.assign(worker_id, time.monotonic()):
                    assert worker.job is not None
                    _send_job(processes[worker_id], worker.job, soft_deadline)
                    yield begun
            _wait_for_messages(processes.values(), min(_POLL_SECONDS, max(0.0, deadline - now)))
            for worker_id in list(supervisor.workers):
                # All messages are read before the check for silence, and nothing is yielded in between: a caller that spends long on an
                # event must not make a healthy worker look silent.
                process = processes[worker_id]
                exit_code = process.process.poll()
                events = [event for message in _read(process) for event in supervisor.on_message(worker_id, message, time.monotonic())]
                reason = supervisor.find_fault(worker_id, exit_code, time.monotonic())
                yield from events
                if not reason:
                    continue
                _kill(process)
                del processes[worker_id]
                events, fatal = supervisor.on_exit(worker_id, reason, time.monotonic())
                yield from events
                if fatal:
                    raise PoolError(f"{fatal}; see {config.log_folder}")
    finally:
        idle = [processes[worker_id] for worker_id, worker in supervisor.workers.items() if worker.ready and worker.job is None]
        _end(list(processes.values()), idle)


def _start(worker_id: int, backend: Backend, config: ProcessConfig) -> _Process:
    environment = config.environment_for(worker_id) if config.environment_for else {}
    settings = backend.settings_for(worker_id)
    log = (config.log_folder / f"worker-{worker_id}.log").open("ab")
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


def _send_job(worker: _Process, job: Job, soft_deadline: float | None) -> None:
    # The soft deadline travels as seconds that remain: a worker on another machine has another monotonic clock.
    seconds = {} if soft_deadline is None else {"seconds": soft_deadline - time.monotonic()}
    _write(worker, {"payload": {"tasks": list(job.task_ids), **job.params}, **seconds})


def _write(worker: _Process, value: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    # A worker that has died is noticed by its exit code, and its job is still assigned to it then.
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(value).encode() + b"\n")
        worker.process.stdin.flush()


def _wait_for_messages(workers: Iterable[_Process], seconds: float) -> None:
    """Wait until a worker sends something, for at most these seconds."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        selector.select(timeout=seconds)


def _read(worker: _Process) -> list[dict[str, Any]]:
    """Return all messages that a worker has completed."""
    assert worker.process.stdout is not None
    with contextlib.suppress(BlockingIOError):
        while data := os.read(worker.process.stdout.fileno(), 1 << 20):
            worker.buffer += data
    *lines, worker.buffer = worker.buffer.split(b"\n")
    return [json.loads(line) for line in lines if line]


def _kill(worker: _Process, timeout: float = _KILL_SECONDS) -> None:
    """Kill a worker and every process that it started.

    The worker alone is killed first. What is bound to it ends with it, and Python's tracker of shared memory, which sees that, frees the
    shared memory of them all; it must not be killed before. The waits have timeouts: the kernel may hold a process (a driver, a network
    mount), and the deadline must not slip with it.
    """
    end = time.monotonic() + timeout
    worker.process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=timeout)
    end = min(end, time.monotonic() + _CLEAN_SECONDS)
    while _signal_all(worker, 0) and time.monotonic() < end:
        time.sleep(0.02)
    _signal_all(worker, signal.SIGKILL)
    for stream in (worker.process.stdin, worker.process.stdout, worker.log):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _signal_all(worker: _Process, number: int) -> bool:
    """Send a signal, or 0 for none, to a worker and all that it has started; returns whether any of them is left."""
    try:
        os.killpg(worker.process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _end(workers: list[_Process], idle: list[_Process]) -> None:
    """End all workers: idle ones by closing their input, the others by a signal. The timeouts are for all together."""
    for worker in workers:
        if worker not in idle:
            worker.process.kill()
        elif worker.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
    exit_deadline = time.monotonic() + _EXIT_SECONDS
    for worker in idle:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=max(0.0, exit_deadline - time.monotonic()))
    kill_deadline = time.monotonic() + _KILL_SECONDS
    for worker in workers:
        _kill(worker, max(0.0, kill_deadline - time.monotonic()))
