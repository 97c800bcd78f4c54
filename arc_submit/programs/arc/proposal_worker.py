"""The search as a worker of a run, in the order that the writer proposes for each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arc_submit.programs.arc.writer import load_writer
from arc_submit.search import search_worker


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A worker of the search that explores in the proposed order, see `search_worker.open_worker`.

    Raises:
        DataError: where the writer cannot be loaded.
    """
    return search_worker.open_worker(settings_json, beat, load_writer())
