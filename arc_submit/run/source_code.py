"""The source "code": a language model that writes Python programs, whose outputs answer the tasks."""

from __future__ import annotations

from dataclasses import replace

from arc_submit.errors import ConfigError
from arc_submit.programs.code_settings import SHORTEST_QUESTION, CodeSettings
from arc_submit.programs.rounds import RoundSettings
from arc_submit.run.config import RunConfig
from arc_submit.run.source import Source, SourceSetup, make_backend, model_environment, model_timeouts
from arc_submit.run.source_frozen import engines_of, predict_settings
from arc_submit.scheduling.costs import CostModel, LinearCost
from arc_submit.scheduling.scheduler import Ladder, Level, make_ladder

_WORKER = "arc_submit.programs.code_worker:open_worker"
_TOKENS_OF_A_GRID = 300  # of the answer that the first estimate of a prediction's cost stands for


def resolve_code(setup: SourceSetup) -> list[Source]:
    """Programs for each task, one task in a job."""
    config = setup.config
    settings = CodeSettings(
        predict_settings(setup, config.code_samples),
        config.code_prompt,
        config.code_views,
        config.code_temperature,
        config.code_cold_temperature,
        config.code_tokens,
        config.code_thinking,
        config.code_turns,
        config.code_refined,
        str(setup.home.root),
        config.code_learn_rounds,
        config.code_learn_rate,
        config.lora,
    )
    backends = tuple(
        make_backend(engine, _WORKER, replace(settings, predict=replace(settings.predict, engine=engine)), model_timeouts(config))
        for engine in code_engines(config)
    )
    return [
        Source(
            setup.name,
            setup.lane,
            backends,
            model_environment(config),
            ladder=code_ladder(config),
            kind=setup.kind,
            scale=replace(setup.scale, costs=_costs(setup.scale.costs, config)),
        )
    ]


def code_engines(config: RunConfig) -> tuple[str, ...]:
    """The engines to try. Where the model learns, auto takes transformers, which shares its weights with the training."""
    shares = config.engine == "auto" and config.code_learn_rounds > 0
    return engines_of("transformers" if shares else config.engine, on_gpus=config.devices != ("cpu",))


def check_code(config: RunConfig, max_seq_len: int) -> None:
    """Refuse a question that there is not or that the model's vocabulary cannot write, and answers that leave no room for one.

    Raises:
        ConfigError: with the remedy.
    """
    from arc_submit.base_model.loading import load_tokenizer  # with torch, which takes seconds
    from arc_submit.programs.code_prompt import check_vocabulary, code_prompt

    prompt = code_prompt(config.code_prompt)
    left = max_seq_len - config.code_tokens - config.code_thinking
    if left < SHORTEST_QUESTION:
        raise ConfigError(
            f"--code-tokens {config.code_tokens} and --code-thinking {config.code_thinking} leave {max(0, left)} of {max_seq_len} tokens "
            "for the question; lower them, or raise --max-seq-len"
        )
    try:
        check_vocabulary(load_tokenizer(config.model), prompt)
    except ConfigError as error:
        raise ConfigError(
            f"{error} that writes code, with --model, or without one leave the source out and give --search-proposals writer, which "
            "proposes programs to the search"
        ) from None


def code_ladder(config: RunConfig) -> Ladder:
    """The levels: numbers of first programs, and with all of them the further questions as steps of the plan.

    A step is a question about a failed program, a program that is learnt, or one that the adapted model is asked for.
    """
    refined = config.code_turns * config.code_refined
    learnt = min(RoundSettings.best + RoundSettings.worst, config.code_samples + refined)
    steps = refined + config.code_learn_rounds * (learnt + config.code_samples)
    ladder = make_ladder(0, config.code_samples)
    return replace(ladder, levels=(*ladder.levels[:-1], Level(steps, config.code_samples)))


def _costs(costs: CostModel, config: RunConfig) -> CostModel:
    """The first estimate: a program takes more tokens than a grid, and a step of `code_ladder` as long as a first program."""
    longer = 1 + (config.code_tokens + config.code_thinking) / _TOKENS_OF_A_GRID
    rate = costs.predict.rate * longer
    return CostModel(LinearCost(0.0, rate), LinearCost(costs.predict.fixed, rate))
