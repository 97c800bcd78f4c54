"""Laws of the train pairs in the ensemble: what they change for answers of models, and what they leave as it is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.datasets import read_challenges, split_tasks, write_challenges
from arc_submit.arc.files import write_json
from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Pair, Task
from arc_submit.cli import main
from arc_submit.ensemble.combination import METHODS, EnsembleConfig, RankedAnswer, combine_sources, combined_odds, rank_all
from arc_submit.ensemble.evidence import MEETING, Trust
from arc_submit.ensemble.law_odds import law_factor, usual_factors
from arc_submit.report.summary import ReportData
from arc_submit.run.judge_stage import decide
from arc_submit.run.orchestrator import _uncertainty
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.run.standings import Standings
from arc_submit.scheduling.costs import TaskSize
from arc_submit.search.laws import laws_of
from arc_submit.storage.run_dir import RunPaths


def grid(*rows: str) -> Grid:
    return make_grid([[int(cell) for cell in row] for row in rows])


def task(task_id: str, *pairs: tuple[list[str], list[str]]) -> Task:
    return Task(task_id, tuple(Pair(grid(*one), grid(*other)) for one, other in pairs), (grid("0001"), grid("1000")))


# Each pair paints one cell in colour 2. In the other task no two pairs have anything in common.
PAINTED = task("t", (["001"], ["021"]), (["0010", "0000"], ["0210", "0000"]))
LAWLESS = task("t", (["1", "0"], ["0"]), (["2"], ["2"]), (["15"], ["2", "2", "0"]))
KEEPS, BREAKS, MORE = grid("0201"), grid("33"), grid("1", "1")
GRIDS = [KEEPS, BREAKS, MORE, grid("0021"), None]
TRUST = {"ttft": Trust(0.4, 0, 0), "frozen": Trust(0.2, 0, 0)}

predictions = st.builds(
    lambda source, answer, score, test: Prediction("t", test, answer, source, "v", score, "m", 0.0),
    st.sampled_from(("search", "ttft", "frozen")),
    st.sampled_from(GRIDS),
    st.floats(-20, 0),
    st.integers(0, 1),
)
pools = st.lists(predictions, min_size=1, max_size=25)


def votes(source: str, *answers: tuple[Grid, int], task_id: str = "t") -> list[Prediction]:
    return [Prediction(task_id, 0, answer, source, "v", -1.0, "m", 0.0) for answer, count in answers for _ in range(count)]


def ranking(pool: list[Prediction], known: Task | None, method: str = "probability", **more: Any) -> dict[Any, list[RankedAnswer]]:
    tasks = {} if known is None else {known.id: known}
    return combine_sources(rank_all(pool, tasks), EnsembleConfig(method, **more), trust=TRUST).answers


def shown(answers: dict[Any, list[RankedAnswer]]) -> dict[Any, list[tuple[bytes, float, str]]]:
    return {output: [(grid_id(one.grid), round(one.probability, 12), one.reason) for one in row] for output, row in answers.items()}


def test_the_two_tasks_are_what_they_are_meant_to_be() -> None:
    assert {"same size", "the new colours"} <= set(laws_of(PAINTED).strict)
    assert not laws_of(LAWLESS).strict
    assert not laws_of(LAWLESS).loose


def test_an_answer_that_keeps_the_laws_passes_one_with_more_votes() -> None:
    pool = votes("ttft", (BREAKS, 4), (KEEPS, 3))
    with_laws, without = ranking(pool, PAINTED)["t", 0], ranking(pool, PAINTED, laws=False)["t", 0]
    assert [grid_id(one.grid) for one in with_laws] == [grid_id(KEEPS), grid_id(BREAKS)]
    assert [grid_id(one.grid) for one in without] == [grid_id(BREAKS), grid_id(KEEPS)]
    assert with_laws[0].probability > without[1].probability, "where the source breaks laws, to keep them is evidence"
    assert 0 < with_laws[1].probability < without[0].probability
    assert with_laws[1].reason.startswith("ttft 4 of 7 votes (0.18), breaks 15 laws, 6 of them strict: 0.0"), with_laws[1].reason
    assert "breaks" not in with_laws[0].reason + without[0].reason


def test_the_odds_change_by_the_factor_over_the_usual_one() -> None:
    """The numbers of docs/ensemble.md: of 4 answers one breaks a strict law and 2 others, and 4 answers that keep all are added."""
    assert round(law_factor((1, 2)), 4) == round(math.exp(-2.0 * math.log(2) - 1.77 * math.log(3)), 4) == 0.0358
    assert law_factor((0, 0)) == law_factor(None) == 1.0
    ranked = rank_all(votes("ttft", (BREAKS, 1), (KEEPS, 1)), {"t": PAINTED})
    (broken,) = [one.broken for one in ranked["ttft"]["t", 0] if one.broken != (0, 0)]
    assert usual_factors(ranked)["ttft"] == pytest.approx((law_factor(broken) + 1 + 4) / 6)


def test_the_laws_within_a_searchs_score_do_not_count_twice() -> None:
    pool = [Prediction("t", 0, answer, "search", "v", score, "m", 0.0) for answer, score in ((BREAKS, -1.0), (KEEPS, -2.0))]
    assert shown(ranking(pool, PAINTED)) == shown(ranking(pool, PAINTED, laws=False))
    odds, factor = 2.0, 0.1
    assert combined_odds([("score", odds), ("votes", 0.5)], [1.0, factor]) == pytest.approx(odds + factor * 0.5 + odds * 0.5 / MEETING)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(pools)
def test_no_answer_is_left_out_and_other_methods_rank_without_laws(method: str, pool: list[Prediction]) -> None:
    with_laws, without = ranking(pool, PAINTED, method), ranking(pool, None, method)
    for output, answers in with_laws.items():
        grids = [grid_id(one.grid) for one in answers]
        given_grids = {grid_id(p.grid) for p in pool if (p.task, p.test) == output and p.grid is not None}
        assert sorted(grids) == sorted(given_grids), "an equal answer of two sources is one"
        assert all(0 < one.probability <= 1 for one in answers)
        assert math.fsum(one.probability for one in answers) <= 1 + 1e-9
        if method != "probability":
            assert grids == [grid_id(one.grid) for one in without[output]]


@settings(max_examples=50)
@given(pools, st.permutations(("search", "ttft", "frozen")))
def test_a_task_without_laws_or_without_pairs_is_ranked_as_before(pool: list[Prediction], order: list[str]) -> None:
    before = shown(ranking(pool, None))
    assert shown(ranking(pool, LAWLESS)) == before == shown(ranking(pool, PAINTED, laws=False))
    others = [replace(one, task="u") for one in pool]
    both = combine_sources(
        rank_all([*pool, *others], {"t": LAWLESS, "u": Task("u", PAINTED.train, PAINTED.tests)}), EnsembleConfig(), trust=TRUST
    )
    assert shown({output: row for output, row in both.answers.items() if output[0] == "t"}) == before, "beside a task with laws"
    assert shown(ranking(pool[::-1], PAINTED, order=tuple(order))) == shown(ranking(pool, PAINTED)), "in whatever order they come"


def test_a_source_that_breaks_no_laws_gains_nothing() -> None:
    pool = votes("ttft", (KEEPS, 4), (grid("2001"), 3))
    assert shown(ranking(pool, PAINTED)) == shown(ranking(pool, None))


def test_a_task_whose_answers_break_laws_is_less_settled(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    pool = votes("ttft", (BREAKS, 8)) + votes("ttft", (KEEPS, 8), task_id="u")
    for task_id in ("t", "u"):
        append_predictions(paths.predictions("ttft", task_id), [p for p in pool if p.task == task_id])
    tasks = {task_id: Task(task_id, PAINTED.train, PAINTED.tests[:1]) for task_id in ("t", "u")}
    sizes = dict.fromkeys(tasks, TaskSize(0.4, 0.4, 1))
    settled = {}
    for laws in (True, False):
        standings = Standings(paths, sizes, EnsembleConfig(order=("ttft",), laws=laws), tasks)(("t", "u"))
        settled[laws] = [standings[task_id].settled[0] for task_id in ("t", "u")]
    assert settled[False][0] == settled[False][1]
    assert settled[True][0] < 0.1 * settled[False][0]
    assert settled[True][1] > settled[False][1]
    assert _uncertainty(pool[:8], "ttft", {}) == 0.0
    assert _uncertainty(pool[:8], "ttft", tasks) > 0.9
    assert _uncertainty([*pool[:8], *votes("ttft", (KEEPS, 2))], "ttft", tasks) == pytest.approx(0.8)


def test_a_run_uses_laws_and_goes_on_without_them(tmp_path: Path) -> None:
    write_challenges(tmp_path / "tasks.json", {"t": PAINTED})
    more: dict[str, Any] = {"challenges": tmp_path / "tasks.json", "out": tmp_path / "run", "sources": ("search",), "method": "probability"}
    runs = [resolve_run(make_config("cpu-pocket", laws=laws, **more)) for laws in (True, "false")]
    assert runs[0].fingerprint == runs[1].fingerprint
    assert "laws" not in runs[0].fingerprint
    runs = [replace(run, ensemble=replace(run.ensemble, order=("frozen",))) for run in runs]
    pool = votes("frozen", (BREAKS, 4), (KEEPS, 3))
    firsts = [decide(run, run.paths, pool, ["t"]).answers["t", 0][0].grid for run in runs]
    reports = [ReportData(run.data.challenges, pool, {}, ensemble=run.ensemble).answers("t", 0)[0].grid for run in runs]
    assert list(map(grid_id, firsts)) == list(map(grid_id, reports)) == [grid_id(KEEPS), grid_id(BREAKS)]


def test_the_command_uses_laws_where_it_has_the_train_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file, out = tmp_path / "run", tmp_path / "other.json", tmp_path / "new.json"
    write_challenges(tmp_path / "tasks.json", {"t": PAINTED})
    challenges = read_challenges(tmp_path / "tasks.json")
    split_tasks(challenges, run / "tasks")
    write_json(run / "config.json", {"tasks": 1})
    append_predictions(run / "predictions" / "ttft" / "t.jsonl", votes("ttft", (BREAKS, 4), (KEEPS, 3)))
    Submission(challenges, run / "submission.json").save()

    def first(*words: str | Path) -> tuple[Grid, str]:
        written = run / "submission.json" if words[0] == run else out
        assert main(["ensemble", *map(str, words)]) == 0
        return make_grid(json.loads(written.read_text())["t"][0]["attempt_1"]), capsys.readouterr().out

    assert grid_id(first(run)[0]) == grid_id(KEEPS)
    assert grid_id(first(run, "--no-laws")[0]) == grid_id(BREAKS)
    assert grid_id(first(run, "--method", "voting")[0]) == grid_id(BREAKS)
    events = RunPaths(run).read_events()
    assert [event["laws"] for event in events if event["event"] == "recombined"] == [True, False, True]
    write_json(file, {"t": [{"attempt_1": grid_to_lists(BREAKS), "attempt_2": grid_to_lists(KEEPS)}] * 2})
    line = "laws of the train pairs do not count for task t: no input holds the train pairs; give --challenges"
    answer, said = first(file, "--out", out)
    assert line in said
    assert grid_id(answer) == grid_id(BREAKS)
    assert line not in first(file, "--out", out, "--no-laws")[1]
    answer, said = first(file, "--out", out, "--challenges", tmp_path / "tasks.json")
    assert line not in said
    assert grid_id(answer) == grid_id(KEEPS)
