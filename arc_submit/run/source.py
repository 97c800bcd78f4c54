"""Source: what the orchestrator needs to run one source of predictions, what a source is made from, and the size of a task for it.

Sources of different lanes work side by side, because they use different hardware: the search on CPU cores, the model on its devices.
Sources of one lane work one after the other. Does not know how a source makes predictions; a worker loads that itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from arc_submit.arc.task import Task
from arc_submit.run.adapter_budget import AdapterBudget
from arc_submit.run.code_cards import CardGroups
from arc_submit.run.config import RunConfig
from arc_submit.scheduling.chances import SolveChances
from arc_submit.scheduling.costs import CostModel, TaskSize, initial_costs
from arc_submit.scheduling.scheduler import Ladder
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.devices import worker_environment
from arc_submit.workers.pool import Backend
from arc_submit.workers.supervisor import Timeouts

CPU_LANE, MODEL_LANE = "search", "model"
JUDGE = "judge"  # works like a source, after all of them, and judges their candidates
_DISK_RATE = 50e6  # bytes a second at which the slowest disk reads a model


@dataclass(frozen=True)
class Scale:
    """What the sizes of tasks and the costs of work are computed from.

    Attributes:
        costs: initial estimate of what work costs; each source corrects a copy of its own.
        prompt_len: largest number of tokens of a prompt with its answer.
        train_len: largest number of tokens of a training sample.
    """

    costs: CostModel = field(default_factory=lambda: initial_costs("cpu", 1e9))
    prompt_len: int = 0
    train_len: int = 0


@dataclass(frozen=True)
class SourceSetup:
    """What a source is made from.

    Attributes:
        name: as in the predictions.
        kind: key of SOURCE_TABLE.
        config: the configuration of this source.
        paths: of the run directory.
        disk: what its adapters may take.
        scale: of its work.
        lane: the lane of its devices, for a source that uses the model.
        beside_gpus: other sources of the run use GPUs.
        cards: of each worker, for the source code.
    """

    name: str
    kind: str
    config: RunConfig
    paths: RunPaths
    disk: AdapterBudget = field(default_factory=lambda: AdapterBudget(None, True, ""))
    scale: Scale = field(default_factory=Scale)
    lane: str = MODEL_LANE
    beside_gpus: bool = False
    cards: CardGroups = field(default_factory=CardGroups)

    @property
    def home(self) -> RunPaths:
        """Where its adapters and losses lie."""
        return self.paths.home(self.name, self.kind)

    def part(self, kind: str) -> str:
        """The name of a source that prepares it, such as "finetune"; of a source with a name of its own "NAME.finetune"."""
        return kind if self.name == self.kind else f"{self.name}.{kind}"


@dataclass(frozen=True)
class Source:
    """How a source is run.

    Attributes:
        name: as in the predictions.
        lane: CPU_LANE, MODEL_LANE, or a lane of other devices.
        backends: ways to do its jobs; each takes what the one before gives up.
        environment: variables for the process of the worker with a number.
        tasks_per_job: tasks in one job.
        ladder: levels that its tasks can reach, for the scheduler; None: one level, smaller tasks first.
        adapters_kept: the newest adapter of each task stays on disk, so that further views need no fine-tuning.
        trains: its work includes fine-tuning.
        job_names: names of what its jobs do, from the ids of all tasks, where that is not one task each; None: the tasks themselves.
        chances: of solving an output at a level; with them, time goes where it is expected to solve most. None: all tasks alike.
        alone: with chances, an output that other sources have counts as much as any other.
        kind: key of SOURCE_TABLE, or "finetune" or "warmup" for what prepares a source; "" where the name is the kind.
        scale: of its work; only a source with a ladder needs it.
        owner: the source that it is or prepares; "" where that is its name.
        share: of the lane's time that its owner has; None: by the estimates.
        most_workers: where it uses only some devices of its lane, or several for each worker, the number of its workers.
        cards: the devices of each worker, and why, where a worker holds several.
        passes: number of passes in which its tasks are worked on, all tasks in one before any in the next; without a ladder.
    """

    name: str
    lane: str
    backends: tuple[Backend, ...]
    environment: Callable[[int], dict[str, str]]
    tasks_per_job: int = 1
    ladder: Ladder | None = None
    adapters_kept: bool = True
    trains: bool = False
    job_names: Callable[[Sequence[str]], Sequence[str]] | None = None
    chances: SolveChances | None = None
    alone: bool = False
    kind: str = ""
    scale: Scale = field(default_factory=Scale)
    owner: str = ""
    share: float | None = None
    most_workers: int | None = None
    passes: int = 1
    cards: CardGroups = field(default_factory=CardGroups)

    @property
    def source_kind(self) -> str:
        """The kind of the source."""
        return self.kind or self.name


def make_backend(name: str, entry: str, settings: Any, timeouts: Timeouts) -> Backend:
    """A backend all of whose workers get the same settings.

    Args:
        entry: "package.module:function" that a worker loads, see arc_submit.workers.worker.
        settings: a dataclass, sent as JSON.
    """
    value: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return Backend(name, entry, lambda _: value, timeouts)


def model_environment(config: RunConfig, cards: CardGroups | None = None) -> Callable[[int], dict[str, str]]:
    """The environment of a worker that runs the model: its threads, and its own GPU alone, or its own group of them."""
    groups = (cards.groups if cards else ()) or tuple((device,) for device in config.devices)
    return lambda number: worker_environment(config.threads, *groups[number % len(groups)])


def startup_timeout(config: RunConfig) -> float:
    """Seconds that a worker with the model may take until it is ready, in every command.

    The constant part is for imports on a machine that is busy with other work, and for vllm, which compiles on a GPU.
    """
    weights = sum(path.stat().st_size for path in config.model.glob("*.safetensors"))
    return config.startup_timeout or Timeouts.startup_timeout + weights / _DISK_RATE


def model_timeouts(config: RunConfig) -> Timeouts:
    return Timeouts(startup_timeout=startup_timeout(config), heartbeat_timeout=config.heartbeat_timeout)


def task_cost(task: Task) -> float:
    """The relative cost of a task in any source: its cells, and a constant."""
    return 50.0 + sum(p.input.size + p.output.size for p in task.train) + sum(t.size for t in task.tests)


def task_size(task: Task, trains: bool, train_len: int, prompt_len: int) -> TaskSize:
    """The size of a task for the scheduler.

    Args:
        trains: the source fine-tunes.
        train_len: largest number of tokens of a training sample.
        prompt_len: largest number of tokens of a prompt with its answer.
    """
    cells = task_cost(task)
    # A cell takes at least one token, and so does the end of a row. Where even the smallest sample (one pair shown, one asked) or the
    # smallest prompt has more cells than tokens are allowed, no prompt fits and the task ends at once.
    pairs = sorted(pair.input.size + len(pair.input) + pair.output.size + len(pair.output) for pair in task.train)
    sample_fits = not trains or (len(pairs) > 1 and pairs[0] + pairs[1] <= train_len)
    prompt_fits = pairs[0] + min(test.size + len(test) for test in task.tests) <= prompt_len
    if not (sample_fits and prompt_fits):
        return TaskSize(1e-3, 1e-3, len(task.tests), fits=False)
    return TaskSize(min(cells, train_len) / 1000, min(cells, prompt_len) / 1000, len(task.tests))
