"""Findings: the problems that a check reports, each with its file, place and remedy. Does not know the checks."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from arc_submit.arc.files import has_byte_order_mark, read_json_with_repeats
from arc_submit.errors import ConfigError, DataError


@dataclass(frozen=True)
class Finding:
    """A problem in a file.

    Attributes:
        severity: "error" where Kaggle refuses it or silently does something else; "warning" where it may be intended.
        file: name of the file.
        place: a field, a cell or a file of a folder; --ignore takes this name.
        problem: the fault.
        remedy: how to correct it.
    """

    severity: Literal["error", "warning"]
    file: str
    place: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.place}: {self.problem}; {self.remedy}"


def read_json_object(path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Read a JSON object; returns it (empty where the file holds none) and the findings about its JSON."""
    error = partial(Finding, "error", path.name)
    try:
        value, repeated = read_json_with_repeats(path)
    except DataError as failure:
        problem, _, remedy = str(failure).removeprefix(f"{path}: ").partition("; ")
        return {}, [error("file", problem, remedy or "correct it")]
    if not isinstance(value, dict):
        return {}, [error("file", "not a JSON object", "write fields between { and }")]
    findings = [error(name, "is given twice; only the last value counts", "keep one") for name in value if name in repeated]
    if has_byte_order_mark(path):
        findings.append(error("file", "begins with a byte order mark, which the client does not read", "save it as UTF-8 without one"))
    return value, findings


def unknown_fields(file: str, names: Collection[str], known: Collection[str]) -> list[Finding]:
    """A finding for each field name that the client does not know."""
    findings = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean {close[0]}?" if close else "remove it"
            findings.append(Finding("error", file, name, "no such field; the client silently ignores it", remedy))
    return findings


def add_ignore_option(parser: argparse.ArgumentParser) -> None:
    """Add --ignore, for a rule that Kaggle has changed and a check still applies."""
    help = "continue although there are errors at these places"
    parser.add_argument("--ignore", "--despite", dest="ignore", default="", metavar="PLACE,PLACE", help=help)


def raise_on_errors(findings: Iterable[Finding], consequence: str, ignored: str = "", printed: Collection[Finding] = ()) -> dict[str, Any]:
    """Print findings, errors first, and raise if one is an error; returns their figures.

    Args:
        consequence: how the message of the exception ends, such as "nothing was pushed".
        ignored: places, separated by commas, whose errors do not count.
        printed: findings of an earlier call, which are counted and not printed again.

    Raises:
        ConfigError: with the figures, if there is an error.
    """
    ordered = sorted([*printed, *findings], key=lambda finding: finding.severity)
    for finding in ordered:
        if finding not in printed:
            print(finding)
    errors = [finding for finding in ordered if finding.severity == "error" and finding.place not in ignored.split(",")]
    figures = {
        "errors": len(errors),
        "warnings": sum(finding.severity == "warning" for finding in ordered),
        "findings": [asdict(finding) for finding in ordered],
    }
    if errors:
        places = ", ".join(dict.fromkeys(finding.place for finding in errors))
        raise ConfigError(f"{len(errors)} error{'s' * (len(errors) > 1)} ({places}): {consequence}", figures)
    return figures
