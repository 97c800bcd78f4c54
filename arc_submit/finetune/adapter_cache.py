"""Adapters on a disk without room for all: those that nothing needs any more are deleted, the oldest first.

Several workers share a run's adapters. A worker marks the adapter it uses, which makes it the newest for all workers. A folder is renamed
before it is deleted, so that no worker sees a part of one. Does not know models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from arc_submit.arc.files import file_name


def adapters_of(run: Path) -> list[Path]:
    """The folders of all adapters in a run directory, of every number of steps."""
    parents = [run / "adapters", *sorted(run.glob("steps-*/adapters"))]
    return [folder for parent in parents if parent.is_dir() for folder in sorted(parent.iterdir()) if not folder.name.startswith(".")]


def bytes_of(folder: Path) -> int:
    """Bytes in the files of a folder; 0 once another process has deleted it."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def mark_used(folder: Path) -> None:
    """Make an adapter the newest of all, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder)


def make_room(run: Path, max_bytes: int, protected: Collection[str]) -> list[Path]:
    """Delete adapters until the rest takes at most max_bytes; returns the deleted ones.

    Adapters of tasks that have a newer one are deleted first, then the oldest.

    Args:
        protected: ids of tasks whose adapters stay.
    """
    kept = {file_name(task_id) for task_id in protected}
    newest: dict[str, float] = {}
    adapters: list[tuple[float, int, Path]] = []
    for folder in adapters_of(run):
        with contextlib.suppress(FileNotFoundError):
            used = folder.stat().st_mtime
            adapters.append((used, bytes_of(folder), folder))
            newest[folder.name] = max(used, newest.get(folder.name, used))
    total, deleted = sum(size for _, size, _ in adapters), []
    for _, size, folder in sorted(adapters, key=lambda adapter: (adapter[0] == newest[adapter[2].name], adapter[0], adapter[2])):
        if total <= max_bytes:
            break
        if folder.name not in kept:
            _delete(folder)
            deleted.append(folder)
            total -= size
    return deleted


def _delete(folder: Path) -> None:
    trash = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
