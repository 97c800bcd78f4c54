"""Resolving the host of a run: its devices by lane, or the Ray cluster that does the work. Does not know what the sources do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.run.config import RunConfig
from arc_submit.run.host import Host, check_devices
from arc_submit.run.named_sources import lane_devices, model_devices, source_groups
from arc_submit.run.source import CPU_LANE
from arc_submit.run.source_table import uses_model
from arc_submit.workers.devices import Gpu
from arc_submit.workers.ray_cluster import find_cluster

# Folders of a configuration, and files of it that may also be the name of something that comes with the project.
_FOLDERS = ("model", "base_adapter", "adapters")
_FILES = ("model_config", "chat_template", "compile_cache")


def resolve_host(
    config: RunConfig, gpus: Mapping[str, Gpu] | None = None, cards: Mapping[str, int] | None = None
) -> tuple[RunConfig, Host]:
    """The host, and the configuration with paths that its workers can use.

    Args:
        gpus: of the devices of all sources, where the caller has looked; None: they are looked for here.
        cards: GPUs that a worker of a source holds, by the source's name, where they are not one.

    Raises:
        ConfigError: where a GPU is not there, or the cluster cannot do the work.
    """
    by_lane = lane_devices(config)
    used = tuple(dict.fromkeys(one for own in by_lane.values() for one in own)) or config.devices
    memory = max(group.config.search_memory for group in source_groups(config))
    host = Host(used, config.workers, config.threads, memory, lanes=by_lane)
    if config.executor == "local":
        return config, replace(host, gpus=gpus if gpus is not None else check_devices(config.devices) if by_lane else {})
    config = _with_whole_paths(config)
    asking = [group.config for group in source_groups(config) if uses_model(group.config.sources)]
    folders = list(dict.fromkeys(folder for own in asking for name in _FOLDERS if (folder := getattr(own, name)) is not None))
    cluster = find_cluster(config.ray_address, config.out, folders)
    host = replace(host, cluster=cluster)
    on_cpu = [lane for lane, own in by_lane.items() if own == ("cpu",)]
    if on_cpu or not by_lane:
        resources = host.worker_resources(on_cpu[0] if on_cpu else CPU_LANE)
        cluster.check_capacity(max(config.workers, len(on_cpu) + ("search" in config.kinds)), *resources, "--workers")
    for lane, own in by_lane.items():
        if lane not in on_cpu:
            cluster.check_capacity(len(own), *host.worker_resources(lane), "--devices: GPUs")
    for name, number in (cards or {}).items():
        if number > 1 and (own := model_devices(config)[name]) != ("cpu",):
            cluster.check_capacity(len(own) // number, config.threads, number, f"--code-cards {number}: workers")
    return config, host


def _with_whole_paths(config: RunConfig) -> RunConfig:
    """With absolute paths: a worker on another node has another current folder."""
    names = (*_FOLDERS, *_FILES)
    definitions = {name: replace(one, values=_whole(one.values)) for name, one in config.definitions.items()}
    own = _whole({name: getattr(config, name) for name in names})
    own["judge"] = replace(config.judge, **_whole({name: getattr(config.judge, name) for name in ("model", "adapters", "model_config")}))
    return replace(config, out=config.out.absolute(), definitions=definitions, **own)


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    # A name such as that of a format is no file; it stays as it is.
    return {
        name: value.absolute() if isinstance(value, Path) and (name in _FOLDERS or (name in _FILES and value.exists())) else value
        for name, value in values.items()
    }
