"""Judging: comparisons become a ranking, judgements are the engine's scores, and no question is repeated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.grid import Grid, grid_id, make_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.arc.views import parse_view
from arc_submit.ensemble.bradley_terry import strengths
from arc_submit.ensemble.judgements import Judgement, judgement_from_line, judgement_scores
from arc_submit.ensemble.judging import Judge
from arc_submit.ensemble.questions import Asking
from arc_submit.errors import DataError
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version

GRIDS = [make_grid([[cell]]) for cell in range(5)]


def judgement(grids: list[Grid], value: float, question: str = "select", view: str = "v", test: int = 0) -> Judgement:
    return Judgement("t", test, question, view, tuple(grids), value, "m")  # type: ignore[arg-type]


def order(scores: dict[bytes, float]) -> list[bytes]:
    return sorted(scores, key=lambda key: -scores[key])


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=7, unique=True))
def test_known_strengths_are_recovered(tenths: list[int]) -> None:
    """Wins in proportion to the strengths: the order is recovered exactly, the differences approximately."""
    true = [value / 10 for value in tenths]
    wins = [[1000 / (1 + math.exp(b - a)) if i != j else 0.0 for j, b in enumerate(true)] for i, a in enumerate(true)]
    found = strengths(wins)
    assert np.argsort(found).tolist() == np.argsort(true).tolist()
    assert max(found) - min(found) == pytest.approx(max(true) - min(true), rel=0.05, abs=0.02)


def test_strengths_are_finite_and_0_without_comparisons() -> None:
    found = strengths([[0, 5, 0], [0, 0, 0], [0, 0, 0]])
    assert found[0] > 0 > found[1]
    assert found[2] == pytest.approx(0, abs=1e-6)
    assert strengths([]) == []
    assert strengths([[0.0]]) == [pytest.approx(0.0)]


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_order_of_candidates_does_not_matter(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 5, (count, count)).astype(float)
    turn = rng.permutation(count)
    assert np.array(strengths(wins[np.ix_(turn, turn)].tolist())) == pytest.approx(np.array(strengths(wins.tolist()))[turn], abs=1e-9)


@pytest.mark.parametrize("wins", [[[0, 1]], [[0, -1], [0, 0]], [[0, math.nan], [1, 0]], [[0, math.inf], [1, 0]]])
def test_an_invalid_table_of_wins_is_refused(wins: list[list[float]]) -> None:
    with pytest.raises(DataError, match="comparisons of"):
        strengths(wins)


def test_pairwise_answers_become_a_ranking() -> None:
    """B before A before C, each pair in both orders; a preference for the first place by 2 nats cancels out."""
    a, b, c = GRIDS[:3]
    true = {grid_id(b): 1.0, grid_id(a): 0.0, grid_id(c): -1.0}
    judgements = [judgement([x, y], true[grid_id(x)] - true[grid_id(y)] + 2.0) for x in (a, b, c) for y in (a, b, c) if x is not y]
    assert order(judgement_scores(judgements, "select")["t", 0]) == [grid_id(g) for g in (b, a, c)]
    assert judgement_scores(judgements, "select") == judgement_scores(judgements[::-1], "select")
    assert judgement_scores(judgements, "verify") == {}
    assert order(judgement_scores([judgement([a, b], -2.0)], "select")["t", 0]) == [grid_id(b), grid_id(a)], "one order alone"


def test_verification_averages_over_views_and_product_sums_over_common_views() -> None:
    a, b = GRIDS[:2]
    judgements = [judgement([a], 1.0, "verify", "v"), judgement([a], -3.0, "verify", "w"), judgement([b], 0.0, "verify", "v", test=1)]
    assert judgement_scores(judgements, "verify") == {("t", 0): {grid_id(a): -1.0}, ("t", 1): {grid_id(b): 0.0}}
    judgements = [judgement([a], -1.0, "product", "v"), judgement([a], -2.0, "product", "w"), judgement([b], -2.5, "product", "v")]
    assert judgement_scores(judgements, "product") == {("t", 0): {grid_id(a): -1.0, grid_id(b): -2.5}}, "only one was scored under view w"


@given(st.lists(st.lists(st.floats(-50, 0), min_size=3, max_size=3), min_size=1, max_size=5), st.randoms())
def test_the_order_of_judgements_does_not_matter_to_a_product(values: list[list[float]], order: object) -> None:
    judgements = [
        judgement([grid], value, "product", view)
        for grid, row in zip(GRIDS, values, strict=False)
        for view, value in zip("abc", row, strict=True)
    ]
    scores = judgement_scores(judgements, "product")["t", 0]
    assert scores == {grid_id(grid): math.fsum(row) for grid, row in zip(GRIDS, values, strict=False)}
    order.shuffle(judgements)  # type: ignore[attr-defined]
    assert judgement_scores(judgements, "product")["t", 0] == scores


def test_judgements_of_earlier_weights_are_ignored() -> None:
    a, b = GRIDS[:2]
    before = [judgement([a], 5.0, "verify"), judgement([b], 9.0, "verify"), replace(judgement([a], 3.0, "verify"), model="other")]
    after = [replace(judgement([a], -1.0, "verify"), fingerprint="new"), judgement([a], 2.0, "verify", test=1)]
    judgements = judgement_scores(before + after, "verify")
    assert judgements == {("t", 0): {grid_id(a): 1.0}, ("t", 1): {grid_id(a): 2.0}}, "the mean of two models, each with its latest weights"


@given(st.integers(0, 4), st.integers(0, 4), st.floats(-100, 100), st.integers(0, 3), st.sampled_from(["", "0123abcd"]))
def test_judgement_to_line_and_back(one: int, other: int, value: float, test: int, fingerprint: str) -> None:
    written = replace(judgement([GRIDS[one], GRIDS[other]], value, test=test), fingerprint=fingerprint)
    back = judgement_from_line(written.to_line())
    assert back.key == written.key
    assert back.value == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"task": 1', "null"])
def test_an_invalid_judgement_is_refused(line: str) -> None:
    with pytest.raises(DataError, match="here: not a judgement"):
        judgement_from_line(line, "here")
    good = json.loads(judgement([GRIDS[0], GRIDS[1]], 1.0).to_line())
    for spoil in ({"question": "other"}, {"grids": [[[1]]]}, {"value": math.inf}, {"test": -1}, {"grids": [[[12]], [[1]]]}):
        with pytest.raises(DataError, match="here"):
            judgement_from_line(json.dumps(good | spoil), "here")


@pytest.mark.parametrize("name", ["select-output-from-turns-v0", "verify-output-from-turns-v0", "output-from-turns-v0"])
def test_judgements_are_the_engines_scores(name: str, tiny_model: Path) -> None:
    """Each value is computed again from the engine's score of the answer's tokens under its view."""
    import torch

    from arc_submit.inference.load_transformers import load_transformers_engine

    engine, tokenizer, _ = load_transformers_engine(tiny_model, torch.device("cpu"), 4)
    writer = PromptTokenizer(tokenizer, make_encoder("CompactGridEncoder()"), prompt_version(name))
    rng = np.random.default_rng(5)
    drawn = [make_grid(rng.integers(0, 10, (3, 2 + k)).tolist()) for k in range(7)]
    task = Task("t", tuple(Pair(a, b) for a, b in zip(drawn[:3], drawn[3:6], strict=True)), (drawn[6],))
    grids = [make_grid([[1, 2], [3, 4]]), make_grid([[5, 6, 7]]), make_grid([[8]])]
    kind = writer.prompt.kind
    judge = Judge(engine, writer, 1024, Asking("product" if kind == "output" else kind, 3, 7, "tiny"))  # type: ignore[arg-type]
    judgements = list(judge.ask(task, 0, grids))
    select = writer.prompt.kind == "select"
    assert len(judgements) == 3 * (6 if select else 3)
    assert len({j.key for j in judgements}) == len(judgements)
    for judged in judgements:
        view = parse_view(judged.view)
        seen = view.apply_task(task)
        if writer.prompt.kind == "output":
            prompt = writer.prompt_ids(writer.prompt.turns(seen.train, seen.tests[0]))
            expected = engine.score(prompt, [writer.answer_ids(view.apply(judged.grids[0]))])[0]
        else:
            turns = writer.prompt.turns(seen.train, seen.tests[0], [view.apply(grid) for grid in judged.grids])
            ids = [writer.sample_ids(turns, answer) for answer in writer.prompt.answers]
            scores = [engine.score(all_ids[:start], [all_ids[start:]])[0] for all_ids, start in ids]
            expected = scores[0] - scores[1]
        assert judged.value == pytest.approx(expected, abs=1e-4)
    assert len({round(j.value, 3) for j in judgements}) > 3, "candidates get different values"
    known = {j.key for j in judgements[:-1]}
    again = list(judge.ask(task, 0, grids, lambda j: j.key in known))
    assert [(j.key, j.value) for j in again] == [(judgements[-1].key, pytest.approx(judgements[-1].value, abs=1e-4))], (
        "only the missing question"
    )
    short = list(replace(judge, max_seq_len=20).ask(task, 0, grids))
    assert short == [], "no train pair fits"
