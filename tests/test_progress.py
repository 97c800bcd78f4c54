"""The progress of a run: a line at a sensible pace in a log, bars in a terminal, one display in a notebook; no cursor codes in a log."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest

from arc_submit.run import progress
from arc_submit.run.progress import NotebookProgress, PlainProgress, SourceCounts, TerminalProgress, choose_progress

COUNTS = {"search": SourceCounts(100.0, 40.0, 10, ended=4, failed=1, running=2, gained=31), "ttft": SourceCounts(100.0, 0.0, 10)}


def test_a_log_has_plain_lines_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = PlainProgress()
    for second in range(3600):
        now = float(second)
        shown.show(COUNTS, 3600.0 - second)
    shown.log("search t1: 3 predictions")
    shown.close()
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert 90 <= len(lines) - 1 <= 101, "about a hundred lines an hour"
    assert lines[0] == "59m24s left | search 4/10 done, 2 running, 1 failed, 31 predictions | ttft 0/10 done, 0 running"
    assert lines[-1] == "search t1: 3 predictions"
    assert all(lines)
    assert not set("\r\x1b") & set(out)


def test_a_line_shows_what_a_terminal_would_obey_or_cannot_print(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (PlainProgress(), TerminalProgress(), NotebookProgress()):
        shown.log("set/1 ф \x1b[31m\n\ud800: done")
        assert capsys.readouterr().out == "set/1 ф \\x1b[31m\\n\\ud800: done\n"


@pytest.mark.parametrize(("left", "interval"), [(600.0, 20.0), (12 * 3600.0, 300.0)])
def test_the_pace_suits_the_length_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: float, interval: float
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = PlainProgress()
    shown.show(COUNTS, left)
    now = interval - 1
    shown.show(COUNTS, left)
    assert not capsys.readouterr().out
    now = interval
    shown.show(COUNTS, left)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_terminal_has_a_bar_for_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    shown = TerminalProgress()
    shown.show(COUNTS, 100.0)
    shown.show({**COUNTS, "search": SourceCounts(100.0, 100.0, 10, ended=10)}, 50.0)
    shown.close()
    assert "search" in stream.getvalue()
    assert "ttft" in stream.getvalue()


def test_a_notebook_has_one_display_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    updates: list[str] = []
    handle = types.SimpleNamespace(update=updates.append)

    def display(text: str, display_id: bool) -> Any:
        assert display_id
        made.append(text)
        return handle

    module = types.ModuleType("IPython.display")
    module.display, module.Pretty = display, str  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    now = 10.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = NotebookProgress()
    for second in (10.0, 10.1, 10.2, 12.0):
        now = second
        shown.show(COUNTS, 60.0)
    shown.close()
    assert len(made) == 1
    assert len(updates) == 2, "at most one update a second, and the last state at the end"
    assert "4/10 done" in updates[-1]


def kernel(stdin: bool) -> types.ModuleType:
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: types.SimpleNamespace(kernel=types.SimpleNamespace(_allow_stdin=stdin))  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("ipython", "kaggle", "tty", "expected"),
    [
        (None, None, True, TerminalProgress),
        (None, None, False, PlainProgress),
        (kernel(True), None, False, NotebookProgress),
        (kernel(False), None, False, PlainProgress),
        (kernel(True), "Batch", False, PlainProgress),
        (kernel(True), "Interactive", False, NotebookProgress),
    ],
)
def test_the_form_follows_where_the_output_goes(
    monkeypatch: pytest.MonkeyPatch, ipython: types.ModuleType | None, kaggle: str | None, tty: bool, expected: type
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    if ipython is not None:
        monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if kaggle:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kaggle)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    chosen, reason = choose_progress()
    assert isinstance(chosen, expected)
    assert reason


def test_a_terminal_that_has_gone_away_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    PlainProgress().log("still here")
