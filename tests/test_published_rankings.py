"""The two published rankings against a computation from the lines of a predictions file, guess by guess, as their authors describe it."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pytest

from arc_submit.arc.grid import grid_to_lists
from arc_submit.arc.prediction import prediction_from_line
from arc_submit.commands.ensemble import add_arguments
from arc_submit.ensemble import published
from arc_submit.ensemble.combination import EnsembleConfig, combine_sources, rank_all
from arc_submit.run.presets import make_config

METHODS = ("count-minus-mean", "product-with-baseline")


def made_lines(rng: np.random.Generator, searched: int, scoring: int) -> list[dict[str, Any]]:
    """Lines of one test input: each candidate found under some of the searched views and scored under the first views."""
    lines = []
    for cell in range(int(rng.integers(1, 7))):
        finders = rng.permutation(searched)[: rng.integers(1, searched + 1)]
        found = {f"v{view}": round(-float(rng.exponential(2.0)), 6) for view in finders}
        scored = {f"v{view}": found.get(f"v{view}", round(-float(rng.exponential(4.0)), 6)) for view in range(scoring)}
        best = max(found, key=lambda view: found[view])
        line = {"task": "t", "test": 0, "grid": [[cell]], "source": "ttft", "view": best, "logprob": -1.0, "model": "m", "seconds": 0.1}
        lines.append({**line, "logprobs": scored, "found": found})
    return lines


def guesses_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A guess for each search that found the candidate, with its own and its scored negative log-probabilities."""
    return [{"own": -value, "scored": [-one for one in line["logprobs"].values()]} for value in line["found"].values()]


def score_by_guesses(method: str, guesses: list[dict[str, Any]]) -> float:
    if method == "count-minus-mean":
        return len(guesses) - float(np.mean([np.mean(guess["scored"]) for guess in guesses]))
    own = sum(3 - guess["own"] for guess in guesses)
    return own + float(np.mean([sum(3 - value for value in guess["scored"]) for guess in guesses]))


@pytest.mark.parametrize("method", METHODS)
def test_a_published_ranking_equals_its_computation_guess_by_guess(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    rng, largest, changed = np.random.default_rng(0), 0.0, 0
    formula = published.count_minus_mean if method == "count-minus-mean" else published.product_with_baseline
    for _ in range(400):
        lines = made_lines(rng, int(rng.integers(1, 17)), int(rng.integers(1, 9)))
        predictions = [prediction_from_line(json.dumps(line)) for line in lines]
        expected = {json.dumps(line["grid"]): score_by_guesses(method, guesses_of(line)) for line in lines}
        ranked = rank_all(predictions)
        for answer in ranked["ttft"]["t", 0]:
            value = formula({"ttft": answer.found}, {"ttft": answer.scored}, {})
            largest = max(largest, abs(value - expected[json.dumps(grid_to_lists(answer.grid))]))
        combined = combine_sources(ranked, EnsembleConfig(method)).answers["t", 0]
        by_score = sorted(expected, key=lambda grid: -expected[grid])
        assert [json.dumps(grid_to_lists(answer.grid)) for answer in combined] == by_score
        probable = combine_sources(ranked, EnsembleConfig("probability")).answers["t", 0]
        changed += [grid_to_lists(answer.grid) for answer in probable] != [json.loads(grid) for grid in by_score]
    with capsys.disabled():
        print(f"\n{method}: largest deviation {largest:.1e} in 400 test inputs, {changed} ranked otherwise than by probability")
    assert largest < 1e-9
    assert changed > 100, "an order that is always the default's proves little"


def test_all_sources_are_one_pool() -> None:
    """Votes count as views that found and score at once; the search counts as one view with the probability of its share."""

    def line(source: str, cell: int, logprob: float, **more: Any) -> str:
        value = {"task": "t", "test": 0, "grid": [[cell]], "source": source, "view": "v", "logprob": logprob, "model": "m", "seconds": 0.1}
        return json.dumps(value | more)

    lines = [line("search", 0, 1.0), line("frozen", 0, -2.0), line("frozen", 1, -4.0), line("frozen", 1, -2.0)]
    lines.append(line("ttft", 1, -3.0, logprobs={"v": -1.0, "w": -5.0}, found={"v": -1.0}))
    ranked = rank_all([prediction_from_line(one) for one in lines])
    # Cell 0: the search's share is 1, and a vote of -2. Cell 1: votes of -4 and -2, found at -1, scored at -1 and -5.
    first = {"search": (0.0,), "frozen": (-2.0,)}
    found, scored = {"frozen": (-4.0, -2.0), "ttft": (-1.0,)}, {"frozen": (), "ttft": (-5.0, -1.0)}
    trebled = {"frozen": 3.0}
    for method, formula, weights, values in (
        ("count-minus-mean", published.count_minus_mean, {}, (2 - 1.0, 3 - 3.0)),
        ("count-minus-mean", published.count_minus_mean, trebled, (4 - 1.0, 7 - 3.0)),
        ("product-with-baseline", published.product_with_baseline, {}, (3.0 + 1.0, -1.0 + 1.0 + 2.0 + 2.0 - 2.0)),
        ("product-with-baseline", published.product_with_baseline, trebled, (3.0 + 3.0, 3 * 0.0 + 2.0)),
    ):
        assert (formula(first, {}, weights), formula(found, scored, weights)) == values
        answers = combine_sources(ranked, EnsembleConfig(method, weights=weights)).answers["t", 0]
        assert [int(answer.grid[0, 0]) for answer in answers] == ([0, 1] if values[0] > values[1] else [1, 0])


def test_a_scored_line_of_an_earlier_version_counts_one_view_that_found_it() -> None:
    line = {"task": "t", "test": 0, "grid": [[1]], "source": "ttft", "view": "w", "logprob": -3.0, "model": "m", "seconds": 0.1}
    (answer,) = rank_all([prediction_from_line(json.dumps(line | {"logprobs": {"v": -4.0, "w": -2.0}}))])["ttft"]["t", 0]
    assert (answer.found, answer.scored) == ((-2.0,), (-4.0, -2.0))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_and_the_ensemble_command_take_the_method(method: str) -> None:
    assert make_config(method=method).method == method
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["runs/x", "--method", method]).method == method
