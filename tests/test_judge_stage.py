"""Judging as the last stage of a run: its order, its time, what a resumed run asks, and what becomes of outputs that are not judged.

Workers run in this process, and the source's predictions are made up; a last test has real workers.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges

from arc_submit.arc.datasets import read_challenges, split_tasks
from arc_submit.arc.grid import Grid, make_grid
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import read_submission
from arc_submit.cli import main
from arc_submit.ensemble import judge_worker
from arc_submit.ensemble.combination import EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.judge_plan import find_contests
from arc_submit.ensemble.judge_settings import JudgeSettings, question_prompt
from arc_submit.ensemble.judge_worker import judge_task, load_judge
from arc_submit.ensemble.judgements import candidate_id, read_judgements
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import ScoringMemoryError
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.report.timeline import read_timeline
from arc_submit.run import orchestrator
from arc_submit.run.config import RunConfig
from arc_submit.run.pipeline import RunResult, run
from arc_submit.run.presets import make_config
from arc_submit.run.source_judge import JUDGE_WORKER, resolve_judge
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.pool import Backend
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError

VIEW = "r0.c0123456789.p01"
# Votes for the answers to the first test input of each task: one answer; two; several that leave little, much, and something out.
VOTES = {"task000": [4], "task001": [3, 1], "task002": [9, 2, 1], "task003": [1, 1, 1, 1, 1], "task004": [4, 3, 2], "task005": [5]}
ORDER = ["task003", "task004", "task002", "task001"]  # the least settled first; one answer is not judged


def grid(task_id: str, place: int) -> Grid:
    return make_grid([[int(task_id[-1]), place, 3], [place, 1, 2]])


def predictions(task_id: str) -> list[Prediction]:
    return [
        Prediction(task_id, 0, grid(task_id, place), "frozen", VIEW, -1.0, "m", 0.1)
        for place, votes in enumerate(VOTES[task_id])
        for _ in range(votes)
    ]


def config(files: tuple[Path, Path], model: Path, out: Path, **changes: Any) -> RunConfig:
    base: dict[str, Any] = {"challenges": files[0], "solutions": files[1], "model": model, "out": out, "sources": ("frozen",)}
    base |= {"method": "product", "judge_views": 2, "pictures": 0, "workers": 1, "budget": 300.0}
    return make_config("cpu-pocket", **{**base, **changes})


@dataclass
class Workers:
    """Workers in this process.

    Attributes:
        out: the run directory.
        predicted: tasks that the source has predicted.
        start: called before the judge's first job.
        job: called after each of the judge's jobs, before the parent hears of it.
    """

    out: Path = Path()
    predicted: list[str] = field(default_factory=list)
    start: Callable[[], None] = lambda: None
    job: Callable[[], None] = lambda: None

    def run_with_fallback(self, jobs: JobSource, backends: Sequence[Backend], *more: Any) -> Iterator[Event]:
        soft_deadline, judges = more[-1], backends[0].entry == JUDGE_WORKER
        do = self._predict
        if judges:
            self.start()
            do = judge_worker.open_worker(backends[0].settings_for(0), lambda *_: None)
        while job := jobs.next_job(1, time.monotonic()):
            yield Event("begun", 0, job.task_ids, job.reason, params=job.params)
            result = do({"tasks": list(job.task_ids), **job.params, "soft_deadline": soft_deadline})
            done = Event("done", 0, job.task_ids, result=result, params=job.params)
            jobs.on_event(done)
            if judges:
                self.job()
            yield done

    def _predict(self, job: dict[str, Any]) -> dict[str, Any]:
        for task_id in job["tasks"]:
            self.predicted.append(task_id)
            append_predictions(RunPaths(self.out).predictions("frozen", task_id), predictions(task_id))
        return {"tasks": {task_id: {"made": sum(VOTES[task_id])} for task_id in job["tasks"]}}


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(orchestrator, "run_with_fallback", made.run_with_fallback)
    return made


def run_in(workers: Workers, given: RunConfig) -> RunResult:
    workers.out = given.out
    return run(given)


def events(out: Path, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in RunPaths(out).read_events() if event["event"] in kinds]


def judged_lines(out: Path) -> list[str]:
    return [line for path in sorted((out / "judgements").glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    paths = folder / "challenges.json", folder / "solutions.json"
    for path, value in zip(paths, make_challenges(6), strict=True):
        path.write_text(json.dumps(value))
    return paths


@pytest.fixture(scope="module")
def undisturbed(files: tuple[Path, Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        made = Workers()
        patch.setattr(orchestrator, "run_with_fallback", made.run_with_fallback)
        run_in(made, config(files, tiny_model, out))
    return out


def test_the_judge_comes_after_the_sources_and_asks_about_the_least_settled_outputs_first(
    undisturbed: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = [(event["source"], task) for event in events(undisturbed, "worker_begun") for task in event["tasks"]]
    assert [source for source, _ in begun] == ["frozen"] * 6 + ["judge"] * 4
    assert [task for source, task in begun if source == "judge"] == ORDER
    assert not RunPaths(undisturbed).judgements("task000").exists(), "a single answer was judged"
    (noted,) = events(undisturbed, "judged")
    assert [noted["judged"], noted["outputs"], noted["unjudged"]] == [4, 4, []]
    judgements = read_judgements(RunPaths(undisturbed), ORDER)
    assert len(judgements) == 2 * sum(len(VOTES[task]) for task in ORDER)
    for task in ORDER:
        own = [one for one in judgements if one.task == task]
        scores = {place: sum(j.value for j in own if j.grids[0][0, 1] == place) for place in range(len(VOTES[task]))}
        attempts = read_submission(undisturbed / "submission.json", read_challenges(files[0]))[task][0]
        assert [int(attempt[0, 1]) for attempt in attempts] == sorted(scores, key=lambda place: -scores[place])[:2]
        assert len({one.view for one in own}) == 2
        by_view = [{candidate_id(one.grids[0]) for one in own if one.view == view} for view in {one.view for one in own}]
        assert all(len(ids) == len(VOTES[task]) for ids in by_view), "not every candidate was judged under the same views"
    before = (undisturbed / "submission.json").read_bytes()
    assert main(["ensemble", str(undisturbed), "--method", "product", "--order", "frozen"]) == 0
    assert (undisturbed / "submission.json").read_bytes() == before, "the command and the run decide in one way"
    figures = json.loads((undisturbed / "report" / "scores.json").read_text())
    assert "product" in figures["ways"]
    assert "4 of 4 outputs with several answers judged" in (undisturbed / "report" / "scores.txt").read_text()


def test_a_resumed_run_asks_what_is_not_on_disk_and_gives_the_same_attempts(
    undisturbed: Path, files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, workers: Workers
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    out = tmp_path / "killed"
    workers.job = kill
    with pytest.raises(Killed):
        run_in(workers, config(files, tiny_model, out))
    path = RunPaths(out).judgements(ORDER[0])
    whole = path.read_text().splitlines(keepends=True)
    assert len(judged_lines(out)) == len(whole) == 10
    path.write_text("".join(whole[:-1]) + whole[-1][:30])  # a kill in the middle of a line
    read_submission(out / "submission.json", read_challenges(files[0]))
    workers.job, workers.predicted = lambda: None, []
    run_in(workers, config(files, tiny_model, out))
    assert workers.predicted == [], "a prediction was made again"
    again = path.read_text().splitlines(keepends=True)
    assert again[:9] == whole[:9]
    assert len(again) == 11, "the torn line, and the one question that it answered"
    assert [(one.key, round(one.value, 4)) for one in read_judgements(RunPaths(out), ORDER)] == [
        (one.key, round(one.value, 4)) for one in read_judgements(RunPaths(undisturbed), ORDER)
    ]
    assert (out / "submission.json").read_bytes() == (undisturbed / "submission.json").read_bytes()
    workers.start = kill
    run_in(workers, config(files, tiny_model, out))  # nothing is left to ask: no worker starts


def test_a_run_by_another_method_goes_on_with_a_judge_alone(
    undisturbed: Path, files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, workers: Workers
) -> None:
    out = tmp_path / "first"
    run_in(workers, config(files, tiny_model, out, method="probability"))
    assert not (out / "judgements").exists()
    workers.predicted = []
    run_in(workers, config(files, tiny_model, out))
    assert workers.predicted == []
    assert (out / "submission.json").read_bytes() == (undisturbed / "submission.json").read_bytes()


def test_without_a_judge_that_works_outputs_are_ranked_by_the_presets_own_method(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, workers: Workers
) -> None:
    run_in(workers, config(files, tiny_model, tmp_path / "pure", method="precedence"))

    def fail() -> None:
        raise PoolError("no worker got ready in 3 starts: CUDA error")

    workers.start = fail
    result = run_in(workers, config(files, tiny_model, tmp_path / "out"))
    assert result.lost == {"judge": "no worker got ready in 3 starts: CUDA error"}
    (noted,) = events(tmp_path / "out", "judged")
    assert (noted["judged"], noted["fallback"]) == (0, "precedence")
    assert [one["reason"] for one in noted["unjudged"]] == ["no worker got ready in 3 starts: CUDA error"]
    assert len(noted["unjudged"][0]["outputs"]) == 4
    assert (tmp_path / "out" / "submission.json").read_bytes() == (tmp_path / "pure" / "submission.json").read_bytes()


def test_a_stage_that_is_cut_has_judged_what_matters_and_says_what_it_has_not(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, now = tmp_path / "out", time.monotonic
    shift = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now() + shift[0])
    workers.job = lambda: shift.__setitem__(0, 10_000.0)
    run_in(workers, config(files, tiny_model, out, judge_share=0.25))
    monkeypatch.undo()
    (noted,) = events(out, "judged")
    assert [noted["judged"], [one["reason"] for one in noted["unjudged"]]] == [1, ["no time was left"]]
    assert sorted(task for one in noted["unjudged"] for task, _ in one["outputs"]) == sorted(ORDER[1:])
    assert [event["tasks"] for event in events(out, "left_out")] == [ORDER[1:]]
    seconds = {event["source"]: event["seconds"] for event in events(out, "source_begun")}
    assert seconds["frozen"] == pytest.approx(0.75 * 285, abs=15), "the judge's share was not kept"
    assert seconds["judge"] == pytest.approx(285, abs=25), "what the source has left is the judge's"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge_share": 1.0}, "--judge-share 1: a number below 1"),
        ({"judge_candidates": 1}, "--judge-candidates 1: at least 2"),
        ({"judge_prompt": "verify-output-from-turns-v0"}, "asks another question than --method product"),
        ({"judge_model": Path("nowhere")}, "nowhere"),
        ({"judge_adapters": Path("nowhere")}, "--judge-adapters nowhere: no such folder"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    changes: dict[str, Any], message: str, files: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(config(files, tiny_model, tmp_path / "out", **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_competitions_re_run_goes_on_without_its_judge(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    result = run_in(workers, config(files, tiny_model, tmp_path / "out", judge_model=tmp_path / "missing"))
    assert "missing" in result.lost["judge"]
    assert result.done == sorted(VOTES)
    (noted,) = events(tmp_path / "out", "judged")
    assert [noted["judged"], [one["reason"] for one in noted["unjudged"]]] == [0, [result.lost["judge"]]]


def test_a_worker_leaves_out_what_it_cannot_ask_and_ends_at_its_time(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(tmp_path)
    split_tasks(read_challenges(files[0]), paths.tasks)
    append_predictions(paths.predictions("frozen", "task003"), predictions("task003"))
    settings = resolve_judge(config(files, tiny_model, tmp_path), paths).settings
    judge = load_judge(JudgeSettings.from_json(json.loads(json.dumps(asdict(settings)))))
    ids = {"0": [candidate_id(grid("task003", place)) for place in range(5)]}
    late = judge_task(judge, "task003", ids, lambda _: None, time.monotonic() - 1)
    assert (late.made, late.unfinished, late.failed) == (0, 2, "")
    assert "candidate 0 is in no file" in judge_task(judge, "task003", {"0": ["0"]}, lambda _: None).failed
    beats: list[int] = []
    real, calls = judge.engine.score, [0]

    def score(*given: Any, **named: Any) -> list[float]:
        calls[0] += 1
        if calls[0] == 1:
            raise ScoringMemoryError("out of memory")
        return real(*given, **named)

    monkeypatch.setattr(judge.engine, "score", score)
    result = judge_task(judge, "task003", ids, beats.append)
    assert (result.made, result.answered, result.unfinished, result.failed) == (5, 1, 0, "")
    assert result.refused == ["task003: out of memory"]
    assert len(beats) > 1, "no heartbeat while the model read"
    short = judge_task(replace(judge, max_seq_len=20), "task003", ids, lambda _: None)
    assert short.refused == ["task003: no prompt of the judge is shorter than 20 tokens"]
    assert short.failed == "", "an earlier view is judged"


def test_a_job_that_the_next_engine_takes_keeps_its_candidates() -> None:
    jobs = [Job((task,), params={"candidates": {task: {"0": ["a", "b"]}}}) for task in ("t", "u")]
    queue = JobQueue(jobs, until=5.0)
    assert queue.next_job(1, 0.0) == jobs[0]
    again = queue.reopen(["t"])
    assert again.next_job(1, 0.0) == jobs[0]
    assert again.next_job(1, 5.0) is None, "a job began after the soft deadline"
    assert again.pending() == ["u"]


def test_candidates_are_the_attempts_and_the_most_probable_other_answers() -> None:
    pool = [p for task in VOTES for p in predictions(task)]
    pool += [Prediction("task004", 0, grid("task004", 8), "search", VIEW, -5.0, "rule", 0.1)]
    pure = combine_sources(rank_all(pool), EnsembleConfig("precedence", ("search", "frozen")))
    contests = {contest.output[0]: contest for contest in find_contests(pure, 3)}
    assert [int(one[0, 1]) for one in contests["task004"].candidates] == [8, 0, 1], "what would be attempted, then the most probable"
    assert contests["task001"].left_out == 0
    assert list(contests)[-1] == "task001"
    sure = [*pool, Prediction("task004", 0, grid("task004", 0), "search", VIEW, 3.0, "rule", 0.1)]
    settled = combine_sources(rank_all(sure), EnsembleConfig("precedence", ("search", "frozen")))
    assert settled.answers["task004", 0][0].probability > 0.8
    assert "task004" not in {contest.output[0] for contest in find_contests(settled, 3, settled=0.8)}
    assert "task004" in {contest.output[0] for contest in find_contests(settled, 3, settled=1.0)}


def test_the_plan_tells_of_the_judge_and_its_time(capsys: pytest.CaptureFixture[str], files: tuple[Path, Path]) -> None:
    assert main(["plan", "--challenges", str(files[0]), "--budget", "10h", "--method", "selection", "--judge-share", "0.2"]) == 0
    assert "judge: selection of up to 6 candidates under 4 views, in the last 1h58m at least" in capsys.readouterr().out


def test_a_question_has_the_prompt_that_goes_with_the_models_own(tiny_model: Path) -> None:
    asked = resolve_prompt_config(tiny_model, None, None, None)
    assert question_prompt(tiny_model, asked, "verification", None).name == "verify-output-from-turns-v0"
    assert question_prompt(tiny_model, asked, "selection", "select-output-from-turns-v1").kind == "select"
    assert question_prompt(tiny_model, asked, "product", None).name == asked.prompt
    for prompt in ("output-from-examples-v1", "qwen.jinja"):
        with pytest.raises(ConfigError, match="no prompt of the kind select; take --method product, or give --judge-model a model that"):
            question_prompt(tiny_model, replace(asked, prompt=prompt), "selection", None)


def test_judges_in_a_process_of_its_own(undisturbed: Path, files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    shutil.rmtree(out / "judgements")
    result = run(config(files, tiny_model, out, threads=1, reset_budget=True))
    assert not result.lost
    assert len(judged_lines(out)) == len(judged_lines(undisturbed))
    assert (out / "submission.json").read_bytes() == (undisturbed / "submission.json").read_bytes()
    assert {event["source"] for event in events(out, "worker_ready")} == {"judge"}
    bars = read_timeline(RunPaths(out).read_events()).bars
    assert {bar.worker for bar in bars if bar.source == "judge"} == {"model 0"}
