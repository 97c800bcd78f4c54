"""The judge of a run: a model that judges the sources' candidates once these have ended, in workers like theirs.

What cannot work is refused here, before any work. Does not know when the judge's time comes (judge_stage.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from arc_submit.base_model.checks import check_model_folder
from arc_submit.ensemble.judge_settings import JudgeSettings, judge_settings, question_prompt
from arc_submit.errors import ConfigError
from arc_submit.inference.settings import PredictSettings
from arc_submit.language.prompt_config import PromptConfig, read_prompt_config
from arc_submit.language.prompts import prompt_version
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.config import RunConfig
from arc_submit.run.host import check_devices
from arc_submit.run.prompt_check import check_prompts
from arc_submit.run.source import JUDGE, MODEL_LANE, Source, SourceSetup, make_backend, model_environment, model_timeouts
from arc_submit.run.source_frozen import engines_of, predict_settings
from arc_submit.storage.run_dir import RunPaths

JUDGE_WORKER = "arc_submit.ensemble.judge_worker:open_worker"


@dataclass(frozen=True)
class RunJudge:
    """The judge of a run.

    Attributes:
        source: how its workers are run.
        settings: what they get; those of different engines differ in the engine alone.
        candidates: answers to each test input that are judged.
        settled: outputs with an answer of a higher probability are not judged.
        seconds: kept for it at the end of the sources' time.
        devices: it has one worker on each.
    """

    source: Source
    settings: JudgeSettings
    candidates: int
    settled: float
    seconds: float
    devices: tuple[str, ...]


def judge_config(config: RunConfig) -> RunConfig:
    """The configuration of a run with the judge's model in the place of its own."""
    judge = config.judge
    config = replace(config, sources=("frozen",), definitions={}, weights={}, views=judge.views, adapters=judge.adapters)
    if judge.model is None:
        return config if judge.model_config is None else replace(config, model_config=judge.model_config)
    # How the run's model is asked holds for that model alone.
    config = replace(config, model=judge.model, model_config=judge.model_config, chat_template=None)
    return replace(config, grid_encoder=None, prompt=None, max_seq_len=None)


def resolve_judge(config: RunConfig, paths: RunPaths) -> RunJudge:
    """The judge of a run whose method needs one.

    Raises:
        ArcSubmitError: where its files say that it cannot work.
    """
    judging = judge_config(config)
    check_model_folder(judging.model)
    settings = settings_of(judge_predict(judging, paths), judging.prompt_config(), config.method, config.judge.prompt)
    if judging.adapters is not None and not judging.adapters.is_dir() and "ttft" not in config.kinds:
        raise ConfigError(f"--judge-adapters {judging.adapters}: no such folder; give the one that holds an adapter for each task")
    _check_judge(judging, settings)
    # vllm reads a prompt again for each candidate: where the choice is free, transformers judges.
    engines = engines_of("transformers" if config.engine == "auto" else config.engine, on_gpus=config.devices != ("cpu",))
    timeouts = model_timeouts(judging)
    backends = tuple(
        make_backend(engine, JUDGE_WORKER, replace(settings, predict=replace(settings.predict, engine=engine)), timeouts)
        for engine in engines
    )
    source = Source(JUDGE, MODEL_LANE, backends, model_environment(config))
    return RunJudge(source, settings, config.judge.candidates, config.judge.settled, config.judge_seconds, config.devices)


def judge_predict(judging: RunConfig, paths: RunPaths) -> PredictSettings:
    """How the judge's model is loaded and asked.

    Args:
        judging: see `judge_config`.
    """
    adapters = None if judging.adapters is None else str(judging.adapters)
    return replace(predict_settings(SourceSetup(JUDGE, JUDGE, judging, paths), judging.views), adapters=adapters)


def settings_of(predict: PredictSettings, asked: PromptConfig, method: str, prompt: str | None) -> JudgeSettings:
    """The settings of a worker that judges.

    Args:
        asked: how the model is asked for outputs.
        prompt: name of the prompt version; None takes the one that goes with the model's own.

    Raises:
        ConfigError: where no prompt asks the question of the method.
    """
    model = Path(predict.model)
    own = read_prompt_config(model) == asked
    return judge_settings(predict, asked, method, question_prompt(model, asked, method, prompt), own)


def _check_judge(judging: RunConfig, settings: JudgeSettings) -> None:
    """Refuse a model that no engine can load, that cannot be asked the question, or that fits no card.

    Raises:
        ArcSubmitError: with the remedy.
    """
    from arc_submit.base_model.architecture import check_for_engines  # with torch, which takes seconds

    asked = judging.prompt_config()
    skeleton = check_for_engines(judging.model, ["vllm" if judging.engine == "vllm" else "transformers"], False, asked.max_seq_len)
    version = None if settings.prompt is None else prompt_version(settings.prompt)
    check_prompts(judging.model, asked, skeleton.get_input_embeddings().num_embeddings, version)
    gpus = check_devices(judging.devices) if judging.executor == "local" else {}
    for reason in sources_that_fit_no_card(judging, gpus).values():
        raise ConfigError(reason)
