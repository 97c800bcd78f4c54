"""What is told to whoever runs a model, as data that no torch is needed for. Knows nothing about what is done with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arc_submit.errors import ConfigError

ENGINES = ("transformers", "vllm")
CANDIDATES = ("views", "dfs")


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
