"""Compares the leaderboard scores of a season: which differences are within the noise of reruns, and which two entries to pick.

A notebook that runs again gets another score: reports of competitors have 1 to 3.5 points. Takes entries; does not know Kaggle or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

NOISE = (1.0, 3.5)  # points between two runs of one notebook, by reports
# Two entries with the same of these make mostly the same errors, whatever their seeds, budgets and commits.
_ANSWERING = ("preset", "model", "model_config", "base_adapter", "sources", "method", "weights")
_SOURCES = ("model_sources", "dataset_sources", "kernel_sources")
_NO_SETTINGS = ("out", "tasks", "budget", "seed")  # parameters that do not make another entry of a rerun


@dataclass(frozen=True)
class Entry:
    """A version of a kernel, with one of its submissions where it has any.

    Attributes:
        time: of the push, or of the submission where the push is not known (ISO, UTC).
        kernel: owner/slug; empty for a submission from elsewhere.
        version: of the kernel.
        settings: the push's record; empty where it is not known.
        local: points of a dry run, the mean over tasks.
        score: points of the leaderboard.
        state: of the submission, or its description where its push is not known.
    """

    time: str
    kernel: str
    version: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    local: float | None = None
    score: float | None = None
    state: str = ""

    @property
    def name(self) -> str:
        return f"{self.kernel} version {self.version}" if self.kernel else self.state or "a submission from elsewhere"


@dataclass(frozen=True)
class Pick:
    """An entry that is proposed, and why."""

    entry: Entry
    reason: str


def verdict(difference: float) -> str:
    """Whether a difference of two scores (points) means more than a rerun does."""
    return "within noise" if abs(difference) <= NOISE[1] else "more than noise"


def own_noise(entries: Sequence[Entry]) -> tuple[int, float]:
    """The number of pairs of scored entries with the same notebook and settings, and their largest difference in points."""
    known = [(_settings(entry), entry.score) for entry in entries if entry.settings and entry.score is not None]
    differences = [abs(one - other) for (first, one), (second, other) in combinations(known, 2) if first == second]
    return len(differences), max(differences, default=0.0)


def propose_picks(entries: Sequence[Entry]) -> list[Pick]:
    """At most two picks: the best score, and the best one with other settings if it is within noise, else the best dry run or score.

    The hidden tasks that decide are others than the leaderboard's, and a second pick with the first one's errors adds little to it.
    """
    scored = sorted((entry for entry in entries if entry.score is not None), key=_rank)
    if not scored:
        return []
    best = scored[0]
    picks = [Pick(best, f"the best leaderboard score, {best.score:.2f}")]
    others = [entry for entry in scored[1:] if entry.settings and _answering(entry) != _answering(best)]
    near = [entry for entry in others if verdict(_points(best) - _points(entry)) == "within noise"]
    if near:
        second = near[0]
        what = ", ".join(_different_names(best, second))
        reason = f"the best with other settings ({what}), {second.score:.2f}: within noise of the first, and likely to err elsewhere"
        return [*picks, Pick(second, reason)]
    local = [entry for entry in scored[1:] if entry.local is not None and entry.local > (best.local or 0.0)]
    if local and best.local is not None:
        second = max(local, key=lambda entry: entry.local or 0.0)
        reason = f"the best dry run, {second.local:.2f}: no entry with other settings is within noise of the first"
        return [*picks, Pick(second, reason)]
    if scored[1:]:
        reason = f"the next best leaderboard score, {scored[1].score:.2f}: no entry with other settings is within noise of the first"
        picks.append(Pick(scored[1], reason))
    return picks


def _points(entry: Entry) -> float:
    return entry.score if entry.score is not None else 0.0


def _rank(entry: Entry) -> tuple[float, float, str]:
    """Best first: by score, then by dry run, then the earlier one."""
    return -_points(entry), -(entry.local or 0.0), entry.time


def _answering(entry: Entry) -> dict[str, Any]:
    parameters = entry.settings.get("parameters", {})
    return {name: parameters.get(name) for name in _ANSWERING} | {name: entry.settings.get(name) for name in _SOURCES}


def _different_names(one: Entry, other: Entry) -> list[str]:
    first, second = _answering(one), _answering(other)
    return [name for name in first if first[name] != second[name]]


def _settings(entry: Entry) -> dict[str, Any]:
    """What two runs of the same have in common."""
    parameters = {name: value for name, value in entry.settings.get("parameters", {}).items() if name not in _NO_SETTINGS}
    names = ("code_file", "accelerator", "bundle_commit", *_SOURCES)
    return {"parameters": parameters, **{name: entry.settings.get(name) for name in names}}
