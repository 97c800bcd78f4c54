"""Small trainings for the tests: tasks to learn, settings, and how one is started as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import make_challenges
from safetensors.torch import load_file

from arc_submit.arc.datasets import grid_from_rows
from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask
from arc_submit.base_model.settings import LoraSettings
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.mixture import MixturePart

PROMPT = "output-from-turns-v0"
SMALL = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "save_every": 3, "loaders": 0, "warmup_ratio": 0.2}
CPU = torch.device("cpu")


def write_data(folder: Path, count: int = 6) -> Path:
    """A challenges file with its solutions beside it."""
    challenges, solutions = make_challenges(count)
    (folder / "some_solutions.json").write_text(json.dumps(solutions))
    path = folder / "some_challenges.json"
    path.write_text(json.dumps(challenges))
    return path


def write_held_out(folder: Path) -> MixturePart:
    """A part of tasks that `write_data` does not have."""
    challenges, solutions = make_challenges(3, seed=9, side=5)
    for name, value in (("challenges", challenges), ("solutions", solutions)):
        (folder / f"other_{name}.json").write_text(json.dumps({f"other-{task_id}": entry for task_id, entry in value.items()}))
    return MixturePart(str(folder / "other_challenges.json"), PROMPT)


def config_of(model: str | Path, out: str | Path, data: str | Path, rank: int = 4, max_seq_len: int = 256, **settings: Any) -> TrainConfig:
    """A small training."""
    return TrainConfig(
        model=Path(model),
        out=Path(out),
        parts=(MixturePart(str(data), PROMPT, max_pairs=4, task_augmentation=0.2),),
        settings=TrainSettings(**{**SMALL, **settings}),
        lora=LoraSettings(rank=rank, alpha=8.0),
        max_seq_len=max_seq_len,
        benchmarks=(),
    )


def losses(out: Path) -> list[float]:
    """Of the log's lines on steps, those on evaluations left out."""
    return [line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in line]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The whole tensors of the last checkpoint, the optimizer's among them."""
    last = sorted((out / "checkpoints").iterdir())[-1]
    return {
        f"{path.parent.name}/{path.name}/{name}": tensor for path in last.rglob("*.safetensors") for name, tensor in load_file(path).items()
    }


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command_of(told: Path, launcher: Sequence[str] = (), arguments: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """How tests/train_processes.py is started: the command and its environment."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path]), "OMP_NUM_THREADS": "1"}
    return [sys.executable, *launcher, str(here / "train_processes.py"), str(told), *arguments], environment


def start(told: Path, launcher: Sequence[str] = (), arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command, environment = command_of(told, launcher, arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def wait_for_three_lines(out: Path, process: subprocess.Popen[str]) -> None:
    """Until a training is under way, by its log."""
    patience = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < patience
        time.sleep(0.1)


def grid(text: str) -> Grid:
    """A grid written as rows of digits with a slash between them."""
    return grid_from_rows(text, "a test")


def numbered_tasks(count: int, pairs: int) -> list[TrainingTask]:
    """Tasks whose pairs are known by the output's area under any view: 1 to count * pairs cells, in one row."""
    made = []
    for number in range(count):
        areas = range(number * pairs + 1, (number + 1) * pairs + 1)
        made.append(TrainingTask(f"t{number}", tuple(Pair(frozen(np.ones((1, 1))), frozen(np.full((1, a), 2))) for a in areas), (0,)))
    return made


def proposals(folder: Path) -> list[TrainingTask]:
    """Two tasks whose right outputs hold 1 alone, with wrong predictions that hold 2 alone."""
    one, two = frozen(np.ones((2, 2))), frozen(np.full((2, 2), 2))
    tasks = [TrainingTask(f"t{i}", tuple(Pair(frozen(np.full((1, i + n + 1), 3)), one) for n in range(4)), (0, 1)) for i in range(2)]
    for task in tasks:
        lines = [Prediction(task.id, test, made, "frozen", "v", -1.0, "m", 0.1) for test in (0, 1) for made in (one, two, two, None)]
        append_predictions(folder / f"{task.id}.jsonl", lines)
    return tasks
