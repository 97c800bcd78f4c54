"""The preset auto: its settings from cards that need not exist, near the published presets', and the same when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_challenges

from arc_submit.base_model.memory import SIZES, shape_of
from arc_submit.errors import ConfigError
from arc_submit.run import auto_inputs, host
from arc_submit.run.auto import Machine, Model, Work, choose_settings
from arc_submit.run.choices import Choice, values_of
from arc_submit.run.data import load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.named_sources import source_config
from arc_submit.run.pipeline import _log_start
from arc_submit.run.presets import PRESETS, build_config, make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.storage.run_dir import open_run
from arc_submit.workers import devices
from arc_submit.workers.devices import Gpu, _has_code

T4, L4 = Gpu("Tesla T4", 14.56, (7, 5)), Gpu("NVIDIA L4", 22.3, (8, 9))
H100, P100 = Gpu("NVIDIA H100 80GB HBM3", 79.0, (9, 0)), Gpu("Tesla P100-PCIE-16GB", 15.9, (6, 0), supported=False)
HOURS, TASKS, KILO_CELLS = 11.5 * 3600 - 600, 240, 1.61  # the mean of ARC-AGI-1's evaluation tasks


def rig(*gpus: Gpu, vllm: bool = True) -> Machine:
    return Machine({f"cuda:{number}": gpu for number, gpu in enumerate(gpus)}, vllm)


def public(size: str) -> Model:
    return Model(SIZES[size], SIZES[size].weights / 2, 32768)


def settings_of(machine: Machine, model: Model, work: Work | None = None, **given: Any) -> dict[str, Any]:
    return values_of(choose_settings(machine, model, work or Work(HOURS, TASKS, KILO_CELLS), given))


@pytest.mark.parametrize(
    ("preset", "gpus", "size"),
    [
        ("t4x2-qwen2.5-0.5b", (T4, T4), "0.5B"),
        ("t4x2-qwen2.5-1.5b", (T4, T4), "1.5B"),
        ("l4x4-qwen2.5-1.5b", (L4,) * 4, "1.5B"),
        ("l4x4-qwen3-4b", (L4,) * 4, "4B"),
        ("hybrid-7b", (L4,) * 4, "7B"),
    ],
)
def test_it_decides_about_what_the_published_presets_have(preset: str, gpus: tuple[Gpu, ...], size: str, tmp_path: Path) -> None:
    values = settings_of(rig(*gpus), public(size))
    auto, published = build_config({**values, "model": tmp_path}), make_config(preset, model=tmp_path)
    for name in ("devices", "engine", "max_concurrent", "max_seq_len", "ttft_max_seq_len", "lora", "heartbeat_timeout"):
        assert getattr(auto, name) == getattr(published, name), name
    for name in ("gradient_checkpointing", "learning_rate", "schedule", "warmup_ratio"):
        assert getattr(auto.ttft, name) == getattr(published.ttft, name), name
    assert auto.ttft_views is not None
    assert published.ttft_views is not None
    pairs = ((auto.ttft.steps, published.ttft.steps), (auto.ttft_views, published.ttft_views), (auto.views, published.views))
    for own, other in pairs:
        assert 0.5 <= own / other <= 2
    assert (auto.ttft_max_steps, auto.ttft_max_views) == (8 * auto.ttft.steps, 32 * auto.ttft_views)


def test_every_choice_is_one_line_with_value_and_reason() -> None:
    choices = choose_settings(rig(T4, T4), public("1.5B"), Work(HOURS, TASKS), {})
    lines = [choice.text for choice in choices]
    assert all(": " in line and "\n" not in line and choice.reason for line, choice in zip(lines, choices, strict=True))
    named = {name for choice in choices for name in choice.values}
    assert {"devices", "dtype", "max_concurrent", "max_seq_len", "ttft_max_seq_len", "ttft_gradient_checkpointing", "engine"} <= named
    assert {"ttft_steps", "ttft_views", "views"} <= named
    assert "dtype float16: before sm_80 there are no bfloat16 products; losses are scaled" in lines


@pytest.mark.parametrize(
    ("machine", "model", "work", "given", "expected"),
    [
        (rig(P100, L4), public("1.5B"), Work(HOURS, TASKS), {}, {"devices": ("cuda:1",)}),
        (rig(T4, L4), public("7B"), Work(HOURS, TASKS), {}, {"devices": ("cuda:1",)}),
        (rig(L4, L4), public("1.5B"), Work(HOURS, TASKS), {"devices": ("cuda:1",)}, {"devices": None}),
        (rig(L4, vllm=False), public("1.5B"), Work(HOURS, TASKS), {}, {"engine": "transformers"}),
        (rig(L4), public("1.5B"), Work(600.0, 40), {}, {"engine": "transformers", "ttft_steps": 25, "ttft_views": 4}),
        (rig(L4), public("1.5B"), Work(HOURS, TASKS), {"candidates": "dfs"}, {"engine": "transformers"}),
        (rig(T4), public("4B"), Work(HOURS, TASKS), {}, {"lora_rank": 128}),
        (rig(L4), public("1.5B"), Work(HOURS, TASKS), {"lora_rank": 8}, {"lora_rank": None, "lora_alpha": 64.0}),
        (rig(L4), Model(SIZES["1.5B"], 1.5e9, 4096), Work(HOURS, TASKS), {}, {"max_seq_len": 4096}),
        (rig(L4), Model(SIZES["1.5B"], 1.5e9, 32768, 8192), Work(HOURS, TASKS), {}, {"max_seq_len": 8192}),
        (rig(L4), Model(None, 1.5e9), Work(HOURS, TASKS), {}, {"max_seq_len": 5120, "max_concurrent": 16}),
        (rig(L4), public("1.5B"), Work(HOURS, TASKS), {"sources": ("search", "frozen")}, {"ttft_steps": None, "lora_rank": None}),
    ],
)
def test_what_decides(machine: Machine, model: Model, work: Work, given: dict[str, Any], expected: dict[str, Any]) -> None:
    values = settings_of(machine, model, work, **given)
    assert {name: values.get(name) for name in expected} == expected


def test_more_time_and_fewer_tasks_buy_more() -> None:
    short, long, few = (settings_of(rig(T4, T4), public("1.5B"), Work(*work)) for work in ((7200, 240), (HOURS, 240), (7200, 24)))
    assert short["ttft_steps"] < long["ttft_steps"]
    assert short["ttft_steps"] < few["ttft_steps"]
    assert short["ttft_views"] < few["ttft_views"]


def test_a_long_prompt_that_does_not_fit_is_shortened_and_said() -> None:
    model = Model(SIZES["4B"], 4e9, 131072, 100_000)
    choices = choose_settings(rig(L4), model, Work(HOURS, TASKS), {})
    values = values_of(choices)
    assert 5120 < values["max_seq_len"] < 100_000
    assert any("the longest that the card answers two of, of 100000" in choice.text for choice in choices)
    assert values["lora_rank"] < 256
    # A sample may have to be shorter still.
    wide = settings_of(rig(L4), public("4B"), lora_rank=256, lora_targets=build_config({}).lora.targets, max_seq_len=16384)
    assert wide["ttft_max_seq_len"] < 16384


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90"], (7, 5), True),
        (["sm_75", "sm_80", "sm_90"], (8, 9), True),
        (["sm_75", "sm_80", "sm_90a", "compute_120"], (12, 1), True),
        (["sm_75", "sm_80", "sm_100"], (6, 0), False),
        (["sm_75", "sm_80"], (12, 0), False),
        ([], (6, 0), True),
    ],
)
def test_the_architectures_that_torch_has_code_for(architectures: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert _has_code(architectures, *capability) is runs


@pytest.fixture
def challenges(tmp_path: Path) -> Path:
    path = tmp_path / "challenges.json"
    path.write_text(json.dumps(make_challenges(2)[0]))
    return path


def see(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    found = (list(gpus), f"torch sees {len(gpus)} GPUs")
    monkeypatch.setattr(auto_inputs, "_find_gpus", lambda: found)
    monkeypatch.setattr(host, "find_gpus", lambda: found)
    monkeypatch.setattr(auto_inputs, "has_gpu_driver", lambda: bool(gpus))


def test_it_is_the_default_where_a_gpu_and_a_model_are_there(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"challenges": challenges, "out": tmp_path / "run"}
    see(monkeypatch, L4)
    assert make_config(**given, model=tiny_model).devices == ("cuda:0",)
    assert make_config(**given).devices == ("cpu",)
    assert make_config("cpu-pocket", **given, model=tiny_model).choices == ()
    assert make_config(**given, model=tiny_model, devices="cpu").choices == ()
    see(monkeypatch)
    assert make_config(**given, model=tiny_model) == make_config("cpu-pocket", **given, model=tiny_model)
    monkeypatch.setattr(auto_inputs, "has_gpu_driver", lambda: True)
    unseen = make_config(**given, model=tiny_model)
    assert unseen.devices == ("cpu",)
    assert [choice.text for choice in unseen.choices] == ["devices cpu: there is the driver of a GPU, but torch sees 0 GPUs"]
    assert "auto" not in run_fingerprint(unseen, load_data(unseen))
    with pytest.raises(ConfigError, match=r"no GPU is there \(torch sees 0 GPUs\); switch the accelerator on, or give --preset cpu-pocket"):
        make_config("auto", **given, model=tiny_model)
    with pytest.raises(ConfigError, match="give --model"):
        make_config("auto", **given)


def test_a_machine_without_a_driver_is_known_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_DRIVERS", (tmp_path / "nvidia",))
    assert not devices.has_gpu_driver()
    (tmp_path / "nvidia").mkdir()
    assert devices.has_gpu_driver()


def begin(config: Any) -> dict[str, Any]:
    """Begin a run as far as its config.json."""
    fingerprint = run_fingerprint(config, load_data(config))
    with open_run(config.out, fingerprint):
        return fingerprint


def test_a_run_that_goes_on_keeps_what_was_decided(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "out": tmp_path / "run"}
    see(monkeypatch, L4, L4)
    first = make_config("auto", **given, budget="12h")
    begin(first)
    # Another card, less time and fewer GPUs would decide otherwise.
    see(monkeypatch, T4)
    second = make_config("auto", **given, budget="30m")
    assert second.devices == ("cuda:0",)
    assert (second.ttft, second.lora, second.views, second.max_concurrent) == (first.ttft, first.lora, first.views, first.max_concurrent)
    begin(second)
    assert begin(make_config(**given, budget="30m")) == begin(second), "nothing need be said to go on"
    assert "as this run began" in second.choices[-1].text
    assert make_config("auto", **{**given, "out": tmp_path / "other"}, budget="30m").max_concurrent != first.max_concurrent


def test_a_run_that_began_without_auto_goes_on_without_it(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "out": tmp_path / "run"}
    see(monkeypatch)
    before = begin(make_config(**given))
    assert "auto" not in before
    see(monkeypatch, L4)
    assert make_config(**given).devices == ("cpu",)
    assert begin(make_config(**given)) == before


def test_a_re_run_without_its_gpus_goes_on_with_the_search(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    see(monkeypatch)
    resolved = resolve_run(make_config("auto", challenges=challenges, model=tiny_model, out=tmp_path / "run", max_seq_len=1024))
    assert [source.name for source in resolved.sources] == ["search"]
    assert set(resolved.lost) == {"ttft", "frozen"}


def test_a_models_own_settings_are_stronger(challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, L4)
    asked = json.loads((tiny_model / "arc_submit.json").read_text()) | {
        "options": {"lora_rank": 12, "ttft_steps": 7, "dfs_steps": 70, "dfs_batch": 4}
    }
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    config = make_config(
        "auto", challenges=challenges, model=tiny_model, out=tmp_path / "run", model_config=tmp_path / "asked.json", views=3, dfs_batch=2
    )
    assert (config.dfs.steps, config.dfs.batch) == (70, 2)
    assert (config.lora.rank, config.ttft.steps, config.views, config.lora.targets) == (12, 7, 3, ("q_proj", "k_proj", "v_proj", "o_proj"))
    assert not {"lora_rank", "ttft_steps", "views"} & set(values_of(config.choices))


def test_a_model_in_fewer_bits_is_not_planned(challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, L4)
    given: dict[str, Any] = {"challenges": challenges, "out": tmp_path / "run", "sources": ("ttft",)}
    config = make_config("auto", **given, model=tiny_model, ttft_in_4_bits=True)
    assert any("the memory plan does not hold for this model" in choice.text for choice in config.choices)
    assert shape_of(SIZES["4B"].config | {"quantization_config": {"quant_method": "awq"}}) is None


def test_a_cluster_is_not_seen(challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, L4)
    given: dict[str, Any] = {"challenges": challenges, "out": tmp_path / "run", "model": tiny_model, "executor": "ray"}
    with pytest.raises(ConfigError, match="on a cluster name a preset"):
        make_config("auto", **given)
    assert make_config(**given).devices == ("cpu",)


def test_the_log_of_a_run_says_what_was_decided(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, L4)
    resolved = resolve_run(make_config("auto", challenges=challenges, model=tiny_model, out=tmp_path / "run", max_seq_len=1024))
    lines: list[str] = []
    with open_run(tmp_path / "run", resolved.fingerprint) as directory:
        _log_start(resolved, directory, 1e9, SimpleNamespace(log=lines.append))  # type: ignore[arg-type]
    told = [line for line in lines if line.startswith("auto: ")]
    assert told == [f"auto: {choice.text}" for choice in resolved.choices]
    assert len(told) > 8


def test_it_decides_for_each_source_with_a_model_of_its_own_and_a_resumed_run_decides_nothing_anew(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, L4, L4)
    source = ["search", f"a=ttft:model={tiny_model},devices=cuda:0", f"b=frozen:model={tiny_model},devices=cuda:1,views=3"]
    given: dict[str, Any] = {"challenges": challenges, "out": tmp_path / "run", "source": source}
    config = make_config(**given, max_seq_len=1024)
    a, b = source_config(config, "a"), source_config(config, "b")
    assert (a.devices, b.devices, b.views, config.devices) == (("cuda:0",), ("cuda:1",), 3, ("cpu",))
    assert (a.max_concurrent, config.choices, config.method) == (64, (), "probability")
    resolved = resolve_run(config)
    assert {source.lane for source in resolved.sources} == {"search", "model", "model on cuda:1"}
    assert any("(source a)" in choice.text for choice in resolved.choices)
    assert "views" not in resolved.fingerprint["b.auto"]
    with open_run(tmp_path / "run", resolved.fingerprint):
        pass
    again = make_config(**given, max_seq_len=1024, budget="1h")
    assert again.definitions["a"].values == config.definitions["a"].values
    assert resolve_run(again).fingerprint == resolved.fingerprint
    assert make_config("auto", **given).definitions["a"].choices


def test_a_choice_is_told_in_words() -> None:
    choice = Choice({"devices": ("cuda:0", "cuda:1"), "rate": 1e-5, "on": True}, "because")
    assert choice.text == "devices cuda:0,cuda:1, rate 1e-05, on on: because"
    assert "auto" not in PRESETS, "named presets are records; auto decides"
