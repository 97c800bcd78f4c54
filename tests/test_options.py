"""One definition of each option: nothing is left out of the fingerprint, and command line, keywords and checks follow the definition."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.base_model.settings import LoraSettings
from arc_submit.commands import finetune, infer, run, search, train
from arc_submit.durations import parse_duration
from arc_submit.ensemble.judge_settings import JudgeOptions
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.inference.settings import DfsLimits
from arc_submit.options import Identity, add_options, check_options, flag_of, identity_values, option, option_names, options_of, value_type
from arc_submit.programs.code_settings import CodeOptions
from arc_submit.run import fingerprint
from arc_submit.run.config import RunConfig
from arc_submit.run.data import load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.presets import make_config, make_infer_config
from arc_submit.train.config import TrainConfig, TrainSettings

SETTINGS = (RunConfig, CodeOptions, DfsLimits, LoraSettings, TTFTSettings, JudgeOptions, TrainSettings, TrainConfig)
NESTED = {"code": CodeOptions, "dfs": DfsLimits, "lora": LoraSettings, "ttft": TTFTSettings, "judge": JudgeOptions}
WITHOUT = {
    RunConfig: {*NESTED, "choices", "definitions"},
    TrainConfig: {"model", "out", "parts", "settings", "lora", "eval_parts", "benchmarks"},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_field_is_classified(settings: type) -> None:
    defined = {name for name, _ in options_of(settings)}
    assert {one.name for one in fields(settings)} == defined | WITHOUT.get(settings, set()), (
        "a field without a definition is in no fingerprint"
    )
    assert all(isinstance(definition.identity, Identity) and definition.help for _, definition in options_of(settings))


def test_a_field_cannot_be_defined_without_an_identity() -> None:
    with pytest.raises(TypeError, match="identity"):
        option(1, help="something")  # type: ignore[call-arg]


def test_computed_fields_are_those_that_the_fingerprint_computes() -> None:
    groups = ((RunConfig, ""), (CodeOptions, "code_"))
    computed = {f"{prefix}{name}" for group, prefix in groups for name, one in options_of(group) if one.identity is Identity.COMPUTED}
    assert computed == set(fingerprint.COMPUTED)
    for settings in (DfsLimits, LoraSettings, TTFTSettings, JudgeOptions, TrainSettings):
        assert not [name for name, definition in options_of(settings) if definition.identity is Identity.COMPUTED]


def other_value(settings: type, name: str, value: Any) -> Any:
    """An allowed value of a field that is not its present one."""
    definition = dict(options_of(settings))[name]
    if definition.choices:
        return next(one for one in definition.choices if one != value)
    kind = value_type(settings, name)
    return {int: 17 if value != 17 else 18, float: 0.5 if value != 0.5 else 0.25, bool: not value}.get(kind, "x")


def test_a_change_of_an_option_of_the_identity_changes_the_fingerprint_and_of_another_does_not(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Every field of RunConfig, lora and ttft whose values can be made up, in a run with all that makes fields apply."""
    given = {
        "challenges": files[0],
        "model": tiny_model,
        "out": tmp_path,
        "joint_warmup_steps": 2,
        "ttft_candidates": "dfs",
        "candidates": "dfs",
        "code_learn_rounds": 1,
        "sources": ("search", "frozen", "code", "ttft"),
    }
    base = make_config(**given)
    before = run_fingerprint(base, load_data(base))
    paths = {"out", "challenges", "solutions", "input", "model", "adapters", "base_adapter", "model_config", "chat_template", "measured"}
    computed = {"tasks", "task_ids"}
    bound = {
        "engine",
        "ttft_engine",
        "candidates",
        "ttft_candidates",
        "chances",
        "temperature",
        "ttft_in_4_bits",
        "code_thinking",
        "code_cards",
        "executor",
        "ray_address",
        "devices",
    }
    skipped = paths | computed | bound | {"sources", "source", "sources_file", "weights", "grid_encoder", "prompt", "code_prompt", "split"}
    checked = 0
    for group in ("", *(group for group in NESTED if group != "judge")):
        owner = getattr(base, group) if group else base
        settings, prefix = type(owner), f"{group}_" if group else ""
        for name, definition in options_of(settings):
            if prefix + name in skipped or name in ("targets", "dora", "init"):
                continue
            changed = {**given, prefix + name: other_value(settings, name, getattr(owner, name))}
            if name in ("max_seq_len", "ttft_max_seq_len"):
                changed[prefix + name] = 900
            if name == "budget":
                changed[name] = 4000.0
            config = make_config(**changed)
            after = run_fingerprint(config, load_data(config))
            assert (after != before) == (definition.identity is Identity.SAME), prefix + name
            checked += 1
    assert checked > 40


def test_a_fingerprint_is_what_config_json_gives_back(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    config = make_config(challenges=files[0], model=tiny_model, out=tmp_path)
    value = run_fingerprint(config, load_data(config))
    assert json.loads(json.dumps(value)) == value
    earlier = {"ttft_views", "warm_up_steps", "lora_rank", "ttft_steps", "model_files", "challenges", "search_effort", "base_adapter"}
    assert earlier <= set(value), "names on disk stay"
    assert "joint_warmup_steps" not in value


@pytest.mark.parametrize(
    ("module", "command"), [(run, "run"), (finetune, "finetune"), (infer, "infer"), (search, "search"), (train, "train")]
)
def test_a_command_takes_the_flags_of_its_options_and_their_earlier_names(module: Any, command: str) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    of_a_run = [("", RunConfig), ("lora_", LoraSettings), ("ttft_", TTFTSettings)]
    for prefix, one in [("", TrainConfig), ("", TrainSettings), ("lora_", LoraSettings)] if command == "train" else of_a_run:
        for name, definition in options_of(one):
            expected = {f"--{flag_of(alias, prefix)}" for alias in (name, *definition.aliases)}
            assert (expected <= flags) == (command in definition.commands), f"{command} {name}"


def test_names_are_unique_over_the_settings_of_a_run() -> None:
    own = option_names(RunConfig)
    for prefix, kind in NESTED.items():
        assert not own & {f"{prefix}_{name}" for name in option_names(kind)}


def test_texts_and_numbers_are_both_taken(tmp_path: Path) -> None:
    """A notebook's parameters come as either, from papermill's command line or from a cell."""
    text = make_config(
        out=str(tmp_path), budget="10m", seed="3", devices="cuda:0,cuda:1", lora_rank="8", keep_background="true", weights="search=2"
    )
    value = make_config(
        out=tmp_path, budget=600, seed=3, devices=["cuda:0", "cuda:1"], lora_rank=8, keep_background=True, weights={"search": 2.0}
    )
    assert text == value
    for name, given_text in (("seed", "three"), ("keep_background", "perhaps"), ("lora_alpha", "much")):
        with pytest.raises(ConfigError, match=f"{flag_of(name).removeprefix('lora-')} {given_text}: "):
            make_config(out=tmp_path, **{name: given_text})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seed": True}, "seed = True: a whole number is needed, not bool"),
        ({"tasks": 1.5}, "tasks = 1.5: a whole number is needed, not float"),
        ({"views": [8]}, r"views = \[8\]: a whole number is needed, not list"),
        ({"out": 7}, "out = 7: a path is needed, not int"),
        ({"split": 1}, "split = 1: a text is needed, not int"),
        ({"keep_background": 1}, "keep_background = 1: true or false is needed, not int"),
        ({"ttft_learning_rate": [1e-4]}, "ttft_learning_rate = "),
        ({"weights": 3}, "weights = 3: a text such as docs/usage.md gives is needed, not int"),
        ({"sources": 3}, "--sources 3: choose from"),
        ({"sources": True}, "sources = True: "),
        ({"budget": "soon"}, "duration 'soon'"),
        ({"rerun_budget": "soon"}, "duration 'soon'"),
        ({"rerun_budget": True}, "duration True"),
    ],
)
def test_a_value_of_another_type_is_one_line(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config(**{"out": tmp_path, **given})


def test_what_papermill_makes_of_a_parameter_is_taken(tmp_path: Path) -> None:
    made = make_config(out=tmp_path, tasks=40.0, budget=600, search_seconds=5, rerun_budget=41400)
    assert (made.tasks, made.budget, made.search_seconds) == (40, 600, 5)
    assert isinstance(made.tasks, int)
    assert make_config(out=tmp_path, task_ids=[29623171]).task_ids == ("29623171",)
    assert make_config(out=tmp_path, task_ids=29623171).task_ids == ("29623171",)


def test_a_duration_is_a_number_or_a_text() -> None:
    assert [parse_duration(value) for value in (600, 600.0, "600", "10m", 0.5)] == [600, 600, 600, 600, 0.5]
    for value in (0, -1, float("nan"), float("inf"), True, 1e9, None, [600]):
        with pytest.raises(ConfigError, match="duration "):
            parse_duration(value)  # type: ignore[arg-type]


def test_an_earlier_name_is_the_same_setting(tmp_path: Path) -> None:
    earlier = make_config(
        out=tmp_path, way="voting", slots=4, group=2, silence=5.0, start=7.0, warm_up_steps=1, margin=9.0, new_budget=True
    )
    now = make_config(
        out=tmp_path,
        method="voting",
        max_concurrent=4,
        tasks_per_job=2,
        heartbeat_timeout=5.0,
        startup_timeout=7.0,
        joint_warmup_steps=1,
        report_reserve=9.0,
        reset_budget=True,
    )
    assert earlier == now
    with pytest.raises(ConfigError, match="max_concurrent and slots are one setting"):
        make_config(out=tmp_path, slots=4, max_concurrent=4)
    with pytest.raises(ConfigError, match="no such setting: speed"):
        make_infer_config(out=tmp_path, speed=3)


@dataclass(frozen=True)
class Example:
    count: int = option(3, help="a number", identity=Identity.SAME, minimum=1, maximum=9, commands=("try",))
    share: float = option(0.5, help="a share of 100 %", identity=Identity.FREE, above=0, below=1, commands=("try",))
    kind: str = option("a", help="a kind", identity=Identity.SAME, choices=("a", "b"), when=lambda one: one.count > 3, key="sort")


@given(st.integers(-5, 15), st.one_of(st.floats(-1, 2), st.just(float("nan")), st.just(float("inf"))), st.sampled_from("abc"))
def test_checks_follow_the_definition(count: int, share: float, kind: str) -> None:
    one = Example(count, share, kind)
    allowed = 1 <= count <= 9 and 0 < share < 1 and kind in "ab"
    if allowed:
        check_options(one, "x_")
        assert identity_values(one, "x_") == {"x_count": count, **({"x_sort": kind} if count > 3 else {})}
    else:
        with pytest.raises(ConfigError, match=r"^--x-(count|share|kind) "):
            check_options(one, "x_")


def test_help_names_the_default_and_escapes_per_cent() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser, Example, "try", "x_", {"count": 7})
    text = " ".join(parser.format_help().split())
    assert "a number (default: 7)" in text
    assert "a share of 100 % (default: 0.5)" in text
    assert "--x-kind" not in text


def test_finetune_offers_every_option_that_a_later_run_of_its_adapters_must_repeat() -> None:
    """What makes a run another one, but for the options of other sources and of the base model's answers, which such a run has not."""
    others = {"sources", "source", "sources_file", "search_effort", "search_proposals", "candidates", "threshold", "temperature"}
    for settings in (RunConfig, TTFTSettings, LoraSettings, DfsLimits):
        for name, definition in options_of(settings):
            if definition.identity is not Identity.FREE and "run" in definition.commands and name not in others:
                assert "finetune" in definition.commands, name


def test_the_length_of_a_named_file_bounds_a_presets_but_not_a_given_one(tmp_path: Path) -> None:
    file = tmp_path / "asked.json"
    values = {"grid_encoder": "MinimalGridEncoder()", "prompt": "output-from-examples-v1", "max_seq_len": 1024}
    file.write_text(json.dumps(values))
    given = {"model": tmp_path, "model_config": file}
    assert make_config("t4x2-qwen2.5-0.5b", **given).max_seq_len == 1024
    assert make_config("t4x2-qwen2.5-0.5b", **given, max_seq_len=5120).max_seq_len == 5120
    file.write_text(json.dumps({**values, "max_seq_len": 8192}))
    assert make_config("t4x2-qwen2.5-0.5b", **given).max_seq_len == 5120
