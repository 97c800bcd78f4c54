"""The source "ttft": an adapter for each task, fine-tuned on its own train pairs, and predictions with it.

With transformers one worker fine-tunes and predicts. With vllm, and where several tasks share an adapter, the source "finetune" makes all
adapters first. The source "warmup" trains the joint warm-up, from which the fine-tuning of each task starts.
"""

from __future__ import annotations

from dataclasses import replace

from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import FinetuneSettings, task_groups
from arc_submit.inference.settings import PredictSettings
from arc_submit.run.config import ALONE, EQUAL, RunConfig
from arc_submit.run.source import Source, SourceSetup, make_backend, model_environment, model_timeouts
from arc_submit.run.source_frozen import engines_of, predict_settings, prediction_source
from arc_submit.scheduling.chances import SolveChances, read_chances
from arc_submit.scheduling.scheduler import Ladder, make_ladder

_WORKER = "arc_submit.finetune.ttft_worker"


def resolve_ttft(setup: SourceSetup) -> list[Source]:
    """Fine-tuning and prediction, in one source or in two."""
    config = setup.config
    views = config.ttft_views or config.views
    if makes_all_adapters_first(config):
        if config.allocation != EQUAL:
            raise ConfigError(
                f"--allocation {config.allocation} chooses a task's steps and views together; take --ttft-engine transformers"
            )
        settings = replace(_predict_settings(setup, views), adapters=str(setup.home.adapters))
        engines = engines_of(config.ttft_engine, config.ttft_candidates, on_gpus=config.devices != ("cpu",))
        return [
            *resolve_finetune(setup),
            prediction_source(setup, settings, engines, config.ttft_max_views),
        ]
    worker = _source(setup, "ttft", "open_worker", _finetune_settings(setup, views), ttft_ladder(config))
    return [
        *_joint_warmup(setup),
        replace(worker, adapters_kept=setup.disk.keeps, chances=_chances(config), alone=config.allocation == ALONE),
    ]


def makes_all_adapters_first(config: RunConfig) -> bool:
    """Whether all adapters must be on disk before the first prediction."""
    return config.ttft_engine == "vllm" or config.tasks_per_adapter > 1


def _chances(config: RunConfig) -> SolveChances | None:
    """What the division of time goes by; None where all tasks climb the same levels."""
    if config.allocation == EQUAL:
        return None
    if config.chances is None:
        raise ConfigError(
            f"--allocation {config.allocation}: this preset has no file of chances; give --chances FILE (arc-submit chances writes it)"
        )
    return read_chances(config.chances)


def resolve_finetune(setup: SourceSetup) -> list[Source]:
    """Fine-tuning alone."""
    config = setup.config
    settings = _finetune_settings(setup, views=0)
    warmup = _joint_warmup(setup)
    if config.tasks_per_adapter == 1:
        return [*warmup, _source(setup, "finetune", "open_worker", settings, make_ladder(config.ttft.steps, 0))]
    groups = _source(setup, "finetune", "open_group_worker", settings, None)
    return [*warmup, replace(groups, job_names=lambda task_ids: list(task_groups(task_ids, config.tasks_per_adapter)))]


def ttft_ladder(config: RunConfig) -> Ladder:
    """The levels of fine-tuning with prediction."""
    return make_ladder(config.ttft.steps, config.ttft_views or config.views, config.ttft_max_steps, config.ttft_max_views)


def _joint_warmup(setup: SourceSetup) -> list[Source]:
    config = setup.config
    if not config.joint_warmup_steps:
        return []
    settings = _finetune_settings(setup, views=0)
    own = replace(settings, ttft=replace(config.ttft, steps=config.joint_warmup_steps), base_adapter=_folder(config))
    return [replace(_source(setup, "warmup", "open_warm_up", own, None), trains=False, job_names=lambda _: ["all tasks"])]


def _finetune_settings(setup: SourceSetup, views: int) -> FinetuneSettings:
    config = setup.config
    return FinetuneSettings(
        _predict_settings(setup, views),
        config.lora,
        config.ttft,
        config.ttft_max_seq_len,
        str(setup.home.joint_warmup) if config.joint_warmup_steps else _folder(config),
        config.ttft_in_4_bits,
        config.joint_warmup_samples,
        setup.disk.bound,
        home=str(setup.home.root),
        tasks_per_adapter=config.tasks_per_adapter,
    )


def _predict_settings(setup: SourceSetup, views: int) -> PredictSettings:
    config = setup.config
    return replace(predict_settings(setup, views), candidates=config.ttft_candidates, threshold=config.ttft_threshold)


def _folder(config: RunConfig) -> str | None:
    return None if config.base_adapter is None else str(config.base_adapter)


def _source(setup: SourceSetup, kind: str, entry: str, settings: FinetuneSettings, ladder: Ladder | None) -> Source:
    """The source itself, or what prepares it."""
    name = setup.name if kind == setup.kind else setup.part(kind)
    return Source(
        name,
        setup.lane,
        (make_backend(name, f"{_WORKER}:{entry}", settings, model_timeouts(setup.config)),),
        model_environment(setup.config),
        ladder=ladder,
        trains=True,
        kind=kind,
        scale=setup.scale,
    )
