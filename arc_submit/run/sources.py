"""The sources of predictions as a run sees them: what each one's workers are told, how far its tasks can come, what that is taken to
cost at first, and how a machine is divided among sources.

Sources that use different things go on side by side: the search on CPU cores, the model on its devices. Those that share the devices go
one after the other, the frozen model first: it answers everything within minutes, before fine-tuning takes the hours. Knows nothing
about how a source makes predictions; a worker loads that itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.task import Task
from arc_submit.finetune.settings import WARMUP_ADAPTER, FinetuneSettings
from arc_submit.inference.settings import PredictSettings
from arc_submit.run.adapter_budget import AdapterBudget
from arc_submit.run.config import RunConfig
from arc_submit.scheduling.costs import INITIAL_RATES, CostModel, TaskSize, initial_costs
from arc_submit.scheduling.scheduler import Ladder, make_ladder
from arc_submit.workers.devices import visible_device, worker_device, worker_environment
from arc_submit.workers.pool import Backend
from arc_submit.workers.supervisor import Timeouts

ENGINES_OF = {"transformers": ("transformers",), "vllm": ("vllm", "transformers")}  # in the order in which they are tried
LANES = {"search": ("search",), "model": ("frozen", "warmup", "finetune", "ttft")}  # what runs side by side, and in each the order


@dataclass(frozen=True)
class Source:
    """How a source is run.

    Attributes:
        name: as in the predictions.
        entry: what its workers load, see arc_submit.workers.worker.
        settings: what the worker of a number is told.
        environment: the variables that it gets.
        limits: how long what may take its workers.
        group: tasks in one job.
        ladder: how far its tasks can come, for the scheduler; None for a source whose work is not cut to measure: smaller tasks first.
        keeps: what a task has learnt stays, so that further views of it need no fine-tuning.
        behind: other ways, tried one after the other for what the one before gives up.
    """

    name: str
    entry: str
    settings: Callable[[int], dict[str, Any]]
    environment: Callable[[int], dict[str, str]]
    limits: Timeouts
    group: int
    ladder: Ladder | None = None
    keeps: bool = True
    behind: tuple[Backend, ...] = ()

    @property
    def stages(self) -> list[Backend]:
        """All ways to do the work, the first first."""
        return [Backend(self.name, self.entry, self.settings, self.limits), *self.behind]


def make_source(name: str, run: Path, config: RunConfig, room: AdapterBudget | None = None) -> Source:
    """The source of that name for the run in a directory; "finetune" is ttft without its predictions, "warmup" what may come before.

    Args:
        room: for adapters; None keeps them all.
    """
    room = room or AdapterBudget(None, True, "")
    if name == "search":
        # It beats only when it has answers, so it may be silent for longer.
        told = {"run": str(run), "effort": config.search_effort, "memory_gb": config.search_memory}
        limits = Timeouts(startup_timeout=config.start, heartbeat_timeout=max(config.silence, 300.0))
        return Source(
            name, "arc_submit.search.search_worker:open_worker", lambda _: told, lambda _: worker_environment(1, "cpu"), limits, 1
        )
    limits = Timeouts(startup_timeout=config.start, heartbeat_timeout=config.silence)

    def environment(number: int) -> dict[str, str]:
        return worker_environment(config.threads, worker_device(config.devices, number))

    def predict(number: int, views: int) -> PredictSettings:
        shared = {f.name: getattr(config, f.name) for f in fields(PredictSettings) if hasattr(config, f.name) and f.name != "engine"}
        told = {
            "run": str(run),
            "model": str(config.model),
            "views": views,
            "device": visible_device(worker_device(config.devices, number)),
        }
        return PredictSettings(**{**shared, **told})

    def inference(engines: Sequence[str], views: int, most_views: int | None = None, **changes: Any) -> Source:
        """Predictions alone: with the base as it is, or with the adapters that are there."""
        entry = "arc_submit.inference.predict:open_worker"

        def stage(engine: str) -> Backend:
            return Backend(engine, entry, lambda number: asdict(replace(predict(number, views), engine=engine, **changes)), limits)

        first, *behind = [stage(engine) for engine in engines]
        ladder = make_ladder(0, views, None, most_views)
        return Source(name, entry, first.settings_for, environment, limits, config.group, ladder, behind=tuple(behind))

    ttft_views = config.ttft_views or config.views
    if name == "frozen":
        return inference(ENGINES_OF[config.engine], config.views)
    if name == "ttft" and config.ttft_engine == "vllm":
        return inference(ENGINES_OF["vllm"], ttft_views, config.ttft_max_views, adapters=str(run / "adapters"), source="ttft")

    def finetune(number: int) -> dict[str, Any]:
        base_adapter = None if config.base_adapter is None else str(config.base_adapter)
        ttft = config.ttft
        if name == "warmup":
            ttft = replace(ttft, steps=config.warm_up_steps)
        elif config.warm_up_steps:
            base_adapter = str(run / WARMUP_ADAPTER)
        views = 0 if name in ("finetune", "warmup") else ttft_views
        told = replace(predict(number, views), candidates=config.ttft_candidates, threshold=config.ttft_threshold)
        settings = FinetuneSettings(
            told, config.lora, ttft, config.ttft_max_seq_len, base_adapter, config.ttft_in_4_bits, config.warm_up_samples, room.bound
        )
        value: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
        return value

    if name == "warmup":
        return Source(name, "arc_submit.finetune.ttft_worker:open_warm_up", finetune, environment, limits, 1)
    if name == "finetune":
        ladder = make_ladder(config.ttft.steps, 0)
    else:
        ladder = make_ladder(config.ttft.steps, ttft_views, config.ttft_max_steps, config.ttft_max_views)
    return Source(name, "arc_submit.finetune.ttft_worker:open_worker", finetune, environment, limits, config.ttft_group, ladder, room.keeps)


def cost(task: Task) -> float:
    """What a task takes, roughly, in any source: the cells it is made of, and something for each task."""
    return 50.0 + sum(p.input.size + p.output.size for p in task.train) + sum(t.size for t in task.tests)


def size(source: str, task: Task, train_len: int, prompt_len: int) -> TaskSize:
    """What of a task decides how long a source works on it.

    Args:
        source: its name.
        train_len: tokens of a sample of fine-tuning at most.
        prompt_len: tokens of a prompt with its answer at most.
    """
    cells = cost(task)
    # A cell is a token at least, and the end of a row: where even the smallest sample (a pair shown and one asked about) or the smallest
    # prompt has more of them, nothing can be asked and the task ends at once.
    pairs = sorted(pair.input.size + len(pair.input) + pair.output.size + len(pair.output) for pair in task.train)
    trains = source not in ("ttft", "finetune") or (len(pairs) > 1 and pairs[0] + pairs[1] <= train_len)
    asks = pairs[0] + min(test.size + len(test) for test in task.tests) <= prompt_len
    if not (trains and asks):
        return TaskSize(1e-3, 1e-3, len(task.tests))
    return TaskSize(min(cells, train_len) / 1000, min(cells, prompt_len) / 1000, len(task.tests))


def lanes(sources: Sequence[str]) -> dict[str, list[str]]:
    """The lanes that a run's sources make, each with its sources in the order in which they work."""
    made = {lane: [name for name in names if name in sources] for lane, names in LANES.items()}
    return {lane: names for lane, names in made.items() if names}


def divide(config: RunConfig, running: Sequence[str], cores: int, memory_gb: float) -> tuple[dict[str, int], str]:
    """How many workers each lane that is still running may have, and why.

    Args:
        running: lanes; called again when one has ended, so that what it leaves over goes to the others.
        cores: of the machine.
        memory_gb: of the machine.
    """
    bound = max(1, int(memory_gb / 2 / config.search_memory))
    if config.devices != ("cpu",):
        models = len(config.devices) if "model" in running else 0
        search = max(1, min(cores - models, bound)) if "search" in running else 0
        reason = f"the model has {models} GPU workers, the search the {search} of {cores} cores that they and {memory_gb:.0f} GB leave it"
        given = {"model": models, "search": search}
    elif len(running) == 2 and config.workers == 1:
        given = {"model": 1, "search": 1}
        reason = "one worker is allowed: the search and the model have one each and take turns on its core"
    else:
        # The search ends first in a run of hours, and then leaves its half to the model.
        search = config.workers if "model" not in running else config.workers // 2
        search = min(search, bound) if "search" in running else 0
        given = {"model": config.workers - search if "model" in running else 0, "search": search}
        parts = [f"the {lane} has {given[lane]}" for lane in running]
        reason = f"of {config.workers} CPU workers {' and '.join(parts)}"
    return {lane: given[lane] for lane in running}, reason


def needs(lane: str, config: RunConfig) -> tuple[int, int]:
    """CPUs and GPUs that a worker of a lane takes."""
    return (1, 0) if lane == "search" else (config.threads, 0 if config.devices == ("cpu",) else 1)


def guess_costs(config: RunConfig) -> tuple[CostModel, str]:
    """What work is taken to cost before anything has been measured, and why."""
    parameters = sum(path.stat().st_size for path in config.model.glob("*.safetensors")) / 2  # two bytes each in nearly every file
    kind, reason = device_kind(config.devices)
    return initial_costs(kind, parameters), f"{parameters / 1e9:.3g} billion parameters on {reason}"


def device_kind(devices: Sequence[str], names: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, str]:
    """One of costs.INITIAL_RATES for the devices of a run, and why; the slowest GPU where the driver does not tell."""
    if devices == ("cpu",):
        return "cpu", "a CPU"
    told = " ".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(names.glob("*/information")))
    for kind in INITIAL_RATES:
        if kind in told:
            return kind, f"{kind} (the driver's name for it)"
    return "T4", "a GPU that is not known, taken for a T4"


def machine() -> tuple[int, float]:
    """CPU cores that this process may use, and the machine's memory in GB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
