"""The metrics of a training: JSON lines in its folder, on the screen, and on request in TensorBoard or wandb."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import netrc
import os
import secrets
from pathlib import Path
from typing import Any

from arc_submit.arc.files import append_lines
from arc_submit.errors import ConfigError
from arc_submit.train.config import TrainConfig
from arc_submit.train.distributed import Processes


def check_loggers(config: TrainConfig) -> None:
    """Check, before any data is read, that the requested loggers are installed and can log.

    Raises:
        ConfigError: where TensorBoard or wandb is requested and missing, or wandb is online and has no key.
    """
    for requested, name in ((config.tensorboard, "tensorboard"), (config.wandb, "wandb")):
        if requested and importlib.util.find_spec(name) is None:
            raise ConfigError(f"--{name} needs the package {name}: pip install {name}, or leave the option out")
    if config.wandb:
        _check_wandb(config.out)


def _check_wandb(out: Path) -> None:
    import wandb  # type: ignore[import-not-found,unused-ignore]

    settings = wandb.setup().settings  # of the environment and of wandb's own files
    if settings.mode == "online" and not settings.api_key and not _netrc_has(_host(settings.base_url)):
        raise ConfigError(
            f"--wandb: no key for {settings.base_url}; set WANDB_API_KEY, or WANDB_MODE=offline, which needs neither a key nor a "
            f"network and keeps the run in {out / 'wandb'} for wandb sync"
        )


def _host(address: str) -> str:
    """The host of an address such as https://user@host:443/path."""
    return address.rpartition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]


def _netrc_has(host: str) -> bool:
    """Whether the netrc file, where wandb login keeps keys, has one for a host."""
    try:
        return host in netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, netrc.NetrcParseError):
        return False


class MetricsLog:
    """Writes metrics: JSON lines in log.jsonl and on the screen, and points in TensorBoard or wandb.

    Lines after the checkpoint that training goes on from are removed: their steps are taken again.
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
            import wandb

            settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
            run_id = _run_id(config.out / "wandb_id")
            try:
                self.run = wandb.init(project=config.wandb, dir=config.out, config=settings, id=run_id, resume="allow")
            except wandb.Error as error:
                raise ConfigError(f"--wandb: {error}; set WANDB_MODE=offline, or leave the option out") from None

    def write(self, metrics: dict[str, Any]) -> None:
        """Write the metrics of a step, "step" among them."""
        line = json.dumps(metrics)
        if not self.active or line == self.last:  # the same line again comes from a finished training that is started once more
            return
        self.last = line
        append_lines(self.path, line + "\n")
        print(line, flush=True)
        values = {name: value for name, value in metrics.items() if name != "step"}
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, metrics["step"])
        if self.run:
            self.run.log(values, step=metrics["step"])

    def close(self) -> None:
        """Flush and close all loggers."""
        if self.board:
            self.board.close()
        if self.run:
            self.run.finish()


def _run_id(path: Path) -> str:
    """wandb's id of the training, so that a resumed training stays the same run there."""
    if not path.exists():
        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that a kill cut short
