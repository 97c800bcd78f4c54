"""`arc-submit sweep`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration
from arc_submit.errors import ConfigError
from arc_submit.options import add_json
from arc_submit.run.sweep import find_launch, make_points, read_point_config, run_points, table, tabulate
from arc_submit.storage.run_dir import open_run
from arc_submit.workers.ray_cluster import EXECUTORS, check_executor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit sweep`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the sweep; each run has its run directory in it; a sweep begun there goes on")
    add(
        "--over",
        action="append",
        required=True,
        metavar="NAME=VALUE,VALUE",
        help="an option of `arc-submit run` and its values (VALUE|VALUE where they have commas; on,off where it has none)",
    )
    add(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="runs one after the other here, or side by side on the nodes of a Ray cluster",
    )
    add("--ray-address", metavar="HOST:PORT", help="of that cluster (default: RAY_ADDRESS, else the one that this machine has joined)")
    add("--parallel", type=int, metavar="N", help="runs at a time (default: 1, on a cluster as many as it has room for)")
    add_json(parser)
    add("arguments", nargs="*", metavar="-- ARGUMENTS", help="of `arc-submit run`, for all runs")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run every point that has not been run; returns figures."""
    check_executor(args.executor, args.ray_address)
    if args.parallel is not None and args.parallel < 1:
        raise ConfigError(f"--parallel {args.parallel}: at least 1 is needed")
    points = make_points(args.over, args.arguments)
    # All are read before the first is run: a slip in the last value is not to be found after hours.
    configs = [read_point_config(point, args.out) for point in points]
    if args.executor == "ray":
        args.out = args.out.absolute()  # a worker on another node has another current folder
    launch, parallel = find_launch(args.executor, args.ray_address, args.out, args.parallel, configs)
    began = time.monotonic()
    with open_run(args.out, {"command": "sweep"}) as directory:
        result = run_points(points, directory, launch, args.parallel or parallel)
        rows = tabulate(points, result.done)
        text = table(rows)
        (args.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    unfinished = sum(row["unfinished"] for row in rows)
    if unfinished:
        print(f"{unfinished} tasks of these runs are short of the plan, their time was up: the settings had not the same")
    for name, reason in result.failed.items():
        print(f"{name}: failed ({reason})")
    seconds = time.monotonic() - began
    print(f"{args.out / 'table.txt'}: {len(result.done)} of {len(points)} runs; {format_duration(seconds)}")
    return {"points": len(points), "done": len(result.done), "failed": len(result.failed), "settings": rows, "seconds": round(seconds, 1)}
