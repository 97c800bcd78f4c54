"""`arc-submit kaggle status --follow` with the real client: the log as it comes, whatever happens to the connection, and the exit code.

The server is tests/kaggle_stub.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_stub import Stub, serving

from arc_submit.cli import main
from arc_submit.kaggle.follow import read_lines
from arc_submit.kaggle.kernel_status import KernelStatus

KERNEL = "me/arc-submit-submission"
COMMAND = ["kaggle", "status", KERNEL, "--follow", "--every", "0.2s"]


def give_states(monkeypatch: pytest.MonkeyPatch, stub: Stub, *states: tuple[str, int]) -> None:
    """The run's states without the client: each as long as more streams than its number are left."""

    def fetch(kernel: str, seconds: float) -> KernelStatus:
        return KernelStatus(kernel, next(state for state, left in states if len(stub.streams) > left), "")

    monkeypatch.setattr("arc_submit.kaggle.follow.fetch_status", fetch)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    monkeypatch.setattr("arc_submit.kaggle.follow._PAUSE", 0.05)
    home = tmp_path / "home"
    home.mkdir()
    with serving(Stub(), monkeypatch, home) as working:
        yield working


def test_a_log_that_is_cut_off_is_printed_once_to_its_end(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stream ends early, breaks in the middle (the client connects again) and comes whole after the run's end."""
    stub.streams = [("early", ["one\n"]), ("cut", ["one\n", "two"]), ("live", ["one\n", "two", "three\n"])]
    stub.streams.append(("whole", ["one\n", "two", "three\n", "x" * 500_000, "five\n"]))
    give_states(monkeypatch, stub, ("RUNNING", 1), ("COMPLETE", 0))
    assert main([*COMMAND, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines[:-1] if not line.startswith(("me/", "[log"))]
    assert shown == ["one", "two", "three", "x" * 2000 + " ... (498,001 more)", "five"]
    states = [line.split()[1] for line in lines if line.startswith("me/")]
    assert states == ["RUNNING", "COMPLETE"]
    figures = json.loads(lines[-1])
    assert (figures["state"], figures["log_lines"]) == ("COMPLETE", 5)


def test_a_silent_client_is_replaced_and_a_failed_run_is_an_error(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("arc_submit.kaggle.follow._LAST_LINES", 2.0)
    stub.states = ["ERROR"]
    stub.streams = [("silent", ["one\n"]), ("whole", ["one\n", "Traceback\n"])]
    assert main([*COMMAND]) == 1
    captured = capsys.readouterr()
    assert next(line for line in captured.out.splitlines() if not line.startswith("me/")) == "one"
    assert "the client is started again" in captured.out
    assert captured.out.count("one\n") == 1
    assert captured.out.endswith("Traceback\n")
    assert "ERROR: Your notebook tried to allocate more memory; its output: arc-submit kaggle output" in captured.err


def test_a_log_that_never_comes_does_not_hide_the_end(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("arc_submit.kaggle.follow._MOST_ENDS", 1)
    stub.streams = [(404, [])]
    give_states(monkeypatch, stub, ("COMPLETE", 0))
    assert main(COMMAND) == 0
    out = capsys.readouterr().out
    assert "404 Client Error" in out
    assert "the end of the log did not come; its file: arc-submit kaggle output" in out
    assert "the log is empty" in out


def test_a_run_that_goes_on_is_no_success(stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give_states(monkeypatch, stub, ("QUEUED", 0))
    assert main([*COMMAND, "--wait", "0.5s"]) == 1
    assert "still QUEUED after" in capsys.readouterr().err


def test_lines_of_a_bar_of_progress_and_of_any_length_are_read() -> None:
    pipe = io.BytesIO(b"a\r\n\r 10%\r 20%\n" + b"y" * 3_000_000 + b"\xff\nlast")
    assert [line[:10] for line in read_lines(pipe)] == ["a", " 20%", "y" * 10, "last"]
    assert list(read_lines(io.BytesIO(b"z" * 3_000_000 + b"\rdone\n"))) == ["done"]
