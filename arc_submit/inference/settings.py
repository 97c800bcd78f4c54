"""The settings of a worker that makes predictions, as data that needs no torch. Does not know engines."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.language.prompt_config import PromptConfig, resolve_prompt_config
from arc_submit.options import Identity, check_options, option

ENGINES = ("transformers", "vllm")
VLLM_PLAIN = "vllm-plain"  # vllm without compiled graphs and without FlashInfer: the second try where its own choice does not start
CANDIDATES = ("views", "dfs")
VLLM_SHARE = 0.9  # of a GPU's memory, that vllm plans with
VLLM_SHARE_BESIDE_TRAINING = 0.5  # the same where the worker trains too, with a copy of the weights of its own
_limit = partial(option, identity=Identity.SAME, minimum=1, commands=("run", "finetune", "infer"))


@dataclass(frozen=True)
class DfsLimits:
    """The extent of the depth-first searches of a task.

    All limits count tokens or views, none counts seconds: what a task's searches find is then a function of the task and of these values
    alone, whatever the machine, its load, and a kill in between. A run's time ends work by the soft deadline of a job.
    """

    steps: int = _limit(
        5000,
        help="tokens that a search reads under one view at most; what it has found by then is kept",
        when=lambda limits: limits.steps != DfsLimits.steps,
    )
    task_steps: int | None = _limit(
        None,
        help="tokens that all searches of a task, of all its test inputs, read at most; each view gets an equal share of what is left "
        "(default: no limit)",
        when=lambda limits: limits.task_steps is not None,
    )
    batch: int | None = _limit(
        None,
        help="views that dfs searches side by side; later ones share what these leave of --dfs-task-steps (default: all)",
        when=lambda limits: limits.batch is not None,
    )
    score_views: int | None = _limit(
        None,
        help="views under which each candidate of dfs is scored (default: those of the search)",
        when=lambda limits: limits.score_views is not None,
    )

    def __post_init__(self) -> None:
        check_options(self, "dfs_")


@dataclass(frozen=True)
class RequestSettings:
    """How the requests of a task are made.

    Attributes:
        views: requests for each test input.
        seed: of views, of the choice of train pairs and of sampling.
        max_seq_len: tokens of a prompt with its answer.
        keep_background: views keep colour 0.
        temperature: 0 takes the most probable answer; otherwise answers are sampled, each with a seed of its own.
    """

    views: int
    seed: int
    max_seq_len: int
    keep_background: bool = False
    temperature: float = 0.0


@dataclass(frozen=True)
class PredictSettings:
    """How a worker makes predictions with a model; it receives them as JSON.

    Attributes:
        run: the run directory.
        model: the model's folder.
        views: views of each test input.
        seed: of views and of the choice of train pairs.
        keep_background: views keep colour 0.
        grid_encoder, prompt, max_seq_len: the prompt configuration; None takes the value in the model's arc_submit.json.
        slots: completions generated side by side.
        threads: CPU threads of the worker.
        device: "cpu", "cuda:0", ...
        engine: "transformers", "vllm", or VLLM_PLAIN.
        adapters: a folder with an adapter for each task, named by the task's id; None uses the base model.
        source: the source's name in the predictions.
        kind: of the source; "" where the name is the kind.
        candidates: "views" generates one answer under each view; "dfs" searches every answer whose probability under a view exceeds the
            threshold, and scores each of them under all views. Only the transformers engine supports "dfs".
        threshold: see `candidates`.
        temperature: 0 takes the most probable answer; 1 samples from the model's probabilities.
        compile_cache: archive of what an earlier session has compiled, for vllm on a GPU.
        dfs: the limits of depth-first searches.
        steps: fine-tuning steps of the adapters, 0 where they are not known: adapters of more steps search again.
        workers_per_device: workers that share a GPU, each of which plans with its part of the memory.
        memory_factor: measured over planned bytes; the memory plan divides its room by it.
        cards: devices that the model is divided over, from `device` on; the engine vllm alone takes several.
        model_config, chat_template: files of the prompt configuration; None takes what lies in the model's folder.
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
    kind: str = ""
    candidates: str = "views"
    threshold: float = 0.1
    temperature: float = 0.0
    model_config: str | None = None
    chat_template: str | None = None
    workers_per_device: int = 1
    compile_cache: str | None = None
    memory_factor: float = 1.0
    dfs: DfsLimits = field(default_factory=DfsLimits)
    cards: int = 1
    steps: int = 0

    def for_requests(self, max_seq_len: int) -> RequestSettings:
        """The part that the requests depend on, with the resolved max_seq_len."""
        return RequestSettings(self.views, self.seed, max_seq_len, self.keep_background, self.temperature)

    @staticmethod
    def from_json(value: dict[str, Any]) -> PredictSettings:
        """The settings that `asdict` made a JSON value of."""
        return PredictSettings(**{**value, "dfs": DfsLimits(**value["dfs"])})

    def prompt_config(self) -> PromptConfig:
        """How the model is asked.

        Raises:
            ArcSubmitError: as `resolve_prompt_config`.
        """
        files = [None if path is None else Path(path) for path in (self.model_config, self.chat_template)]
        return resolve_prompt_config(Path(self.model), self.grid_encoder, self.prompt, self.max_seq_len, *files)


def check_candidates(candidates: str, threshold: float, engine: str, temperature: float = 0.0, prefix: str = "--") -> None:
    """Refuse a threshold or a temperature out of range, and candidates that the engine does not support.

    Args:
        prefix: of the command-line options in the messages.

    Raises:
        ConfigError: with the remedy.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"{prefix}threshold {threshold}: a probability above 0 is needed, such as 0.1")
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"{prefix}temperature {temperature:g}: 0 for the likeliest answer, 1 to draw by the model's own probabilities")
    if candidates == "dfs" and engine == "vllm":
        raise ConfigError(
            f"{prefix}candidates dfs: vllm's cache cannot be cut back; take {prefix}engine transformers, or {prefix}candidates views"
        )
    if candidates == "dfs" and temperature:
        raise ConfigError(f"{prefix}temperature {temperature:g}: dfs searches its candidates and draws none; take {prefix}candidates views")
