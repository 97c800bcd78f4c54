"""The settings of the source that asks a language model for Python programs, as data that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.inference.settings import PredictSettings

CODE_PROMPTS = ("code-from-examples-v0", "code-from-examples-v1")  # names of the questions, the newest last
CODE_PROMPT = CODE_PROMPTS[-1]  # of a new run
SHORTEST_QUESTION = 256  # tokens: the words alone take more than half of them


@dataclass(frozen=True)
class CodeSettings:
    """How programs are asked for.

    Attributes:
        predict: the model, its prompt configuration and the run directory. `predict.views` is the number of first programs of a task.
        prompt: name of the question, or its file.
        frames: views under which first programs are asked for, in turn; the first is the task as it is.
        temperature, cold_temperature: of the answers; every fourth first program is drawn at the low one.
        tokens: of an answer, without thinking.
        thinking: tokens of thinking before it; 0: what a model thinks counts as its answer.
        turns: rounds of questions about failed programs.
        refined: programs asked about in each.
        home: the folder that keeps the programs of all tasks.
        learn_rounds: rounds of learning from what a task's programs do, each with as many programs as there were first ones.
        learn_rate: learning rate in them.
        lora: of the adapter that learns.
    """

    predict: PredictSettings
    prompt: str
    frames: int
    temperature: float
    cold_temperature: float
    tokens: int
    thinking: int
    turns: int
    refined: int
    home: str
    learn_rounds: int = 0
    learn_rate: float = 1e-5
    lora: LoraSettings = field(default_factory=LoraSettings)

    @staticmethod
    def from_json(value: dict[str, Any]) -> CodeSettings:
        """The settings that `asdict` made a JSON value of."""
        lora = LoraSettings(**{**value["lora"], "targets": tuple(value["lora"]["targets"])})
        return CodeSettings(**{**value, "predict": PredictSettings(**value["predict"]), "lora": lora})
