"""Resolving: everything that a configuration means for one run, decided in one place before any work.

Nothing below this module gets the whole configuration. What cannot work is refused here by name: a missing model, a prompt that the model
cannot take, adapters without disk, a cluster that does not answer.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.checks import check_adapter_folder, check_model_folder
from arc_submit.ensemble.combination import EnsembleConfig
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.run.adapter_budget import AdapterBudget, resolve_adapter_budget
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.choices import Choice
from arc_submit.run.config import RunConfig
from arc_submit.run.data import RunData, load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.host import Host, check_devices, estimate_costs
from arc_submit.run.kaggle_paths import KAGGLE_WORKING, is_competition_rerun
from arc_submit.run.measured import read_measured
from arc_submit.run.prompt_check import check_prompts
from arc_submit.run.source import CPU_LANE, MODEL_LANE, Source
from arc_submit.run.source_frozen import engines_of
from arc_submit.run.source_table import SOURCE_TABLE, check_sources, uses_model
from arc_submit.run.source_ttft import makes_all_adapters_first, resolve_finetune, ttft_ladder
from arc_submit.scheduling.costs import CostModel
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.ray_cluster import find_cluster


@dataclass(frozen=True)
class ResolvedRun:
    """One run, ready to begin.

    Attributes:
        paths: of the run directory.
        fingerprint: what makes two runs the same.
        sources: what works, in the order in which those of one lane work.
        answering: names of the sources that answer, the most trusted first.
        host: where the workers are.
        costs: initial estimate of what work costs; each source corrects a copy of its own.
        prompt_len: largest number of tokens of a prompt with its answer.
        train_len: largest number of tokens of a training sample.
        budget: seconds of the whole; `reserve` of them are kept for the report.
        reset_budget: count the budget of a resumed run from now.
        adapter_budget: disk for adapters, None where none are made.
        ensemble: how the sources' answers are combined.
        submission: path of submission.json.
        pictures: tasks to draw in the report.
        done_event: name of the event that notes a finished task. Commands whose work is not the run's own have another one.
        lost: why a source of the configuration cannot work, by source. Only in a competition's re-run, where the others go on.
        choices: what the preset auto decided, and why.
    """

    paths: RunPaths
    data: RunData
    fingerprint: dict[str, Any]
    sources: tuple[Source, ...]
    answering: tuple[str, ...]
    host: Host
    costs: CostModel
    prompt_len: int
    train_len: int
    budget: float
    reserve: float
    reset_budget: bool
    adapter_budget: AdapterBudget | None
    ensemble: EnsembleConfig
    submission: Path
    pictures: int
    done_event: str = "task"
    lost: dict[str, str] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()


def resolve_run(config: RunConfig, predict: bool = True) -> ResolvedRun:
    """Resolve a run.

    Args:
        predict: False: fine-tune alone, for a later run of the source ttft.

    Raises:
        ArcSubmitError: where it cannot work.
    """
    check_sources(config.sources)
    data = load_data(config)
    lost: dict[str, str] = {}
    try:
        prompt, (resolved_config, host) = _check_model(config), resolve_host(config)
        if config.measured is not None and host.cluster is None:
            read_measured(config.measured).check_cards([gpu.name for gpu in host.gpus.values()] or ["cpu"])
        lost = sources_that_fit_no_card(resolved_config, host.gpus)
        left = tuple(name for name in config.sources if name not in lost)
        if lost and not (is_competition_rerun() and uses_model(left)):
            raise ConfigError(next(iter(lost.values())))
        resolved_config = replace(resolved_config, sources=left)
    except ArcSubmitError as error:
        if not is_competition_rerun():
            raise
        # The day's submission is at stake: what works goes on, and the search takes the place of a model that cannot work at all.
        lost = {name: str(error) for name in config.sources if uses_model([name])}
        left = tuple(name for name in config.sources if name not in lost) or ("search",)
        prompt, (resolved_config, host) = None, resolve_host(replace(config, sources=left))
    config = resolved_config
    adapter_budget = _adapter_budget(config, len(data.chosen), predict)
    # Without a fine-tuning source there are no adapters, and nothing asks for their budget.
    disk = adapter_budget or AdapterBudget(None, True, "")
    paths = RunPaths(config.out)
    if predict:
        names = [name for name in SOURCE_TABLE if name in config.sources]
        sources = [source for name in names for source in SOURCE_TABLE[name].resolve(config, paths, disk)]
    else:
        sources = resolve_finetune(config, paths, disk)
    prompt_len = prompt.max_seq_len if prompt else 0
    return ResolvedRun(
        paths=paths,
        data=data,
        fingerprint=run_fingerprint(config, data),
        sources=tuple(sources),
        answering=config.sources,
        host=host,
        costs=estimate_costs(config.model, config.devices, config.measured)[0],
        prompt_len=prompt_len,
        train_len=config.ttft_max_seq_len or prompt_len,
        budget=config.budget,
        reserve=config.reserve,
        reset_budget=config.reset_budget,
        adapter_budget=adapter_budget,
        ensemble=ensemble_config(config),
        submission=submission_path(config),
        pictures=config.pictures,
        lost=lost,
        choices=config.choices,
    )


def ensemble_config(config: RunConfig) -> EnsembleConfig:
    """How a run combines its sources; weights of sources that do not run are left out."""
    weights = {source: weight for source, weight in config.weights.items() if source in config.sources}
    return EnsembleConfig(config.method, config.sources, weights)


def submission_path(config: RunConfig) -> Path:
    """submission.json in the run directory, or, on Kaggle, where the competition looks for it."""
    return (KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else config.out) / "submission.json"


def resolve_host(config: RunConfig) -> tuple[RunConfig, Host]:
    """The host, and the configuration with paths that its workers can use.

    Raises:
        ConfigError: where the cluster cannot do the work.
    """
    host = Host(config.devices, config.workers, config.threads, config.search_memory)
    if config.executor == "local":
        return config, replace(host, gpus=check_devices(config.devices)) if uses_model(config.sources) else host
    # A worker on another node has another current folder.
    base_adapter, adapters = ((None if folder is None else folder.absolute()) for folder in (config.base_adapter, config.adapters))
    config = replace(config, out=config.out.absolute(), model=config.model.absolute(), base_adapter=base_adapter, adapters=adapters)
    # A name such as that of a format is no file; it stays as it is.
    files = {name: getattr(config, name) for name in ("model_config", "chat_template", "compile_cache")}
    config = replace(config, **{name: path.absolute() for name, path in files.items() if path is not None and path.exists()})
    needs_model = uses_model(config.sources)
    folders = [folder for folder in (config.model, base_adapter, adapters) if folder and needs_model]
    cluster = find_cluster(config.ray_address, config.out, folders)
    host = replace(host, cluster=cluster)
    lanes = (needs_model) + ("search" in config.sources)
    if host.on_cpu:
        lane = MODEL_LANE if needs_model else CPU_LANE
        cluster.check_capacity(max(config.workers, lanes), *host.worker_resources(lane), "--workers")
    elif needs_model:
        cluster.check_capacity(len(config.devices), *host.worker_resources(MODEL_LANE), "--devices: GPUs")
    return config, host


def _check_model(config: RunConfig) -> PromptConfig | None:
    """The prompt configuration of the model, once its files and the adapter's are known to suit the engines; None without a model."""
    if not uses_model(config.sources):
        return None
    if config.ttft_in_4_bits and "ttft" in config.sources and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("--ttft-in-4-bits: the package bitsandbytes is not installed; attach its wheel, or leave the option out")
    check_model_folder(config.model)
    prompt = config.prompt_config()
    engines = [engines_of(config.engine, config.candidates)[0]] if "frozen" in config.sources else []
    tuned = "ttft" in config.sources
    if tuned:
        replace(config, max_seq_len=config.ttft_max_seq_len or config.max_seq_len).prompt_config()
        if config.base_adapter is not None:
            check_adapter_folder(config.base_adapter)
        engines.append(config.ttft_engine)
    # With torch, which takes seconds: only now, when nothing that is known sooner speaks against the model.
    from arc_submit.base_model.architecture import check_for_engines

    skeleton = check_for_engines(config.model, engines, tuned, prompt.max_seq_len)
    check_prompts(config.model, prompt, skeleton.get_input_embeddings().num_embeddings)
    if tuned:
        from arc_submit.base_model.adapter_files import check_adapter
        from arc_submit.base_model.lora import find_targets

        find_targets(skeleton, config.lora) if config.base_adapter is None else check_adapter(config.base_adapter, skeleton)
    return prompt


def _adapter_budget(config: RunConfig, tasks: int, predict: bool) -> AdapterBudget | None:
    """The disk for adapters, where a run makes any."""
    if "ttft" not in config.sources:
        return None
    all_at_once = not predict or makes_all_adapters_first(config)
    return resolve_adapter_budget(config, tasks, len({level.steps for level in ttft_ladder(config).levels}), all_at_once)
