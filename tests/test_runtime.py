"""Durations, the run directory and its timeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.storage.run_dir import open_run


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("11h30m", 41400), (" 2H ", 7200), ("1h1m1s", 3661)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5m", "0", "0s", "1h 30", "m", "nan", "inf", "1e3", "10m garbage", "99999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_one_line(text: str) -> None:
    try:
        fine = parse_duration(text) > 0
    except ConfigError as error:
        fine = "\n" not in str(error)
    assert fine


@given(st.integers(1, 10**6))
def test_a_printed_duration_reads_back(seconds: int) -> None:
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= (30 if seconds >= 3600 else 0)


def test_a_directory_remembers_when_its_budget_began(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"a": 1}) as first:
        assert not first.resumed
    with open_run(tmp_path / "run", {"a": 1}) as second:
        assert second.resumed
        assert second.started == pytest.approx(first.started, abs=0.01)
    with open_run(tmp_path / "run", {"a": 1}, reset_budget=True) as third:
        assert third.started > first.started
    with open_run(tmp_path / "run", {"a": 1}) as fourth:
        assert fourth.started == pytest.approx(third.started, abs=0.01)


def test_a_timeline_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}) as directory:
        directory.event("one", task="a")
    path = tmp_path / "run" / "events.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with open_run(tmp_path / "run", {}) as directory:
            directory.event("two", task="b")
            kinds = [event["event"] for event in directory.read_events()]
        assert kinds[-1] == "two"
        assert set(kinds) <= {"run_started", "run_resumed", "one", "two"}


def test_another_configuration_or_a_second_run_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"views": 8}), pytest.raises(ConfigError, match="another run is using"), open_run(tmp_path / "run", {}):
        pass
    with pytest.raises(ConfigError, match="views was 8 and is 9"), open_run(tmp_path / "run", {"views": 9}):
        pass


def test_predictions_without_a_configuration_are_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    with pytest.raises(ConfigError, match=r"without a readable config\.json"), open_run(tmp_path, {}):
        pass
