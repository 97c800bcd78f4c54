"""Combination: each way does what its name says, a probable answer goes first, and the order of predictions never matters."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.grid import Grid, grid_id, make_grid, same_grid
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.ensemble.combination import (
    JUDGED_METHODS,
    METHODS,
    CombinedRanking,
    EnsembleConfig,
    RankedAnswer,
    combine_predictions,
    combine_sources,
    combined_odds,
    parse_weights,
    rank,
    rank_all,
)
from arc_submit.ensemble.evidence import NONE_SCORE, Trust, estimate_trust, score_odds, vote_odds
from arc_submit.errors import ConfigError
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import ensemble_config

A, B, C, D, E = (make_grid([[cell]]) for cell in range(5))
GRIDS = [A, B, C, D, E, None]
SOURCES = ("search", "ttft", "frozen")
KNOWN = {"ttft": Trust(0.4, 0, 0), "frozen": Trust(0.2, 0, 0)}


def prediction(source: str, grid: Grid | None, logprob: float, test: int = 0, task: str = "t") -> Prediction:
    return Prediction(task, test, grid, source, "r0.c0123456789.p0", logprob, "m", 0.0)


POOL = [
    *(prediction("frozen", A, -9.0) for _ in range(3)),
    prediction("frozen", B, -0.1),
    prediction("frozen", None, 0.0),
    prediction("search", C, -2.0),
    prediction("search", C, -5.0),
    prediction("search", D, -1.0),
    prediction("search", A, -7.0),
    prediction("frozen", B, -3.0, test=1),
]
pools = st.lists(
    st.builds(prediction, st.sampled_from(SOURCES), st.sampled_from(GRIDS), st.floats(-40, 6), st.integers(0, 1)), min_size=1, max_size=40
)


def made(predictions: list[Prediction], way: str = "probability", **more: Any) -> CombinedRanking:
    given_trusts = more.pop("trust", None)
    return combine_sources(rank_all(predictions), EnsembleConfig(way, **more), {} if way in JUDGED_METHODS else None, given_trusts)


def values(choices: list[RankedAnswer]) -> list[int]:
    return [int(choice.grid[0, 0]) for choice in choices]


def place(decision: CombinedRanking, grid: Grid, output: OutputKey = ("t", 0)) -> int:
    return next(i for i, choice in enumerate(decision.answers[output]) if same_grid(choice.grid, grid))


def test_a_search_is_ranked_by_score_and_a_model_by_votes() -> None:
    ranked = rank_all(POOL)
    assert [int(c.grid[0, 0]) for c in ranked["search"]["t", 0]] == [3, 2, 0]
    assert [c.votes for c in ranked["search"]["t", 0]] == [1, 1, 1], "a score given twice is no second vote"
    assert [int(c.grid[0, 0]) for c in ranked["frozen"]["t", 0]] == [0, 1]
    assert rank([]) == []


def test_each_way_counted_by_hand() -> None:
    """search: D -1.0, C -2.0, A -7.0; frozen: A three votes, B one."""
    order = ("search", "frozen")
    assert values(made(POOL, "precedence", order=order).answers["t", 0]) == [3, 2, 0, 1]
    assert values(made(POOL, "precedence", order=order[::-1]).answers["t", 0]) == [0, 1, 3, 2]
    assert values(made(POOL, "combination", order=order).answers["t", 0])[:2] == [3, 0], "the first answer of each"
    assert values(made(POOL, "combination", order=order[::-1]).answers["t", 0])[:2] == [0, 3]
    assert values(made(POOL, "concatenation", order=order).answers["t", 0])[0] == 0, "four predictions gave it"
    # Shares: the search gives D 0.73, C 0.27, A next to nothing; frozen gives A 0.75 and B 0.25.
    assert values(made(POOL, "voting", order=order).answers["t", 0]) == [0, 3, 2, 1]
    assert values(made(POOL, "voting", order=order, weights={"search": 2.0}).answers["t", 0]) == [3, 0, 2, 1]
    assert values(made(POOL, order=order).answers["t", 1]) == [1]
    assert [int(grid[0, 0]) for grid in combine_predictions(POOL, ("frozen",))["t", 0]] == [0, 1], "one source is ranked as it ranks itself"
    assert combine_predictions(POOL, ("ttft",)) == {}


def test_an_unsure_model_leaves_the_search_its_place_and_a_sure_one_takes_it() -> None:
    """Nothing is known of the model but its votes, and how it did where the search was sure: each time or never."""
    for agrees in (True, False):
        pool = []
        for number in range(20):
            task = f"sure{number}"
            pool += [prediction("search", A, 3.0, task=task), prediction("search", B, -6.0, task=task)]
            pool += [prediction("ttft", A if agrees else C, -1.0, task=task) for _ in range(8)]
        pool += [prediction("search", D, -2.0), prediction("search", E, -2.5), *(prediction("ttft", B, -1.0) for _ in range(8))]
        decision = made(pool)
        assert values(decision.answers["t", 0])[:2] == ([1, 3] if agrees else [3, 4])
        assert decision.trust["ttft"].seen == 20
        assert decision.trust["ttft"].agreed == (20 if agrees else 0)
        assert "in 20 of 20" in decision.trust["ttft"].reason or not agrees


def test_an_answer_that_two_sources_find_rises() -> None:
    pool = [prediction("search", A, -1.0), prediction("search", B, -1.5), *(prediction("ttft", D, -1.0) for _ in range(3))]
    both = [*pool, *(prediction("ttft", B, -1.0) for _ in range(2))]
    assert place(made(pool, trust=KNOWN), B) == 1
    assert place(made(both, trust=KNOWN), B) == 0
    assert made(both, trust=KNOWN).answers["t", 0][0].backing == ("search 2 of 2 (0.25)", "ttft 2 of 5 votes (0.11)")


def test_models_of_one_base_confirm_each_other_less_than_a_search_does() -> None:
    assert combined_odds({"ttft": 0.3, "frozen": 0.2}) == pytest.approx(0.5)
    assert combined_odds({"search": 0.3, "ttft": 0.2}) > 0.5
    assert combined_odds({"search": 0.7}) == pytest.approx(0.7)


def test_answers_scored_under_many_views_weigh_what_the_model_makes_of_them() -> None:
    """Each grid once: the mean log-probability over views ranks them, and is how probable the model thinks them."""
    scored = [
        replace(prediction("ttft", grid, math.log(p)), logprobs={"v": math.log(p), "w": math.log(p)}) for grid, p in ((A, 0.2), (B, 0.7))
    ]
    ranked = rank(scored)
    assert [int(c.grid[0, 0]) for c in ranked] == [1, 0]
    assert [c.probability for c in ranked] == [pytest.approx(0.7), pytest.approx(0.2)]
    assert vote_odds(ranked, 0.5) == [pytest.approx(0.35 / 0.55), pytest.approx(0.1 / 0.55)]
    choice = made(scored, trust=KNOWN).answers["t", 0][0]
    assert choice.backing == ("ttft 1 of 2 (0.28)",)
    mixed = rank([*scored, prediction("ttft", A, -9.0)])
    assert vote_odds(mixed, 0.5) == vote_odds(rank([prediction("ttft", g, -1.0) for g in (A, A, B)]), 0.5), (
        "votes where not all were scored"
    )


def test_probabilities_are_those_of_the_source_where_there_is_one() -> None:
    one = made([prediction("search", A, NONE_SCORE)]).answers["t", 0]
    assert one[0].probability == pytest.approx(0.5), "as probable as that none is right"
    assert vote_odds(rank([prediction("ttft", A, -1.0)] * 6), 0.4)[0] == pytest.approx(0.3 / 0.7), (
        "6 of 8 votes, two of them unseen, by 0.4"
    )
    assert score_odds(rank([prediction("search", A, 1e300), prediction("search", B, -1e300)]))[1] > 0, "scores beyond all bounds"


@pytest.mark.parametrize("way", METHODS + JUDGED_METHODS)
@given(pools, st.randoms(use_true_random=False))
def test_the_order_of_predictions_never_matters(way: str, pool: list[Prediction], shuffle: random.Random) -> None:
    shuffled = list(pool)
    shuffle.shuffle(shuffled)
    one, other = made(pool, way), made(shuffled, way)
    assert one.answers.keys() == other.answers.keys()
    for output in one.answers:
        assert [(values([c]), c.probability, c.backing) for c in one.answers[output]] == [
            (values([c]), c.probability, c.backing) for c in other.answers[output]
        ]


@pytest.mark.parametrize("way", METHODS + JUDGED_METHODS)
@given(pools)
def test_every_answer_comes_once_and_its_probability_is_one(way: str, pool: list[Prediction]) -> None:
    decision = made(pool, way)
    for output in {(p.task, p.test) for p in pool}:
        there = {grid_id(p.grid) for p in pool if (p.task, p.test) == output and p.grid is not None}
        choices = decision.answers.get(output, [])
        assert len(choices) == len(there), "the two attempts differ wherever there are two answers"
        assert {grid_id(choice.grid) for choice in choices} == there
        assert all(0 <= choice.probability <= 1 and choice.reason for choice in choices)
        assert math.fsum(choice.probability for choice in choices) <= 1 + 1e-9


@pytest.mark.parametrize("way", ["probability", "voting", "concatenation"])
@given(pools, st.permutations(SOURCES))
def test_the_order_of_sources_matters_only_where_it_is_asked_for(way: str, pool: list[Prediction], order: list[str]) -> None:
    one, other = made(pool, way), made(pool, way, order=tuple(order))
    assert {o: values(c) for o, c in one.answers.items()} == {o: values(c) for o, c in other.answers.items()}


@pytest.mark.parametrize("way", ["probability", "voting", "concatenation"])
@given(pools, st.sampled_from(("ttft", "frozen")), st.integers(0, 4), st.floats(-40, 0))
def test_another_vote_never_lowers_its_answer(way: str, pool: list[Prediction], source: str, which: int, logprob: float) -> None:
    """With as much trust as before: a vote against a sure search costs the model trust, as it should."""
    grid = GRIDS[which]
    assert grid is not None
    voted = [*pool, prediction(source, grid, logprob)]
    before = {c.grid.item(): i for i, c in enumerate(made(pool, way, trust=KNOWN).answers.get(("t", 0), []))}
    if int(grid[0, 0]) in before:
        # A vote of low probability may lose a tie that a lower mean log-probability decides; the likeliest so far cannot.
        best = max((p.logprob for p in pool if p.source == source and p.grid is not None), default=logprob)
        voted[-1] = prediction(source, grid, max(best, logprob))
        assert place(made(voted, way, trust=KNOWN), grid) <= before[int(grid[0, 0])]


@given(pools, st.sampled_from(SOURCES), st.floats(1.0, 100.0))
def test_a_weight_moves_its_source_alone(pool: list[Prediction], source: str, weight: float) -> None:
    plain, weighed = made(pool, trust=KNOWN), made(pool, trust=KNOWN, weights={source: weight})
    for output, choices in plain.answers.items():
        mine = {grid_id(p.grid) for p in pool if p.source == source and (p.task, p.test) == output and p.grid is not None}
        after = {grid_id(c.grid): c.probability for c in weighed.answers[output]}
        for choice in choices:
            if grid_id(choice.grid) not in mine:
                assert after[grid_id(choice.grid)] <= choice.probability + 1e-12


@settings(max_examples=50)
@given(pools)
def test_trust_lies_between_nothing_and_certainty(pool: list[Prediction]) -> None:
    for trust in estimate_trust(rank_all(pool)).values():
        assert 0 < trust.value < 1
        assert trust.agreed <= trust.seen


def test_a_models_word_ranks_what_it_was_asked_about() -> None:
    said = {("t", 0): {grid_id(A): 2.0, grid_id(B): 3.0}}
    decision = combine_sources(rank_all(POOL), EnsembleConfig("verification"), said)
    assert values(decision.answers["t", 0]) == [1, 0, 3, 2], "those not asked about stand behind, the more probable first"
    with pytest.raises(ConfigError, match="needs a model's scores"):
        combine_sources(rank_all(POOL), EnsembleConfig("selection"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"method": "guessing"}, "--method guessing: choose from probability, voting"),
        ({"order": ()}, "--order none"),
        ({"order": ("search", "search")}, "--order search,search"),
        ({"weights": {"search": -1.0}}, "--weights search=-1"),
        ({"weights": {"search": math.nan}}, "--weights search=nan"),
        ({"weights": {"other": 1.0}}, "--weights other=1: a number above 0 for one of search, ttft, frozen"),
    ],
)
def test_settings_that_cannot_be_are_refused(spoil: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnsembleConfig(**spoil)


def test_a_run_is_told_the_same(tmp_path: Path) -> None:
    config = make_config(out=tmp_path, method="voting", weights={"search": 2.0}, sources=("ttft", "search"))
    assert ensemble_config(config) == EnsembleConfig("voting", ("ttft", "search"), {"search": 2.0})
    assert ensemble_config(make_config(out=tmp_path, sources=("search",))).weights == {}, "the preset's weights of sources that do not run"
    for spoil, message in (
        ({"method": "selection"}, "--method selection: choose from"),
        ({"weights": {"other": 1.0}}, "--weights other=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(out=tmp_path, **spoil)


def test_weights_are_read_as_they_are_written() -> None:
    assert parse_weights("search=1,ttft=2.5") == {"search": 1.0, "ttft": 2.5}
    for text in ("search", "search=", "search=1,,ttft=2"):
        with pytest.raises(ConfigError, match="write a number for each source"):
            parse_weights(text)


def test_a_competitions_worth_of_predictions_takes_seconds() -> None:
    """240 tasks with 130 predictions: processor time, so that a busy machine does not matter."""
    import time

    rng = np.random.default_rng(0)
    grids = [np.asarray(rng.integers(0, 10, (12, 12)), dtype=np.int8) for _ in range(60)]
    pool = [prediction("ttft", grids[int(k)], -1.0, task=f"t{i}") for i in range(240) for k in rng.integers(0, 60, 120)]
    pool += [prediction("search", grid, -float(k), task=f"t{i}") for i in range(240) for k, grid in enumerate(grids[:10])]
    began = time.process_time()
    assert len(made(pool).answers) == 240
    assert time.process_time() - began < 8
