"""How a task is fine-tuned, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.inference.settings import PredictSettings
from arc_submit.options import Identity, check_options, option

SCHEDULES = ("linear", "constant", "cosine")
LOSSES = ("answer", "outputs", "all")
_COMMANDS = ("run", "finetune")
WARMUP_ADAPTER = Path("warmup") / "adapter"  # where in the run directory the common warm-up leaves its adapter


@dataclass(frozen=True)
class TTFTSettings:
    """How one task is fine-tuned."""

    steps: int = option(100, help="optimizer steps", identity=Identity.SAME, minimum=1, commands=_COMMANDS)
    batch_size: int = option(1, help="samples in one forward pass", identity=Identity.SAME, minimum=1, commands=_COMMANDS)
    accumulation: int = option(1, help="forward and backward passes of a step", identity=Identity.SAME, minimum=1, commands=_COMMANDS)
    learning_rate: float = option(1e-4, help="peak learning rate", identity=Identity.SAME, above=0, below=1, commands=_COMMANDS)
    schedule: str = option(
        "linear",
        help="learning rate over the steps: linear and cosine fall to 0, constant stays",
        identity=Identity.SAME,
        choices=SCHEDULES,
        commands=_COMMANDS,
    )
    warmup_ratio: float = option(
        0.0,
        help="share of the steps in which the learning rate rises from 0",
        identity=Identity.SAME,
        minimum=0,
        below=1,
        commands=_COMMANDS,
    )
    max_grad_norm: float = option(
        1.0, help="longer gradients are clipped to this norm; 0 clips none", identity=Identity.SAME, minimum=0, commands=_COMMANDS
    )
    weight_decay: float = option(0.0, help="weight decay of AdamW", identity=Identity.SAME, minimum=0, commands=_COMMANDS)
    loss_on: str = option(
        "answer",
        help="tokens in the loss: the answer; all outputs but the first shown, which can only be guessed; or all tokens",
        identity=Identity.SAME,
        choices=LOSSES,
        commands=_COMMANDS,
    )
    gradient_checkpointing: bool = option(
        False, help="compute each layer again in the backward pass: slower, much less memory", identity=Identity.SAME, commands=_COMMANDS
    )
    keep_background: bool = option(False, help="views of training samples keep colour 0", identity=Identity.SAME, commands=_COMMANDS)
    fast_cpu: bool = option(False, help="bfloat16 products on a CPU that has them", identity=Identity.SAME, commands=_COMMANDS)

    def __post_init__(self) -> None:
        check_options(self, "ttft_")


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
