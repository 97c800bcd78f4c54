"""NVARC's format of 2025 from a task to its predictions: a small Qwen3 of sixteen tokens is fine-tuned on every reply and searched."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tokens16 import save_model

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair, Task, task_to_json
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.settings import FinetuneSettings, TTFTSettings
from arc_submit.finetune.ttft_worker import open_worker
from arc_submit.inference.settings import PredictSettings
from arc_submit.storage.run_dir import RunPaths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only folder as it is published: no arc_submit.json and no chat template."""
    folder = tmp_path_factory.mktemp("nvarc")
    save_model(folder)
    assert not list(folder.glob("*.jinja"))
    return folder


def test_a_task_is_fine_tuned_searched_and_resumed(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    black = frozen(np.zeros((1, 1)))
    task = Task("t", tuple(Pair(frozen(rng.integers(1, 10, (2, 2))), black) for _ in range(3)), (frozen(rng.integers(1, 10, (2, 2))),))
    paths = RunPaths(tmp_path)
    paths.task("t").parent.mkdir(parents=True)
    paths.task("t").write_text(json.dumps({"t": task_to_json(task)}))
    predict = PredictSettings(
        str(tmp_path),
        str(model),
        4,
        0,
        True,
        None,
        None,
        None,
        4,
        1,
        "cpu",
        candidates="dfs",
        threshold=0.2,
        source="ttft",
        model_config="nvarc-2025",
    )
    ttft = TTFTSettings(steps=40, learning_rate=0.02, schedule="constant", loss_on="replies", keep_background=True)
    settings = json.loads(json.dumps(asdict(FinetuneSettings(predict, LoraSettings(rank=8, rslora=True), ttft, 512, None))))

    def work() -> dict[str, object]:
        result: dict[str, object] = open_worker(settings, lambda: None)({"tasks": ["t"]})["tasks"]["t"]
        return result

    first = work()
    assert first["failed"] == ""
    predictions, _ = read_predictions(paths.predictions("ttft", "t"))
    assert [prediction.test for prediction in predictions] == [0]
    assert same_grid(predictions[0].grid, black)
    assert len(predictions[0].logprobs) == 4, "scored under every view"
    # A second worker finds everything done.
    before = paths.predictions("ttft", "t").read_bytes()
    assert work()["made"] == 0
    assert paths.predictions("ttft", "t").read_bytes() == before
