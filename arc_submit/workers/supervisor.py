"""The crew: what a pool decides about its workers, as a state machine that is told the time and touches no process.

Which worker to start, which job to give to whom, when one has been silent for too long, what becomes of a lost job, and when it is over:
every such decision is made here. arc_submit.workers.pool feeds it what real processes say, arc_submit.scheduling.simulation what made-up
ones would say on a clock of their own. Every wait has a limit: for a worker's start, for its silence, and for the whole. A job lost with
its worker is split into its parts, so that the one that brought the worker down is found and the others get done; a part that does so
`max_failures` times is given up with its reason. Knows nothing about what a job is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from arc_submit.errors import ArcSubmitError


@dataclass(frozen=True)
class Job:
    """Work for one worker at a time.

    Attributes:
        parts: names of what the job is made of; a lost job is given out again part by part.
        key: the payload is {key: [parts], **told}.
        failures: how often it has been lost.
        told: what else the worker is told with it.
        reason: the reason for which it was chosen.
    """

    task_ids: tuple[str, ...]
    key: str = "tasks"
    failures: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Timeouts:
    """How long what may take, in seconds.

    Attributes:
        start: from a worker's start to its "ready", the model's loading included; a beat does not prolong it.
        silence: between two heartbeats while a job is in hand, and from a job's beginning to its first.
        patience: where given, a worker that has beaten steadily may be silent for so many times its own longest pause in the job, at
            least `least` and at most `silence`: a stuck one is then noticed in seconds, and slow work only makes its own limit longer.
        least: see `patience`.
        max_failures: how often a part may be lost or fail before it is given up.
        starts: how often a worker may fail to get ready, in a row, before it rests.
        rest: how long it rests before it is tried once more; twice as long each time after that.
    """

    startup_timeout: float = 600.0
    heartbeat_timeout: float = 60.0
    pause_factor: float | None = None
    min_heartbeat_timeout: float = 10.0
    max_failures: int = 2
    max_failed_starts: int = 3
    restart_delay: float = 600.0


@dataclass
class WorkerQuota:
    """What a pool may use of a machine; whoever divides the machine among pools may change it while they run.

    Attributes:
        workers: processes at a time. More are started at once; with fewer, those that are there end their work first.
        stopped: ends the pool as its deadline does.
    """

    workers: int
    stopped: bool = False


@dataclass(frozen=True)
class Event:
    """What happened: a job begun or done, a part given up, a worker started, ready, lost or put to rest ("retired"), or the end of time.

    "progress" carries in `result` what a worker told with a heartbeat; "handed_on" is a part that the next stage will try
    (arc_submit.workers.fallback). `told` is what the worker was told with the job, `seconds` how long one took that is done or lost.
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
    """No worker can be got ready."""


class JobSource(Protocol):
    """Where a crew's jobs come from, and where lost ones go back to."""

    def next_job(self, workers: int, now: float) -> Job | None:
        """The next job to begin, with so many workers there to share the rest; None where there is nothing to begin now."""

    def available(self, workers: int, now: float) -> int:
        """How many jobs could be begun now, 0 where `take` would give none."""

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        """Jobs that were lost: to be begun again before the others, or after them."""

    def on_event(self, event: Event) -> None:
        """A job is done, or a part given up."""

    def pending(self) -> list[str]:
        """All that waits, the next first."""

    def reopen(self, task_ids: Sequence[str]) -> JobSource:
        """A supply of these parts alone, each in a job of its own and without a strike, and of what waits."""


class JobQueue:
    """Jobs in the order in which they are given."""

    def __init__(self, jobs: Iterable[Job]):
        self._jobs = deque(jobs)

    def next_job(self, workers: int, now: float) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def available(self, workers: int, now: float) -> int:
        return len(self._jobs)

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        if first:
            self._jobs.extendleft(reversed(jobs))
        else:
            self._jobs.extend(jobs)

    def on_event(self, event: Event) -> None:
        pass

    def pending(self) -> list[str]:
        return [part for job in self._jobs for part in job.task_ids]

    def reopen(self, task_ids: Sequence[str]) -> JobQueue:
        return JobQueue([*(Job((part,)) for part in task_ids), *self._jobs])


@dataclass
class WorkerState:
    """A worker as the crew knows it.

    Attributes:
        started, heard, begun: when it was started, last said something, began the job in hand.
        beats: in the job in hand; `pause` is the longest time between two of them.
        refused, trouble: why it will go.
        leaves: it ends by itself after a failed job, and gets none until it is replaced.
    """

    number: int
    pid: int
    started: float
    last_message: float
    ready: bool = False
    job: Job | None = None
    job_started: float = 0.0
    beats: int = 0
    longest_pause: float = 0.0
    refusal: str = ""
    error: str = ""
    exiting: bool = False


_STEADY = 4  # heartbeats after which a worker's own pauses say how long it may be silent


class Supervisor:
    """The workers of a pool and what they have in hand.

    Args:
        supply: the jobs.
        limits: how long what may take.
        share: how many workers there may be.
        deadline: when all is over, on the clock whose `now` is given.
    """

    def __init__(self, source: JobSource, timeouts: Timeouts, quota: WorkerQuota, deadline: float):
        self.source, self.timeouts, self.quota, self.deadline = source, timeouts, quota, deadline
        self.workers: dict[int, WorkerState] = {}
        self._failed_starts: Counter[int] = Counter()
        self._retired: dict[int, float] = {}  # workers that did not get ready, until when they rest
        self._restart_delays: Counter[int] = Counter()

    @property
    def usable_workers(self) -> int:
        """Workers that there may be and that get ready."""
        return max(1, self.quota.workers - sum(number < self.quota.workers for number in self._retired))

    def finished(self, now: float) -> bool:
        """Whether nothing is in hand and nothing can be begun."""
        return not any(worker.job for worker in self.workers.values()) and not self.source.available(self.usable_workers, now)

    def check_deadline(self, now: float) -> Event | None:
        """The end of the time, with all that is not done, once it has come."""
        if now < self.deadline and not self.quota.stopped:
            return None
        left = [part for worker in self.workers.values() if worker.job for part in worker.job.task_ids]
        return Event("deadline", -1, (*left, *self.source.pending()), "stopped" if self.quota.stopped else "the time is up")

    def workers_to_start(self, now: float) -> list[int]:
        """Numbers of the workers to start: as many as there is work for."""
        absent = [n for n in range(self.quota.workers) if n not in self.workers and self._retired.get(n, now) <= now]
        if not absent:
            return []
        wanted = self.source.available(self.usable_workers, now) + sum(worker.job is not None for worker in self.workers.values())
        return absent[: max(0, wanted - len(self.workers))]

    def on_start(self, number: int, pid: int, now: float) -> Event:
        """A worker has been started."""
        self.workers[number] = WorkerState(number, pid, now, now)
        return Event("started", number, pid=pid)

    def assign(self, number: int, now: float) -> Event | None:
        """Give a worker that is ready and idle its next job, where there is one."""
        worker = self.workers[number]
        if not worker.ready or worker.exiting or worker.job is not None or not self.source.available(self.usable_workers, now):
            return None
        job = self.source.next_job(self.usable_workers, now)
        if job is None:
            return None
        worker.job, worker.job_started, worker.last_message = job, now, now
        worker.beats, worker.longest_pause = 0, 0.0
        return Event("begun", number, job.task_ids, job.reason, params=job.params)

    def on_message(self, number: int, message: dict[str, Any], now: float) -> list[Event]:
        """Take in what a worker has said, a line of its protocol (arc_submit.workers.worker)."""
        worker = self.workers[number]
        if worker.job and worker.beats:
            worker.longest_pause = max(worker.longest_pause, now - worker.last_message)
        worker.last_message = now
        worker.beats += worker.job is not None
        kind = message["event"]
        if kind == "ready":
            worker.ready = True
            self._retired.pop(number, None)
            self._restart_delays[number] = 0
            return [Event("ready", number, pid=worker.pid, seconds=now - worker.started)]
        if kind == "beat" and message.get("progress"):
            return [Event("progress", number, worker.job.task_ids if worker.job else (), result=message["progress"])]
        if kind == "refused":
            worker.refusal = message["reason"]
        elif kind == "trouble":
            worker.error = message["reason"]
        elif kind in ("done", "failed") and worker.job:
            job, worker.job = worker.job, None
            if kind == "done":
                # What a worker cannot do by its nature will not be better in a second try.
                cannot = message["result"].pop("cannot", {})
                task_ids = tuple(part for part in job.task_ids if part not in cannot)
                done = Event("done", number, task_ids, result=message["result"], seconds=now - worker.job_started, params=job.params)
                events = [done, *(Event("given_up", number, (part,), reason, params=job.params) for part, reason in cannot.items())]
                for event in events:
                    self.source.on_event(event)
                return events
            worker.exiting = message["leaves"]
            return self._retry(job, message["reason"], number)
        return []

    def find_fault(self, number: int, code: int | None, now: float) -> str:
        """Why a worker must go, or nothing; `code` is its exit code, or None where it lives."""
        worker = self.workers[number]
        if code is not None:
            ending = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return worker.refusal or worker.error or ending
        if not worker.ready and now - worker.started > self.timeouts.startup_timeout:
            return f"not ready after {self.timeouts.startup_timeout:.0f} s"
        if worker.job and now - worker.last_message > (allowed := self.max_silence(number)):
            return f"silent for {allowed:.0f} s"
        return ""

    def max_silence(self, number: int) -> float:
        """Seconds of silence that a worker is allowed now."""
        worker, timeouts = self.workers[number], self.timeouts
        if timeouts.pause_factor is None or worker.beats < _STEADY:
            return timeouts.heartbeat_timeout
        return min(timeouts.heartbeat_timeout, max(timeouts.min_heartbeat_timeout, timeouts.pause_factor * worker.longest_pause))

    def on_exit(self, number: int, reason: str, now: float) -> tuple[list[Event], str]:
        """A worker has gone: what follows from it, and why the crew cannot go on at all, where that is so."""
        worker = self.workers.pop(number)
        self._failed_starts[number] = 0 if worker.ready else self._failed_starts[number] + 1
        task_ids, seconds = (worker.job.task_ids, now - worker.job_started) if worker.job else ((), 0.0)
        events = [Event("lost", number, task_ids, reason, pid=worker.pid, seconds=seconds)]
        if worker.job:
            events += self._retry(worker.job, reason, number)
        fatal = worker.refusal
        if not fatal and self._failed_starts[number] >= self.timeouts.max_failed_starts:
            rest = self.timeouts.restart_delay * 2 ** self._restart_delays[number]
            self._restart_delays[number] += 1
            self._retired[number] = now + rest
            rest_reason = f"not ready in {self._failed_starts[number]} starts: {reason}; tried again in {rest:.0f} s"
            events.append(Event("retired", number, (), rest_reason))
        if not fatal and set(self._retired) >= set(range(self.quota.workers)):
            fatal = f"no worker got ready in {self.timeouts.max_failed_starts} starts: {reason}"
        if fatal:
            self.source.requeue([worker.job for worker in self.workers.values() if worker.job], first=True)
        return events, fatal

    def _retry(self, job: Job, reason: str, number: int) -> list[Event]:
        """What becomes of a job that was lost or that failed."""
        if len(job.task_ids) > 1:
            # Part by part and without a strike: one of them is to blame and the others are not.
            self.source.requeue([replace(job, task_ids=(part,)) for part in job.task_ids], first=True)
        elif job.failures + 1 < self.timeouts.max_failures:
            self.source.requeue([replace(job, failures=job.failures + 1)], first=False)
        else:
            given_up = Event("given_up", number, job.task_ids, reason, params=job.params)
            self.source.on_event(given_up)
            return [given_up]
        return []
