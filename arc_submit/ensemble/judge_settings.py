"""How a model judges candidates: the options, which prompt asks which question, and the settings of a worker.

Data that needs no torch. Does not know engines, nor how answers become scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.files import file_name
from arc_submit.base_model.checks import files_fingerprint
from arc_submit.ensemble.combination import METHODS
from arc_submit.ensemble.evidence import SURE
from arc_submit.ensemble.judgements import QUESTIONS, Question
from arc_submit.ensemble.questions import Asking
from arc_submit.errors import ConfigError
from arc_submit.inference.settings import PredictSettings
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.language.prompts import PROMPTS, PromptVersion, prompt_version
from arc_submit.options import Identity, check_options, option

_RUN, _ASK, _TOLD = ("run",), ("run", "ensemble"), ("simulate", "plan")


@dataclass(frozen=True)
class JudgeOptions:
    """Which model judges the candidates, and how, with a method that needs a judge."""

    model: Path | None = option(
        None, help="folder of the model that judges candidates (default: the base model)", identity=Identity.FREE, commands=_ASK
    )
    model_config: Path | None = option(
        None,
        help="file with how the judge is asked, in place of its arc_submit.json, or the name of a format",
        identity=Identity.FREE,
        metavar="FILE",
        commands=_ASK,
    )
    adapters: Path | None = option(
        None,
        help="folder with an adapter for each task, with which the judge answers; those of a run's ttft are in adapters of its --out",
        identity=Identity.FREE,
        metavar="FOLDER",
        commands=_ASK,
    )
    prompt: str | None = option(
        None, help="prompt version of the question (default: the one that goes with the model's own)", identity=Identity.FREE, commands=_ASK
    )
    views: int = option(4, help="views under which each question is asked", identity=Identity.FREE, minimum=1, commands=(*_ASK, *_TOLD))
    candidates: int = option(
        6,
        help="answers to each test input that are judged, the most probable ones",
        identity=Identity.FREE,
        minimum=2,
        commands=(*_ASK, *_TOLD),
    )
    settled: float = option(
        SURE,
        help="outputs with an answer of a higher probability are not judged; 1 judges all that have several answers",
        identity=Identity.FREE,
        minimum=0,
        maximum=1,
        commands=_ASK,
    )
    share: float = option(
        0.1,
        help="part of the budget that is kept for the judge, which also has what the sources leave",
        identity=Identity.FREE,
        above=0,
        below=1,
        commands=(*_RUN, *_TOLD),
    )
    fallback: str | None = option(
        None,
        help="method for the outputs that are not judged (default: the preset's own method, else probability)",
        identity=Identity.FREE,
        choices=METHODS,
        commands=_ASK,
    )

    def __post_init__(self) -> None:
        check_options(self, "judge_")


def question_prompt(model: Path, asked: PromptConfig, method: str, name: str | None) -> PromptVersion:
    """The prompt with which a model is asked what a method needs to know.

    Args:
        asked: how the model is asked for outputs.
        name: of the prompt version; None takes the one that goes with the model's own.

    Raises:
        ConfigError: where there is none, or it asks another question.
    """
    question = QUESTIONS[method]
    if question == "product" and name in (None, asked.prompt):
        return asked.version()
    wanted = name or asked.prompt.replace("output", f"{question}-output", 1)
    if name is None and (wanted not in PROMPTS or PROMPTS[wanted].kind != question):
        raise ConfigError(
            f"--method {method}: model {model} is asked with {asked.prompt}, for which there is no prompt of the kind {question}; take "
            f"--method product, or give --judge-model a model that was trained to {question}, with its --judge-prompt"
        )
    prompt = prompt_version(wanted)
    if prompt.kind != ("output" if question == "product" else question):
        raise ConfigError(f"--judge-prompt {wanted} asks another question than --method {method}")
    return prompt


@dataclass(frozen=True)
class JudgeSettings:
    """How a worker judges; it receives them as JSON.

    Attributes:
        predict: the run directory, the model, its adapters, its engine, how it is asked for outputs, the seed and the number of views.
        question: "select", "verify" or "product".
        prompt: name of the version that asks it; None: as for outputs.
        files: fingerprint of the model's files.
        wording: names the prompt in the fingerprint of the judgements.
    """

    predict: PredictSettings
    question: Question
    prompt: str | None
    files: Mapping[str, str]
    wording: str

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> JudgeSettings:
        return JudgeSettings(**{**value, "predict": PredictSettings.from_json(value["predict"])})

    def adapter(self, task_id: str) -> Path | None:
        """The folder of a task's adapter; None where the model judges as it is."""
        return Path(self.predict.adapters) / file_name(task_id) if self.predict.adapters else None

    def asking(self, task_id: str) -> Asking:
        """What is asked about a task's candidates, and of which weights."""
        adapter, name = self.adapter(task_id), Path(self.predict.model).name
        digest = json.dumps([self.files, files_fingerprint(adapter) if adapter else {}, self.wording], sort_keys=True).encode()
        fingerprint = hashlib.sha256(digest).hexdigest()[:16]
        model = name if adapter is None else f"{name} with its adapter"
        return Asking(self.question, self.predict.views, self.predict.seed, model, fingerprint)


def judge_settings(predict: PredictSettings, asked: PromptConfig, method: str, prompt: PromptVersion, own: bool) -> JudgeSettings:
    """The settings of a worker that judges.

    Args:
        predict: see `JudgeSettings`.
        asked: how the model is asked for outputs.
        prompt: see `question_prompt`.
        own: the model's own file alone says how it is asked.
    """
    # With another configuration than the model's own, the questions are other questions.
    wording = prompt.name if own else f"{prompt.name} {asked.digest()}"
    name = None if prompt.name == asked.prompt else prompt.name
    return JudgeSettings(predict, QUESTIONS[method], name, files_fingerprint(Path(predict.model)), wording)
