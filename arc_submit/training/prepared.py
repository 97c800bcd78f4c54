"""The data of a training, packed once into its folder and opened by every process; samples held out. Knows nothing about models."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import write_json
from arc_submit.language.asked import AskedHow
from arc_submit.language.tokens import PromptWriter
from arc_submit.training.base_settings import TrainConfig
from arc_submit.training.guards import Measured, read_measured
from arc_submit.training.mixture import MixturePart, TokenSample, open_mixture, prepare_part
from arc_submit.training.processes import Processes


def prepare_data(config: TrainConfig, group: Processes, say: Callable[[str], None]) -> tuple[list[Path], list[Path]]:
    """Pack every part's data once, in the first process; the others wait. Returns the folders of what is learnt and of what is held out.

    Raises:
        ArcSubmitError: where a part's data cannot be read or repeats what is measured.
    """
    folders = [config.out / "data" / f"part-{number}" for number in range(len(config.parts))]
    eval_folders = [config.out / "data" / f"eval-{number}" for number in range(len(config.eval_parts))]
    if group.rank == 0:
        measured: Measured | None = None
        for part, folder in zip(config.parts, folders, strict=True):
            key = _data_key(part, (config.measured, config.drop_measured))
            if not _is_packed(folder, key):
                if measured is None:
                    measured = read_measured(config.measured)
                notes = prepare_part(part, folder, measured, config.drop_measured)
                write_json(folder / "part.json", {"key": key, "notes": notes})
            for line in json.loads((folder / "part.json").read_text(encoding="utf-8"))["notes"]:
                say(line)
        for part, folder in zip(config.eval_parts, eval_folders, strict=True):
            key = _data_key(part, "held out")
            if not _is_packed(folder, key):
                write_json(folder / "part.json", {"key": key, "notes": prepare_part(part, folder, Measured(), False)})
    group.wait()
    return folders, eval_folders


def _data_key(part: MixturePart, guard: Any) -> str:
    """What the packed data is a function of: the part, its files' names, sizes and times, and what is guarded against."""
    files = []
    for source in (part.data, part.wrong):
        path = Path(source) if source and ":" not in source else None
        found = sorted(path.rglob("*")) if path and path.is_dir() else [path] if path and path.exists() else []
        files += [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in found]
    return hashlib.sha256(json.dumps([dataclasses.asdict(part), files, guard]).encode()).hexdigest()


def _is_packed(folder: Path, key: str) -> bool:
    try:
        known: bool = json.loads((folder / "part.json").read_text(encoding="utf-8"))["key"] == key
        return known
    except (OSError, ValueError, KeyError):
        return False


def held_out_samples(
    config: TrainConfig, folders: list[Path], eval_folders: list[Path], writers: dict[str, PromptWriter], how: AskedHow
) -> list[TokenSample]:
    """The samples of every evaluation, drawn once."""
    settings = config.settings
    if not settings.eval_every:
        return []
    seed = config.seed + 1_000_000_007  # no sample of training: they are drawn by another seed
    parts, where = (config.eval_parts, eval_folders) if config.eval_parts else (config.parts, folders)
    mixture = open_mixture(parts, where, writers, how.max_seq_len, "answer", seed)
    return [mixture.sample(number) for number in range(settings.eval_samples)]
