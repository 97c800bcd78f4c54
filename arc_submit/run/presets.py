"""Presets by hardware and model, and how a preset and changes become a RunConfig."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.durations import parse_duration
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS
from arc_submit.ensemble.judge_settings import JudgeOptions
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.inference.settings import DfsLimits
from arc_submit.language.prompt_config import config_path, read_prompt_config
from arc_submit.options import add_options, check_options, flag_of, option_names, options_of, with_current_names
from arc_submit.programs.code_settings import CODE_PROMPTS, CodeOptions
from arc_submit.run.auto_inputs import AUTO, RECORD, decide
from arc_submit.run.choices import Choice, values_of
from arc_submit.run.config import EQUAL, SOURCES, RunConfig
from arc_submit.run.definitions import GivenSource, SourceDefinition, SourceShare, given_sources
from arc_submit.run.host import multiplies_bfloat16
from arc_submit.run.kaggle_paths import is_competition_rerun
from arc_submit.run.source_table import SOURCE_TABLE, check_sources, uses_model
from arc_submit.storage.run_dir import RunPaths

_CHANCES = Path(__file__).with_name("chances")
# Groups of options of which kinds of sources have values of their own, and options of a run that are no use to decide for a source.
_GROUP_KINDS = {"lora": ("ttft", "code"), "ttft": ("ttft",), "dfs": ("frozen", "ttft"), "code": ("code",)}
_OF_RUN = ("source", "sources_file", "sources", "weights")
_NESTED: dict[str, type] = {"lora": LoraSettings, "ttft": TTFTSettings, "dfs": DfsLimits, "code": CodeOptions, "judge": JudgeOptions}
# Titles of the groups in the help.
_TITLES = {
    "lora": "adapters (LoRA)",
    "ttft": "test-time fine-tuning",
    "dfs": "depth-first search of answers (candidates dfs)",
    "code": "the source code: programs that a model writes",
    "judge": "judging of candidates by a model",
}
# What a model's prompt configuration may set: how it is fine-tuned and decoded, but no hardware and no budget.
_MODEL_PREFIXES = ("lora_", "ttft_")
_DFS_OPTIONS = ("threshold", "dfs_steps", "dfs_task_steps", "dfs_batch", "dfs_score_views")
_MODEL_OPTIONS = ("views", "candidates", *_DFS_OPTIONS, "temperature", "keep_background")

# The GPU presets take the hyperparameters with which others have won places (arc24 with Qwen2.5, NVARC with Qwen3-4B); they have not been
# run here. The memory plan decides checkpointing and slots for each task; `arc-submit plan --preset NAME` shows them. What is left of the
# hours buys up to eight times the steps and 32 times the views.
_T4X2 = {"devices": ("cuda:0", "cuda:1"), "engine": "vllm", "max_concurrent": 32, "heartbeat_timeout": 180.0}
_L4X4 = {"devices": ("cuda:0", "cuda:1", "cuda:2", "cuda:3"), "engine": "vllm", "max_concurrent": 64, "heartbeat_timeout": 180.0}
_ARC24 = {"lora_rank": 128, "lora_alpha": 64.0, "lora_rslora": True, "lora_targets": ("q_proj", "k_proj", "v_proj", "o_proj")}

_ENDS_TOO = {"lora_rslora": True, "lora_targets": (*LoraSettings().targets, "embed_tokens", "lm_head")}

PRESETS: dict[str, dict[str, Any]] = {
    # Two cores and no GPU: one worker a core is faster than two threads for so small a model. What is planned fits minutes; each doubling
    # of the steps, up to 400, solved more (docs/experiments/2026-11-20-ttft-steps.md): --ttft-max-steps 400 --ttft-max-views 32 spend
    # hours so.
    "cpu-pocket": {
        "workers": 2,
        "threads": 1,
        "views": 8,
        "max_concurrent": 16,
        "ttft_max_seq_len": 1024,
        "lora_rank": 32,
        "lora_alpha": 32.0,
        "ttft_steps": 50,
        "ttft_schedule": "constant",
        "ttft_learning_rate": 1e-3,
        # Outputs that are shown are learnt too, for hardly any cost: worth half of the steps again
        # (docs/experiments/2026-11-28-loss-on-outputs.md).
        "ttft_loss_on": "outputs",
        "ttft_views": 4,
        # Far weaker than the search: it fills in where the search has no two answers.
        "method": "precedence",
        # Fitted to runs of it (docs/experiments/2026-11-30-expected-gain.md); read with `--allocation gain` alone.
        "chances": _CHANCES / "cpu-pocket.json",
    },
    # Two cores and a real language model (`arc-submit model smollm2`), which has not been trained on grids: it learns a task's form in
    # some twenty steps and solves little, see docs/experiments/2026-11-30-smollm2.md. Adapter and learning rate are in the model's
    # arc_submit.json. A step takes seconds on a core, and a heartbeat as long.
    "cpu-smollm2": {
        "workers": 2,
        "threads": 1,
        "heartbeat_timeout": 180.0,
        "views": 2,
        "max_concurrent": 8,
        "max_seq_len": 2048,
        "ttft_max_seq_len": 1024,
        "ttft_steps": 24,
        "ttft_schedule": "constant",
        "ttft_loss_on": "outputs",
        "ttft_fast_cpu": multiplies_bfloat16(),
        "ttft_views": 4,
        "ttft_max_steps": 192,
        "ttft_max_views": 32,
        "method": "precedence",
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
    # 100 steps and 32 views took 3.8 minutes a task with a new process for each. Samples over about 4,300 tokens take gradient
    # checkpointing on a T4: without it 5,120 ran out of memory.
    "t4x2-qwen2.5-1.5b": {
        **_T4X2,
        **_ARC24,
        "max_seq_len": 5120,
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
    # Two published recipes, whole, for published weights: the format says how the model is asked. Samples are drawn under random geometries
    # and colours, one after the other. The limits of 540 seconds a search and 1,200 a task are those many tokens at 44 ms a step
    # (docs/ensemble.md). Left-over hours buy more of the same.
    "nvarc-4b": {
        **_L4X4,
        **_ENDS_TOO,
        "engine": "transformers",
        "model_config": Path("nvarc-2025"),
        "method": "count-minus-mean",
        "max_concurrent": 4,
        "max_seq_len": 8192,
        "lora_rank": 256,
        "lora_alpha": 32.0,
        "ttft_steps": 128,
        "ttft_learning_rate": 5e-5,
        "ttft_schedule": "cosine",
        "ttft_warmup_ratio": 0.1,
        "ttft_loss_on": "replies",
        "views": 8,
        "ttft_views": 16,
        "ttft_candidates": "dfs",
        "ttft_threshold": 0.2,
        "dfs_batch": 4,
        "dfs_steps": 12_000,
        "dfs_task_steps": 109_000,
        "dfs_score_views": 8,
        "ttft_max_steps": 512,
        "ttft_max_views": 64,
    },
    "architects-2024": {
        **_L4X4,
        **_ENDS_TOO,
        "engine": "transformers",
        "model_config": Path("architects-2024"),
        "method": "product-with-baseline",
        "max_concurrent": 4,
        "max_seq_len": 8192,
        "lora_rank": 64,
        "lora_alpha": 16.0,
        "lora_embedding_learning_rate": 1e-5,
        "ttft_batch_size": 2,
        "ttft_accumulation": 2,
        "ttft_learning_rate": 1e-4,
        "ttft_schedule": "cosine",
        "ttft_warmup_ratio": 0.25,
        "ttft_loss_on": "outputs",
        "views": 8,
        "ttft_candidates": "dfs",
        "ttft_max_steps": 400,
        "ttft_max_views": 32,
    },
    # Beside 15 GB of weights long samples take gradient checkpointing.
    "hybrid-7b": {
        **_L4X4,
        **_ARC24,
        "max_seq_len": 5120,
        "ttft_steps": 100,
        "ttft_learning_rate": 1e-5,
        "views": 16,
        "ttft_views": 32,
        "ttft_max_steps": 800,
        "ttft_max_views": 1024,
    },
}


PRESET_HELP = (
    "hardware and model; auto decides by the GPUs, the model, the budget and the tasks (default: auto where a GPU is there and a model "
    "other than the pocket model is given, else cpu-pocket)"
)


def make_config(preset: str | None = None, rerun_budget: float | str | None = None, **changes: Any) -> RunConfig:
    """A preset with changes, by the names of RunConfig's fields or by their earlier names.

    A change that is None is no change. A text becomes the type of its field: "10m", "cuda:0,cuda:1", "3". The fields of `lora` and `ttft`
    have the names "lora_rank", "ttft_steps". In a competition's re-run (KAGGLE_IS_COMPETITION_RERUN is set) `tasks` and `task_ids` are
    ignored, because the sample is for commit runs, and `rerun_budget` replaces `budget`.

    Args:
        preset: auto decides the settings by the GPUs, the model, the time and the tasks (run/auto.py). None takes auto where a GPU is there
            and a model other than the pocket model is given, else cpu-pocket.

    Raises:
        ConfigError: where the preset or a name is not known, or the values cannot work together.
    """
    if preset is not None and preset not in (*PRESETS, AUTO):
        raise ConfigError(f"--preset {preset}: choose from {', '.join((*PRESETS, AUTO))}")
    if rerun_budget is not None:
        parse_duration(rerun_budget)  # here too: a dry run must find what the re-run would
    if is_competition_rerun():
        changes |= {"tasks": None, "task_ids": None, "budget": rerun_budget or changes.get("budget")}
    current = current_names(changes)
    given = given_sources(current.get("source", ()), current.get("sources_file"))
    if current.get("chances") is not None and current.get("allocation") in (None, EQUAL) and not given:
        raise ConfigError(
            f"--chances {current['chances']}: no time goes by it without --allocation gain or alone; add that, or leave it out"
        )
    current |= {"sources": _source_names(given, current.get("sources"))} if given else {}
    # A kind alone is no definition.
    definitions = {one.name: _define(one, preset, current) for one in given if one.options or one.name != one.kind}
    plain = [name for name in current.get("sources", SOURCES) if name not in definitions]
    current = _code_prompt_of_run(current) | current
    if preset not in (None, "cpu-pocket") and changes.get("model") is None and (not definitions or _use_model(plain)):
        made = (
            "that `arc-submit model smollm2 --out FOLDER` makes"
            if preset == "cpu-smollm2"
            else "of the base model, its arc_submit.json included"
        )
        raise ConfigError(f"--preset {preset}: give --model the folder {made}")
    if definitions and not _use_model(plain) and (preset == AUTO or any(values_of(one.choices) for one in definitions.values())):
        # auto has decided for each source; what is the run's own has its defaults.
        return build_config(current, definitions)
    choices: tuple[Choice, ...] = ()
    if preset in (None, AUTO):
        given_values = _with_model_options(current, {})
        choices = decide(given_values, asked=preset == AUTO)
        if decided := current_names(values_of(choices)):
            return replace(build_config({**decided, **given_values}, definitions), choices=choices)
    values = PRESETS[preset or "cpu-pocket"]
    if current.get("method") in JUDGED_METHODS and "method" in values:
        values = {**values, "judge_fallback": values["method"]}
    weaker = {name: value for name, value in values.items() if name not in current}
    return replace(build_config(_with_model_options({**values, **current}, weaker), definitions), choices=choices)


def _use_model(names: Sequence[str]) -> bool:
    """Whether one of these sources without a definition needs a model; one that is not known is refused later."""
    return uses_model([name for name in names if name in SOURCE_TABLE])


def _source_names(given: Sequence[GivenSource], sources: tuple[str, ...] | None) -> tuple[str, ...]:
    """The sources of a run that is given some with a name of their own, the most trusted first.

    Raises:
        ConfigError: where --sources leaves one of them out.
    """
    names = tuple(one.name for one in given)
    if left_out := [name for name in names if sources is not None and name not in sources]:
        raise ConfigError(f"--sources {','.join(sources or ())}: add {left_out[0]}, or leave its definition out")
    return sources or names


def _define(given: GivenSource, preset: str | None, run: Mapping[str, Any]) -> SourceDefinition:
    """The definition of a source: its own options, then its preset's, then the run's options, then the run's preset's.

    Of a preset of its own a source takes the recipe; where it works, the run or the source says.

    Args:
        preset: of the run.
        run: the options of the run, by their current names.

    Raises:
        ConfigError: where the kind or an option is none, or the values cannot work together.
    """
    kind, options, names = given.kind, dict(given.options), source_options(given.kind)
    if kind not in SOURCE_TABLE:
        raise ConfigError(f"{given.where}: there is no kind of source {kind}; choose from {', '.join(SOURCE_TABLE)}")
    if given.name in SOURCE_TABLE and given.name != kind:
        raise ConfigError(f"{given.where}: {given.name} is the name of another kind of source; give this one a name of its own")
    own_preset = options.pop("preset", None)
    if own_preset is not None and own_preset not in (*PRESETS, AUTO):
        raise ConfigError(f"{given.where}: preset {own_preset}: choose from {', '.join((*PRESETS, AUTO))}")
    try:
        share = with_current_names(SourceShare, {"share": options.pop("share", None)}).get("share")
        check_options(SourceShare(share))
        if foreign := [name for name in options if name not in names]:
            there = ", ".join(source_options(kind, False))
            raise ConfigError(f"{foreign[0]} is no option of a {kind} source; there are {there}, preset and share")
        own = current_names(options)
        flags = {name: value for name, value in run.items() if name in names or name in _GROUP_KINDS}
        choices: tuple[Choice, ...] = ()
        if (own_preset or preset) in (None, AUTO) and uses_model([kind]):
            known = {name: value for name, value in run.items() if name not in _OF_RUN} | own | {"sources": (kind,)}
            known |= {"budget": share * run.get("budget", RunConfig.budget)} if share else {}
            choices = decide(_with_model_options(known, {}), AUTO in (own_preset, preset), f"{given.name}.{RECORD}")
        if decided := current_names(values_of(choices)):
            values = {**decided, **_with_model_options({**flags, **own}, {})}
        else:
            base = PRESETS["cpu-pocket" if preset in (None, AUTO) else preset]
            values = _with_recipe(base, flags, {} if own_preset in (None, AUTO) else PRESETS[own_preset], own)
        values = _code_prompt_of_run(run, f"{given.name}.") | values
        of_kind = {name: value for name, value in values.items() if name in names or name in _GROUP_KINDS}
        built = build_config({**of_kind, "sources": (kind,)})
    except ConfigError as error:
        raise ConfigError(f"{given.where}: {error}") from None
    return SourceDefinition(kind, _own_values(built, kind), share, choices)


def _code_prompt_of_run(run: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The question that a run in this directory was begun with, as the default of a run that goes on; the default of new runs may change.

    Args:
        run: the options of the run, by their current names.
        prefix: of the keys of a source in config.json.
    """
    begun = RunPaths(run.get("out") or RunConfig.out).read_config() or {}
    asked = begun.get(f"{prefix}code_prompt")
    return {"code_prompt": asked} if asked in CODE_PROMPTS else {}


def _with_recipe(base: Mapping[str, Any], flags: Mapping[str, Any], preset: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a source: of the run's preset, the run's options, its own preset and its own options, the last the strongest."""
    recipe = {name: value for name, value in preset.items() if name != "devices"}
    values = {**base, **flags, **recipe, **own}
    strong = set(own) | (set(flags) - set(recipe))
    return _with_model_options(values, {name: value for name, value in values.items() if name not in strong})


def source_options(kind: str, earlier_names: bool = True) -> list[str]:
    """The names of the options of which a kind of source has values of its own."""
    groups = [(_NESTED[group], f"{group}_") for group, kinds in _GROUP_KINDS.items() if kind in kinds]
    found = [(name, option, "") for name, option in options_of(RunConfig) if kind in option.kinds]
    found += [(name, option, prefix) for settings, prefix in groups for name, option in options_of(settings)]
    return [prefix + one for name, option, prefix in found for one in (name, *(option.aliases if earlier_names else ()))]


def _own_values(config: RunConfig, kind: str) -> dict[str, Any]:
    """The fields that a source does not share with its run; those of other kinds of sources have their defaults."""
    values: dict[str, Any] = {}
    for one in fields(RunConfig):
        kinds = one.metadata["option"].kinds if "option" in one.metadata else _GROUP_KINDS.get(one.name, ())
        if kinds:
            default = one.default if one.default_factory is MISSING else one.default_factory()
            values[one.name] = getattr(config, one.name) if kind in kinds else default
    return values


def _with_model_options(values: Mapping[str, Any], weaker: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the options in the model's prompt configuration, which are stronger than a preset's and weaker than changes.

    The length of a file that is named (model_config) replaces a preset's longer one.

    Args:
        weaker: those of the values that come from a preset, or defaults.

    Raises:
        ArcSubmitError: where the configuration is malformed, or an option in it is none that fits a model.
    """
    model, given = Path(values.get("model") or pocket_folder()), values.get("model_config")
    try:
        config = read_prompt_config(model, given)
    except ArcSubmitError:
        if not is_competition_rerun():
            raise
        return dict(values)  # resolving the run then decides what works without the model
    if config is None:
        return dict(values)
    longest = weaker.get("max_seq_len")
    if longest is not None and given is not None and longest > config.max_seq_len:
        # A preset says what its hardware takes, a file that is named says what the model takes.
        values = {**values, "max_seq_len": config.max_seq_len}
        weaker = {**weaker, "max_seq_len": config.max_seq_len}
    if not config.options:
        return dict(values)
    where = f"{config_path(given or model)}: options"
    if foreign := [name for name in config.options if not name.startswith(_MODEL_PREFIXES) and name not in _MODEL_OPTIONS]:
        raise ConfigError(f"{where}: {foreign[0]} is no setting of a model; {', '.join(_MODEL_OPTIONS)}, lora_... and ttft_... are")
    try:
        options = current_names(config.options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    stronger = {name: value for name, value in values.items() if name not in weaker or weaker[name] != value}
    # A whole group that is given leaves no place for single options of it.
    own = {name: value for name, value in options.items() if name.partition("_")[0] not in stronger}
    return {**values, **own, **stronger}


def current_names(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that are not None by the current names of their fields, texts read as the types of these.

    Raises:
        ConfigError: where a name is not known, a field is given twice, or a text is no value of its type.
    """
    current = with_current_names(RunConfig, changes)
    known = option_names(RunConfig)
    for group, kind in _NESTED.items():
        inner = {name: value for name, value in changes.items() if name not in known}
        current |= with_current_names(kind, inner, f"{group}_")
    known |= {f"{group}_{name}" for group, kind in _NESTED.items() for name in option_names(kind)} | set(_NESTED)
    if unknown := sorted(name for name, value in changes.items() if name not in known and value is not None):
        raise ConfigError(f"no such setting: {', '.join(unknown)}")
    return current | {group: changes[group] for group in _NESTED if changes.get(group) is not None}


def check_keywords(changes: Mapping[str, Any]) -> None:
    """Refuse keywords of `make_config`, but for the preset and rerun_budget, with a value of another type or out of its range.

    Each is looked at by itself: values that cannot work together are found when the run is made.

    Raises:
        ConfigError: for the first such keyword.
    """
    current = current_names(changes)
    for settings, prefix in ((RunConfig, ""), *((kind, f"{group}_") for group, kind in _NESTED.items())):
        for name, definition in options_of(settings):
            definition.check(flag_of(name, prefix), current.get(prefix + name))
    if "sources" in current and not changes.get("source") and not changes.get("sources_file"):
        check_sources(current["sources"])


def keyword_names() -> set[str]:
    """Every keyword of `make_config`: the options of a run, of its adapters and of its fine-tuning, earlier names included."""
    nested = {f"{group}_{name}" for group, kind in _NESTED.items() for name in option_names(kind)}
    return ({"preset", "rerun_budget"} | option_names(RunConfig) | nested) - set(_NESTED)


def build_config(values: Mapping[str, Any], definitions: Mapping[str, SourceDefinition] | None = None) -> RunConfig:
    """RunConfig's defaults with values by current names.

    Args:
        definitions: of the sources with a name of their own.

    Raises:
        ConfigError: where the values cannot work together.
    """
    own = option_names(RunConfig)
    flat = {name: value for name, value in values.items() if name in own}
    for group, kind in _NESTED.items():
        inner = {
            name: values[f"{group}_{name}"] for name in option_names(kind) if f"{group}_{name}" in values and f"{group}_{name}" not in own
        }
        flat[group] = replace(values.get(group, kind()), **inner)
    config = RunConfig(**flat, definitions=definitions or {})
    check_sources(config.sources, config.definitions)
    return config


INFER_DEFAULTS: dict[str, Any] = {"engine": "auto", "workers": 1, "tasks_per_job": 8}
SEARCH_DEFAULTS: dict[str, Any] = {"workers": max(1, os.cpu_count() or 1), "search_seconds": 600.0}
_NO_BUDGET = 1e8  # seconds: the search command is bound by task, not as a whole


def make_infer_config(**changes: Any) -> RunConfig:
    """The configuration of inference alone: of the source ttft where `adapters` are given, else of frozen.

    Raises:
        ConfigError: as make_config.
    """
    changes["sources"] = ("ttft",) if changes.get("adapters") else ("frozen",)
    return build_config(_with_model_options({**INFER_DEFAULTS, **current_names(changes)}, INFER_DEFAULTS))


def make_search_config(**changes: Any) -> RunConfig:
    """The configuration of the search command.

    Raises:
        ConfigError: as make_config.
    """
    return build_config({"budget": _NO_BUDGET, **SEARCH_DEFAULTS, **current_names({**changes, "sources": ("search",)})})


def add_run_options(parser: argparse.ArgumentParser, command: str, defaults: Mapping[str, Any] | None = None) -> None:
    """Add every option of RunConfig and of its groups that a sub-command takes."""
    add_options(parser, RunConfig, command, defaults=defaults)
    for group, kind in _NESTED.items():
        add_options(parser.add_argument_group(_TITLES[group]), kind, command, f"{group}_")


def add_method(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the method, and what of its judge a sub-command that does no work takes."""
    parser.add_argument(
        "--method", choices=METHODS + JUDGED_METHODS, help="of the run; the last three have a judge (default: the preset's)"
    )
    add_options(parser, JudgeOptions, command, "judge_")


def method_values(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_method`, as keywords of `make_config`."""
    return {"method": args.method} | {f"judge_{name}": getattr(args, f"judge_{name}", None) for name, _ in options_of(JudgeOptions)}


def option_values(args: argparse.Namespace) -> dict[str, Any]:
    """The options of RunConfig that a command line gives, by name."""
    known = option_names(RunConfig) | {f"{group}_{name}" for group, kind in _NESTED.items() for name in option_names(kind)}
    return {name: value for name, value in vars(args).items() if name in known and value is not None}
