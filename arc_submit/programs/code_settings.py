"""The options and settings of the source that asks a language model for Python programs, as data that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.inference.settings import PredictSettings
from arc_submit.options import Identity, check_options, option

CODE_PROMPTS = ("code-from-examples-v0", "code-from-examples-v1")  # names of the questions, the newest last
CODE_PROMPT = CODE_PROMPTS[-1]  # of a new run
SHORTEST_QUESTION = 256  # tokens: the words alone take more than half of them
_option = partial(option, identity=Identity.SAME, commands=("run",))


def _learns(options: CodeOptions) -> bool:
    return options.learn_rounds > 0


@dataclass(frozen=True)
class CodeOptions:
    """How programs are asked for."""

    samples: int = _option(8, help="programs that the source code asks for first, for each task", minimum=1)
    views: int = _option(4, help="views under which the first programs are asked for in turn, the task as it is first", minimum=1)
    temperature: float = _option(0.8, help="sampling temperature of the programs", minimum=0)
    cold_temperature: float = _option(0.1, help="sampling temperature of every fourth of the first programs", minimum=0)
    turns: int = _option(
        3,
        help="rounds in which programs that failed are shown back with what went wrong; they end with a program that fits all pairs",
        minimum=0,
    )
    refined: int = _option(4, help="programs shown back in each round", minimum=1)
    tokens: int = _option(1024, help="tokens of a program's answer", minimum=16)
    thinking: int = _option(
        0,
        help="tokens of thinking before a program; longer thinking is cut there and the program asked for (0: a model that does not think)",
        minimum=0,
    )
    learn_rounds: int = _option(
        0,
        help="rounds in which the model is fine-tuned on what a task's programs really do and asked for --code-samples more",
        when=_learns,
        minimum=0,
    )
    learn_rate: float = _option(
        1e-5,
        help="learning rate in these rounds; --lora-rank and the like give the shape of the adapter",
        when=_learns,
        above=0,
        below=1,
    )
    cards: int | None = option(
        None,
        help="cards that hold one copy of the model together, by vllm's tensor parallel; on a CPU, processes (default: one, and where no "
        "single card holds the model the smallest number that does)",
        identity=Identity.FREE,
        minimum=1,
        commands=("run",),
    )
    prompt: str = option(
        CODE_PROMPT, help="how a program is asked for: a version, or a prompt file", identity=Identity.COMPUTED, commands=("run",)
    )

    def __post_init__(self) -> None:
        check_options(self, "code_")


@dataclass(frozen=True)
class CodeSettings:
    """The settings of a worker that asks for programs, sent to it as JSON.

    Attributes:
        predict: the model, its prompt configuration and the run directory; its views are not used.
        code: how programs are asked for.
        home: the folder that keeps the programs of all tasks.
        lora: of the adapter that learns.
    """

    predict: PredictSettings
    code: CodeOptions
    home: str
    lora: LoraSettings = field(default_factory=LoraSettings)

    @staticmethod
    def from_json(value: dict[str, Any]) -> CodeSettings:
        """The settings that `asdict` made a JSON value of."""
        lora = LoraSettings(**{**value["lora"], "targets": tuple(value["lora"]["targets"])})
        return CodeSettings(PredictSettings.from_json(value["predict"]), CodeOptions(**value["code"]), value["home"], lora)
