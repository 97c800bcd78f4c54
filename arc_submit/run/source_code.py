"""The source "code": a language model that writes Python programs, whose outputs answer the tasks."""

from __future__ import annotations

from dataclasses import replace

from arc_submit.errors import ConfigError
from arc_submit.programs.code_settings import SHORTEST_QUESTION, CodeSettings
from arc_submit.programs.rounds import RoundSettings
from arc_submit.run.code_cards import CardGroups
from arc_submit.run.config import RunConfig
from arc_submit.run.source import Source, SourceSetup, make_backend, model_environment, model_timeouts
from arc_submit.run.source_frozen import engines_of, predict_settings
from arc_submit.scheduling.costs import CostModel, LinearCost
from arc_submit.scheduling.scheduler import Ladder, Level, make_ladder

_WORKER = "arc_submit.programs.code_worker:open_worker"
_WORK_OF_DIVIDED = 0.7  # of a card's time that is work where several hold a model together: a guess, which the first jobs correct
_TOKENS_OF_A_GRID = 300  # of the answer that the first estimate of a prediction's cost stands for


def resolve_code(setup: SourceSetup) -> list[Source]:
    """Programs for each task, one task in a job."""
    config, cards = setup.config, setup.cards
    settings = CodeSettings(
        replace(predict_settings(setup, config.code.samples), cards=cards.cards),
        config.code,
        str(setup.home.root),
        config.lora,
    )
    backends = tuple(
        make_backend(engine, _WORKER, replace(settings, predict=replace(settings.predict, engine=engine)), model_timeouts(config))
        for engine in code_engines(config, cards.cards)
    )
    return [
        Source(
            setup.name,
            setup.lane,
            backends,
            model_environment(config, cards),
            ladder=code_ladder(config),
            kind=setup.kind,
            scale=replace(setup.scale, costs=_costs(setup.scale.costs, config, cards.cards)),
            most_workers=_most_workers(config, cards),
            cards=cards,
        )
    ]


def code_engines(config: RunConfig, cards: int = 1) -> tuple[str, ...]:
    """The engines to try. Where the model learns, auto takes transformers, which shares its weights with the training.

    Args:
        cards: that a worker holds; vllm alone divides a model over several.
    """
    on_gpus = config.devices != ("cpu",)
    if cards > 1:
        return tuple(engine for engine in engines_of("vllm", on_gpus=on_gpus) if engine != "transformers")
    shares = config.engine == "auto" and config.code.learn_rounds > 0
    return engines_of("transformers" if shares else config.engine, on_gpus=on_gpus)


def _most_workers(config: RunConfig, cards: CardGroups) -> int | None:
    """The number of workers where each holds several devices; None where each has one."""
    if cards.cards == 1:
        return None
    return max(1, config.workers // cards.cards) if config.devices == ("cpu",) else len(cards.groups)


def check_code(config: RunConfig, max_seq_len: int) -> None:
    """Refuse a question that there is not or that the model's vocabulary cannot write, and answers that leave no room for one.

    Raises:
        ConfigError: with the remedy.
    """
    from arc_submit.base_model.loading import load_tokenizer  # with torch, which takes seconds
    from arc_submit.programs.code_prompt import check_vocabulary, code_prompt

    prompt = code_prompt(config.code.prompt)
    left = max_seq_len - config.code.tokens - config.code.thinking
    if left < SHORTEST_QUESTION:
        raise ConfigError(
            f"--code-tokens {config.code.tokens} and --code-thinking {config.code.thinking} leave {max(0, left)} of {max_seq_len} tokens "
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
    refined = config.code.turns * config.code.refined
    learnt = min(RoundSettings.best + RoundSettings.worst, config.code.samples + refined)
    steps = refined + config.code.learn_rounds * (learnt + config.code.samples)
    ladder = make_ladder(0, config.code.samples)
    return replace(ladder, levels=(*ladder.levels[:-1], Level(steps, config.code.samples)))


def _costs(costs: CostModel, config: RunConfig, cards: int) -> CostModel:
    """The first estimate: a program takes more tokens than a grid, and a step of `code_ladder` as long as a first program.

    Cards that hold a model together each do their part of the work, and wait for each other in every layer.
    """
    longer = 1 + (config.code.tokens + config.code.thinking) / _TOKENS_OF_A_GRID
    rate = costs.predict.rate * longer / (1 if cards == 1 else cards * _WORK_OF_DIVIDED)
    return CostModel(LinearCost(0.0, rate), LinearCost(costs.predict.fixed, rate))
