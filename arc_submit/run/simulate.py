"""`arc-submit simulate`: how runs of a preset on some devices would use their hours, and where the time would go.

Two uses. Many runs with made-up tasks and faults, before a session on hardware that is not at hand: are they in time, is the submission
valid, are the devices busy, how far do the tasks come. And one run that was calibrated by another (`--like`): how long the real one will
take. The decisions are those of a run (arc_submit.scheduling.simulation); here are the set-up, the figures and what is printed.
"""

from __future__ import annotations

import copy
import math
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.submission import Submission, read_submission
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.memory import CARDS
from arc_submit.durations import format_duration
from arc_submit.ensemble.judgements import QUESTIONS
from arc_submit.errors import DataError
from arc_submit.run.code_cards import CardGroups, cards_by_size
from arc_submit.run.config import ALONE, EQUAL, RunConfig
from arc_submit.run.definitions import GivenSource
from arc_submit.run.host import Host, allocate_workers, estimate_costs, local_resources
from arc_submit.run.named_sources import lane_devices, source_config, source_groups, source_lanes
from arc_submit.run.presets import make_config, source_options
from arc_submit.run.source import JUDGE, MODEL_LANE, Scale, Source, SourceSetup, model_timeouts, task_size
from arc_submit.run.source_judge import judge_config
from arc_submit.run.source_table import SOURCE_TABLE
from arc_submit.scheduling.chances import SolveChances
from arc_submit.scheduling.costs import (
    RESIDENT_OVERHEAD,
    CostModel,
    LinearCost,
    TaskSize,
    initial_costs,
    judging_costs,
    learn_from_events,
)
from arc_submit.scheduling.simulated_run import Faults, SimulatedOutcome, SimulatedSource, SimulationSetup, SubmissionCheck
from arc_submit.scheduling.simulation import simulate_run
from arc_submit.storage.run_dir import RunPaths

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


@dataclass(frozen=True)
class Rig:
    """Devices that need not exist, and a model on them.

    Attributes:
        count, kind: how many devices of which kind, one of costs.INITIAL_RATES.
        parameters: of the model.
        overhead: seconds of each task beside its work, in fine-tuning and again in inference.
        start_seconds: seconds that a worker takes to get ready.
        faults: factor of how often faults come.
        own_parameters: of the models of sources that have another one, by the source's name.
    """

    count: int
    kind: str
    parameters: float
    overhead: float = RESIDENT_OVERHEAD
    start_seconds: float = 40.0
    faults: float = 1.0
    own_parameters: Mapping[str, float] = field(default_factory=dict)


def rig_setup(config: RunConfig, rig: Rig, tasks: int, worth: SolveChances | None = None, allocation: str | None = None) -> SimulationSetup:
    """A run of a preset on a rig, with made-up tasks. The search is left out: it does not use the devices.

    Args:
        tasks: how many.
        worth: the chances of solving by which a run's levels are counted, and by which it divides its time with --allocation gain or alone.
        allocation: one of ALLOCATIONS; None as the configuration says.
    """
    allocation = allocation or config.allocation
    drawn = random.Random(config.seed)
    sizes = {}
    for number in range(tasks):
        cells = drawn.lognormvariate(*CELLS)
        train_len, prompt_len = config.ttft_max_seq_len or config.max_seq_len or 5120, config.max_seq_len or 5120
        sizes[f"task{number:03d}"] = TaskSize(min(cells, train_len) / 1000, min(cells, prompt_len) / 1000)
    lanes: dict[str, list[SimulatedSource]] = {}
    names = tuple(name for name in config.sources if config.kind_of(name) != "search")
    config = replace(config, sources=names, definitions={name: one for name, one in config.definitions.items() if name in names})

    def parameters(name: str) -> float:
        return rig.own_parameters.get(name, rig.parameters)

    def cards(name: str) -> CardGroups:
        given = (source_config(config, name) if name in config.definitions else config).code.cards
        return CardGroups(cards=given or cards_by_size(parameters(name), CARDS.get(rig.kind.lower()), rig.count))

    for source in _sources(config, lambda name: initial_costs(rig.kind, parameters(name), rig.overhead), cards):
        costs = partial(copy.deepcopy, source.scale.costs)
        simulated = _simulated(source, costs, costs(), rig.start_seconds)
        lanes.setdefault(source.lane, []).append(
            replace(simulated, chances=worth if source.trains and allocation != EQUAL else None, alone=allocation == ALONE)
        )
    devices = {lane: len(own) for lane, own in lane_devices(config).items()}
    workers = devices if len(devices) > 1 else {MODEL_LANE: rig.count}
    costs = partial(initial_costs, rig.kind, rig.parameters, rig.overhead)
    return SimulationSetup(
        sizes,
        lanes,
        lambda running: workers,
        workers[MODEL_LANE],
        config.budget,
        config.reserve,
        faults=Faults().scaled(rig.faults),
        worth=worth,
        judge=_simulated_judge(config, costs, None, rig.start_seconds),
        judge_seconds=config.judge_seconds,
    )


def _simulated_judge(
    config: RunConfig, initial: Callable[[], CostModel], measured: CostModel | None, start_seconds: float
) -> SimulatedSource | None:
    """The judge of a simulated run; None where the method needs none.

    Args:
        measured: what its work cost in a run; None estimates that.
    """
    if not config.judges:
        return None
    costs = measured or judging_costs(initial(), QUESTIONS[config.method], config.judge.candidates)
    timeouts = model_timeouts(judge_config(config))
    return SimulatedSource(JUDGE, None, initial, costs, 1, start_seconds, timeouts, views=config.judge.views)


def like_setup(run: Path, config: RunConfig, tasks: Mapping[str, Task]) -> SimulationSetup:
    """A run of these tasks as it would go where `run` went.

    Raises:
        DataError: where the timeline of `run` does not hold enough.
    """
    paths = RunPaths(run)
    events, known = _events(paths), paths.read_tasks()
    lanes: dict[str, list[SimulatedSource]] = {}
    models = []
    sizes: dict[str, TaskSize] = {}

    def of_source(name: str) -> CostModel:
        return _first_estimate(source_config(config, name) if name in config.definitions else config)

    def cards(name: str) -> CardGroups:
        begun = [event.get("cards", 1) for event in events if event["event"] == "source_begun" and event.get("source") == name]
        return CardGroups(cards=begun[-1] if begun else 1)

    for source in _sources(config, of_source, cards):
        own = source_config(config, source.owner) if source.owner in config.definitions else config
        prompt_len, train_len = sequence_lengths(own)
        # The estimate that a run begins with: it has not seen the calibration.
        initial = partial(copy.deepcopy, source.scale.costs)
        then, sizes = ({i: task_size(task, source.trains, train_len, prompt_len) for i, task in those.items()} for those in (known, tasks))
        costs = initial()
        if source.ladder:
            learn_from_events(costs, events, source.name, then)
        else:
            costs = CostModel(LinearCost(0.0, 0.0), _jobs_line(events, source.name, then))
        if not costs.measured_jobs:
            raise DataError(f"{paths.events_file}: no job of source {source.name} is done in it; run it first, on a few tasks")
        models.append(costs)
        simulated = _simulated(source, initial, costs, _start_seconds(events, source.name))
        lanes.setdefault(source.lane, []).append(replace(simulated, sizes=sizes))
    judged, initial = None, partial(_first_estimate, config)
    if config.judges:
        prompt_len, train_len = sequence_lengths(config)
        then, sizes = ({i: task_size(task, False, train_len, prompt_len) for i, task in those.items()} for those in (known, tasks))
        judged = initial()
        learn_from_events(judged, events, JUDGE, then)
        if not judged.measured_jobs:
            raise DataError(f"{paths.events_file}: no job of the judge is done in it; run it first with --method, on a few tasks")
        models.append(judged)
    judge = _simulated_judge(config, initial, judged, _start_seconds(events, JUDGE))
    cores, memory = local_resources()
    host = Host(config.devices, config.workers, config.threads, config.search_memory, lanes=lane_devices(config))

    def workers(running: Sequence[str]) -> Mapping[str, int]:
        return allocate_workers(host, running, cores, memory)[0]

    return SimulationSetup(
        sizes,
        lanes,
        workers,
        workers(list(lanes)).get(MODEL_LANE, 1),
        config.budget,
        config.reserve,
        # The calibration is wrong as a whole by the error of the mean of its jobs, of which a source may have few.
        cost_log_std=statistics.mean(costs.rel_std / math.sqrt(costs.measured_jobs) for costs in models),
        speed_log_std=0.0,
        job_log_std=statistics.mean(costs.rel_std for costs in models),
        faults=Faults(**dict.fromkeys(vars(Faults()), 0.0)),
        judge=None if judge is None else replace(judge, sizes=sizes),
        judge_seconds=config.judge_seconds,
    )


def _first_estimate(config: RunConfig) -> CostModel:
    return estimate_costs(config.model, config.devices)[0]


def _sources(config: RunConfig, costs_of: Callable[[str], CostModel], cards_of: Callable[[str], CardGroups]) -> list[Source]:
    """The sources that answer, as a run has them.

    Args:
        costs_of: first estimate of a prediction and a step with the model of a source, by its name.
        cards_of: devices of each worker of a source code, by its name.
    """
    lanes, found = source_lanes(config), []
    for group in source_groups(config):
        for name, kind in group.kinds.items():
            scale = Scale(costs_of(name))
            cards = cards_of(name) if kind == "code" else CardGroups()
            lane = lanes.get(name, MODEL_LANE)
            setup = SourceSetup(name, kind, group.config, RunPaths(config.out), scale=scale, lane=lane, cards=cards)
            share = config.definitions[name].share if name in config.definitions else None
            found += [replace(one, owner=name, share=share) for one in SOURCE_TABLE[kind].resolve(setup) if one.name == name]
    return sorted(found, key=lambda source: list(SOURCE_TABLE).index(source.source_kind))


def _simulated(source: Source, initial: Callable[[], CostModel], costs: CostModel, start_seconds: float) -> SimulatedSource:
    return SimulatedSource(
        source.name,
        source.ladder,
        initial,
        costs,
        source.tasks_per_job,
        start_seconds,
        source.backends[0].timeouts,
        owner=source.owner,
        share=source.share,
        cards=source.cards.cards,
    )


def _jobs_line(events: Sequence[Mapping[str, Any]], name: str, sizes: Mapping[str, TaskSize]) -> LinearCost:
    """Seconds of the search, all passes of a task together, over the tasks' size."""
    seconds: dict[tuple[str, ...], float] = {}
    for event in events:
        if event["event"] == "worker_done" and event.get("source") == name and set(event["tasks"]) <= set(sizes):
            tasks = tuple(event["tasks"])
            seconds[tasks] = seconds.get(tasks, 0.0) + event["seconds"]
    line = LinearCost(0.0, 1.0)
    for tasks, taken in seconds.items():
        line.observe(sum(sizes[task].predict * sizes[task].outputs for task in tasks), taken)
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


def _events(paths: RunPaths) -> list[dict[str, Any]]:
    """The timeline of a run.

    Raises:
        DataError: where there is none.
    """
    events = paths.read_events()
    if not events:
        raise DataError(f"{paths.events_file}: holds no events; name a run directory")
    return events


def sequence_lengths(config: RunConfig) -> tuple[int, int]:
    """Tokens of a prompt with its answer, and of a sample, at most."""
    # A run that is looked back at has its length in its configuration; its model need not lie here.
    prompt_len = config.max_seq_len or config.prompt_config().max_seq_len
    return prompt_len, config.ttft_max_seq_len or prompt_len


_COMPARABLE = (
    *("sources", "views", "ttft_views", "ttft_steps", "ttft_max_seq_len", "ttft_candidates"),
    *("search_effort", "max_seq_len", "grid_encoder", "prompt"),
    *("code_samples", "code_turns", "code_refined", "code_tokens", "code_thinking", "code_learn_rounds"),
)


def like_config(run: Path, **changes: Any) -> RunConfig:
    """The configuration of a run that was done, as far as it decides how long one takes.

    Raises:
        DataError: where the directory holds no run.
    """
    fingerprint = RunPaths(run).read_config() or {}
    if not isinstance(fingerprint.get("sources"), list):
        raise DataError(f"{RunPaths(run).config}: not the configuration of a run; name a run directory")
    # A run without a search of answers does not name it; the model that stands in for the run's may ask for one.
    plain = {"ttft_candidates": "views"}
    values = plain | {name: fingerprint[name] for name in _COMPARABLE if fingerprint.get(name) is not None}
    kinds = {name: fingerprint[f"{name}.kind"] for name in fingerprint["sources"] if f"{name}.kind" in fingerprint}
    given = []
    for name, kind in kinds.items():
        known = plain | {one: fingerprint[f"{name}.{one}"] for one in _COMPARABLE if fingerprint.get(f"{name}.{one}") is not None}
        given.append(GivenSource(name, kind, {one: value for one, value in known.items() if one in source_options(kind)}, str(run)).text)
    config = make_config(out=run, **{**values, **({"source": given} if given else {}), **changes})
    definitions = {
        name: replace(one, values={**one.values, **_left_open(fingerprint, f"{name}.")}) for name, one in config.definitions.items()
    }
    return replace(config, definitions=definitions, **{k: v for k, v in _left_open(fingerprint).items() if k not in changes})


def _left_open(fingerprint: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options that a run, or a source of it, has without a value: those of the preset that stands in for the run's are not its own."""
    own = {one.name for one in fields(RunConfig)}
    return {name: None for name in _COMPARABLE if name in own and fingerprint.get(prefix + name, 0) is None}


def ends_of(run: Path) -> dict[str, float]:
    """Seconds from a real run's first event until each source ended, and until the submission was final ("run").

    Raises:
        DataError: where it cannot be read.
    """
    events = _events(RunPaths(run))
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
        "solved": {source: round(statistics.mean(o.solved[source] for o in outcomes), 3) for source in outcomes[0].solved}
        if setup.worth
        else {},
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
    for source, solved in figures["solved"].items():
        lines.append(f"outputs that {source} is expected to solve and the search does not: {solved:.2f} of {figures['tasks']}")
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
