"""Wheels into a folder: what is there and whole is kept, the rest is downloaded in portions, so that a cut costs one portion at most.

Knows nothing about how the folder is stored on Kaggle.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from arc_submit.errors import DataError
from arc_submit.kaggle.files import format_size, sha256_of
from arc_submit.kaggle.pip import download
from arc_submit.kaggle.targets import LockedWheel, Target

_PORTION = 100_000_000  # bytes that are downloaded together; larger files come alone
_PORTION_FILES = 50


def fetch(target: Target, wheels: Sequence[LockedWheel], folder: Path) -> dict[str, Path]:
    """Have every wheel of a lock in a folder, under its own name, with the sha256 that the lock says.

    Raises:
        DataError: where the disk has no room, or a wheel is not to be had as the lock names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for wheel in wheels:
        path = folder / wheel.file
        if path.is_file() and sha256_of(path) != wheel.sha256:
            print(f"{path}: not what the lock says; it is fetched again")
            path.unlink()
        if not path.is_file():
            missing.append(wheel)
    wanted, free = sum(wheel.size for wheel in missing), shutil.disk_usage(folder).free
    if wanted > 0.95 * free:
        raise DataError(f"{folder}: {format_size(wanted)} are to be downloaded and {format_size(free)} are free; choose another --out")
    partial = folder / ".partial"
    try:
        for portion in _portions(missing):
            shutil.rmtree(partial, ignore_errors=True)
            download(target, portion, partial)
            for wheel in portion:
                if not (partial / wheel.file).is_file():
                    raise DataError(f"{wheel.file}: pip fetched another file of {wheel.name} {wheel.version}; make the lock again")
                (partial / wheel.file).replace(folder / wheel.file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {wheel.file: folder / wheel.file for wheel in wheels}


def _portions(wheels: Sequence[LockedWheel]) -> Iterator[list[LockedWheel]]:
    portion: list[LockedWheel] = []
    for wheel in wheels:
        if portion and (sum(other.size for other in portion) + wheel.size > _PORTION or len(portion) >= _PORTION_FILES):
            yield portion
            portion = []
        portion.append(wheel)
    if portion:
        yield portion
