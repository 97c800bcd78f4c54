"""Combination: each method on examples, probable answers first, and independence from the order of predictions."""

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
from arc_submit.ensemble import published
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
from arc_submit.ensemble.evidence import Trust, estimate_trust, score_odds, vote_odds
from arc_submit.ensemble.judgements import QUESTIONS, Judgement, judgement_scores
from arc_submit.errors import ConfigError
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import ensemble_config
from arc_submit.search.scores import NONE_SCORE

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


def attempt(source: str, grid: Grid, share: float, task: str = "t") -> Prediction:
    return Prediction(task, 0, grid, source, "", round(math.log(share), 6), "attempt", 0.0, kind="attempts")


def combined(predictions: list[Prediction], method: str = "probability", **more: Any) -> CombinedRanking:
    trust = more.pop("trust", None)
    return combine_sources(rank_all(predictions), EnsembleConfig(method, **more), {} if method in JUDGED_METHODS else None, trust)


def values(answers: list[RankedAnswer]) -> list[int]:
    return [int(answer.grid[0, 0]) for answer in answers]


def place(ranking: CombinedRanking, grid: Grid, output: OutputKey = ("t", 0)) -> int:
    return next(i for i, answer in enumerate(ranking.answers[output]) if same_grid(answer.grid, grid))


def test_search_answers_are_ranked_by_score_and_model_answers_by_votes() -> None:
    ranked = rank_all(POOL)
    assert [int(c.grid[0, 0]) for c in ranked["search"]["t", 0]] == [3, 2, 0]
    assert [c.votes for c in ranked["search"]["t", 0]] == [1, 1, 1], "a repeated score is not a second vote"
    assert [int(c.grid[0, 0]) for c in ranked["frozen"]["t", 0]] == [0, 1]
    assert rank([]) == []


def test_each_method_on_an_example() -> None:
    """search: D -1.0, C -2.0, A -7.0; frozen: A three votes, B one."""
    order = ("search", "frozen")
    assert values(combined(POOL, "precedence", order=order).answers["t", 0]) == [3, 2, 0, 1]
    assert values(combined(POOL, "precedence", order=order[::-1]).answers["t", 0]) == [0, 1, 3, 2]
    assert values(combined(POOL, "combination", order=order).answers["t", 0])[:2] == [3, 0], "the first answer of each"
    assert values(combined(POOL, "combination", order=order[::-1]).answers["t", 0])[:2] == [0, 3]
    assert values(combined(POOL, "concatenation", order=order).answers["t", 0])[0] == 0, "four predictions gave it"
    # Shares: the search gives D 0.73, C 0.27, A next to nothing; frozen gives A 0.75 and B 0.25.
    assert values(combined(POOL, "voting", order=order).answers["t", 0]) == [0, 3, 2, 1]
    assert values(combined(POOL, "voting", order=order, weights={"search": 2.0}).answers["t", 0]) == [3, 0, 2, 1]
    assert values(combined(POOL, order=order).answers["t", 1]) == [1]
    assert [int(grid[0, 0]) for grid in combine_predictions(POOL, ("frozen",))["t", 0]] == [0, 1], "one source alone has its own order"
    assert combine_predictions(POOL, ("ttft",)) == {}


def test_the_examples_of_the_documentation() -> None:
    """Every number of docs/ensemble.md."""
    pool = [prediction("search", A, -0.5), prediction("search", B, -1.5)]
    pool += [prediction("ttft", grid, -1.0) for grid, votes in ((C, 5), (B, 2), (A, 1)) for _ in range(votes)]
    for number in range(20):
        pool.append(prediction("search", A, 3.0, task=f"sure{number}"))
        pool += [prediction("ttft", A if number < 14 else B, -1.0, task=f"sure{number}") for _ in range(8)]
    ranked = rank_all(pool)
    trust = estimate_trust(ranked)["ttft"]
    assert (trust.agreed, trust.seen, round(trust.value, 3)) == (14, 20, 0.41)
    search, model = score_odds(ranked["search"]["t", 0]), vote_odds(ranked["ttft"]["t", 0], trust.value)
    assert [round(odds, 3) for odds in search] == [2.014, 0.741]
    assert [round(odds, 3) for odds in model] == [0.305, 0.122, 0.061]
    joint = [combined_odds([("score", search[0]), ("votes", model[2])]), combined_odds([("score", search[1]), ("votes", model[1])])]
    assert [round(odds, 3) for odds in joint] == [2.484, 1.164]
    probable = combined(pool).answers["t", 0]
    assert [(values([answer]), round(answer.probability, 2)) for answer in probable] == [([0], 0.5), ([1], 0.24), ([2], 0.06)]
    assert probable[0].reason == "search 1 of 2 (0.54) and ttft 1 of 8 votes (0.04): 0.50"
    attempts = [attempt("file", A if number < 15 else B, 0.8, task=f"sure{number}") for number in range(20)]
    file_ranked = rank_all([*pool, *attempts, attempt("file", A, 0.8), attempt("file", B, 0.2)])
    trust = estimate_trust(file_ranked)["file"]
    assert (trust.agreed, trust.seen, round(trust.value, 3)) == (15, 20, 0.496)
    assert [round(odds, 3) for odds in vote_odds(file_ranked["file"]["t", 0], trust.value)] == [0.788, 0.197]
    orders = {"probability": [0, 1, 2], "voting": [0, 2, 1], "concatenation": [2, 1, 0], "combination": [0, 2, 1], "precedence": [0, 1, 2]}
    orders |= {"count-minus-mean": [2, 1, 0], "product-with-baseline": [2, 1, 0]}
    assert {method: values(combined(pool, method).answers["t", 0]) for method in METHODS} == orders
    shares = [math.log(odds / math.fsum(search)) for odds in search]
    pooled = [({"search": (shares[0],), "ttft": (-1.0,)}), ({"search": (shares[1],), "ttft": (-1.0,) * 2}), ({"ttft": (-1.0,) * 5})]
    assert [round(published.count_minus_mean(found, {}, {}), 3) for found in pooled] == [1.343, 1.896, 4.0]
    assert [round(published.product_with_baseline(found, {}, {}), 3) for found in pooled] == [4.687, 5.687, 10.0]
    comparisons = ((A, B, 2.0), (B, A, 0.0), (A, C, 1.0), (C, A, 0.5), (B, C, -0.5), (C, B, 1.5))
    judged = [Judgement("t", 0, "select", "v", (first, second), value, "m") for first, second, value in comparisons]
    for question, rows in (("verify", ((1.2, -0.2), (-0.4, -1.0), (0.3, 0.9))), ("product", ((-0.4, -1.6), (-0.9, -0.8), (-0.1, -2.4)))):
        for grid, row in zip((A, B, C), rows, strict=True):
            judged += [Judgement("t", 0, question, view, (grid,), value, "m") for view, value in zip("vw", row, strict=True)]  # type: ignore[arg-type]
    for method, expected, order in (
        ("selection", [0.312, -0.523, 0.211], [0, 2, 1]),
        ("verification", [0.5, -0.7, 0.6], [2, 0, 1]),
        ("product", [-2.0, -1.7, -2.5], [1, 0, 2]),
    ):
        scores = judgement_scores(judged, QUESTIONS[method])
        assert [round(scores["t", 0][grid_id(grid)], 3) for grid in (A, B, C)] == expected
        assert values(combine_sources(ranked, EnsembleConfig(method), scores).answers["t", 0]) == order


def test_a_trusted_model_overrules_an_unsure_search_and_an_untrusted_one_does_not() -> None:
    """Where the search is sure, the model agrees with it always or never."""
    for agrees in (True, False):
        pool = []
        for number in range(20):
            task = f"sure{number}"
            pool += [prediction("search", A, 3.0, task=task), prediction("search", B, -6.0, task=task)]
            pool += [prediction("ttft", A if agrees else C, -1.0, task=task) for _ in range(8)]
        pool += [prediction("search", D, -2.0), prediction("search", E, -2.5), *(prediction("ttft", B, -1.0) for _ in range(8))]
        ranking = combined(pool)
        assert values(ranking.answers["t", 0])[:2] == ([1, 3] if agrees else [3, 4])
        assert ranking.trust["ttft"].seen == 20
        assert ranking.trust["ttft"].agreed == (20 if agrees else 0)
        assert "in 20 of 20" in ranking.trust["ttft"].reason or not agrees


def test_an_answer_of_two_sources_ranks_higher() -> None:
    pool = [prediction("search", A, -1.0), prediction("search", B, -1.5), *(prediction("ttft", D, -1.0) for _ in range(3))]
    both = [*pool, *(prediction("ttft", B, -1.0) for _ in range(2))]
    assert place(combined(pool, trust=KNOWN), B) == 1
    assert place(combined(both, trust=KNOWN), B) == 0
    assert combined(both, trust=KNOWN).answers["t", 0][0].backing == ("search 2 of 2 (0.25)", "ttft 2 of 5 votes (0.11)")


def test_agreement_of_two_models_counts_less_than_agreement_with_the_search() -> None:
    assert combined_odds([("votes", 0.3), ("votes", 0.2)]) == pytest.approx(0.5)
    assert combined_odds([("score", 0.3), ("votes", 0.2)]) > 0.5
    assert combined_odds([("score", 0.7)]) == pytest.approx(0.7)
    assert combined_odds([("score", 0.7), ("score", 0.4)]) == pytest.approx(0.7), "two searches are one program"
    assert combined_odds([("score", 0.7), ("place", 0.4)]) == pytest.approx(1.1), "nobody knows where a submission comes from"


def test_answers_scored_under_many_views_have_the_models_probability() -> None:
    """The mean log-probability over views ranks the answers, and its exponential is their probability."""
    scored = [
        replace(prediction("ttft", grid, math.log(p)), logprobs={"v": math.log(p), "w": math.log(p)}) for grid, p in ((A, 0.2), (B, 0.7))
    ]
    ranked = rank(scored)
    assert [int(c.grid[0, 0]) for c in ranked] == [1, 0]
    assert [c.probability for c in ranked] == [pytest.approx(0.7), pytest.approx(0.2)]
    assert vote_odds(ranked, 0.5) == [pytest.approx(0.35 / 0.55), pytest.approx(0.1 / 0.55)]
    answer = combined(scored, trust=KNOWN).answers["t", 0][0]
    assert answer.backing == ("ttft 1 of 2 (0.28)",)
    mixed = rank([*scored, prediction("ttft", A, -9.0)])
    assert vote_odds(mixed, 0.5) == vote_odds(rank([prediction("ttft", g, -1.0) for g in (A, A, B)]), 0.5), (
        "votes decide where not all were scored"
    )


def test_an_attempt_of_a_submission_counts_by_the_share_of_its_place() -> None:
    pool = [attempt("file", A, 0.8), attempt("file", B, 0.2), *(prediction("ttft", C, -1.0) for _ in range(6))]
    same = combined(pool, trust={"file": Trust(0.4, 0, 0), "ttft": Trust(0.4, 0, 0)}, order=("ttft", "file")).answers["t", 0]
    assert values(same) == [0, 2, 1], "0.8 against 6 votes of 8, two of which are added"
    assert same[0].backing == ("file 1 of 2 (0.32)",)
    assert same[0].sources == ("file",)
    for method, expected in (("voting", [2, 0, 1]), ("concatenation", [2, 0, 1]), ("combination", [2, 0, 1]), ("precedence", [2, 0, 1])):
        assert values(combined(pool, method, order=("ttft", "file")).answers["t", 0]) == expected
    assert values(combined(pool, "precedence", order=("file", "ttft")).answers["t", 0]) == [0, 1, 2]
    alone = combined([attempt("file", A, 1.0)], trust={"file": Trust(0.4, 0, 0)}, order=("file",)).answers["t", 0]
    assert alone[0].probability == pytest.approx(0.4), "two equal attempts"


def test_one_source_alone_determines_the_probabilities() -> None:
    one = combined([prediction("search", A, NONE_SCORE)]).answers["t", 0]
    assert one[0].probability == pytest.approx(0.5), "as probable as that no answer is right"
    assert vote_odds(rank([prediction("ttft", A, -1.0)] * 6), 0.4)[0] == pytest.approx(0.3 / 0.7), (
        "6 of 8 votes, two of which are added, times 0.4"
    )
    assert score_odds(rank([prediction("search", A, 1e300), prediction("search", B, -1e300)]))[1] > 0, "extreme scores"


@pytest.mark.parametrize("method", METHODS + JUDGED_METHODS)
@given(pools, st.randoms(use_true_random=False))
def test_the_order_of_predictions_does_not_matter(method: str, pool: list[Prediction], shuffle: random.Random) -> None:
    shuffled = list(pool)
    shuffle.shuffle(shuffled)
    one, other = combined(pool, method), combined(shuffled, method)
    assert one.answers.keys() == other.answers.keys()
    for output in one.answers:
        assert [(values([c]), c.probability, c.backing) for c in one.answers[output]] == [
            (values([c]), c.probability, c.backing) for c in other.answers[output]
        ]


@pytest.mark.parametrize("method", METHODS + JUDGED_METHODS)
@given(pools)
def test_every_answer_appears_once_with_a_valid_probability(method: str, pool: list[Prediction]) -> None:
    ranking = combined(pool, method)
    for output in {(p.task, p.test) for p in pool}:
        expected = {grid_id(p.grid) for p in pool if (p.task, p.test) == output and p.grid is not None}
        answers = ranking.answers.get(output, [])
        assert len(answers) == len(expected), "two answers give two different attempts"
        assert {grid_id(answer.grid) for answer in answers} == expected
        assert all(0 <= answer.probability <= 1 and answer.reason for answer in answers)
        assert math.fsum(answer.probability for answer in answers) <= 1 + 1e-9


@pytest.mark.parametrize("method", ["probability", "voting", "concatenation"])
@given(pools, st.permutations(SOURCES))
def test_these_methods_ignore_the_order_of_sources(method: str, pool: list[Prediction], order: list[str]) -> None:
    one, other = combined(pool, method), combined(pool, method, order=tuple(order))
    assert {o: values(c) for o, c in one.answers.items()} == {o: values(c) for o, c in other.answers.items()}


@pytest.mark.parametrize("method", ["probability", "voting", "concatenation"])
@given(pools, st.sampled_from(("ttft", "frozen")), st.integers(0, 4), st.floats(-40, 0))
def test_another_vote_never_lowers_the_rank_of_its_answer(
    method: str, pool: list[Prediction], source: str, which: int, logprob: float
) -> None:
    """With fixed trust, because a vote against a sure search lowers the trust in the model."""
    grid = GRIDS[which]
    assert grid is not None
    voted = [*pool, prediction(source, grid, logprob)]
    before = {c.grid.item(): i for i, c in enumerate(combined(pool, method, trust=KNOWN).answers.get(("t", 0), []))}
    if int(grid[0, 0]) in before:
        # A vote of low probability lowers the mean log-probability, which decides ties; a vote at least as likely as all others does not.
        best = max((p.logprob for p in pool if p.source == source and p.grid is not None), default=logprob)
        voted[-1] = prediction(source, grid, max(best, logprob))
        assert place(combined(voted, method, trust=KNOWN), grid) <= before[int(grid[0, 0])]


@given(pools, st.sampled_from(SOURCES), st.floats(1.0, 100.0))
def test_a_larger_weight_does_not_raise_other_sources(pool: list[Prediction], source: str, weight: float) -> None:
    plain, weighed = combined(pool, trust=KNOWN), combined(pool, trust=KNOWN, weights={source: weight})
    for output, answers in plain.answers.items():
        mine = {grid_id(p.grid) for p in pool if p.source == source and (p.task, p.test) == output and p.grid is not None}
        after = {grid_id(c.grid): c.probability for c in weighed.answers[output]}
        for answer in answers:
            if grid_id(answer.grid) not in mine:
                assert after[grid_id(answer.grid)] <= answer.probability + 1e-12


@settings(max_examples=50)
@given(pools)
def test_trust_is_between_0_and_1(pool: list[Prediction]) -> None:
    for trust in estimate_trust(rank_all(pool)).values():
        assert 0 < trust.value < 1
        assert trust.agreed <= trust.seen


def test_judged_answers_come_first_by_their_scores() -> None:
    scores = {("t", 0): {grid_id(A): 2.0, grid_id(C): 1.0, grid_id(D): 0.0}}
    ranking = combine_sources(rank_all(POOL), EnsembleConfig("verification"), scores)
    assert values(ranking.answers["t", 0]) == [0, 2, 3, 1], "an answer without a score comes last"
    assert not ranking.unjudged
    with pytest.raises(ConfigError, match="needs a model's scores"):
        combine_sources(rank_all(POOL), EnsembleConfig("selection"))


@pytest.mark.parametrize("fallback", ["probability", "concatenation"])
def test_an_output_is_ranked_without_a_judge_where_an_attempt_has_no_score(fallback: str) -> None:
    pure = combine_sources(rank_all(POOL), EnsembleConfig(fallback)).answers["t", 0]
    second_alone = {("t", 0): {grid_id(pure[1].grid): 1.0, grid_id(pure[2].grid): 2.0}}
    config = EnsembleConfig("product", fallback=fallback)
    for scores in ({}, second_alone):
        ranking = combine_sources(rank_all(POOL), config, scores)
        assert [values(ranking.answers["t", 0]), ranking.unjudged] == [values(pure), {("t", 0)}]
    both = {("t", 0): {**second_alone["t", 0], grid_id(pure[0].grid): 0.0}}
    ranking = combine_sources(rank_all(POOL), config, both)
    assert [values(ranking.answers["t", 0])[0], ranking.unjudged] == [values(pure)[2], frozenset()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guessing"}, "--method guessing: choose from probability, voting"),
        ({"order": ()}, "--order none"),
        ({"order": ("search", "search")}, "--order search,search"),
        ({"weights": {"search": -1.0}}, "--weights search=-1"),
        ({"weights": {"search": math.nan}}, "--weights search=nan"),
        ({"weights": {"other": 1.0}}, "--weights other=1: a number above 0 for one of search, ttft, frozen"),
    ],
)
def test_an_invalid_configuration_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnsembleConfig(**options)


def test_a_runs_options_become_the_ensemble_configuration(tmp_path: Path) -> None:
    config = make_config(out=tmp_path, method="voting", weights={"search": 2.0}, sources=("ttft", "search"))
    assert ensemble_config(config) == EnsembleConfig("voting", ("ttft", "search"), {"search": 2.0})
    assert ensemble_config(make_config(out=tmp_path, sources=("search",))).weights == {}, "weights of sources that do not run are dropped"
    for options, message in (
        ({"method": "guessing"}, "--method guessing: choose from"),
        ({"weights": {"other": 1.0}}, "--weights other=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(out=tmp_path, **options)


def test_weights_are_parsed() -> None:
    assert parse_weights("search=1,ttft=2.5") == {"search": 1.0, "ttft": 2.5}
    for text in ("search", "search=", "search=1,,ttft=2"):
        with pytest.raises(ConfigError, match="write a number for each source"):
            parse_weights(text)


def test_a_whole_competition_takes_seconds() -> None:
    """240 tasks with 130 predictions each; CPU time, so that other load does not matter."""
    import time

    rng = np.random.default_rng(0)
    grids = [np.asarray(rng.integers(0, 10, (12, 12)), dtype=np.int8) for _ in range(60)]
    pool = [prediction("ttft", grids[int(k)], -1.0, task=f"t{i}") for i in range(240) for k in rng.integers(0, 60, 120)]
    pool += [prediction("search", grid, -float(k), task=f"t{i}") for i in range(240) for k, grid in enumerate(grids[:10])]
    began = time.process_time()
    assert len(combined(pool).answers) == 240
    assert time.process_time() - began < 8
