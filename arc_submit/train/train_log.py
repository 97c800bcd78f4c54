"""The figures of a training as it goes: JSON lines in its folder, on the screen, and where asked in TensorBoard or wandb."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import secrets
from pathlib import Path
from typing import Any

from arc_submit.arc.prediction import append_lines
from arc_submit.errors import ConfigError
from arc_submit.train.config import TrainConfig
from arc_submit.train.distributed import Processes


def check_logging(config: TrainConfig) -> None:
    """Refuse, before anything is read, what the figures cannot be written to.

    Raises:
        ConfigError: where TensorBoard or wandb was asked for and is not installed.
    """
    for wanted, name in ((config.tensorboard, "tensorboard"), (config.wandb, "wandb")):
        if wanted and importlib.util.find_spec(name) is None:
            raise ConfigError(f"--{name} needs the package {name}: pip install {name}, or leave the option out")


class Log:
    """Lines of figures: a JSON line each in log.jsonl, on the screen, and in TensorBoard or wandb where asked.

    Lines of steps behind the checkpoint that training goes on from are taken out: these steps are done again.
    """

    def __init__(self, config: TrainConfig, group: Processes, step: int):
        self.path = config.out / "log.jsonl"
        self.active = group.rank == 0
        self.last = ""
        self.board: Any = None
        self.run: Any = None
        if not self.active:
            return
        if self.path.exists():
            lines = [line for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
            self.last = lines[-1] if lines else ""
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            temporary.replace(self.path)
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(config.out / "tensorboard", purge_step=step + 1)
        if config.wandb:
            import wandb  # type: ignore[import-not-found,unused-ignore]

            told = json.loads(json.dumps(dataclasses.asdict(config), default=str))
            self.run = wandb.init(project=config.wandb, dir=config.out, config=told, id=_own_id(config.out / "wandb_id"), resume="allow")

    def write(self, line: dict[str, Any]) -> None:
        """Keep one line, which has a "step"."""
        if not self.active:
            return
        if json.dumps(line) == self.last:
            return  # a finished training that is asked for again
        self.last = json.dumps(line)
        append_lines(self.path, json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        figures = {name: value for name, value in line.items() if name != "step"}
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name, value, line["step"])
        if self.run:
            self.run.log(figures, step=line["step"])

    def close(self) -> None:
        """Bring everything to the disk."""
        if self.board:
            self.board.close()
        if self.run:
            self.run.finish()


def _own_id(path: Path) -> str:
    """What wandb knows a training by, so that one that goes on is not another one there."""
    if not path.exists():
        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short by a kill
