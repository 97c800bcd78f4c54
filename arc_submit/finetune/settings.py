"""How a task is fine-tuned, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.inference.settings import PredictSettings

SCHEDULES = ("linear", "constant", "cosine")
LOSSES = ("answer", "outputs", "all")
WARMUP_ADAPTER = Path("warmup") / "adapter"  # where in the run directory the common warm-up leaves its adapter


@dataclass(frozen=True)
class TTFTSettings:
    """How one task is fine-tuned.

    Attributes:
        steps: optimizer steps.
        batch_size: samples in one forward pass.
        accumulation: forward and backward passes before each step.
        learning_rate: the peak.
        schedule: "linear" falls to 0 in a straight line, "cosine" along half a wave, "constant" stays.
        warmup_ratio: part of the steps in which the rate rises from 0 first.
        max_grad_norm: longer gradients are shortened to it; 0 leaves them.
        weight_decay: AdamW's.
        loss_on: which tokens are learnt: those of the answer; of all outputs but the first shown, which can only be guessed; or all.
        gradient_checkpointing: compute each layer again in the backward pass: a third more time for much less memory.
        keep_background: views keep colour 0.
        fast_cpu: bfloat16 products on a CPU that has them.
    """

    steps: int = 100
    batch_size: int = 1
    accumulation: int = 1
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup_ratio: float = 0.0
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    loss_on: str = "answer"
    gradient_checkpointing: bool = False
    keep_background: bool = False
    fast_cpu: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TTFT {name} {getattr(self, name)}: at least 1 is needed")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"TTFT learning_rate {self.learning_rate}: a number between 0 and 1 is needed, such as 1e-4")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"TTFT schedule {self.schedule}: choose from {', '.join(SCHEDULES)}")
        if self.loss_on not in LOSSES:
            raise ConfigError(f"TTFT loss_on {self.loss_on}: choose from {', '.join(LOSSES)}")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"TTFT warmup_ratio {self.warmup_ratio}: 0 or more, below 1")
        if self.max_grad_norm < 0 or self.weight_decay < 0:
            raise ConfigError("TTFT max_grad_norm and weight_decay: 0 or more")


@dataclass(frozen=True)
class FinetuneSettings:
    """What a worker that fine-tunes is told, sent to it as JSON.

    Attributes:
        predict: how predictions are made with the adapters; run, model, seed and device hold for fine-tuning too.
        lora: the make of a fresh adapter.
        ttft: how each task is fine-tuned.
        max_seq_len: tokens of a sample; None takes the prompts'.
        base_adapter: folder of the adapter to go on from; None begins afresh.
        in_4_bits: keep the base's linear layers in 4 bits.
        warm_up_samples: of a step of the common warm-up.
        bound: bytes that adapters may take while the next are made: older ones are deleted; None keeps all.
        beside: folder, below the run directory, of adapters and losses; "" for the run directory itself.
    """

    predict: PredictSettings
    lora: LoraSettings
    ttft: TTFTSettings
    max_seq_len: int | None
    base_adapter: str | None
    in_4_bits: bool = False
    warm_up_samples: int = 16
    bound: int | None = None
    beside: str = ""

    @property
    def root(self) -> Path:
        """The folder that holds adapters/ and losses/."""
        return Path(self.predict.run) / self.beside

    def for_job(self, job: dict[str, Any]) -> FinetuneSettings:
        """As one job asks for: its own "steps" and "views", where it names them.

        Adapters of another number of steps than the settings' lie beside those of the settings, so that neither is taken for the other.
        """
        steps, views = job.get("steps", self.ttft.steps), job.get("views", self.predict.views)
        beside = "" if steps == self.ttft.steps else f"steps-{steps}"
        return replace(self, predict=replace(self.predict, views=views), ttft=replace(self.ttft, steps=steps), beside=beside)

    @staticmethod
    def from_json(value: dict[str, Any]) -> FinetuneSettings:
        """What `dataclasses.asdict` and JSON have made of one."""
        lora = LoraSettings(**{**value["lora"], "targets": tuple(value["lora"]["targets"])})
        predict = PredictSettings(**value["predict"])
        ttft, nested = TTFTSettings(**value["ttft"]), ("predict", "lora", "ttft", "beside")
        return FinetuneSettings(predict, lora, ttft, **{name: given for name, given in value.items() if name not in nested})
