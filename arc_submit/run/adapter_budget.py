"""The disk that a run's adapters may take, settled before any work: all of them, the newest few, or a refusal by name.

An adapter is needed until its task's predictions are made. 240 adapters of rank 128 for a model of 1.5 billion parameters are 17 GB in 16
bits, of rank 256 for one of 4 billions 254 GB; /kaggle/working has 20 GB, and of the scratch folder beside it nothing is promised. So where
not all fit, the oldest are deleted as new ones come, and what is asked for once more is trained once more, to the same weights. Knows
nothing about how an adapter is trained.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from arc_submit.base_model.checks import adapter_values
from arc_submit.errors import ConfigError
from arc_submit.finetune.adapter_cache import adapters_of, bytes_of
from arc_submit.run.config import RunConfig
from arc_submit.run.kaggle_paths import KAGGLE, KAGGLE_WORKING
from arc_submit.storage.run_dir import RunPaths

_SHARE = 0.8  # of the free disk; predictions, logs and the report need little of the rest
# What /kaggle/working is documented to have; in the scratch folder df shows the host's disk, not what a notebook may take.
_KAGGLE_GB = 20.0


@dataclass(frozen=True)
class AdapterBudget:
    """What a run's adapters may take.

    Attributes:
        bound: bytes that may be there while the next are made; None where all of them fit.
        keeps: whether the newest adapter of every task stays, so that further views of a task need no training.
        reason: why, for people.
    """

    bound: int | None
    keeps: bool
    reason: str


@dataclass(frozen=True)
class AdapterPlace:
    """Where the adapters of one source lie.

    Attributes:
        folder: that holds them; for a source without a name of its own the run directory.
        sharing: sources that divide the room among them.
    """

    folder: Path
    sharing: int = 1


def resolve_adapter_budget(
    config: RunConfig, tasks: int, steps: int = 1, all_at_once: bool = False, place: AdapterPlace | None = None
) -> AdapterBudget:
    """Settle it for a source that fine-tunes.

    Args:
        tasks: how many there are.
        steps: how many numbers of steps a task can be fine-tuned with; each makes an adapter of its own.
        all_at_once: adapters are what is made, or are only used once all are there, so that none can be deleted.
        place: of the adapters; None: the run directory, for one source.

    Raises:
        ConfigError: where there is no room for as many as are needed at once, with the remedy.
    """
    on_gpus = config.devices != ("cpu",)
    wide = config.lora.dtype == "float32" or (config.lora.dtype == "auto" and not on_gpus)
    each = adapter_values(config.model, config.lora, config.base_adapter) * (4 if wide else 2)
    place = place or AdapterPlace(config.out)
    made = [adapter for home in RunPaths(config.out).homes().values() for adapter in adapters_of(home.root)]
    room, why = _room(config, sum(map(bytes_of, made)), place.sharing)
    at_work = len(config.devices) if on_gpus else config.workers
    needed = (tasks if all_at_once else min(2 * at_work, tasks * steps)) * each
    if needed > room:
        purpose = f"all {tasks} adapters" if all_at_once else f"the adapters of {at_work} tasks in work and as many before them"
        other = ", or take --ttft-engine transformers, which needs few at once" if config.ttft_engine == "vllm" else ""
        raise ConfigError(
            f"{place.folder}: {purpose}, {_gb(each)} each, need {_gb(needed)} of disk, and there is room for {_gb(room)} ({why});"
            f" lower --lora-rank, or give an --out with more room{other}"
        )
    most = tasks * (1 if all_at_once else steps) * each
    if most <= room:
        return AdapterBudget(None, True, f"adapters of {_gb(each)} each, at most {_gb(most)} in all: all are kept ({_gb(room)} are {why})")
    bound = int(room - at_work * each)
    keeps = tasks * each <= bound
    kept = f"each of the {tasks} tasks keeps its newest" if keeps else f"the newest {bound // each} of {tasks} tasks stay"
    return AdapterBudget(
        bound,
        keeps,
        f"adapters of {_gb(each)} each, up to {_gb(most)} in all, and {_gb(room)} are {why}: {kept}, the oldest are deleted once"
        " their predictions are made",
    )


def _room(config: RunConfig, made: int, sharing: int) -> tuple[float, str]:
    """Bytes for the adapters of one source, those that are there included, and what that is.

    Args:
        made: bytes of adapters that are there.
        sharing: sources that divide the room among them.
    """
    room, why = _whole_room(config, made)
    return room / sharing, why if sharing == 1 else f"{why}, divided by {sharing} sources"


def _whole_room(config: RunConfig, made: int) -> tuple[float, str]:
    if config.adapter_gb is not None:
        return config.adapter_gb * 1e9, "what --adapter-gb allows"
    there = next(folder for folder in (config.out.absolute(), *config.out.absolute().parents) if folder.exists())
    room, why = _SHARE * (shutil.disk_usage(there).free + made), f"{_SHARE:.0%} of the free disk"
    if KAGGLE_WORKING.is_dir() and config.out.resolve().is_relative_to(KAGGLE.resolve()) and room > _KAGGLE_GB * 1e9:
        return _KAGGLE_GB * 1e9, "what a Kaggle notebook can count on"
    return room, why


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
