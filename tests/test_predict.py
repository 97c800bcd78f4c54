"""The frozen source: requests that depend on the task alone, predictions in the task's own frame, faults that stay with their task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arc_submit.arc.datasets import read_challenges, split_tasks
from arc_submit.arc.grid import make_grid, same_grid
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.arc.task import Task
from arc_submit.arc.views import parse_view
from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_folder
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.engine import Completion, NotServedError, Request
from arc_submit.inference.load import find_adapters
from arc_submit.inference.predict import Predictor, open_worker, predict_tasks
from arc_submit.inference.requests import ViewRequest, make_prediction, plan_requests
from arc_submit.inference.settings import PredictSettings, RequestSettings
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import PromptConfig, resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult

TOKENIZER = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
SETTINGS = PredictSettings("", "model", 5, 0, False, None, None, None, 4, 1, "cpu")


class MirrorEngine:
    """An engine that answers with the test input mirrored left to right; `spoil` changes the answer's tokens."""

    name = "mirror"
    context_length = 4096

    def __init__(self, spoil: Callable[[list[int]], list[int]] | None = None) -> None:
        self.spoil = spoil

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None = None, deadline: float | None = None
    ) -> Iterator[Completion]:
        for request in requests:
            question = TOKENIZER.tokenizer.decode(request.prompt).split("<|answer|>")[-2].split("<|end|>")[-1].split("<|start|>")[-1]
            grid = TOKENIZER.encoder.decode(question)
            ids = [*TOKENIZER.tokenizer.encode(TOKENIZER.encoder.encode(grid[:, ::-1]), add_special_tokens=False), TOKENIZER.end_id]
            ids = self.spoil(ids) if self.spoil else ids
            assert len(ids) <= request.max_new_tokens, "no room for an answer of the size that every pair has"
            yield Completion(request.id, ids, -1.5, "stop" if ids[-1] == TOKENIZER.end_id else "length", 0.1)
            if on_step:
                on_step()

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        return [0.0 for _ in continuations]

    def check_adapter(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"adapter {folder}: no such folder")


def predict(engine: MirrorEngine, view_requests: list[ViewRequest]) -> list[Prediction]:
    """The predictions of some requests."""
    by_id = {one.request.id: one for one in view_requests}
    return [make_prediction(TOKENIZER, by_id[c.id], c, "m") for c in engine.generate([one.request for one in view_requests])]


def run_job(
    run: Path, *task_ids: str, engine: MirrorEngine | None = None, beat: Callable[..., None] = lambda *_: None, **changes: Any
) -> dict[str, TaskResult]:
    """The results of `predict_tasks` with changed settings."""
    settings = replace(SETTINGS, run=str(run), **changes)
    return predict_tasks(Predictor(engine or MirrorEngine(), TOKENIZER, settings, 1024), task_ids, beat)


@pytest.fixture
def run(tmp_path: Path, files: tuple[Path, Path]) -> Path:
    split_tasks(read_challenges(files[0]), tmp_path / "run" / "tasks")
    return tmp_path / "run"


def first_task(files: tuple[Path, Path]) -> Task:
    return next(iter(read_challenges(files[0]).tasks.values()))


def test_a_tasks_requests_do_not_depend_on_other_tasks(files: tuple[Path, Path]) -> None:
    tasks = list(read_challenges(files[0]).tasks.values())
    alone, _ = plan_requests(TOKENIZER, tasks[1], RequestSettings(6, 0, 1024))
    for task in tasks:
        plan_requests(TOKENIZER, task, RequestSettings(3, 1, 1024))
    again, _ = plan_requests(TOKENIZER, tasks[1], RequestSettings(6, 0, 1024))
    assert [a.request for a in alone] == [a.request for a in again]
    assert len({a.request.id for a in alone}) == 6 * len(tasks[1].tests)
    other, _ = plan_requests(TOKENIZER, tasks[1], RequestSettings(6, 1, 1024))
    assert [a.request.prompt for a in other] != [a.request.prompt for a in alone]


def test_sampled_answers_have_a_seed_each_and_the_prompts_of_greedy_ones(files: tuple[Path, Path]) -> None:
    task = list(read_challenges(files[0]).tasks.values())[1]
    greedy, _ = plan_requests(TOKENIZER, task, RequestSettings(4, 0, 1024))
    sampled, _ = plan_requests(TOKENIZER, task, RequestSettings(4, 0, 1024, temperature=1.0))
    again, _ = plan_requests(TOKENIZER, task, RequestSettings(4, 0, 1024, temperature=1.0))
    assert [a.request.prompt for a in sampled] == [a.request.prompt for a in greedy]
    assert {a.request.temperature for a in greedy} == {0.0}
    assert {a.request.temperature for a in sampled} == {1.0}
    assert len({a.request.seed for a in sampled}) == len(sampled) == 8
    assert [a.request.seed for a in sampled] == [a.request.seed for a in again]


def test_more_views_begin_with_the_same_ones(files: tuple[Path, Path]) -> None:
    task = first_task(files)
    few, _ = plan_requests(TOKENIZER, task, RequestSettings(3, 0, 1024))
    many, _ = plan_requests(TOKENIZER, task, RequestSettings(9, 0, 1024))
    assert [a.request for a in few] == [a.request for a in many][: len(few)]


def test_predictions_are_in_the_tasks_own_frame(files: tuple[Path, Path]) -> None:
    """A mirror of a view, undone, is a mirror or a flip of the task: it is checked cell by cell through the view's key."""
    task = first_task(files)
    view_requests, refused = plan_requests(TOKENIZER, task, RequestSettings(16, 0, 1024))
    assert not refused
    predictions = predict(MirrorEngine(), view_requests)
    assert len(predictions) == 16
    for prediction in predictions:
        view = parse_view(prediction.view)
        assert prediction.grid is not None
        assert same_grid(view.apply(prediction.grid), make_grid(view.apply(task.tests[0])[:, ::-1]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(lambda ids: ids[:-1], "no end after"), (lambda ids: [*ids[:-2], ids[-1]], "no grid"), (lambda ids: [ids[-1]], "no grid")],
)
def test_an_answer_without_a_grid_is_a_prediction_with_a_reason(
    files: tuple[Path, Path], spoil: Callable[[list[int]], list[int]], reason: str
) -> None:
    view_requests, _ = plan_requests(TOKENIZER, first_task(files), RequestSettings(3, 0, 1024))
    for prediction in predict(MirrorEngine(spoil), view_requests):
        assert prediction.grid is None
        assert reason in prediction.reason


def test_a_task_that_no_prompt_fits_is_named_and_the_others_go_on(run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 10, (30, 30)).tolist()
    big = {"train": [{"input": noise, "output": noise}], "test": [{"input": noise}]}
    (run / "tasks" / "big.json").write_text(json.dumps({"big": big}))
    results = run_job(run, "big", "task000")
    assert results["big"].refused == ["no prompt smaller than 1024 tokens for task big"] * 5
    assert (results["big"].made, results["big"].failed) == (0, "no prompt smaller than 1024 tokens for task big")
    assert results["task000"].made == 5


def test_a_task_that_cannot_be_read_fails_alone(run: Path) -> None:
    (run / "tasks" / "task001.json").write_text('{"task001": {"train": [], "test": []}}')
    results = run_job(run, "task001", "missing", "task000")
    assert "train must be a non-empty list" in results["task001"].failed
    assert "missing.json" in results["missing"].failed
    assert results["task000"].made == 5


def test_existing_predictions_are_not_made_again(run: Path) -> None:
    first = run_job(run, "task001", views=3)["task001"]
    assert (first.made, first.held) == (6, 0)  # two test inputs
    path = RunPaths(run).predictions("frozen", "task001")
    path.write_bytes(path.read_bytes()[:-10])  # a kill in the middle of the last line
    more = run_job(run, "task001", views=5)["task001"]
    assert (more.made, more.held) == (5, 5)
    predictions, problems = read_predictions(path)
    assert len(problems) == 1
    assert len({(p.test, p.view) for p in predictions}) == len(predictions) == 10


def test_a_worker_uses_the_models_own_prompt_configuration(tiny_model: Path, run: Path) -> None:
    settings = replace(SETTINGS, run=str(run), model=str(tiny_model), views=2)
    do = open_worker(asdict(settings), lambda *_: None)
    result = do({"tasks": ["task000", "task002"]})["tasks"]
    assert result["task000"]["made"] == 2
    assert {p.model for p in read_predictions(RunPaths(run).predictions("frozen", "task002"))[0]} == {tiny_model.name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_len": 4096}, "over the 2048 tokens"),
        ({"prompt": "verify-output-from-examples-v0"}, "does not ask for the output"),
        ({"prompt": "output-from-examples-v0"}, "vocabulary cannot write"),
        ({"prompt": "no-such-prompt"}, "no prompt version"),
        ({"grid_encoder": "NoEncoder()"}, "NoEncoder"),
        ({"device": "cuda:7"}, "0 GPUs are visible"),
        ({"device": "gpu"}, "write cpu or cuda:0"),
        ({"grid_encoder": "GridShapeEncoder(MinimalGridEncoder())"}, "vocabulary cannot write"),
    ],
)
def test_a_worker_refuses_settings_that_cannot_work(tiny_model: Path, changes: dict[str, str], message: str) -> None:
    settings = replace(SETTINGS, model=str(tiny_model), **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        open_worker(asdict(settings), lambda: None)


def test_a_model_without_a_prompt_configuration_needs_options(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    with pytest.raises(ConfigError, match="give --model-config FILE, or --grid-encoder, --prompt and --max-seq-len"):
        resolve_prompt_config(tmp_path, None, None, None)
    assert resolve_prompt_config(tmp_path, "MinimalGridEncoder()", "output-from-examples-v0", 99).max_seq_len == 99
    PromptConfig("MinimalGridEncoder()", "output-from-examples-v1", 1000).save(tmp_path)
    assert resolve_prompt_config(tmp_path, None, None, None) == PromptConfig("MinimalGridEncoder()", "output-from-examples-v1", 1000)
    assert resolve_prompt_config(tmp_path, None, "output-from-examples-v0", 500).max_seq_len == 500


@pytest.mark.parametrize("content", ["{", "[]", '{"prompt": 3}', '{"grid_encoder": "a", "prompt": "b", "max_seq_len": 0}'])
def test_a_broken_prompt_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "arc_submit.json").write_text(content)
    with pytest.raises(DataError, match=r"arc_submit\.json"):
        resolve_prompt_config(tmp_path, None, None, None)


def test_a_task_whose_adapter_is_missing_fails_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "adapters" / "task000").mkdir(parents=True)
    results = run_job(run, "task000", "task001", source="ttft", adapters=str(tmp_path / "adapters"))
    assert (results["task000"].made, results["task000"].failed) == (5, "")
    assert (results["task001"].made, "task001: no such folder" in results["task001"].failed) == (0, True)
    assert {p.source for p in read_predictions(RunPaths(run).predictions("ttft", "task000"))[0]} == {"ttft"}


def test_an_adapter_that_only_another_engine_serves_is_left_to_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken adapter fails its task; one that this engine does not serve, or cannot load after all, is left to another engine."""

    class WeakEngine(MirrorEngine):
        def check_adapter(self, folder: Path) -> None:
            if folder.name == "task000":
                raise NotServedError(f"adapter {folder}: uses DoRA")
            super().check_adapter(folder)

        def generate(self, requests: Sequence[Request], *args: Any) -> Iterator[Completion]:
            for request in requests:
                if request.id.startswith("task002"):
                    yield Completion(request.id, [], 0.0, "failed", 0.0, "cannot load it")
            yield from super().generate([r for r in requests if not r.id.startswith("task002")], *args)

    for task in ("task000", "task002", "task004"):
        (tmp_path / "adapters" / task).mkdir(parents=True)
    monkeypatch.setattr("arc_submit.inference.load.load_engine", lambda *_: (WeakEngine(), TOKENIZER.tokenizer, ""))
    prompt = {"grid_encoder": "CompactGridEncoder()", "prompt": "output-from-turns-v0", "max_seq_len": 1024}
    settings = replace(SETTINGS, run=str(run), model=str(pocket_folder()), adapters=str(tmp_path / "adapters"), **prompt)  # type: ignore[arg-type]
    result = open_worker(asdict(settings), lambda *_: None)({"tasks": ["task000", "task001", "task002", "task004"]})
    assert sorted(result["cannot"]) == ["task000", "task002"]
    assert "uses DoRA" in result["cannot"]["task000"]
    assert sorted(result["tasks"]) == ["task001", "task004"]
    assert "no such folder" in result["tasks"]["task001"]["failed"]
    assert result["tasks"]["task004"]["made"] == 5


def test_a_file_with_another_task_in_it_fails_alone(run: Path) -> None:
    (run / "tasks" / "task001.json").write_text((run / "tasks" / "task002.json").read_text())
    results = run_job(run, "task001", "task000")
    assert "task001.json: holds task task002" in results["task001"].failed
    assert results["task000"].made == 5


def test_an_unfinished_adapter_folder_is_ignored(tmp_path: Path) -> None:
    for name in ("task000", "task001", ".task002.new.123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").touch()
    assert [path.name for path in find_adapters(str(tmp_path))] == ["task000", "task001"]


def test_a_tasks_predictions_answers_and_tokens_are_counted(run: Path) -> None:
    beats: list[dict[str, int]] = []
    engine = MirrorEngine(lambda ids: ids[:-1])
    result = run_job(run, "task000", engine=engine, beat=lambda progress=None: beats.append(progress))["task000"]
    assert (result.made, result.malformed, result.unfinished) == (5, 5, 0)
    assert beats[-1]["made"] == beats[-1]["answered"] >= 4
    assert result.tokens >= beats[-1]["tokens"] > 0


def test_requests_after_the_deadline_are_unfinished(run: Path, tiny_model: Path) -> None:
    do = open_worker(asdict(replace(SETTINGS, run=str(run), model=str(tiny_model), views=2)), lambda *_: None)
    late = do({"tasks": ["task000"], "soft_deadline": 0.0})["tasks"]["task000"]
    assert (late["made"], late["unfinished"], late["failed"]) == (0, 2, "")
    in_time = do({"tasks": ["task000"]})["tasks"]["task000"]
    assert (in_time["made"], in_time["unfinished"]) == (2, 0)
