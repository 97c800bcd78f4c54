"""Pools: what is combined from the file equals what is combined from the predictions, whatever happens to the file's lines."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_task, solid

from arc_submit.arc.prediction import Prediction, prediction_from_line
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS, EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.judgements import QUESTIONS, Judgement, judgement_scores
from arc_submit.ensemble.pool import Pool, read_pool, write_pool
from arc_submit.errors import DataError

VIEWS = ("r0.c0123456789.p012", "r90.f.c3120456789.p201", "")
TASKS = {name: random_task(np.random.default_rng(number), name, tests=2, max_side=3) for number, name in enumerate(("a", "b é/ü"))}
COUNTS = dict.fromkeys(TASKS, 2) | {"only in a file": 1}
SOURCES = (("search", ""), ("ttft", ""), ("run/search", "search"), ("run/ttft", "ttft"), ("other", "attempts"))
logprobs = st.floats(-40, 0) | st.just(-float("inf"))
by_view = st.dictionaries(st.sampled_from(VIEWS), st.floats(-40, 0), max_size=2)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    source, kind = draw(st.sampled_from(SOURCES))
    task = draw(st.sampled_from(sorted(COUNTS)))
    colour = draw(st.none() | st.integers(0, 3))
    grid, reason = (None, draw(st.text(max_size=5))) if colour is None else (solid(1, 2, colour), "")
    model, seconds = draw(st.sampled_from(("pocket", "cells: a program → b"))), draw(st.floats(0, 100))
    value = draw(logprobs)
    test = draw(st.integers(0, COUNTS[task] - 1))
    return Prediction(
        task, test, grid, source, draw(st.sampled_from(VIEWS)), value, model, seconds, reason, draw(by_view), draw(by_view), kind
    )


def said(task: str, colour: int, value: float) -> list[Judgement]:
    grids = (solid(1, 2, colour), solid(1, 2, (colour + 1) % 4))
    return [
        Judgement(task, 0, question, VIEWS[0], grids if question == "select" else grids[:1], round(value, 6), "judge", "w")
        for question in QUESTIONS.values()
    ]


def by_output(found: list[Prediction]) -> dict[str, dict[tuple[str, int], list[str]]]:
    groups: dict[str, dict[tuple[str, int], list[str]]] = {}
    for p in found:
        groups.setdefault(p.source, {}).setdefault((p.task, p.test), []).append(p.to_line())
    return groups


judged = st.lists(st.builds(said, st.sampled_from(("a", "b é/ü")), st.integers(0, 3), st.floats(-5, 0)), max_size=4)


@settings(max_examples=40)
@given(st.lists(predictions(), min_size=1, max_size=25), judged)
def test_nothing_is_lost_in_a_pool(tmp_path_factory: pytest.TempPathFactory, found: list[Prediction], asked: list[list[Judgement]]) -> None:
    path = tmp_path_factory.getbasetemp() / "pool.jsonl"
    judgements = [judgement for group in asked for judgement in group]
    write_pool(path, Pool(TASKS, COUNTS, found, judgements))
    pool, problems = read_pool(path)
    assert problems == []
    assert (pool.tasks, pool.counts) == (TASKS, COUNTS)
    assert by_output(pool.predictions) == by_output(found), "in their order too"
    assert list(by_output(pool.predictions)) == list(by_output(found)), "and that of the sources"
    assert [j.to_line() for j in pool.judgements] == [j.to_line() for j in judgements]
    order = tuple(source for source, _ in SOURCES)
    for method in METHODS + JUDGED_METHODS:
        rankings = []
        for one, words in ((found, judgements), (pool.predictions, pool.judgements)):
            scores = judgement_scores(words, QUESTIONS[method]) if method in QUESTIONS else None
            # A file has six decimals, which decide no tie between numbers that differ by less.
            rounded = one if one is pool.predictions else list(map(_rounded, one))
            answers = combine_sources(rank_all(rounded), EnsembleConfig(method, order), scores).answers
            rankings.append({o: [(a.grid.tolist(), a.reason) for a in ranked] for o, ranked in answers.items()})
        assert rankings[0] == rankings[1], method


def _rounded(p: Prediction) -> Prediction:
    return prediction_from_line(p.to_line())


def example(tmp_path: Path, name: str = "pool.jsonl") -> Path:
    found = [Prediction("a", test, solid(1, 2, c), "ttft", VIEWS[0], -1.0, "m", 0.5) for test in (0, 1) for c in (1, 1, 2)]
    assert write_pool(tmp_path / name, Pool(TASKS, COUNTS, found, said("a", 1, -1.0))) == 4
    return tmp_path / name


def test_a_candidate_has_its_rank_votes_and_predictions(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in example(tmp_path).read_text().splitlines()]
    assert lines[2] == {"task": "only in a file", "outputs": 1}
    prediction = {"view": VIEWS[0], "logprob": -1.0, "model": "m", "seconds": 0.5}
    numbered = [{"number": number} | prediction for number in (0, 1)]
    place = {"source": "ttft", "rank": 1, "votes": 2, "logprob": -1.0, "predictions": numbered}
    assert lines[3] == {"task": "a", "test": 0, "grid": [[1, 1]]} | place


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.jsonl.gz"])
def test_marks_line_ends_and_compression_do_not_matter(tmp_path: Path, name: str) -> None:
    path = example(tmp_path, name)
    data = path.read_bytes()
    whole = gzip.decompress(data) if name.endswith(".gz") else data
    changed = codecs.BOM_UTF8 + b"\r\n\r\n" + whole.replace(b"\n", b"\r\n")
    path.write_bytes(gzip.compress(changed) if name.endswith(".gz") else changed)
    pool, problems = read_pool(path)
    assert (len(pool.predictions), len(pool.judgements), problems) == (6, 3, [])


def test_a_line_that_is_cut_or_broken_costs_itself_alone(tmp_path: Path) -> None:
    path = example(tmp_path)
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-1]) + whole[-1][:25])
    pool, problems = read_pool(path)
    assert (len(pool.predictions), len(pool.judgements)) == (6, 2)
    assert problems == [problems[0]]
    assert "pool.jsonl: line 10: not JSON" in problems[0]
    bad = [
        "[]",
        '{"task": 1}',
        '{"task": "a"}',
        '{"task": "a", "predictions": 3}',
        whole[3].replace("[1,1]", "[1,12]"),
        '{"task":"c","outputs":0}',
    ]
    path.write_text("".join([*whole, *(line.strip() + "\n" for line in bad)]))
    pool, problems = read_pool(path)
    assert (len(pool.predictions), len(problems)) == (6, 6)
    assert "line 15: row 0, column 1 is 12" in problems[4]
    path.write_text("".join(whole[1:]))
    with pytest.raises(DataError, match="no pool of candidates"):
        read_pool(path)


def test_pools_may_be_joined_where_their_tasks_agree(tmp_path: Path) -> None:
    path = example(tmp_path)
    whole = path.read_text()
    path.write_text(whole + whole)
    assert len(read_pool(path)[0].predictions) == 12
    other = random_task(np.random.default_rng(9), "a", tests=2, max_side=3)
    write_pool(tmp_path / "other.jsonl", Pool({"a": other}, {"a": 2}, []))
    path.write_text(whole + (tmp_path / "other.jsonl").read_text())
    with pytest.raises(DataError, match=r"pool.jsonl: two different tasks have the id a"):
        read_pool(path)
