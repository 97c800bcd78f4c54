"""`arc-submit search`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from arc_submit.options import add_json
from arc_submit.run.presets import SEARCH_DEFAULTS, add_run_options, make_search_config, option_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the search alone."""
    add_run_options(parser, "search", SEARCH_DEFAULTS)
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Search every task; returns figures."""
    from arc_submit.run.pipeline import search

    started = time.monotonic()
    reports = search(make_search_config(**option_values(args)))
    figures = {
        "tasks": len(reports),
        "answered": sum(report.answers > 0 for report in reports),
        "cut": sum(report.ending != "done" for report in reports),
        "cpu_seconds": round(sum(report.cpu_seconds for report in reports), 1),
        "seconds": round(time.monotonic() - started, 1),
        "submission": str(args.out / "submission.json"),
    }
    print(f"{figures['answered']} of {figures['tasks']} tasks answered, {figures['cut']} cut by a limit; {figures['submission']}")
    return figures
