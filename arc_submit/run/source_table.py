"""The table of sources: a new source is one module and one entry here (docs/architecture.md, "How to add a source")."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from arc_submit.errors import ConfigError
from arc_submit.run.source import Source, SourceSetup
from arc_submit.run.source_code import resolve_code
from arc_submit.run.source_frozen import resolve_frozen
from arc_submit.run.source_search import resolve_search
from arc_submit.run.source_ttft import resolve_ttft


@dataclass(frozen=True)
class SourceEntry:
    """One source of predictions.

    Attributes:
        resolve: makes what the orchestrator runs for it: the source itself, and before it what prepares it.
        uses_model: it needs the base model.
    """

    resolve: Callable[[SourceSetup], list[Source]]
    uses_model: bool


# In this order sources of one lane work: the frozen model answers all tasks within minutes, before fine-tuning takes the hours.
SOURCE_TABLE: dict[str, SourceEntry] = {
    "search": SourceEntry(resolve_search, uses_model=False),
    "frozen": SourceEntry(resolve_frozen, uses_model=True),
    "code": SourceEntry(resolve_code, uses_model=True),
    "ttft": SourceEntry(resolve_ttft, uses_model=True),
}


def check_sources(names: Sequence[str], defined: Collection[str] = ()) -> None:
    """Refuse a source that is neither in the table nor defined.

    Raises:
        ConfigError: with the names that there are.
    """
    if any(name not in SOURCE_TABLE and name not in defined for name in names):
        raise ConfigError(f"--sources {','.join(names)}: choose from {', '.join(SOURCE_TABLE)}, each once")


def uses_model(kinds: Sequence[str]) -> bool:
    """Whether a source of one of these kinds needs the base model."""
    return any(SOURCE_TABLE[kind].uses_model for kind in kinds)
