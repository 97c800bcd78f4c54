"""The GPU hours of a session, those that are left this week, and the batch sessions that run: whether a push can end.

Kaggle's figures come from the client: `kaggle quota`, `kernels list --mine`, `kernels status` and `kernels pull -m` of kaggle 2.2.4. The
rates and the number of sessions are known from reports of users. Without an answer of the client the hours are unknown, and nothing is
refused. Does not know a notebook.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.durations import format_duration
from arc_submit.errors import ArcSubmitError
from arc_submit.kaggle.client import read_table, run_client
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA
from arc_submit.kaggle.kernel_status import fetch_status

MOST_SESSIONS = 2  # batch sessions with a GPU that run or wait at a time
_RATES = {"NvidiaL4": 2.0}  # GPU hours that an hour counts, where it is known not to be 1
_UNKNOWN_RATES = ("NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000")
_CLIENT_TIMEOUT = 30.0  # seconds
_LONGEST = timedelta(hours=24)  # a session takes 12 hours at most, and may have waited before it
_ASKED_KERNELS = 5  # whose status is asked, those that ran last


@dataclass(frozen=True)
class Session:
    """What a push begins.

    Attributes:
        accelerator: as Kaggle names it; empty for a machine without a GPU.
        limit: seconds after which Kaggle ends the session.
        expected: seconds that it takes by the notebook's own budget; the limit where that is not known.
    """

    accelerator: str
    limit: float
    expected: float

    @property
    def rate(self) -> float:
        """GPU hours that an hour of it counts."""
        return _RATES.get(self.accelerator, 1.0) if self.accelerator else 0.0


@dataclass(frozen=True)
class Quota:
    """The GPU hours of this week."""

    used: float
    left: float
    total: float
    refresh: datetime | None  # UTC; None where Kaggle does not say it

    def ends(self, now: datetime) -> str:
        """Until when they are to last, for a person."""
        if self.refresh is None:
            return "the weekly refresh"
        return f"{self.refresh:%Y-%m-%d %H:%M} UTC (in {format_duration(max(0.0, (self.refresh - now).total_seconds()))})"


def check_account(session: Session, now: datetime | None = None) -> tuple[list[str], list[Finding], dict[str, Any]]:
    """Compare a session with what the account has left.

    Args:
        now: UTC; the clock's time by default.

    Returns:
        Lines to print; findings at the places "quota" and "sessions"; figures.
    """
    if not session.rate:
        return ["session: no GPU, so it costs no GPU hours"], [], {"gpu_hours": 0.0, "gpu_hours_left": None, "running": None}
    now = now or datetime.now(UTC)
    cost, expected = (seconds / 3600 * session.rate for seconds in (session.limit, session.expected))
    counted = f", which counts {session.rate:g}" if session.rate != 1 else ""
    least = "at least " if session.accelerator in _UNKNOWN_RATES else ""  # its rate is not known, and is not below 1
    limit = f"{format_duration(session.limit)} on {session.accelerator}{counted}"
    lines = [f"session: at most {limit}: {least}{cost:.2f} GPU hours"]
    if session.expected < session.limit:
        lines[0] += f"; by the notebook's budget {format_duration(session.expected)}: {least}{expected:.2f}"
    figures: dict[str, Any] = {"gpu_hours": round(cost, 3), "gpu_hours_expected": round(expected, 3)}
    figures |= {"gpu_hours_left": None, "running": None}
    try:
        quota = read_quota()
    except ArcSubmitError as error:
        lines.append(f"GPU hours left, batch sessions: unknown ({error})")
        return lines, [], figures
    lines.append(f"GPU hours left: {quota.left:.2f} of {quota.total:.2f}, until {quota.ends(now)}")
    findings = list(_check_hours(session, quota, now))
    try:
        running = running_sessions(now)
    except ArcSubmitError as error:
        lines.append(f"batch sessions: unknown ({error})")
        return lines, findings, {**figures, "gpu_hours_left": quota.left}
    named = ", ".join(f"{kernel} {state}" for kernel, state in running.items())
    lines.append(
        f"batch sessions: {len(running)} of {MOST_SESSIONS}" + (f" ({named}), whose hours are not subtracted above" if named else "")
    )
    if len(running) >= MOST_SESSIONS:
        problem = f"{len(running)} batch sessions run or wait ({named}), and Kaggle takes {MOST_SESSIONS} with a GPU at a time"
        remedy = f"wait for the end of one (arc-submit kaggle status {next(iter(running))} --follow), or give --ignore sessions"
        findings.append(Finding("error", "Kaggle", "sessions", problem, remedy))
    return lines, findings, {**figures, "gpu_hours_left": quota.left, "running": running}


def read_quota() -> Quota:
    """The GPU hours of the account; raises KaggleError where the client gets no answer."""
    result = run_client(["quota", "--format", "json"], _CLIENT_TIMEOUT)
    problem = "no GPU hours"
    rows = [row for row in read_table(result, problem) if row.get("resource") == "GPU"]
    try:
        used, left, total = (float(str(rows[0][name]).removesuffix("h")) for name in ("used", "remaining", "total"))
    except (IndexError, KeyError, ValueError):
        raise result.error(problem) from None
    return Quota(used, left, total, _read_time(rows[0].get("refreshAt")))


def running_sessions(now: datetime) -> dict[str, str]:
    """The state of each of the account's kernels that runs or waits, GPU sessions alone where Kaggle's records tell.

    The client knows the last run of a kernel, so two runs of one kernel count once.

    Raises:
        KaggleError: where the client gets no answer.
    """
    options = ["--mine", "--sort-by", "dateRun", "--page-size", "20", "--format", "json"]
    rows = read_table(run_client(["kernels", "list", *options], _CLIENT_TIMEOUT), "no list of your kernels")
    recent = [str(row.get("ref")) for row in rows if _is_recent(row.get("lastRunTime"), now)][:_ASKED_KERNELS]
    states = {kernel: fetch_status(kernel, _CLIENT_TIMEOUT).state for kernel in recent}
    running = {kernel: state for kernel, state in states.items() if state in ("QUEUED", "RUNNING")}
    if len(running) < MOST_SESSIONS:
        return running
    return {kernel: state for kernel, state in running.items() if _has_gpu(kernel)}


def _has_gpu(kernel: str) -> bool:
    """Whether a kernel's last version asks for a GPU, by Kaggle's record of it; true where there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            result = run_client(["kernels", "pull", kernel, "-p", scratch, "-m"], _CLIENT_TIMEOUT)
            return result.code != 0 or read_json(Path(scratch) / KERNEL_METADATA).get("enable_gpu") is not False
        except ArcSubmitError:
            return True


def _check_hours(session: Session, quota: Quota, now: datetime) -> Iterator[Finding]:
    """An error where the session cannot end with the hours that are left, a warning where it could take more than those."""
    until_refresh = (quota.refresh - now).total_seconds() if quota.refresh else float("inf")

    def hours(seconds: float) -> float:
        """GPU hours of this week: what is later is the next week's."""
        return max(0.0, min(seconds, until_refresh)) / 3600 * session.rate

    until = f"{quota.left:.2f} are left until {quota.ends(now)}"
    finding = partial(Finding, file="Kaggle", place="quota")
    if hours(session.expected) > quota.left:
        machine = f"{format_duration(session.expected)} on {session.accelerator}"
        problem = f"the session takes {hours(session.expected):.2f} GPU hours ({machine}), and {until}: Kaggle ends it before"
        remedy = "wait for the refresh, lower the notebook's budget or --session, or give --ignore quota"
        yield finding("error", problem=problem, remedy=remedy)
    elif hours(session.limit) > quota.left:
        problem = f"at its limit the session takes {hours(session.limit):.2f} GPU hours, and {until}"
        yield finding("warning", problem=problem, remedy="see that the notebook ends by its budget")


def _is_recent(text: Any, now: datetime) -> bool:
    """Whether a kernel's last run may go on; true where its time is not known."""
    time = _read_time(text)
    return time is None or now - time < _LONGEST


def _read_time(text: Any) -> datetime | None:
    """A time as the client prints it, in UTC; None where it is none."""
    try:
        time = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", str(text)).replace("Z", "+00:00"))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
