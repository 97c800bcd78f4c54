"""The timeline of a run: which worker worked on which tasks when, and where it waited.

Computed from the run's events alone. The time between the end of a run and its resumption is cut out. Does not know what a job does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.pictures import save_picture

# Colours that colour-blind people can tell apart (Okabe and Ito, 2008).
COLOURS = {
    "search": "#0072b2",
    "frozen": "#56b4e9",
    "code": "#d55e00",
    "warmup": "#f0e442",
    "ttft": "#009e73",
    "finetune": "#009e73",
    "judge": "#cc79a7",
}
_MORE = ("#e69f00", "#7b3294", "#000000", "#8c510a", "#5ab4ac", "#fdb863")  # of sources with names of their own, in turn
_OTHER, _LOST, _LOADING = "#999999", "#d55e00", "#dddddd"


def colours_of(sources: Iterable[str]) -> dict[str, str]:
    """The colour of each source; what prepares a source, such as "ttft15.warmup", has the source's."""
    owners = dict.fromkeys(source.partition(".")[0] for source in sources)
    others = [owner for owner in owners if owner and owner not in COLOURS]
    own = COLOURS | {owner: _MORE[number] if number < len(_MORE) else _OTHER for number, owner in enumerate(others)}
    return {source: own.get(source.partition(".")[0], _OTHER) for source in sources}


@dataclass(frozen=True)
class Bar:
    """One job of a worker.

    Attributes:
        worker: the row of the bar: a worker of the search or of the model, for all sources of the model. The job of a worker with several
            devices is in several rows.
        source: the source of the job.
        tasks: ids of the job's tasks.
        begin, end: seconds since the run's first start, without pauses.
        kind: "done"; "lost" with its worker; "cut" where the run itself ended; "loading" before a worker was ready.
    """

    worker: str
    source: str
    tasks: tuple[str, ...]
    begin: float
    end: float
    kind: str


@dataclass(frozen=True)
class Timeline:
    """A run's bars and marks.

    Attributes:
        bars: in the order of their ends.
        length: seconds from the first start to the last end, without pauses.
        resumed: for each resumption its time and the length of the pause before it, in seconds.
    """

    bars: list[Bar]
    length: float
    resumed: list[tuple[float, float]]

    def busy(self) -> dict[str, float]:
        """The share of the run that each worker spent on jobs, lost ones included."""
        workers = sorted({bar.worker for bar in self.bars})
        spent = {worker: sum(b.end - b.begin for b in self.bars if b.worker == worker and b.kind != "loading") for worker in workers}
        return {worker: spent[worker] / self.length if self.length else 0.0 for worker in workers}


def read_timeline(events: Sequence[Mapping[str, Any]]) -> Timeline:
    """The bars in a run's events."""
    bars: list[Bar] = []
    resumed: list[tuple[float, float]] = []
    offset = events[0]["time"] if events else 0.0  # seconds since the epoch at the run's start, plus all pauses
    now = 0.0
    open_jobs: dict[tuple[str, int], Bar] = {}  # by source and worker
    lanes: dict[str, str] = {}  # of sources whose lane the name does not tell
    cards: dict[str, int] = {}  # of sources whose workers have several devices each

    def close(key: tuple[str, int], kind: str) -> None:
        bar, held = open_jobs.pop(key), cards.get(key[0], 1)
        lane = bar.worker.rpartition(" ")[0]
        bars.extend(replace(bar, worker=f"{lane} {held * key[1] + i}", end=now, kind=bar.kind or kind) for i in range(held))

    for number, event in enumerate(events):
        kind = event["event"]
        if kind == "recombined":
            continue
        if kind == "run_resumed":
            this_start = itertools.takewhile(lambda later: later["event"] != "run_resumed", events[number + 1 :])
            if not any("worker" in later for later in this_start):  # a command that only read the run, or changed its submission
                continue
            for key in list(open_jobs):
                close(key, "cut")
            pause = max(0.0, event["time"] - offset - now)
            offset += pause
            resumed.append((now, pause))
        now = max(now, event["time"] - offset)  # the clock may have been set back
        if kind == "source_begun" and isinstance(event.get("lane"), str):
            lanes[str(event.get("source", ""))] = event["lane"]
        if kind == "source_begun":
            cards[str(event.get("source", ""))] = event["cards"] if isinstance(event.get("cards"), int) else 1
        if not isinstance(event.get("worker"), int):
            continue
        if kind == "worker_deadline":  # the workers of a source end here, and another one may follow
            for key in [key for key in open_jobs if key[0] == event.get("source")]:
                close(key, "cut")
            continue
        key = str(event.get("source", "")), event["worker"]
        if kind in ("worker_started", "worker_begun"):
            if key in open_jobs:
                close(key, "lost")
            row = f"{lanes.get(key[0], 'search' if key[0] == 'search' else 'model')} {key[1]}"
            tasks = tuple(map(str, event.get("tasks", ())))
            open_jobs[key] = Bar(row, key[0], tasks, now, now, "loading" if kind == "worker_started" else "")
        elif key in open_jobs and kind in ("worker_ready", "task_done", "task_failed", "worker_lost", "worker_retired"):
            close(key, "lost" if kind in ("worker_lost", "worker_retired") else "done")
    for key in list(open_jobs):
        close(key, "cut")
    return Timeline([bar for bar in bars if bar.end > bar.begin], now, resumed)


def plot_timeline(path: Path, events: Sequence[Mapping[str, Any]]) -> Path:
    """A PNG file with a row for each worker and a bar for each job in the colour of its source; blank is waiting."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    timeline = read_timeline(events)
    busy = timeline.busy()
    colours = colours_of(dict.fromkeys(bar.source for bar in timeline.bars))
    unit, name = (60.0, "minutes") if timeline.length < 3 * 3600 else (3600.0, "hours")
    figure = Figure(figsize=(9, 1.3 + 0.34 * max(1, len(busy))), layout="constrained")
    axis = figure.subplots()
    for row, worker in enumerate(busy):
        for bar in (bar for bar in timeline.bars if bar.worker == worker):
            colour = _LOADING if bar.kind == "loading" else _LOST if bar.kind == "lost" else colours[bar.source]
            width = bar.end - bar.begin
            # A thin line between neighbouring bars, where the bar is wide enough to show it.
            edge = 0.6 if width > timeline.length / 300 else 0.0
            hatch = "////" if bar.kind == "cut" else None
            axis.barh(row, width / unit, left=bar.begin / unit, height=0.7, color=colour, edgecolor="white", linewidth=edge, hatch=hatch)
    for at, _ in timeline.resumed:
        axis.axvline(at / unit, color="black", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(busy)), labels=[f"{worker}  ({100 * share:.0f} % busy)" for worker, share in busy.items()])
    axis.set_ylim(len(busy) - 0.4, -0.6)
    axis.set_xlim(0, max(timeline.length / unit, 1e-6))
    axis.set_xlabel(f"{name} since the run's start" + (f", {len(timeline.resumed)} pauses left out (dotted)" if timeline.resumed else ""))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    sources = sorted({bar.source for bar in timeline.bars if bar.kind != "loading"})
    handles = [Patch(color=colours[source], label=source or "job") for source in sources]
    kinds = {bar.kind for bar in timeline.bars}
    handles += [Patch(color=c, label=k) for k, c in (("loading", _LOADING), ("lost", _LOST)) if k in kinds]
    figure.legend(handles=handles, loc="outside upper right", ncols=6, fontsize=8, frameon=False)
    return save_picture(figure, path, dpi=110)
