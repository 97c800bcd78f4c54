"""Sweeps: one whole run for every combination of seeds, models or settings, and what they come to by setting.

Each point is an `arc-submit run` of its own in a run directory of its own, no other than if it had been begun by hand: one after the other
on this machine, or side by side on the nodes of a Ray cluster. What has ended is not run again, what was cut short goes on. Knows nothing
about what a run does; it reads what one leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.durations import format_duration
from arc_submit.errors import ConfigError, DataError
from arc_submit.options import add_json
from arc_submit.run.config import RunConfig
from arc_submit.run.named_sources import model_devices, source_groups
from arc_submit.run.presets import PRESET_HELP, add_run_options, make_config, make_infer_config, option_values
from arc_submit.run.source_table import uses_model
from arc_submit.storage.run_dir import RunDirectory, RunPaths
from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.pool import Launch
from arc_submit.workers.ray_cluster import find_cluster

SEED = "seed"  # what is averaged over
TRIES = 3  # of a run that ends without a result: its node was lost, it was killed, its disk was full
_PAUSE_SECONDS = 5.0  # between two of them: what killed the first may need to go away, and its directory to be let go of
_LOOK_SECONDS = 0.2
_ENDED = (0, 3)  # exit codes of a run that came to its end, 3 where it answered nothing


@dataclass(frozen=True)
class Point:
    """One run of a sweep or of an experiment.

    Attributes:
        name: of its folder.
        settings: by name, as text; what the sweep goes over.
        arguments: of the command, all but --out.
        command: "run", or "infer", which leaves no score of its own.
    """

    name: str
    settings: dict[str, str]
    arguments: list[str]
    command: str = "run"


def make_points(over: Sequence[str], arguments: Sequence[str]) -> list[Point]:
    """Every combination of the values of some options.

    Args:
        over: "NAME=VALUE,VALUE" each, with an option of `arc-submit run` by its name; "NAME=VALUE|VALUE" where values have commas. An
            option that takes no value is given or left out: "NAME=on,off".
        arguments: of all runs.

    Raises:
        ConfigError: where one of `over` cannot be read or is there twice, or two points would have one folder.
    """
    names, choices = [], []
    for text in over:
        name, sign, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        listed = [value.strip() for value in values.split("|" if "|" in values else ",")]
        if not sign or not name or not all(listed) or len(set(listed)) != len(listed):
            raise ConfigError(f"--over {text}: write NAME=VALUE,VALUE with an option of `arc-submit run`, each value once")
        if name in names or name == "out":
            raise ConfigError(f"--over {text}: {'each run has a folder in --out' if name == 'out' else 'the option is there twice'}")
        names.append(name)
        choices.append(listed)
    points: list[Point] = []
    for values_of_point in itertools.product(*choices):
        settings = dict(zip(names, values_of_point, strict=True))
        options = [word for name, value in settings.items() for word in _option(name, value)]
        folder = ",".join(f"{name}={Path(value).name if '/' in value else value}" for name, value in settings.items())
        points.append(Point(re.sub(r"[^\w.,=+-]", "-", folder) or "run", settings, [*arguments, *options]))
    if len({point.name for point in points}) != len(points):
        raise ConfigError("--over: two points would have the same folder; give values whose last parts differ")
    return points


def read_point_config(point: Point, out: Path) -> RunConfig:
    """The configuration that the command makes of a point's arguments.

    Args:
        out: the folder of the sweep.

    Raises:
        ConfigError: where it cannot work.
    """
    parser = argparse.ArgumentParser(prog=f"arc-submit {point.command}")
    add_run_options(parser, point.command)
    add_json(parser)
    if point.command == "infer":
        return make_infer_config(**option_values(parser.parse_args(["--out", str(out / point.name), *point.arguments])))
    parser.add_argument("--preset", help=PRESET_HELP)
    args = parser.parse_args(["--out", str(out / point.name), *point.arguments])
    return make_config(args.preset, **option_values(args))


def _option(name: str, value: str) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    return {"on": [option], "off": []}.get(value, [option, value])


@dataclass
class _Try:
    """A run in progress: which, for the how manyth time, and when it may begin."""

    point: Point
    number: int = 1
    not_before: float = 0.0
    process: subprocess.Popen[bytes] | None = None


@dataclass
class SweepResult:
    """What came of a sweep.

    Attributes:
        done: by the point's name: settings, figures and seconds of the run.
        failed: reasons by the point's name.
    """

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run_points(
    points: Sequence[Point], directory: RunDirectory, launch: Launch, parallel: int, pause: float = _PAUSE_SECONDS
) -> SweepResult:
    """Run what has not been run, so many at a time, and say so as they end.

    Whatever ends this, no run of it outlives it.

    Args:
        directory: of the sweep; each run's lies in it, and what it prints beside that.
        launch: where a run is started, see arc_submit.workers.pool.
        pause: seconds before a run that ended without a result is tried again.
    """
    result = SweepResult()
    for event in directory.read_events():
        for point in points:
            if event["event"] == "point_done" and event.get("point") == point.name and event.get("arguments") == point.arguments:
                result.done[point.name] = event
    waiting = [_Try(point) for point in points if point.name not in result.done]
    _say(f"{directory.root}: {len(points)} runs, {len(result.done)} of them there already, {parallel} at a time")
    running: list[_Try] = []
    try:
        while waiting or running:
            now = time.monotonic()
            ready = [one for one in waiting if one.not_before <= now][: parallel - len(running)]
            for one in ready:
                waiting.remove(one)
                one.process = _start(one.point, directory.root, launch)
                running.append(one)
                directory.event("point_begun", point=one.point.name, number=one.number)
            for one in [one for one in running if one.process is not None and one.process.poll() is not None]:
                running.remove(one)
                assert one.process is not None
                reason = _end(one, one.process.returncode, directory, result)
                if reason and one.number < TRIES:
                    waiting.append(_Try(one.point, one.number + 1, time.monotonic() + pause))
                    _say(f"{one.point.name}: ended without a result ({reason}); tried again")
                elif reason:
                    result.failed[one.point.name] = reason
                    _say(f"{one.point.name}: given up after {one.number} tries ({reason}); see {directory.root / one.point.name}.log")
            time.sleep(_LOOK_SECONDS)
    finally:
        for one in running:
            if one.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
    return result


def _start(point: Point, out: Path, launch: Launch) -> subprocess.Popen[bytes]:
    arguments = ["-m", "arc_submit.cli", point.command, "--out", str(out / point.name), *point.arguments]
    with (out / f"{point.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *launch(arguments, {})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, PARENT: str(os.getpid())},
        )


def _end(one: _Try, code: int, directory: RunDirectory, result: SweepResult) -> str:
    """Put down what came of a run that has ended; returns why there is nothing, where that is so."""
    point, folder = one.point, directory.root / one.point.name
    if code not in _ENDED:
        ending = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        reason = f"{ending}: {_last_line(folder.with_name(folder.name + '.log'))}"
        directory.event("point_failed", point=point.name, number=one.number, reason=reason)
        return reason
    events = RunPaths(folder).read_events()
    ended = [event for event in events if event["event"] == "run_ended"][-1:]
    try:
        scores = read_json(RunPaths(folder).scores())
    except DataError:
        scores = {}  # the report failed: the run has told why, and its submission is there without it
    told = {name: ended[0].get(name) for name in ("done", "failed", "unfinished")} if ended else {}
    done = {"settings": point.settings, "arguments": point.arguments, "seconds": seconds_of(events), "figures": scores, "run": told}
    directory.event("point_done", point=point.name, **done)
    result.done[point.name] = done
    _say(f"{point.name}: {_summary(done) if point.command == 'run' else format_duration(done['seconds'])}")
    return ""


def seconds_of(events: Sequence[Mapping[str, Any]]) -> float:
    """How long a run was at work, all its calls together, from its timeline."""
    seconds, before = 0.0, None
    for event in events:
        if before is not None and event["event"] != "run_resumed":
            seconds += max(0.0, event["time"] - before)
        before = event["time"]
    return round(seconds, 1)


def _summary(done: Mapping[str, Any]) -> str:
    submission = done["figures"].get("submission")
    score = f"{100 * submission['per_output']:.1f} % of outputs solved" if submission else "no solutions to score it with"
    unfinished = done["run"].get("unfinished")
    short = f", {unfinished} tasks short of the plan" if unfinished else ""
    return f"{score}{short}; {format_duration(done['seconds'])}"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def tabulate(points: Sequence[Point], done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every setting, its seeds taken together: the mean and the standard deviation of its runs' figures.

    Returns:
        setting, runs, unfinished (tasks), and "values": by name a list of mean and deviation, which is None for a single run. Scores are
        shares of outputs: "submission" as Kaggle counts them, "SOURCE vote_2" and "SOURCE pass_n"; "seconds" are of a run.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for point in points:
        if point.name in done:
            setting = tuple((name, value) for name, value in point.settings.items() if name != SEED)
            groups.setdefault(setting, []).append(done[point.name])
    rows = []
    for setting, runs in groups.items():
        collected: dict[str, list[float]] = {}
        for run in runs:
            figures = run["figures"]
            if "submission" in figures:
                collected.setdefault("submission", []).append(figures["submission"]["per_output"])
            for source, row in figures.get("sources", {}).items():
                for name in ("vote_2", "pass_n"):
                    collected.setdefault(f"{source} {name}", []).append(row[name])
            collected.setdefault("seconds", []).append(run["seconds"])
        values = {name: [statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None] for name, v in collected.items()}
        unfinished = sum(run["run"].get("unfinished") or 0 for run in runs)
        rows.append({"setting": dict(setting), "runs": len(runs), "unfinished": unfinished, "values": values})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `tabulate` for people; shares in per cent."""
    columns = list(dict.fromkeys(name for row in rows for name in row["values"]))
    columns = [*(name for name in columns if name != "seconds"), *(["seconds"] if columns else [])]
    lines = [["setting", "runs", *columns]]
    for row in rows:
        setting = " ".join(f"{name}={value}" for name, value in row["setting"].items()) or "all"
        cells = [_cell(row["values"].get(name), 1.0 if name == "seconds" else 100.0) for name in columns]
        lines.append([setting, str(row["runs"]), *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in lines
    )


def _cell(value: Sequence[float | None] | None, factor: float) -> str:
    if value is None or value[0] is None:
        return "-"
    mean, deviation = value[0] * factor, value[1]
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation * factor:.1f}"


def find_launch(executor: str, address: str | None, out: Path, parallel: int | None, configs: Sequence[RunConfig]) -> tuple[Launch, int]:
    """Where runs are started, and how many at a time."""
    if executor == "local":
        return (lambda arguments, _: ["-m", "arc_submit.workers.parent_death", *arguments]), 1
    if any(config.executor == "ray" for config in configs):
        raise ConfigError("--executor ray: for the sweep or for its runs, not for both")
    # The largest of them decides: every run then finds its room wherever it comes.
    used = [_devices(config) for config in configs]
    gpus = max(len(devices - {"cpu"}) for devices in used)
    cpus = max(
        config.threads * (len(devices - {"cpu"}) + (config.workers if "cpu" in devices else 0))
        for config, devices in zip(configs, used, strict=True)
    )
    asking = [group.config for config in configs for group in source_groups(config) if uses_model(group.config.sources)]
    folders = {folder.absolute() for config in asking for folder in (config.model, config.base_adapter) if folder}
    cluster = find_cluster(address, out.absolute(), sorted(folders))
    cluster.check_capacity(parallel or 1, cpus, gpus, "--parallel")
    return cluster.launch(cpus, gpus, Path.cwd()), cluster.capacity(cpus, gpus)


def _devices(config: RunConfig) -> set[str]:
    """The devices of a run; the cpu where no source uses a model."""
    return {device for own in model_devices(config).values() for device in own} or set(config.devices)


def _say(text: str) -> None:
    """Print a line at once; a terminal that has gone away does not end a sweep."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
