"""What makes two runs the same run, so that the second goes on with the first. Knows nothing about how a run is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.task import task_to_json
from arc_submit.base_model.checks import files_fingerprint
from arc_submit.run.config import RunConfig


def identity(config: RunConfig, challenges: Challenges, counts: dict[str, int], chosen: Sequence[str]) -> dict[str, Any]:
    """What makes two runs the same run: the work, but not the time, the workers or the place of files.

    Args:
        challenges: the whole test file.
        counts: ids and entries in the order the submission must have.
        chosen: ids of the tasks to work on.
    """
    content = {task_id: task_to_json(task) for task_id, task in challenges.tasks.items()}
    digest = hashlib.sha256(json.dumps([content, counts], sort_keys=True).encode()).hexdigest()[:16]
    return {
        "challenges": digest,
        "tasks": len(chosen),
        **({"task_ids": list(chosen)} if config.task_ids is not None else {}),
        "seed": config.seed,
        "sources": list(config.sources),
        "model": config.model.name,
        "model_files": files_fingerprint(config.model),
        "views": config.views,
        "keep_background": config.keep_background,
        "grid_encoder": config.grid_encoder,
        "prompt": config.prompt,
        "max_seq_len": config.max_seq_len,
        "search_effort": config.search_effort,
        **(_finetuning(config) if "ttft" in config.sources else {}),
    }


def _finetuning(config: RunConfig) -> dict[str, Any]:
    """What makes two adapters of a task the same."""
    value: dict[str, Any] = {f"lora_{name}": given for name, given in asdict(config.lora).items()}
    value |= {f"ttft_{name}": given for name, given in asdict(config.ttft).items()}
    value |= {"ttft_max_seq_len": config.ttft_max_seq_len, "ttft_views": config.ttft_views, "warm_up_steps": config.warm_up_steps}
    value |= {"warm_up_samples": config.warm_up_samples} if config.warm_up_steps else {}
    value["ttft_in_4_bits"] = config.ttft_in_4_bits
    value |= {"ttft_group": config.ttft_group} if config.ttft_group > 1 else {}
    if config.ttft_candidates != "views":
        value |= {"ttft_candidates": config.ttft_candidates, "ttft_threshold": config.ttft_threshold}
    value["base_adapter"] = None if config.base_adapter is None else config.base_adapter.name
    if config.base_adapter is not None:
        value["base_adapter_files"] = files_fingerprint(config.base_adapter)
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
