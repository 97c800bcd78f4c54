"""The source "frozen": the base model as it is, under several views of each task."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from arc_submit.inference.compile_cache import check_archive
from arc_submit.inference.settings import VLLM_PLAIN, PredictSettings
from arc_submit.run.measured import memory_factor
from arc_submit.run.source import Source, SourceSetup, make_backend, model_environment, model_timeouts
from arc_submit.scheduling.scheduler import make_ladder
from arc_submit.workers.devices import visible_device

PREDICT_WORKER = "arc_submit.inference.predict:open_worker"


def resolve_frozen(setup: SourceSetup) -> list[Source]:
    """Predictions with the base model."""
    config = setup.config
    settings = replace(
        predict_settings(setup, config.views),
        candidates=config.candidates,
        threshold=config.threshold,
        temperature=config.temperature,
    )
    return [prediction_source(setup, settings, engines_of(config.engine, config.candidates, config.devices != ("cpu",)))]


def predict_settings(setup: SourceSetup, views: int) -> PredictSettings:
    """Settings that all predictions of a source share. A worker sees its device as the only one, so that all workers get the same.

    Raises:
        ConfigError: where the archive of compiled code is none.
    """
    config = setup.config
    if config.compile_cache is not None:
        check_archive(config.compile_cache)
    return PredictSettings(
        run=str(setup.paths.root),
        model=str(config.model),
        views=views,
        seed=config.seed,
        keep_background=config.keep_background,
        grid_encoder=config.grid_encoder,
        prompt=config.prompt,
        max_seq_len=config.max_seq_len,
        slots=config.max_concurrent,
        threads=config.threads,
        device=visible_device(config.devices[0]),
        source=setup.name,
        kind=setup.kind,
        model_config=None if config.model_config is None else str(config.model_config),
        compile_cache=None if config.compile_cache is None else str(config.compile_cache),
        chat_template=None if config.chat_template is None else str(config.chat_template),
        memory_factor=memory_factor(config.measured),
        dfs=config.dfs,
    )


def engines_of(engine: str, candidates: str = "views", on_gpus: bool = False) -> tuple[str, ...]:
    """Engines in the order in which they are tried: vllm as it chooses itself, on GPUs its plain start, then transformers."""
    if engine == "auto":
        usable = importlib.util.find_spec("vllm") is not None and candidates != "dfs"
        engine = "vllm" if usable else "transformers"
    if engine != "vllm":
        return (engine,)
    return ("vllm", VLLM_PLAIN, "transformers") if on_gpus else ("vllm", "transformers")


def prediction_source(
    setup: SourceSetup,
    settings: PredictSettings,
    engines: tuple[str, ...],
    max_views: int | None = None,
) -> Source:
    """A source that predicts, with the base or with adapters that exist."""
    config = setup.config
    backends = tuple(make_backend(engine, PREDICT_WORKER, replace(settings, engine=engine), model_timeouts(config)) for engine in engines)
    ladder = make_ladder(0, settings.views, None, max_views)
    return Source(
        setup.name,
        setup.lane,
        backends,
        model_environment(config),
        config.tasks_per_job,
        ladder,
        kind=setup.kind,
        scale=setup.scale,
    )
