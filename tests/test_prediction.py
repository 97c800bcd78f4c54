"""Predictions: a line and back, and a file that is cut anywhere loses at most its last line."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import grids, random_grid, solid, views, write

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import Prediction, append_predictions, prediction_from_line, read_predictions
from arc_submit.arc.views import View
from arc_submit.errors import DataError


def _prediction(number: int, grid: Grid | None = None) -> Prediction:
    return Prediction("t", number, solid(2, 2, number % 10) if grid is None else grid, "search", "r0.c0123456789.p0", -0.5, "m", 1.0)


@given(
    st.text(max_size=20),
    st.integers(0, 5),
    st.none() | grids(max_side=6),
    views(),
    st.floats(-1e6, 0) | st.just(float("-inf")),
    st.text(max_size=20),
    st.floats(0, 1e5),
    st.dictionaries(views(), st.floats(-1e6, 0), max_size=3),
)
@settings(max_examples=150)
def test_prediction_to_line_and_back(
    task: str, test: int, grid: Grid | None, view: View, logprob: float, words: str, seconds: float, scores: dict[View, float]
) -> None:
    logprobs = {view.key: value for view, value in scores.items()}
    written = Prediction(task, test, grid, "ttft", view.key, logprob, words, seconds, "" if grid is not None else words, logprobs)
    line = written.to_line()
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    read = prediction_from_line(line)
    assert (read.task, read.test, read.source, read.view) == (task, test, "ttft", view.key)
    assert (read.model, read.reason) == (words, written.reason)
    assert read.logprob == pytest.approx(logprob, abs=1e-6)
    assert read.logprobs == pytest.approx(logprobs, abs=1e-6)
    assert ("logprobs" in line) == bool(logprobs) or "logprobs" in words + task
    assert read.seconds == pytest.approx(seconds, abs=1e-4)
    assert same_grid(read.grid, grid) or (read.grid is None and grid is None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1",
        "null",
        "[]",
        "{}",
        '{"task":"t"}',
        _prediction(0).to_line().replace('"test":0', '"test":-1'),
        _prediction(0).to_line().replace('"test":0', '"test":0.7'),
        _prediction(0).to_line().replace('"test":0', '"test":true'),
        _prediction(0).to_line().replace('"test":0', '"test":1e999'),
        _prediction(0).to_line().replace("-0.5", "NaN"),
        _prediction(0).to_line().replace("-0.5", '-0.5,"logprobs":{"r0.c0123456789.p0":NaN}'),
        _prediction(0).to_line().replace("-0.5", '-0.5,"logprobs":[1]'),
        _prediction(0).to_line().replace("-0.5", '-0.5,"logprobs":{"r0.c0123456789.p0":null}'),
        _prediction(0).to_line().replace("-0.5", "9" * 400),
        _prediction(0).to_line().replace("-0.5", '"low"'),
        _prediction(0).to_line().replace("[[0,0]", "[[0,0,0]"),
        _prediction(0).to_line().replace("[[0,0]", "[[0,12]"),
        "[" * 5000,
    ],
)
def test_an_invalid_line_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(DataError) as caught:
        prediction_from_line(line, "t.jsonl: line 3")
    assert str(caught.value).startswith("t.jsonl: line 3")
    assert "\n" not in str(caught.value)


def test_predictions_are_appended_and_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "search" / "t.jsonl"
    assert read_predictions(path) == ([], [])
    append_predictions(path, [])
    assert not path.exists()
    append_predictions(path, [_prediction(0), _prediction(1)])
    append_predictions(path, (_prediction(i) for i in (2, 3)))
    predictions, problems = read_predictions(path)
    assert [prediction.test for prediction in predictions] == [0, 1, 2, 3]
    assert not problems


def test_a_file_cut_anywhere_loses_at_most_its_last_line(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    rng = np.random.default_rng(0)
    append_predictions(whole, [_prediction(i, random_grid(rng, 4)) for i in range(3)])
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    assert len(ends) == 3
    for offset in range(len(data) + 1):
        write(cut, data[:offset])
        complete = sum(end - 1 <= offset for end in ends)  # a line is complete before its newline
        predictions, problems = read_predictions(cut)
        assert [prediction.test for prediction in predictions] == list(range(complete))
        assert len(problems) == (offset not in (0, *ends) and offset + 1 not in ends)
        append_predictions(cut, [_prediction(7), _prediction(8)])
        predictions, problems_later = read_predictions(cut)
        assert [prediction.test for prediction in predictions] == [*range(complete), 7, 8]
        assert len(problems_later) == len(problems)
        assert all(line.startswith("cut.jsonl: line ") for line in problems_later)


def test_invalid_bytes_cost_only_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for junk in (b"\xff\xfe\xfd", b"\x00" * 4096, b"\xe2\x80\xa8", b"\r", b"\n\n \n", b'{"task":"'):
        write(path, _prediction(1).to_line().encode() + junk)
        append_predictions(path, [_prediction(2)])
        assert [prediction.test for prediction in read_predictions(path)[0]] == [1, 2]


def _append_many(path: Path, first: int) -> None:
    for i in range(60):
        append_predictions(path, [_prediction(first + i, solid(20, 20, i % 10)), _prediction(first + i)])


def test_two_processes_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, first)) for first in (0, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    predictions, problems = read_predictions(path)
    assert not problems
    assert sorted(p.test for p in predictions) == sorted([*range(60), *range(1000, 1060)] * 2)
