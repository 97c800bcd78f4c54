"""The run directory: all the state there is, so that a run killed at any moment goes on from it.

config.json says what the run is, events.jsonl is its timeline (whole lines, appended), run.lock keeps a second run out. Knows nothing
about what a run does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import write_json
from arc_submit.arc.prediction import append_lines
from arc_submit.errors import ConfigError, DataError


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder.

    Attributes:
        path: the folder.
        started: when the budget began, seconds since the epoch: at the run's first start, or where a new one was given.
        resumed: whether it was there before.
    """

    path: Path
    started: float
    resumed: bool

    def event(self, kind: str, **fields: Any) -> None:
        """Append a line to the timeline."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **fields}, separators=(",", ":")) + "\n"
        # A full disk must not end a run for a line of its timeline: work that is not noted as done is only looked at again.
        with contextlib.suppress(DataError):
            append_lines(self.path / "events.jsonl", line)

    def events(self) -> list[dict[str, Any]]:
        """The timeline; a line cut short by a kill is left out."""
        return _read_events(self.path / "events.jsonl")


@contextmanager
def open_run(path: Path, config: dict[str, Any], new_budget: bool = False) -> Iterator[RunDirectory]:
    """Make or reopen a run directory and keep it locked.

    Args:
        config: what makes two runs the same run; a directory made with another is refused.
        new_budget: the budget counts from now, for this and later resumes.

    Raises:
        ConfigError: where another run holds the directory, or it belongs to a different configuration, with the remedy.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock_file = (path / "run.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be used as a run directory ({error.strerror}); give another --out") from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{path}: another run is using this directory; wait for it, or give another --out") from None
        before = _read_config(path / "config.json")
        if before is None:
            others = sorted(entry.name for entry in path.iterdir() if entry.name != "run.lock")
            if "predictions" in others or "events.jsonl" in others:
                raise ConfigError(f"{path}: holds a run without a readable config.json; give another --out")
            write_json(path / "config.json", config)
        elif before != config:
            was = ", ".join(_difference(name, before.get(name), config.get(name)) for name in _differing(before, config))
            raise ConfigError(f"{path}: holds another run ({was}); give another --out, or remove it")
        events = _read_events(path / "events.jsonl")
        resumed = any(event["event"] == "run_started" for event in events)
        starts = [event["time"] for event in events if event["event"] == "run_started" or event.get("new_budget")]
        directory = RunDirectory(path, time.time() if new_budget or not starts else starts[-1], resumed)
        directory.event("run_resumed" if resumed else "run_started", pid=os.getpid(), new_budget=new_budget)
        yield directory


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _difference(name: str, was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        return f"{name} differ: {', '.join(_differing(was, now))}"
    return f"{name} differ" if isinstance(now, list | dict) else f"{name} was {was!r} and is {now!r}"


def _read_config(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _read_events(path: Path) -> list[dict[str, Any]]:
    events = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            sound = isinstance(value, dict) and isinstance(value.get("event"), str) and isinstance(value.get("time"), int | float)
            if sound and 0 <= value["time"] <= time.time() + 86400:
                events.append(value)
    return events
