"""The run directory: every path in it, every read and write, so that a run killed at any moment goes on from it.

config.json holds the fingerprint of the run, events.jsonl its timeline (whole lines, appended), predictions/<source>/<task>.jsonl the
predictions; run.lock keeps a second run out. Does not know what a run does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import append_lines, file_name, is_file_name, read_json, read_json_lines, write_json
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.arc.task import Task
from arc_submit.errors import ConfigError, DataError

_KIND = ".kind"  # what the key of a source's kind ends with in a fingerprint; its other keys begin with the source's name too


@dataclass(frozen=True)
class RunPaths:
    """The paths of a run directory, and what can be read from it without opening it as a run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def events_file(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def submission(self) -> Path:
        return self.root / "submission.json"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def compile_cache(self) -> Path:
        """The folder of what vllm and its like compile on a GPU."""
        return self.root / "compile_cache"

    @property
    def joint_warmup(self) -> Path:
        """The folder of the adapter that the joint warm-up trains; its losses lie beside it."""
        return self.root / "warmup" / "adapter"

    def home(self, source: str, kind: str) -> RunPaths:
        """Where a source keeps its adapters, its losses and its joint warm-up: a source whose name is its kind in the run directory."""
        return self if source == kind else RunPaths(self.root / "sources" / source)

    def homes(self) -> dict[str, RunPaths]:
        """The run directory itself under the name "", and the folders of sources with a name of their own."""
        return {"": self} | {folder.name: RunPaths(folder) for folder in sorted((self.root / "sources").glob("*")) if folder.is_dir()}

    def task(self, task_id: str) -> Path:
        return self.tasks / f"{file_name(task_id)}.json"

    def predictions(self, source: str, task_id: str) -> Path:
        return self.root / "predictions" / source / f"{file_name(task_id)}.jsonl"

    def adapter(self, task_id: str, steps: int | None = None) -> Path:
        """The folder of a task's adapter; one with other steps than the plan's lies apart."""
        return self._of_steps(steps) / "adapters" / file_name(task_id)

    @property
    def adapters(self) -> Path:
        """The folder of all adapters with the plan's steps."""
        return self.root / "adapters"

    def losses(self, task_id: str, steps: int | None = None) -> Path:
        return self._of_steps(steps) / "losses" / f"{file_name(task_id)}.jsonl"

    def loss_files(self) -> list[Path]:
        return sorted((self.root / "losses").glob("*.jsonl"))

    def logs(self, source: str = "") -> Path:
        return self.root / "logs" / source

    def judgements(self, task_id: str) -> Path:
        return self.root / "judgements" / f"{file_name(task_id)}.jsonl"

    def search_report(self, task_id: str) -> Path:
        return self.root / "search" / f"{file_name(task_id)}.json"

    def scores(self) -> Path:
        return self.report / "scores.json"

    def _of_steps(self, steps: int | None) -> Path:
        return self.root if steps is None else self.root / f"steps-{steps}"

    def read_config(self) -> dict[str, Any] | None:
        """The fingerprint of the run, or None where there is no readable one."""
        try:
            value = read_json(self.config)
        except DataError:
            return None
        return value if isinstance(value, dict) else None

    def read_events(self) -> list[dict[str, Any]]:
        """The timeline; lines that a kill cut short, and what is no event, are left out."""
        return _read_events(self.events_file)

    def task_ids(self) -> list[str]:
        """The ids of the tasks of the run; one that cannot be a file name is read from its file.

        Raises:
            DataError: where such a file cannot be read.
        """
        return sorted(path.stem if is_file_name(path.stem) else read_task(path).id for path in self.tasks.glob("*.json"))

    def read_tasks(self) -> dict[str, Task]:
        """The tasks of the run by id.

        Raises:
            DataError: where there are none, or one cannot be read.
        """
        tasks = {task_id: read_task(self.task(task_id)) for task_id in self.task_ids()}
        if not tasks:
            raise DataError(f"{self.root}: holds no tasks; give the --out of a run")
        return tasks

    def read_predictions(
        self, counts: Mapping[str, int], task_ids: Sequence[str] | None = None, sources: Sequence[str] | None = None
    ) -> tuple[list[Prediction], list[str]]:
        """Predictions for known test inputs, and a line for each line that cannot be read.

        A prediction for another task than its file's, or for a test input that the task does not have, is left out.

        Args:
            counts: test inputs by task id.
            task_ids: of these tasks; None reads all of `counts`.
            sources: of these sources; None reads all.
        """
        predictions: list[Prediction] = []
        problems: list[str] = []
        for task_id in counts if task_ids is None else task_ids:
            for path in sorted((self.root / "predictions").glob(f"*/{file_name(task_id)}.jsonl")):
                if sources is not None and path.parent.name not in sources:
                    continue
                found, unreadable = read_predictions(path)
                predictions += [p for p in found if p.task == task_id and p.test < counts[task_id]]
                problems += unreadable
        return predictions, problems


@dataclass(frozen=True)
class RunDirectory(RunPaths):
    """A run directory that is open, so that no other run writes to it.

    Attributes:
        started: when the budget began, seconds since the epoch: at the run's first start, or where a new one was given.
        resumed: whether the run was begun before.
    """

    started: float
    resumed: bool

    def event(self, kind: str, **fields: Any) -> None:
        """Append a line to the timeline."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **fields}, separators=(",", ":")) + "\n"
        # A full disk must not end a run for a line of its timeline: work that is not noted as done is looked at again.
        with contextlib.suppress(DataError):
            append_lines(self.events_file, line)


@contextmanager
def open_run(path: Path, fingerprint: dict[str, Any], reset_budget: bool = False, adopt: bool = False) -> Iterator[RunDirectory]:
    """Make or reopen a run directory and keep it locked.

    Args:
        fingerprint: what makes two runs the same; a directory with another one is refused.
        reset_budget: the budget counts from now, for this and later resumes.
        adopt: take a directory that holds predictions without a fingerprint.

    Raises:
        ConfigError: where another run holds the directory, or the fingerprint differs, with the remedy.
    """
    paths = RunPaths(path)
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
        before = paths.read_config()
        if before is None:
            if not adopt and ((path / "predictions").exists() or paths.events_file.exists()):
                raise ConfigError(f"{path}: holds a run without a readable config.json; give another --out")
            write_json(paths.config, fingerprint)
        elif before != fingerprint:
            differences = ", ".join(_difference(name, before.get(name), fingerprint.get(name)) for name in _differing(before, fingerprint))
            raise ConfigError(f"{path}: holds another run ({differences}); give another --out, or remove it")
        events = paths.read_events()
        resumed = any(event["event"] == "run_started" for event in events)
        starts = [event["time"] for event in events if event["event"] == "run_started" or event.get("new_budget")]
        directory = RunDirectory(path, time.time() if reset_budget or not starts else starts[-1], resumed)
        directory.event("run_resumed" if resumed else "run_started", pid=os.getpid(), new_budget=reset_budget)
        yield directory


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of values that differ; of a source of another kind, or on one side alone, its kind stands for all its values."""
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    changed = {name.removesuffix(_KIND) for name in names if name.endswith(_KIND)}
    return [name for name in names if name.endswith(_KIND) or name.partition(".")[0] not in changed]


def _difference(name: str, was: Any, now: Any) -> str:
    if name.endswith(_KIND) and None in (was, now):
        source = name.removesuffix(_KIND)
        return f"the source {source} is given and was not" if was is None else f"the source {source} was given and is not"
    if isinstance(was, dict) and isinstance(now, dict):
        return f"{name} differ: {', '.join(_differing(was, now))}"
    return f"{name} differ" if isinstance(now, list | dict) else f"{name} was {was!r} and is {now!r}"


def _read_events(path: Path) -> list[dict[str, Any]]:
    events = []
    for value in read_json_lines(path) if path.exists() else ():
        sound = isinstance(value.get("event"), str) and isinstance(value.get("time"), int | float)
        # A time of the future would move the deadline; a clock that is a day off is still taken.
        if sound and 0 <= value["time"] <= time.time() + 86400:
            events.append(value)
    return events
