"""The settings of a task's fine-tuning, without torch. Does not know how they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.inference.settings import PredictSettings
from arc_submit.options import Identity, check_options, option
from arc_submit.storage.run_dir import RunPaths

SCHEDULES = ("linear", "constant", "cosine")
LOSSES = ("answer", "outputs", "replies", "all")
OF_SHOWN_GRIDS = ("outputs", "replies")  # those that need the positions of grids

_option = partial(option, identity=Identity.SAME, commands=("run", "finetune"))


@dataclass(frozen=True)
class TTFTSettings:
    """The settings of one task's fine-tuning."""

    steps: int = _option(100, help="optimizer steps", minimum=1)
    batch_size: int = _option(1, help="samples in one forward pass", minimum=1)
    accumulation: int = _option(1, help="forward and backward passes of a step", minimum=1)
    learning_rate: float = _option(1e-4, help="peak learning rate", above=0, below=1)
    schedule: str = _option("linear", help="learning rate over the steps: linear and cosine fall to 0, constant stays", choices=SCHEDULES)
    warmup_ratio: float = _option(0.0, help="share of the steps in which the learning rate rises from 0", minimum=0, below=1)
    max_grad_norm: float = _option(1.0, help="gradients with a larger norm are scaled down to it; 0 leaves them", minimum=0)
    weight_decay: float = _option(0.0, help="weight decay of AdamW", minimum=0)
    loss_on: str = _option(
        "answer",
        help="tokens in the loss: the answer; outputs: also all shown outputs but the first, which nothing determines; replies: also all "
        "shown outputs with their end marks; or all",
        choices=LOSSES,
    )
    gradient_checkpointing: bool = _option(False, help="compute each layer again in the backward pass: slower, much less memory")
    keep_background: bool = _option(False, help="views of training samples keep colour 0")
    fast_cpu: bool = _option(False, help="bfloat16 products on a CPU that has them; without AMX, Intel's take longer than float32")

    def __post_init__(self) -> None:
        check_options(self, "ttft_")


@dataclass(frozen=True)
class FinetuneSettings:
    """The settings of a worker that fine-tunes, sent to it as JSON.

    Attributes:
        predict: of the predictions with the adapters; run, model, seed and device hold for fine-tuning too.
        lora: of a fresh adapter.
        ttft: of each task's fine-tuning.
        max_seq_len: tokens of a sample; None takes the prompts' number.
        base_adapter: folder of the adapter to start from; None starts with a fresh one.
        in_4_bits: keep the base's linear layers in 4 bits.
        joint_warmup_samples: samples of a step of the joint warm-up.
        adapter_bytes: disk space of adapters while the next are made: older ones are deleted; None keeps all.
        home: folder of the source's adapters, losses and joint warm-up; "" for the run directory.
        subfolder: of it, for adapters and losses; "" for the home itself.
        tasks_per_adapter: tasks that share an adapter, see `task_groups`; 1 for an adapter for each task.
    """

    predict: PredictSettings
    lora: LoraSettings
    ttft: TTFTSettings
    max_seq_len: int | None
    base_adapter: str | None
    in_4_bits: bool = False
    joint_warmup_samples: int = 16
    adapter_bytes: int | None = None
    home: str = ""
    subfolder: str = ""
    tasks_per_adapter: int = 1

    @property
    def root(self) -> Path:
        """The folder that holds adapters/ and losses/."""
        return self.home_paths.root / self.subfolder

    @property
    def home_paths(self) -> RunPaths:
        """The paths of what the source keeps beside its predictions."""
        return RunPaths(Path(self.home or self.predict.run))

    def for_job(self, job: dict[str, Any]) -> FinetuneSettings:
        """The settings of one job, which may have its own "steps" and "views".

        Adapters of another number of steps have a folder of their own, so that neither is taken for the other.
        """
        steps, views = job.get("steps", self.ttft.steps), job.get("views", self.predict.views)
        subfolder = "" if steps == self.ttft.steps else f"steps-{steps}"
        return replace(self, predict=replace(self.predict, views=views), ttft=replace(self.ttft, steps=steps), subfolder=subfolder)

    @staticmethod
    def from_json(value: dict[str, Any]) -> FinetuneSettings:
        """The inverse of `dataclasses.asdict` and JSON."""
        lora = LoraSettings(**{**value["lora"], "targets": tuple(value["lora"]["targets"])})
        predict = PredictSettings.from_json(value["predict"])
        return FinetuneSettings(**{**value, "predict": predict, "lora": lora, "ttft": TTFTSettings(**value["ttft"])})


def task_groups(task_ids: Sequence[str], size: int) -> dict[str, list[str]]:
    """The tasks that share an adapter, by the name of their group, such as "tasks-6-to-10".

    Args:
        task_ids: of all tasks of the run; they are grouped in the order of their ids.
        size: of a group; only the last one may be smaller.
    """
    ids = sorted(task_ids)
    groups = [ids[start : start + size] for start in range(0, len(ids), size)]
    return {f"tasks-{number * size + 1}-to-{number * size + len(group)}": group for number, group in enumerate(groups)}
