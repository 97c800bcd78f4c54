"""Fingerprints: what makes two runs the same, so that the second goes on with the first.

A fingerprint holds the work, not the time, the workers or the place of files. Each option says whether it belongs to it
(arc_submit.options.Identity). Does not know how a run works.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.arc.task import Task, task_to_json
from arc_submit.base_model.checks import files_fingerprint
from arc_submit.language.prompts import PROMPT_SUFFIX
from arc_submit.options import identity_values
from arc_submit.run.auto_inputs import RECORD, recorded_values
from arc_submit.run.config import RunConfig
from arc_submit.run.data import RunData
from arc_submit.run.measured import memory_factor
from arc_submit.run.named_sources import source_config
from arc_submit.run.source_table import uses_model
from arc_submit.storage.run_dir import RunPaths

# The fields of RunConfig with Identity.COMPUTED: each is in the fingerprint through the value that is computed here.
COMPUTED = (
    "challenges",
    "tasks",
    "task_ids",
    "source",
    "sources_file",
    "model",
    "model_config",
    "chat_template",
    "adapters",
    "base_adapter",
    "measured",
    "code_prompt",
)
_INFER_FIELDS = (
    "views",
    "seed",
    "keep_background",
    "grid_encoder",
    "prompt",
    "max_seq_len",
    "candidates",
    "threshold",
    "temperature",
)


def run_fingerprint(config: RunConfig, data: RunData) -> dict[str, Any]:
    """The fingerprint of a run, or of fine-tuning alone, which the source ttft of a run can use."""
    values = identity_values(config) | _model_values(config)
    values |= {"challenges": tasks_digest(data.challenges.tasks, data.counts), "tasks": len(data.chosen)}
    values |= {"task_ids": list(data.chosen)} if config.task_ids is not None else {}
    values |= _work_values(config)
    for name, definition in config.definitions.items():
        own = source_config(config, name)
        of_source = {"kind": definition.kind} | identity_values(own, kind=definition.kind)
        if uses_model([definition.kind]):
            of_source |= _model_values(own) | _work_values(replace(own, choices=definition.choices))
        values |= {f"{name}.{key}": value for key, value in of_source.items()}
    return _plain(values)


def _work_values(config: RunConfig) -> dict[str, Any]:
    """What the fingerprint holds of the memory plan, of auto's decisions and of groups of options, for the sources of a configuration."""
    # It decides checkpointing and lengths; the costs decide only when a task's turn comes.
    values: dict[str, Any] = {"memory_factor": memory_factor(config.measured)} if config.measured is not None else {}
    # With what auto decided, a run that goes on decides nothing anew.
    values |= {RECORD: decided} if (decided := recorded_values(config.choices)) else {}
    if config.uses_dfs:
        values |= identity_values(config.dfs, "dfs_")
    if "code" in config.sources:
        given = config.code.prompt.endswith(PROMPT_SUFFIX)
        values["code_prompt"] = hashlib.sha256(Path(config.code.prompt).read_bytes()).hexdigest()[:16] if given else config.code.prompt
        values |= identity_values(config.code, "code_")
        if config.code.learn_rounds:
            values |= identity_values(config.lora, "lora_")
    if "ttft" in config.sources:
        values |= identity_values(config.lora, "lora_") | identity_values(config.ttft, "ttft_")
        values["base_adapter"] = None if config.base_adapter is None else config.base_adapter.name
        if config.base_adapter is not None:
            values["base_adapter_files"] = files_fingerprint(config.base_adapter)
    return values


def infer_fingerprint(config: RunConfig, tasks: Mapping[str, Task] | None) -> dict[str, Any]:
    """The fingerprint of `infer`; in the directory of another command, that command's own, with this model.

    Args:
        tasks: those of --challenges; None where the directory's own are used.
    """
    own = {name: value for name, value in identity_values(config).items() if name in _INFER_FIELDS} | _model_values(config)
    own |= identity_values(config.dfs, "dfs_") if config.uses_dfs else {}
    own |= {"command": "infer", "adapters": config.adapters.name if config.adapters else None, "source": config.sources[0]}
    own |= {"challenges": tasks_digest(tasks)} if tasks else {}
    existing = RunPaths(config.out).read_config()
    if existing is None:
        return _plain(own)
    if existing.get("command") == "infer":
        return _plain(own if tasks or "challenges" not in existing else own | {"challenges": existing["challenges"]})
    shared = {name: own[name] for name in ("model", "model_files") if name in existing}
    # One of the two may name no prompt configuration and the other one: these differ.
    asked = {"prompt_config": own.get("prompt_config")} if shared and {"prompt_config"} & {*own, *existing} else {}
    return existing | shared | asked


def search_fingerprint(config: RunConfig) -> dict[str, Any]:
    """The fingerprint of the search command; in the directory of another command, that command's own."""
    return RunPaths(config.out).read_config() or {"command": "search"}


def tasks_digest(tasks: Mapping[str, Task], counts: Mapping[str, int] | None = None) -> str:
    """A digest of tasks, and of the order in which a submission names them where that is given."""
    content: Any = {task_id: task_to_json(task) for task_id, task in tasks.items()}
    text = json.dumps(content if counts is None else [content, counts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model_values(config: RunConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"model": config.model.name, "model_files": files_fingerprint(config.model)}
    given = config.model_config or config.chat_template or (config.prompt or "").endswith(PROMPT_SUFFIX)
    if given and uses_model(config.sources):
        # The content, wherever the files lie. What lies in the model's folder is among its files.
        prompt_config = config.prompt_config()
        values["prompt_config"] = prompt_config.digest()
        if prompt_config.prompt_text is not None:
            values["prompt"] = prompt_config.prompt
    return values


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values as they are read back from config.json."""
    value: dict[str, Any] = json.loads(json.dumps(values))
    return value
