"""Adapters on disk where there is no room for all: the ones that nothing needs any more go, the oldest first.

Several workers share a run's adapters. What a worker uses it marks as used, so that it is among the newest for all others; a folder is
renamed before it is deleted, so that nobody ever sees a part of one. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path


def adapters_of(run: Path) -> list[Path]:
    """The folders of all adapters in a run directory, whatever their number of steps."""
    places = [run / "adapters", *sorted(run.glob("steps-*/adapters"))]
    return [folder for place in places if place.is_dir() for folder in sorted(place.iterdir()) if not folder.name.startswith(".")]


def bytes_of(folder: Path) -> int:
    """What the files of a folder take; 0 once another process has deleted it."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def mark_used(folder: Path) -> None:
    """Make an adapter the newest of all, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder)


def make_room(run: Path, bound: int, spare: Collection[str]) -> list[Path]:
    """Delete adapters until those that are left take no more than so many bytes; returns what was deleted.

    First those of which the task has a newer one, then the oldest.

    Args:
        spare: tasks whose adapters stay.
    """
    newest: dict[str, float] = {}
    found: list[tuple[float, int, Path]] = []
    for folder in adapters_of(run):
        with contextlib.suppress(FileNotFoundError):
            used = folder.stat().st_mtime
            found.append((used, bytes_of(folder), folder))
            newest[folder.name] = max(used, newest.get(folder.name, used))
    total, deleted = sum(size for _, size, _ in found), []
    for _, size, folder in sorted(found, key=lambda one: (one[0] == newest[one[2].name], one[0], one[2])):
        if total <= bound:
            break
        if folder.name not in spare:
            _delete(folder)
            deleted.append(folder)
            total -= size
    return deleted


def _delete(folder: Path) -> None:
    gone = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
