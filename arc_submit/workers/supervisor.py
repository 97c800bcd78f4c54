"""The supervisor: all decisions about a pool's workers, as a state machine that receives the time and touches no process.

It decides which worker starts, which worker gets which job, when a silent worker counts as hung, whether a lost job runs again, and when
the pool ends. arc_submit.workers.pool feeds it messages of real processes, arc_submit.scheduling.simulation messages of simulated ones on a
simulated clock. Every wait has a limit: a worker's start, its silence, and the pool as a whole. A job that is lost with its worker is split
into its tasks: this isolates the task that brings workers down, and the other tasks are done. A task that fails `max_failures` times is
given up with its reason. A worker that refuses (it says that no worker with these settings can work) ends the pool only where none has been
ready and no other is starting: else one device or one read has failed, and the others go on. Does not know what a job does.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from arc_submit.errors import ArcSubmitError


@dataclass(frozen=True)
class Job:
    """Work for one worker at a time.

    Attributes:
        task_ids: the tasks; a lost job is retried task by task.
        failures: number of times that the job was lost or failed.
        params: further entries of the payload, which is {"tasks": task_ids, **params}.
        reason: why the job was chosen, for the timeline.
        spent: seconds of earlier jobs that count towards Timeouts.job_timeout too.
    """

    task_ids: tuple[str, ...]
    failures: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    spent: float = 0.0


@dataclass(frozen=True)
class Timeouts:
    """Limits of waiting, in seconds, and of retries.

    Attributes:
        startup_timeout: from a worker's start to its "ready", which includes loading the model; heartbeats do not extend it.
        heartbeat_timeout: between two heartbeats during a job, and from the job's start to its first heartbeat.
        pause_factor: where set, a worker that has sent a few heartbeats in its job may be silent for this multiple of its own longest
            pause, within `min_heartbeat_timeout` and `heartbeat_timeout`. A hang is then noticed in seconds, and slow work extends its own
            limit.
        min_heartbeat_timeout: see `pause_factor`.
        max_failures: number of losses or failures after which a task is given up.
        max_failed_starts: number of failed starts in a row after which a worker is retired for a while.
        restart_delay: until a retired worker starts again; doubles with each further retirement.
        wait_for_retired: whether a pool that had a ready worker waits for `restart_delay` when all its workers are retired, in place of
            ending. Not where another backend can take the tasks.
        job_timeout: for one job, with what it has spent before; None sets no limit.
    """

    startup_timeout: float = 600.0
    heartbeat_timeout: float = 60.0
    pause_factor: float | None = None
    min_heartbeat_timeout: float = 10.0
    max_failures: int = 2
    max_failed_starts: int = 3
    restart_delay: float = 120.0
    wait_for_retired: bool = True
    job_timeout: float | None = None


class Quota(Protocol):
    """What a pool reads of its part of a machine."""

    @property
    def workers(self) -> int:
        """Number of processes."""

    @property
    def stopped(self) -> bool:
        """Whether the pool must end."""


@dataclass
class WorkerQuota:
    """The part of a machine that a pool may use. Its owner may change it while the pool runs.

    Attributes:
        workers: number of processes. A larger value starts workers at once; a smaller one ends none, it only prevents new starts.
        stopped: ends the pool, as its deadline does.
    """

    workers: int
    stopped: bool = False


@dataclass(frozen=True)
class BoundedQuota:
    """A quota of which a pool uses at most a number of workers."""

    quota: Quota
    most: int

    @property
    def workers(self) -> int:
        return min(self.most, self.quota.workers)

    @property
    def stopped(self) -> bool:
        return self.quota.stopped


@dataclass(frozen=True)
class Event:
    """One entry of a pool's timeline.

    Attributes:
        kind: "started", "ready", "lost" and "retired" (start again later) concern a worker; "begun", "progress" and "done" a job;
            "given_up" and "handed_on" (to the next backend, see arc_submit.workers.fallback) a task; "deadline" the pool, with all
            unfinished tasks.
        worker: its id, or -1.
        task_ids: tasks of the job.
        reason: of the choice of a job, of a loss, of a failure.
        result: of a done job, as its worker returned it; or the progress that came with a heartbeat.
        pid: of the worker's process.
        seconds: from the job's start to its end or loss; for "ready", from the worker's start.
        params: of the job.
    """

    kind: Literal["started", "ready", "begun", "progress", "done", "lost", "retired", "given_up", "handed_on", "deadline"]
    worker: int
    task_ids: tuple[str, ...] = ()
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    seconds: float = 0.0
    params: dict[str, Any] = field(default_factory=dict)


class PoolError(ArcSubmitError):
    """No worker can get ready."""


class JobSource(Protocol):
    """Chooses the jobs of a pool, and takes lost jobs back."""

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        """Remove and return the next job of a worker; None where none can begin now. `workers` is the number of usable workers."""

    def available(self, workers: int, now: float) -> int:
        """Return the number of jobs that can begin now; 0 where `next_job` would return None."""

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        """Take lost jobs back, to begin before or after all others."""

    def on_event(self, event: Event) -> None:
        """Receive a "done" or "given_up" event."""

    def pending(self) -> list[str]:
        """Return all tasks that have not begun, in order."""

    def reopen(self, task_ids: Sequence[str]) -> JobSource:
        """Return a source of these tasks, one task per job and without failures, followed by all pending jobs."""


class JobQueue:
    """A job source with a fixed order.

    Args:
        until: from then on no job begins.
    """

    def __init__(self, jobs: Iterable[Job], until: float = math.inf):
        self._jobs, self._until = deque(jobs), until
        self._params = {task_id: job.params for job in self._jobs for task_id in job.task_ids}

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        return self._jobs.popleft() if self.available(workers, now) else None

    def available(self, workers: int, now: float) -> int:
        return len(self._jobs) if now < self._until else 0

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        if first:
            self._jobs.extendleft(reversed(jobs))
        else:
            self._jobs.extend(jobs)

    def on_event(self, event: Event) -> None:
        pass

    def pending(self) -> list[str]:
        return [task_id for job in self._jobs for task_id in job.task_ids]

    def reopen(self, task_ids: Sequence[str]) -> JobQueue:
        again = (Job((task_id,), params=self._params.get(task_id, {})) for task_id in task_ids)
        return JobQueue([*again, *self._jobs], self._until)


@dataclass
class WorkerState:
    """One worker.

    Attributes:
        started: time of its start.
        last_message: time of its last message, or of its job's start if that is later.
        job: in progress.
        job_started: time of that job's start.
        heartbeats: number of messages during that job.
        longest_pause: seconds between two of these messages.
        refusal: why no worker with these settings can get ready, as this worker sees it.
        error: why this worker did not get ready.
        exiting: it ends by itself after a failed job, and gets no other job before it is replaced.
    """

    pid: int
    started: float
    last_message: float
    ready: bool = False
    job: Job | None = None
    job_started: float = 0.0
    heartbeats: int = 0
    longest_pause: float = 0.0
    refusal: str = ""
    error: str = ""
    exiting: bool = False


OVER_JOB_TIMEOUT = "over the time limit"  # begins the reason for which a worker is killed at Timeouts.job_timeout
_MIN_HEARTBEATS = 4  # of a job, before its longest pause is a sound basis for a timeout


class Supervisor:
    """The workers of a pool and their jobs.

    All times are on one clock, which `now` reads.

    Args:
        source: chooses the jobs.
        timeouts: limits of waiting.
        quota: number of workers, may change during the run.
        deadline: end of the pool.
    """

    def __init__(self, source: JobSource, timeouts: Timeouts, quota: Quota, deadline: float):
        self.source, self.timeouts, self.quota, self.deadline = source, timeouts, quota, deadline
        self.workers: dict[int, WorkerState] = {}
        self._failed_starts: Counter[int] = Counter()
        self._retired_until: dict[int, float] = {}  # an entry stays through the next start attempt, until the worker is ready
        self._retirements: Counter[int] = Counter()
        self._ever_ready = False

    @property
    def usable_workers(self) -> int:
        """Workers within the quota, except those that do not get ready; at least 1."""
        return max(1, self.quota.workers - sum(worker_id < self.quota.workers for worker_id in self._retired_until))

    def finished(self, now: float) -> bool:
        """Return whether no job is in progress and none can begin."""
        return not any(worker.job for worker in self.workers.values()) and not self.source.available(self.usable_workers, now)

    def check_deadline(self, now: float) -> Event | None:
        """Return the "deadline" event with all unfinished tasks, once the pool must end."""
        if now < self.deadline and not self.quota.stopped:
            return None
        in_progress = [task_id for worker in self.workers.values() if worker.job for task_id in worker.job.task_ids]
        return Event("deadline", -1, (*in_progress, *self.source.pending()), "stopped" if self.quota.stopped else "the time is up")

    def workers_to_start(self, now: float) -> list[int]:
        """Return the ids of workers to start: within the quota, and not more than there are jobs."""
        absent = [i for i in range(self.quota.workers) if i not in self.workers and self._retired_until.get(i, now) <= now]
        if not absent:
            return []
        jobs = self.source.available(self.usable_workers, now) + sum(worker.job is not None for worker in self.workers.values())
        return absent[: max(0, jobs - len(self.workers))]

    def next_restart(self, now: float) -> float:
        """Return when the next retired worker may start again; infinity where none waits."""
        waiting = [until for worker_id, until in self._retired_until.items() if worker_id not in self.workers and until > now]
        return min(waiting, default=math.inf)

    def on_start(self, worker_id: int, pid: int, now: float) -> Event:
        """Record that a worker's process has started."""
        self.workers[worker_id] = WorkerState(pid, now, now)
        return Event("started", worker_id, pid=pid)

    def assign(self, worker_id: int, now: float) -> Event | None:
        """Assign the next job to a worker; None where the worker is not free or no job can begin."""
        worker = self.workers[worker_id]
        if not worker.ready or worker.exiting or worker.job is not None or not self.source.available(self.usable_workers, now):
            return None
        job = self.source.next_job(self.usable_workers, now, worker_id)
        if job is None:
            return None
        worker.job, worker.job_started, worker.last_message = job, now, now
        worker.heartbeats, worker.longest_pause = 0, 0.0
        return Event("begun", worker_id, job.task_ids, job.reason, params=job.params)

    def on_message(self, worker_id: int, message: dict[str, Any], now: float) -> list[Event]:
        """Process a worker's message, one line of the protocol of arc_submit.workers.worker."""
        worker = self.workers[worker_id]
        if worker.job and worker.heartbeats:  # the wait for the first one includes start-up work and is no measure of the pace
            worker.longest_pause = max(worker.longest_pause, now - worker.last_message)
        worker.last_message = now
        worker.heartbeats += worker.job is not None
        kind = message["event"]
        if kind == "ready":
            worker.ready = self._ever_ready = True
            self._retired_until.pop(worker_id, None)
            self._retirements[worker_id] = 0
            return [Event("ready", worker_id, pid=worker.pid, seconds=now - worker.started)]
        if kind == "beat" and message.get("progress"):
            return [Event("progress", worker_id, worker.job.task_ids if worker.job else (), result=message["progress"])]
        if kind == "refused":
            worker.refusal = message["reason"]
        elif kind == "error":
            worker.error = message["reason"]
        elif kind in ("done", "failed") and worker.job:
            job, worker.job = worker.job, None
            if kind == "done":
                # A task that this backend does not support fails again in every retry: it is given up at the first attempt.
                cannot = message["result"].pop("cannot", {})
                task_ids = tuple(task_id for task_id in job.task_ids if task_id not in cannot)
                done = Event("done", worker_id, task_ids, result=message["result"], seconds=now - worker.job_started, params=job.params)
                events = [
                    done,
                    *(Event("given_up", worker_id, (task_id,), reason, params=job.params) for task_id, reason in cannot.items()),
                ]
                for event in events:
                    self.source.on_event(event)
                return events
            worker.exiting = message["exits"]
            return self._retry(job, message["reason"], worker_id)
        return []

    def find_fault(self, worker_id: int, exit_code: int | None, now: float) -> str:
        """Return why a worker must be killed or replaced, else "".

        Args:
            exit_code: of its process, None while it runs.
        """
        worker = self.workers[worker_id]
        if exit_code is not None:
            ending = f"killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
            return worker.refusal or worker.error or ending
        if not worker.ready and now - worker.started > self.timeouts.startup_timeout:
            return f"not ready after {self.timeouts.startup_timeout:.0f} s"
        if worker.job and now - worker.last_message > (limit := self.max_silence(worker_id)):
            return f"silent for {limit:.0f} s"
        longest = self.timeouts.job_timeout
        if worker.job and longest is not None and now - worker.job_started + worker.job.spent > longest:
            return f"{OVER_JOB_TIMEOUT} of {longest:g} s"
        return ""

    def max_silence(self, worker_id: int) -> float:
        """Return the seconds of silence after which a worker counts as hung."""
        worker, timeouts = self.workers[worker_id], self.timeouts
        if timeouts.pause_factor is None or worker.heartbeats < _MIN_HEARTBEATS:
            return timeouts.heartbeat_timeout
        return min(timeouts.heartbeat_timeout, max(timeouts.min_heartbeat_timeout, timeouts.pause_factor * worker.longest_pause))

    def on_exit(self, worker_id: int, reason: str, now: float) -> tuple[list[Event], str]:
        """Record that a worker has ended.

        Returns:
            the events, and why the whole pool cannot continue, else "".
        """
        worker = self.workers.pop(worker_id)
        self._failed_starts[worker_id] = 0 if worker.ready else self._failed_starts[worker_id] + 1
        task_ids, seconds = (worker.job.task_ids, now - worker.job_started) if worker.job else ((), 0.0)
        events = [Event("lost", worker_id, task_ids, reason, pid=worker.pid, seconds=seconds)]
        if worker.job:
            events += [replace(event, seconds=seconds) for event in self._retry(worker.job, reason, worker_id)]
        # Where another worker gets ready with these settings, the refusal tells of this one's device: a lost GPU, a mount that fails.
        refused = worker.refusal if not self._ever_ready else ""
        fatal = "" if self.workers else refused
        if not fatal and (refused or self._failed_starts[worker_id] >= self.timeouts.max_failed_starts):
            # A busy GPU may be free again later: the worker is not lost for the rest of the run.
            delay = self.timeouts.restart_delay * 2 ** self._retirements[worker_id]
            self._retirements[worker_id] += 1
            self._retired_until[worker_id] = now + delay
            explanation = f"not ready in {self._failed_starts[worker_id]} starts: {reason}; tried again in {delay:.0f} s"
            events.append(Event("retired", worker_id, (), explanation))
        waits = self._ever_ready and self.timeouts.wait_for_retired
        if not fatal and not waits and not self.workers and set(self._retired_until) >= set(range(self.quota.workers)):
            fatal = f"no worker got ready in {self.timeouts.max_failed_starts} starts: {reason}"
        if fatal:
            self.source.requeue([other.job for other in self.workers.values() if other.job], first=True)
        return events, fatal

    def _retry(self, job: Job, reason: str, worker_id: int) -> list[Event]:
        """Requeue a job that was lost or failed, or give it up."""
        if len(job.task_ids) > 1:
            # One task is at fault and the others are not: each gets a job of its own, which does not count as a failure.
            self.source.requeue([replace(job, task_ids=(task_id,)) for task_id in job.task_ids], first=True)
        elif job.failures + 1 < self.timeouts.max_failures:
            self.source.requeue([replace(job, failures=job.failures + 1)], first=False)
        else:
            given_up = Event("given_up", worker_id, job.task_ids, reason, params=job.params)
            self.source.on_event(given_up)
            return [given_up]
        return []
