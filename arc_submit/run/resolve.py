"""Resolving: everything that a configuration means for one run, decided in one place before any work.

Nothing below this module gets the whole configuration. What cannot work is refused here by name: a missing model, a prompt that the model
cannot take, adapters without disk, a cluster that does not answer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.checks import check_adapter_folder, check_model_folder
from arc_submit.ensemble.combination import EnsembleConfig
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.run.adapter_budget import AdapterBudget, AdapterPlace, resolve_adapter_budget
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.choices import Choice
from arc_submit.run.code_cards import CardGroups, choose_card_groups
from arc_submit.run.config import RunConfig
from arc_submit.run.data import RunData, load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.host import Host, check_devices, estimate_costs
from arc_submit.run.kaggle_paths import KAGGLE_WORKING, is_competition_rerun
from arc_submit.run.measured import read_measured
from arc_submit.run.named_sources import SourceGroup, source_groups, source_lanes
from arc_submit.run.prompt_check import check_prompts
from arc_submit.run.resolve_host import resolve_host
from arc_submit.run.source import JUDGE, MODEL_LANE, Scale, Source, SourceSetup
from arc_submit.run.source_code import check_code, code_engines
from arc_submit.run.source_frozen import engines_of
from arc_submit.run.source_judge import RunJudge, resolve_judge
from arc_submit.run.source_table import SOURCE_TABLE, check_sources, uses_model
from arc_submit.run.source_ttft import makes_all_adapters_first, resolve_finetune, ttft_ladder
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.devices import Gpu


@dataclass(frozen=True)
class ResolvedRun:
    """One run, ready to begin.

    Attributes:
        paths: of the run directory.
        fingerprint: what makes two runs the same.
        sources: what works, in the order in which those of one lane work.
        answering: names of the sources that answer, the most trusted first.
        host: where the workers are.
        budget: seconds of the whole; `reserve` of them are kept for the report.
        reset_budget: count the budget of a resumed run from now.
        adapter_budgets: disk for adapters, by the name of the source that makes them.
        ensemble: how the sources' answers are combined.
        submission: path of submission.json.
        pictures: tasks to draw in the report.
        done_event: name of the event that notes a finished task. Commands whose work is not the run's own have another one.
        lost: why a source of the configuration cannot work, by source. Only in a competition's re-run, where the others go on.
        choices: what the preset auto decided, and why.
        judge: judges the sources' candidates, where the method needs that.
    """

    paths: RunPaths
    data: RunData
    fingerprint: dict[str, Any]
    sources: tuple[Source, ...]
    answering: tuple[str, ...]
    host: Host
    budget: float
    reserve: float
    reset_budget: bool
    adapter_budgets: Mapping[str, AdapterBudget]
    ensemble: EnsembleConfig
    submission: Path
    pictures: int
    done_event: str = "task"
    lost: dict[str, str] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    judge: RunJudge | None = None


def resolve_run(config: RunConfig, predict: bool = True) -> ResolvedRun:
    """Resolve a run.

    Args:
        predict: False: fine-tune alone, for a later run of the source ttft.

    Raises:
        ArcSubmitError: where it cannot work.
    """
    check_sources(config.sources, config.definitions)
    data = load_data(config)
    working = _find_working(config)
    config = working.config
    judge = _find_judge(config)
    lost = working.lost | ({JUDGE: judge} if isinstance(judge, str) else {})
    setups = _setups(working, len(data.chosen), predict)
    if predict:
        kinds = list(SOURCE_TABLE)
        in_turn = sorted(setups, key=lambda setup: kinds.index(setup.kind))
        sources = [_of_lane(source, setup, working) for setup in in_turn for source in SOURCE_TABLE[setup.kind].resolve(setup)]
    else:
        sources = resolve_finetune(setups[0])
    return ResolvedRun(
        paths=RunPaths(config.out),
        data=data,
        fingerprint=run_fingerprint(config, data),
        sources=tuple(sources),
        answering=config.sources,
        host=working.host,
        budget=config.budget,
        reserve=config.reserve,
        reset_budget=config.reset_budget,
        adapter_budgets={setup.name: setup.disk for setup in setups if setup.kind == "ttft"},
        ensemble=ensemble_config(config),
        submission=submission_path(config),
        pictures=config.pictures,
        lost=lost,
        choices=(*config.choices, *_choices_of_sources(config)),
        judge=None if isinstance(judge, str) else judge,
    )


def _find_judge(config: RunConfig) -> RunJudge | str | None:
    """The judge of a run whose method needs one; in a competition's re-run why it cannot work.

    Raises:
        ArcSubmitError: where it cannot work, and this is no re-run.
    """
    try:
        return resolve_judge(config, RunPaths(config.out)) if config.judges else None
    except ArcSubmitError as error:
        if not is_competition_rerun():
            raise
        return str(error)


@dataclass(frozen=True)
class _Working:
    """The sources of a run that can work.

    Attributes:
        config: with these sources alone, and with paths that their workers can use.
        host: where the workers are.
        prompts: the prompt configuration of each source's model, by the source's name; None without a model.
        lost: why another source cannot work, by its name.
        cards: of each worker of a source code, by its name.
    """

    config: RunConfig
    host: Host
    prompts: dict[str, PromptConfig | None]
    lost: dict[str, str]
    cards: dict[str, CardGroups]


def _find_working(config: RunConfig) -> _Working:
    """Which sources can work, and where.

    Raises:
        ArcSubmitError: where one cannot. In a competition's re-run, where the day's submission is at stake, what works goes on, and the
            search takes the place of models that cannot work at all.
    """
    lost: dict[str, str] = {}
    prompts: dict[str, PromptConfig | None] = {}
    gpus: dict[str, Gpu] = {}
    cards: dict[str, CardGroups] = {}
    for group in source_groups(config):
        prompt, asking = None, [name for name, kind in group.kinds.items() if uses_model([kind])]
        try:
            if asking:
                check_model_folder(group.config.model)
                found = check_devices(group.config.devices) if config.executor == "local" else {}
                reasons, groups = _check_cards(group, found, config.executor == "local")
                prompt = _check_model(group.config, groups.cards)
                cards |= {name: groups for name, kind in group.kinds.items() if kind == "code"}
                if reasons and not (is_competition_rerun() and set(asking) - set(reasons)):
                    raise ConfigError(next(iter(reasons.values())))
                lost |= reasons
                gpus |= found
        except ArcSubmitError as error:
            if not is_competition_rerun():
                raise type(error)(f"{group.label}{error}") from None
            prompt, lost = None, lost | dict.fromkeys(asking, str(error))
        prompts |= dict.fromkeys(group.names, prompt)
    left = tuple(name for name in config.sources if name not in lost) or ("search",)
    config = replace(config, sources=left, definitions={name: one for name, one in config.definitions.items() if name in left})
    return _Working(*resolve_host(config, gpus, {name: one.cards for name, one in cards.items()}), prompts, lost, cards)


def _check_cards(group: SourceGroup, gpus: Mapping[str, Gpu], here: bool) -> tuple[dict[str, str], CardGroups]:
    """Why sources of a group have no card, by name; and the cards of each worker of its source code.

    Args:
        gpus: of the group's devices.
        here: the workers are on this machine.

    Raises:
        ArcSubmitError: where the file of --measured is of other cards.
    """
    if group.config.measured is not None and here:
        read_measured(group.config.measured).check_cards([gpu.name for gpu in gpus.values()] or ["cpu"])
    reasons, cards = sources_that_fit_no_card(group.config, gpus), CardGroups()
    if "code" in group.config.sources:
        reasons.pop("code", None)
        try:
            cards = choose_card_groups(group.config, gpus, group.config.prompt_config().max_seq_len)
        except ConfigError as error:
            reasons["code"] = str(error)
    return {name: reasons[kind] for name, kind in group.kinds.items() if kind in reasons}, cards


def _setups(working: _Working, tasks: int, predict: bool) -> list[SourceSetup]:
    """What each source is made from, in the order of the configuration.

    Args:
        tasks: their number.
        predict: False for fine-tuning alone.
    """
    paths, groups, lanes = RunPaths(working.config.out), source_groups(working.config), source_lanes(working.config)
    tuned = sum(kind == "ttft" for group in groups for kind in group.kinds.values())
    setups = {}
    for group in groups:
        own, prompt = group.config, working.prompts.get(group.names[0])
        prompt_len = prompt.max_seq_len if prompt else 0
        costs = estimate_costs(own.model, own.devices, own.measured)[0]
        scale = Scale(costs, prompt_len, own.ttft_max_seq_len or prompt_len)
        for name, kind in group.kinds.items():
            lane, cards = lanes.get(name, MODEL_LANE), working.cards.get(name, CardGroups())
            setup = SourceSetup(name, kind, own, paths, scale=scale, lane=lane, beside_gpus=not working.host.on_cpu, cards=cards)
            disk = _adapter_budget(setup, tasks, predict, tuned) if kind == "ttft" else setup.disk
            setups[name] = replace(setup, disk=disk)
    return [setups[name] for name in working.config.sources]


def _of_lane(source: Source, setup: SourceSetup, working: _Working) -> Source:
    """A source with its part of its lane: of the time, and of the devices where it does not use all of them."""
    definition, devices = working.config.definitions.get(setup.name), setup.config.devices
    of_lane = working.host.devices_of(source.lane)
    fewer = SOURCE_TABLE[setup.kind].uses_model and len(devices) < len(of_lane)
    share = definition.share if definition else None
    return replace(source, owner=setup.name, share=share, most_workers=source.most_workers or (len(devices) if fewer else None))


def _choices_of_sources(config: RunConfig) -> list[Choice]:
    """What the preset auto decided for each source with a definition, with the source's name."""
    named = [(name, choice) for name, one in config.definitions.items() for choice in one.choices]
    return [replace(choice, reason=f"{choice.reason} (source {name})") for name, choice in named]


def ensemble_config(config: RunConfig) -> EnsembleConfig:
    """How a run combines its sources; weights of sources that do not run are left out."""
    weights = {source: weight for source, weight in config.weights.items() if source in config.sources}
    return EnsembleConfig(config.method, config.sources, weights, config.judge.fallback or "probability", config.laws)


def submission_path(config: RunConfig) -> Path:
    """submission.json in the run directory, or, on Kaggle, where the competition looks for it."""
    return (KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else config.out) / "submission.json"


def _check_model(config: RunConfig, cards: int = 1) -> PromptConfig | None:
    """The prompt configuration of the model, once its files and the adapter's are known to suit the engines; None without a model.

    Args:
        cards: of each worker of the source code.
    """
    if not uses_model(config.sources):
        return None
    if config.ttft_in_4_bits and "ttft" in config.sources and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("--ttft-in-4-bits: the package bitsandbytes is not installed; attach its wheel, or leave the option out")
    check_model_folder(config.model)
    prompt = config.prompt_config()
    engines = [engines_of(config.engine, config.candidates)[0]] if "frozen" in config.sources else []
    tuned, learns = "ttft" in config.sources, "code" in config.sources and config.code.learn_rounds > 0
    if "code" in config.sources:
        check_code(config, prompt.max_seq_len)
        engines += [code_engines(config, cards)[0], *(["transformers"] if learns else [])]  # which trains, whatever engine asks
    if tuned:
        replace(config, max_seq_len=config.ttft_max_seq_len or config.max_seq_len).prompt_config()
        if config.base_adapter is not None:
            check_adapter_folder(config.base_adapter)
        engines.append(config.ttft_engine)
    # With torch, which takes seconds: only now, when nothing that is known sooner speaks against the model.
    from arc_submit.base_model.architecture import check_for_engines

    skeleton = check_for_engines(config.model, engines, tuned or learns, prompt.max_seq_len)
    check_prompts(config.model, prompt, skeleton.get_input_embeddings().num_embeddings)
    if learns or tuned:
        from arc_submit.base_model.lora import find_targets

        fresh = learns or config.base_adapter is None
        if (learns and config.engine == "vllm") or (tuned and fresh and config.ttft_engine == "vllm"):
            from arc_submit.inference.vllm_compat import supported_rank

            supported_rank(config.lora.file_rank)
        if fresh:
            find_targets(skeleton, config.lora)
    if tuned and config.base_adapter is not None:
        from arc_submit.base_model.adapter_files import check_adapter
        from arc_submit.inference.vllm_compat import check_kind

        if config.ttft_engine == "vllm":
            check_kind(config.base_adapter)
        check_adapter(config.base_adapter, skeleton)
    return prompt


def _adapter_budget(setup: SourceSetup, tasks: int, predict: bool, sharing: int) -> AdapterBudget:
    """The disk for the adapters of a source.

    Args:
        sharing: sources that make adapters.
    """
    config = setup.config
    all_at_once = not predict or makes_all_adapters_first(config)
    steps = len({level.steps for level in ttft_ladder(config).levels})
    return resolve_adapter_budget(config, tasks, steps, all_at_once, AdapterPlace(setup.home.root, sharing))
