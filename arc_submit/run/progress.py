"""The progress of a run in one of three forms: live bars in a terminal, one updating display in a notebook, plain lines in a log.

Does not know how a source works. A terminal that has gone away does not end a run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from tqdm import tqdm

from arc_submit.durations import format_duration


def _visible(text: str) -> str:
    """A line with escapes for what a terminal would obey or cannot show: a task id may hold any character."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass
class SourceCounts:
    """How far a source has come.

    Attributes:
        total, done: relative cost of all tasks, and of those that have ended.
        tasks, ended, failed, running: numbers of tasks; failed ones have ended too.
        gained: predictions made since this call began, or of what `kind` names.
        rate: more about the speed, such as tokens per second; empty for nothing.
    """

    total: float
    done: float
    tasks: int
    ended: int = 0
    failed: int = 0
    running: int = 0
    gained: int = 0
    rate: str = ""
    kind: str = "predictions"

    @property
    def text(self) -> str:
        parts = [f"{self.ended}/{self.tasks} done", f"{self.running} running"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.gained} {self.kind}"] if self.gained else []
        return ", ".join([*parts, self.rate] if self.rate else parts)


class Progress(Protocol):
    """Shows how far sources have come, and logs lines beside that."""

    def show(self, counts: Mapping[str, SourceCounts], seconds_left: float) -> None:
        """The counts of each source that has begun, by its name."""

    def log(self, text: str) -> None:
        """Print a line at once."""

    def close(self) -> None:
        """The run has ended."""


class TerminalProgress:
    """A bar for each source, each in a line of its own."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}

    def show(self, counts: Mapping[str, SourceCounts], seconds_left: float) -> None:
        for name, one in counts.items():
            if name not in self._bars:
                form = "{desc} {percentage:3.0f}% |{bar}| {postfix} [{elapsed}<{remaining}]"
                self._bars[name] = tqdm(
                    total=one.total, initial=one.done, desc=name, bar_format=form, mininterval=1.0, position=len(self._bars), leave=False
                )
            bar = self._bars[name]
            bar.set_postfix_str(one.text, refresh=False)
            bar.update(one.done - bar.n)

    def log(self, text: str) -> None:
        with contextlib.suppress(OSError):
            tqdm.write(_visible(text))

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


class NotebookProgress:
    """One display that is replaced, at most once a second."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = 0.0
        self._text = ""

    def show(self, counts: Mapping[str, SourceCounts], seconds_left: float) -> None:
        self._text = "\n".join([f"{format_duration(seconds_left)} left", *(f"{name:10} {one.text}" for name, one in counts.items())])
        if time.monotonic() - self._shown_at >= 1.0:
            self._display()

    def log(self, text: str) -> None:
        print(_visible(text), flush=True)

    def close(self) -> None:
        if self._text:
            self._display()

    def _display(self) -> None:
        shown: Any = import_module("IPython.display")
        self._shown_at = time.monotonic()
        if self._handle is None:
            self._handle = shown.display(shown.Pretty(self._text), display_id=True)
        else:
            self._handle.update(shown.Pretty(self._text))


class PlainProgress:
    """One line at intervals that suit the length of the run.

    Args:
        interval: seconds between two lines; None takes a hundred lines for the time that is left at first, 20 s to 5 min each.
    """

    def __init__(self, interval: float | None = None) -> None:
        self._interval = interval
        self._shown_at = time.monotonic()

    def show(self, counts: Mapping[str, SourceCounts], seconds_left: float) -> None:
        if self._interval is None:
            self._interval = min(300.0, max(20.0, seconds_left / 100))
        if time.monotonic() - self._shown_at >= self._interval:
            self._shown_at = time.monotonic()
            self.log(" | ".join([f"{format_duration(seconds_left)} left", *(f"{name} {one.text}" for name, one in counts.items())]))

    def log(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(_visible(text), flush=True)

    def close(self) -> None:
        pass


def choose_progress() -> tuple[Progress, str]:
    """The form that suits where the output goes, with the reason."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        # papermill and nbconvert run a kernel that nobody can type into; Kaggle calls a session without a user "Batch".
        if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch" or not getattr(kernel, "_allow_stdin", False):
            return PlainProgress(), "a notebook that is executed without a user"
        return NotebookProgress(), "a notebook"
    if sys.stderr.isatty():
        return TerminalProgress(), "a terminal"
    return PlainProgress(), "a log"
