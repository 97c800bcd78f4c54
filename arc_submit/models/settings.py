"""What is told to whoever runs a model, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from arc_submit.errors import ConfigError

ENGINES = ("transformers", "vllm")
CANDIDATES = ("views", "dfs")
INITS = ("default", "gaussian", "pissa", "olora")


@dataclass(frozen=True)
class PredictSettings:
    """How a worker makes predictions with a model, sent to it as JSON.

    Attributes:
        run: the run directory.
        model: the model's folder.
        views: predictions for each test input.
        seed: of views and of the choice of train pairs.
        keep_background: views keep colour 0.
        grid_encoder, prompt, max_seq_len: how to ask; None takes what the model's arc_submit.json says.
        slots: answers written together.
        threads: CPU threads of the worker.
        device: "cpu", "cuda:0", ...
        engine: "transformers" or "vllm".
        adapters: a folder with one adapter for each task, named by the task's id, to answer with; None answers with the base.
        source: under whose name the predictions are kept.
        candidates: "views" asks for the likeliest answer under each view; "dfs" for every answer whose probability under a view is above
            the threshold, and scores each of them under all views. Only the transformers engine can do that.
        threshold: see `candidates`.
        temperature: 0 takes the likeliest answer; at 1 answers are drawn as the model's probabilities have them.
    """

    run: str
    model: str
    views: int
    seed: int
    keep_background: bool
    grid_encoder: str | None
    prompt: str | None
    max_seq_len: int | None
    slots: int
    threads: int
    device: str
    engine: str = "transformers"
    adapters: str | None = None
    source: str = "frozen"
    candidates: str = "views"
    threshold: float = 0.1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine {self.engine}: choose from {', '.join(ENGINES)}")
        check_candidates(self.candidates, self.threshold, self.engine)
        check_temperature(self.temperature, self.candidates)


def check_temperature(temperature: float, candidates: str) -> None:
    """Refuse a temperature that is none, or that the way to candidates makes no use of.

    Raises:
        ConfigError: with the remedy.
    """
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"--temperature {temperature:g}: 0 for the likeliest answer, 1 to draw by the model's own probabilities")
    if temperature and candidates == "dfs":
        raise ConfigError(f"--temperature {temperature:g}: dfs searches its candidates and draws none; take --candidates views")


def check_candidates(candidates: str, threshold: float, engine: str, options: str = "--") -> None:
    """Refuse a way to candidates that there is not, or that the engine does not know.

    Args:
        options: how the names of the command line's options begin.

    Raises:
        ConfigError: with the remedy.
    """
    if candidates not in CANDIDATES:
        raise ConfigError(f"{options}candidates {candidates}: choose from {', '.join(CANDIDATES)}")
    if not 0 < threshold <= 1:
        raise ConfigError(f"{options}threshold {threshold}: a probability above 0 is needed, such as 0.1")
    if candidates == "dfs" and engine == "vllm":
        raise ConfigError(f"{options}candidates dfs: vllm's cache cannot be cut back; take {options}engine transformers with it")


def worker_environment(threads: int, device: str) -> dict[str, str]:
    """Variables for a process that works on a device: its threads, no hub, and of several GPUs its own alone.

    A process sees its GPU as the first and only one (`seen_device`). vllm takes the first that it sees, whatever device is meant, and
    what a process sees is settled at its first look at CUDA: it cannot be told later.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return environment
    number, visible = int(index) if index.isdecimal() else 0, os.environ.get("CUDA_VISIBLE_DEVICES")
    # Of a process that sees only some, those; one too many is none, which the worker says.
    own = str(number) if visible is None else dict(enumerate(visible.split(","))).get(number, "")
    return environment | {"CUDA_VISIBLE_DEVICES": own}


def worker_device(devices: Sequence[str], number: int) -> str:
    """The device of the worker of a number: each in turn."""
    return devices[number % len(devices)]


def seen_device(device: str) -> str:
    """A device as the process sees it that has `worker_environment`."""
    return "cuda:0" if device.startswith("cuda") else device


@dataclass(frozen=True)
class LoraSettings:
    """One adapter's make.

    Attributes:
        rank: of the two factors.
        alpha: the product is scaled by alpha / rank.
        targets: last parts of the names of the linear layers to adapt.
        rslora: scale by alpha / sqrt(rank) instead, so that a larger rank does not learn more slowly.
        dora: learn every row's length apart from its direction. No engine but transformers can serve it.
        init: "default" and "gaussian" begin at the base model, with a random first factor; "pissa" takes both factors from the weight's
            largest singular values, "olora" from its QR decomposition. These two are kept as a difference to where they began, so
            that the base stays as it is, and are saved with twice the rank.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    rslora: bool = False
    dora: bool = False
    init: str = "default"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRA rank {self.rank}: at least 1 is needed")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"LoRA alpha {self.alpha}: a number above 0 is needed")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"LoRA targets {', '.join(self.targets) or 'none'}: name each linear layer once")
        if set(self.targets) & {"lm_head", "embed_tokens"}:
            raise ConfigError("LoRA targets lm_head and embed_tokens cannot be served by vllm; name layers inside the blocks")
        if self.init not in INITS:
            raise ConfigError(f"LoRA init {self.init}: choose from {', '.join(INITS)}")
        if self.dora and self.init in ("pissa", "olora"):
            raise ConfigError(f"LoRA init {self.init} with DoRA: the difference to its beginning is no DoRA adapter; choose one of the two")

    @property
    def scaling(self) -> float:
        """Factor of the product of the two factors."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
