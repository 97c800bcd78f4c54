"""Findings: what a check says of a file, with the place and the remedy. Knows nothing about what is checked."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from arc_submit.errors import ConfigError


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: "error": it would be refused, or be done otherwise in silence; "warning": it may be meant.
        file: the file.
        place: where in it: a field, a cell, a file of a folder.
        problem: what is wrong.
        remedy: what to do.
    """

    severity: Literal["error", "warning"]
    file: str
    place: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.place}: {self.problem}; {self.remedy}"


def read_object(path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """A JSON object, empty where the file holds none, and what is wrong with it as JSON."""

    def wrong(place: str, problem: str, remedy: str) -> Finding:
        return Finding("error", path.name, place, problem, remedy)

    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=build)
    except OSError as error:
        return {}, [wrong("file", f"cannot be read ({error.strerror})", f"put it into {path.parent}")]
    except (ValueError, RecursionError) as error:
        return {}, [wrong("file", f"not JSON ({error})", "correct it there")]
    if not isinstance(value, dict):
        return {}, [wrong("file", "not a JSON object", "write fields between { and }")]
    return value, [wrong(name, "is given twice, and the last one wins", "keep one") for name in repeated]


def unknown_fields(file: str, value: Collection[str], known: Collection[str]) -> list[Finding]:
    """A finding for each field that the client would pass over in silence."""
    findings = []
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean {close[0]}?" if close else "take it out"
            findings.append(Finding("error", file, name, "no such field, the client ignores it in silence", remedy))
    return findings


def add_despite(parser: argparse.ArgumentParser) -> None:
    """The option for the day on which Kaggle has changed a rule that a check still holds."""
    parser.add_argument("--despite", default="", metavar="PLACE,PLACE", help="go on although errors were found at these places")


def refuse_errors(findings: Iterable[Finding], what: str, despite: str = "") -> dict[str, Any]:
    """Print findings, errors first, and refuse to go on where one is an error; returns their figures.

    Args:
        what: what is left undone, such as "nothing was pushed".
        despite: places, separated by commas, whose errors do not count.

    Raises:
        ConfigError: with the figures, where there is an error.
    """
    ordered = sorted(findings, key=lambda finding: finding.severity)
    for finding in ordered:
        print(finding)
    passed = set(despite.split(","))
    errors = [finding for finding in ordered if finding.severity == "error" and finding.place not in passed]
    figures = {
        "errors": len(errors),
        "warnings": sum(finding.severity == "warning" for finding in ordered),
        "findings": [asdict(finding) for finding in ordered],
    }
    if errors:
        places = ", ".join(dict.fromkeys(finding.place for finding in errors))
        raise ConfigError(f"{len(errors)} error{'s' * (len(errors) > 1)} ({places}): {what}", figures)
    return figures
