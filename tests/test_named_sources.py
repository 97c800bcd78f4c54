"""Sources with names of their own: how they are given, what each gets, which share devices and time, and what a resumed run refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arc_submit.arc.datasets import read_challenges, split_tasks
from arc_submit.arc.prediction import read_predictions
from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.finetune import ttft_worker
from arc_submit.kaggle.run_parameters import run_parameters
from arc_submit.report.losses import read_losses
from arc_submit.report.timeline import COLOURS, colours_of, read_timeline
from arc_submit.run import host as host_module
from arc_submit.run.config import RunConfig
from arc_submit.run.data import load_data
from arc_submit.run.definitions import read_source, read_sources_file, split_definitions
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.host import Host, allocate_workers
from arc_submit.run.named_sources import lane_devices, source_config, source_lanes
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.run.simulate import Rig, like_config, rig_setup
from arc_submit.scheduling.lane_time import LaneMember, LaneTime
from arc_submit.scheduling.scheduler import choose_deadline
from arc_submit.storage.run_dir import open_run
from arc_submit.workers.devices import Gpu
from arc_submit.workers.supervisor import BoundedQuota, WorkerQuota

SEARCH, FROZEN = "search", "frozen7=frozen:views=3"
ONE, TWO = "one=ttft:ttft_steps=2,ttft_views=1", "two=ttft:ttft_steps=3,ttft_views=1,lora_rank=2,joint_warmup_steps=1"


def test_a_value_goes_on_behind_a_comma_where_no_option_begins() -> None:
    given = read_source("a=ttft:devices=cuda:0,cuda:1,share=0.3,--lora-targets=q_proj,k_proj")
    assert (given.name, given.kind) == ("a", "ttft")
    assert given.options == {"devices": "cuda:0,cuda:1", "share": "0.3", "lora_targets": "q_proj,k_proj"}
    assert read_source(given.text) == replace(given, where=f"--source {given.text}")
    assert (read_source("search").name, read_source("search").kind) == ("search", "search")
    assert split_definitions("a=ttft:views=2; b=frozen\nsearch\n") == ("a=ttft:views=2", "b=frozen", "search")


def test_a_file_gives_what_texts_give(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text('[one]\nkind = "ttft"\nttft_steps = 2\nshare = 0.5\nlora-targets = ["q_proj"]\n\n[frozen]\nkind = "frozen"\n')
    text = ["one=ttft:ttft_steps=2,share=0.5,lora_targets=q_proj", "frozen"]
    assert make_config(sources_file=file).definitions == make_config(source=text).definitions
    assert make_config(sources_file=str(file), source="deep=search:effort=long").sources == ("one", "frozen", "deep")
    assert [one.name for one in read_sources_file(file)] == ["one", "frozen"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x=dreams", r"--source x=dreams: there is no kind of source dreams; choose from search, frozen, code, ttft$"),
        ("ttft=frozen", "ttft is the name of another kind of source; give this one a name of its own"),
        ("judge=frozen", "the name judge stands for other work in a run"),
        ("../a=ttft", "must be a letter and up to 31 more letters, digits, - and _"),
        ("a=ttft:steps=3", "steps is no option of a ttft source; there are .*ttft_steps.*, preset and share$"),
        ("a=search:views=3", "views is no option of a search source; there are search_effort, .*, preset and share$"),
        ("a=frozen:budget=3m", "budget is no option of a frozen source"),
        ("a=ttft:ttft_steps=many", "a=ttft:ttft_steps=many: --ttft-steps many: a whole number is needed$"),
        ("a=ttft:ttft_steps=0", "--ttft-steps 0: at least 1 is needed"),
        ("a=ttft:share=1.5", "--share 1.5: at most 1 is allowed"),
        ("a=ttft:share=0", "--share 0: a number above 0 is needed"),
        ("a=ttft:preset=cray", "preset cray: choose from cpu-pocket"),
        ("a=ttft:ttft_in_4_bits=yes", "--source a=.*needs GPUs"),
        ("a=ttft:three", "'three' is no OPTION=VALUE"),
        ("a=ttft:views=1,views=2", "views is there twice"),
        ("a=", "write NAME=KIND or NAME=KIND:OPTION=VALUE"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_one_line_with_the_remedy(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(source=[given])
    assert "\n" not in str(caught.value)


def test_names_that_do_not_go_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"the name One is there twice"):
        make_config(source=[ONE, "One=frozen"])
    with pytest.raises(ConfigError, match=r"--sources search: add one, or leave its definition out"):
        make_config(sources=("search",), source=[ONE])
    with pytest.raises(ConfigError, match=r"--sources search,one,two: choose from search, frozen, code, ttft"):
        make_config(sources=("search", "one", "two"), source=[ONE])
    with pytest.raises(ConfigError, match=r"--weights two=2: a number above 0 for one of one, "):
        make_config(source=[ONE], weights={"two": 2.0})
    (tmp_path / "s.toml").write_text("[a]\nviews = 3\n")
    assert main(["run", "--out", str(tmp_path / "out"), "--sources-file", str(tmp_path / "s.toml")]) == 1
    assert '[a] needs kind = "search", "frozen", "code" or "ttft"' in capsys.readouterr().err
    assert make_config(source=[ONE, TWO], sources=("two", "search", "one"), weights={"two": 2.0}).kinds == ("ttft", "search", "ttft")


def test_a_sources_own_options_come_before_its_presets_and_the_runs(tmp_path: Path) -> None:
    config = make_config(
        source=["a=ttft:ttft_steps=7,preset=t4x2-qwen2.5-0.5b", "b=ttft", "c=ttft:views=3", "d=search:search_effort=long"],
        ttft_steps=20,
        lora_rank=4,
        views=5,
        search_effort="quick",
        budget="1h",
    )
    a, b, c, d = (source_config(config, name) for name in "abcd")
    assert (a.ttft.steps, a.lora.rank, a.views, a.max_seq_len, a.devices) == (7, 128, 16, 5120, ("cpu",)), "a preset gives no devices"
    assert (b.ttft.steps, b.lora.rank, b.views, b.ttft_max_seq_len) == (20, 4, 5, 1024), "the run's options, then its preset's"
    assert (c.views, c.ttft.steps) == (3, 20)
    assert (d.search_effort, d.ttft, d.budget, d.sources) == ("long", RunConfig().ttft, 3600.0, ("search",))
    assert config.search_effort == "quick"


def test_a_source_has_its_own_limits_of_searches_and_its_own_way_to_ask_for_programs() -> None:
    config = make_config(source=["a=code:code_samples=3", "b=frozen:dfs_steps=9", "c=code"], code_views=2, dfs_batch=5)
    a, b, c = (source_config(config, name) for name in "abc")
    assert (a.code.samples, a.code.views, a.dfs) == (3, 2, RunConfig().dfs)
    assert (b.dfs.steps, b.dfs.batch, b.code) == (9, 5, RunConfig().code)
    assert (c.code.samples, c.code.views) == (RunConfig().code.samples, 2)
    with pytest.raises(ConfigError, match="a=code:dfs_steps=3: dfs_steps is no option of a code source"):
        make_config(source=["a=code:dfs_steps=3"])


def test_a_run_without_definitions_is_what_it_was(files: tuple[Path, Path], tmp_path: Path) -> None:
    plain = make_config(challenges=files[0], out=tmp_path, sources=("search", "frozen"))
    same = make_config(challenges=files[0], out=tmp_path, source=["search", "frozen"])
    assert same.definitions == {}
    assert run_fingerprint(same, load_data(same)) == run_fingerprint(plain, load_data(plain))
    assert not any("." in name for name in run_fingerprint(plain, load_data(plain)))


def test_a_definition_is_part_of_the_runs_identity(files: tuple[Path, Path], tmp_path: Path) -> None:
    def fingerprint(*source: str) -> dict[str, Any]:
        config = make_config(challenges=files[0], out=tmp_path / "run", source=source)
        return run_fingerprint(config, load_data(config))

    begun = fingerprint(SEARCH, ONE, TWO)
    with open_run(tmp_path / "run", begun):
        pass
    assert fingerprint(SEARCH, f"{ONE},share=0.3,ttft_max_steps=90", TWO) == begun, "what is free stays free"
    for other in (ONE.replace("views=1", "views=2"), f"{ONE},seed=1", f"{ONE},lora_alpha=3"):
        assert fingerprint(SEARCH, other, TWO) != begun, other
    with pytest.raises(ConfigError, match=r"holds another run \(two.lora_rank was 2 and is 4\); give another --out"):
        open_run(tmp_path / "run", fingerprint(SEARCH, ONE, TWO.replace("rank=2", "rank=4"))).__enter__()
    with pytest.raises(ConfigError, match=r"\(one.kind was 'ttft' and is 'frozen'\)"):
        open_run(tmp_path / "run", fingerprint(SEARCH, "one=frozen:views=3", TWO)).__enter__()
    with pytest.raises(ConfigError, match=r"\(sources differ, the source two was given and is not\)"):
        open_run(tmp_path / "run", fingerprint(SEARCH, ONE)).__enter__()
    like = like_config(tmp_path / "run", challenges=files[0])
    assert like.sources == ("search", "one", "two")
    assert source_config(like, "two").ttft.steps == 3


def test_each_source_gets_its_own_model_folder_lengths_and_settings(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    sources = [SEARCH, "deep=search:search_effort=long", f"{ONE},model={other},max_seq_len=300,ttft_engine=vllm", TWO, FROZEN]
    config = make_config(challenges=files[0], out=tmp_path / "run", model=tiny_model, source=sources, ttft_max_seq_len=200)
    resolved = resolve_run(config)
    assert [source.name for source in resolved.sources] == [
        "search", "deep", "frozen7", "one.finetune", "one", "two.warmup", "two"
    ]  # fmt: skip
    by_name = {source.name: source for source in resolved.sources}
    told = {name: source.backends[0].settings_for(0) for name, source in by_name.items()}
    home = tmp_path / "run" / "sources"
    assert (told["deep"]["source"], told["deep"]["effort"], told["search"]["effort"]) == ("deep", "long", "normal")
    assert (told["one"]["model"], told["one"]["adapters"], told["one"]["kind"]) == (str(other), str(home / "one" / "adapters"), "ttft")
    assert told["two"]["base_adapter"] == str(home / "two" / "warmup" / "adapter")
    assert (told["two"]["predict"]["model"], told["two"]["home"]) == (str(tiny_model), str(home / "two"))
    assert (told["frozen7"]["views"], told["frozen7"]["source"], told["frozen7"]["kind"]) == (3, "frozen7", "frozen")
    assert (by_name["one"].scale.prompt_len, by_name["one"].scale.train_len) == (300, 200)
    assert by_name["two"].scale.prompt_len != 300
    assert {source.lane for source in resolved.sources} == {"search", "model"}
    assert [source.owner for source in resolved.sources] == ["search", "deep", "frozen7", "one", "one", "two", "two"]
    assert set(resolved.adapter_budgets) == {"one", "two"}
    assert "divided by 2 sources" in resolved.adapter_budgets["one"].reason
    assert resolved.ensemble.order == ("search", "deep", "one", "two", "frozen7")


def test_a_fine_tuned_source_writes_under_its_own_name(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    split_tasks(read_challenges(files[0]).subset(["task000"]), run / "tasks")
    config = make_config(challenges=files[0], out=run, model=tiny_model, source=[ONE, TWO], max_seq_len=400, ttft_max_seq_len=400)
    for source in resolve_run(config).sources:
        entry = source.backends[0].entry.partition(":")[2]
        do = getattr(ttft_worker, entry)(source.backends[0].settings_for(0), lambda: None)
        task = "task000" if source.name in ("one", "two") else "all tasks"
        assert do({"tasks": [task]})["tasks"][task]["failed"] == ""
    for name, steps in (("one", 2), ("two", 3)):
        predictions, _ = read_predictions(run / "predictions" / name / "task000.jsonl")
        assert {(one.source, one.source_kind) for one in predictions} == {(name, "ttft")}
        assert (run / "sources" / name / "adapters" / "task000" / "adapter_model.safetensors").exists()
        assert len(read_losses(run)[f"{name} task000"]) == steps
    assert (run / "sources" / "two" / "warmup" / "adapter" / "adapter_config.json").exists()
    assert not (run / "adapters").exists()


def devices(*sources: str) -> RunConfig:
    return make_config(source=sources, devices="cuda:0,cuda:1")


def test_sources_that_share_a_device_take_turns_and_others_work_side_by_side() -> None:
    same = devices("a=ttft", "b=frozen", SEARCH)
    assert source_lanes(same) == {"a": "model", "b": "model"}
    apart = devices("a=ttft:devices=cuda:0", "b=frozen:devices=cuda:1", "c=frozen:devices=cpu")
    assert source_lanes(apart) == {"a": "model", "b": "model on cuda:1", "c": "model on cpu"}
    # The third has a device in common with each of the first two: all three take turns.
    met = devices("a=ttft:devices=cuda:0", "b=frozen:devices=cuda:1", "c=frozen")
    assert set(source_lanes(met).values()) == {"model"}
    assert lane_devices(met) == {"model": ("cuda:0", "cuda:1")}
    quota = WorkerQuota(4)
    bounded = BoundedQuota(quota, 1)
    quota.stopped = True
    assert (bounded.workers, bounded.stopped) == (1, True)


def test_every_lane_has_the_workers_of_its_devices() -> None:
    lanes = {"model": ("cuda:0",), "model on cuda:1,cuda:2": ("cuda:1", "cuda:2"), "model on cpu": ("cpu",)}
    host = Host(("cuda:0", "cuda:1", "cuda:2", "cpu"), 4, 1, 1.0, lanes=lanes)
    workers, reason = allocate_workers(host, ["search", *lanes], 8, 64.0)
    assert workers == {"search": 2, "model": 1, "model on cuda:1,cuda:2": 2, "model on cpu": 2}
    assert reason == (
        "of 4 CPU workers the search has 2 and the model on cpu has 2, beside 1 GPU workers of the model and "
        "2 GPU workers of the model on cuda:1,cuda:2"
    )
    assert allocate_workers(host, ["search", "model"], 8, 64.0)[0] == {"search": 7, "model": 1}
    assert host.worker_resources("model on cpu") == (1, 0)
    assert host.worker_resources("model") == (1, 1)


def test_a_share_is_of_the_whole_time_and_what_is_left_goes_to_those_behind() -> None:
    f, w, a, b = LaneMember("f", 10, "f"), LaneMember("a.warmup", 0, "a", 0.3), LaneMember("a", 500, "a", 0.3), LaneMember("b", 30, "b")
    lane = LaneTime(0.0, 100.0)
    end, reason = lane.choose(0.0, f, [w, a, b])
    assert (end, "kept for a 30 s" in reason) == (35.0, True), "half of the 70 seconds that are not a's"
    assert lane.choose(5.0, w, [a, b])[0] == 20.0, "what prepares a source has at most half of its share"
    assert lane.choose(6.0, a, [b])[0] == 35.0, "the share is of the whole time, whatever is left before it"
    assert lane.choose(35.0, b, [])[0] == 100.0
    assert LaneTime(0.0, 100.0).choose(90.0, a, [])[0] == 100.0, "nothing follows"
    assert LaneTime(0.0, 100.0).choose(0.0, f, [b]) == choose_deadline(0.0, 100.0, 10, {"b": 30}), "without shares as ever"
    gain = replace(b, by_gain=True)
    assert LaneTime(0.0, 100.0).choose(0.0, f, [gain])[0] == 25, "its part by the estimates where time goes by gain behind it, not half"
    assert LaneTime(0.0, 100.0).choose(0.0, replace(f, seconds=0.1), [gain])[0] == 20, "and a fifth at least"


def test_a_source_that_cannot_work_leaves_the_others_in_a_competitions_re_run(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "find_gpus", lambda: ([Gpu("Tesla T4", 14.7, (7, 5))], "torch sees 1 GPU"))
    given: dict[str, Any] = {"challenges": files[0], "model": tiny_model, "out": tmp_path / "run", "max_seq_len": 400}
    sources = ["search", FROZEN, f"gone=ttft:model={tmp_path / 'absent'}", "far=frozen:devices=cuda:3"]
    with pytest.raises(ConfigError, match=rf"--source gone: .*{tmp_path / 'absent'}"):
        resolve_run(make_config(**given, source=sources))
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    resolved = resolve_run(make_config(**given, source=sources))
    assert resolved.answering == ("search", "frozen7")
    assert [source.name for source in resolved.sources] == ["search", "frozen7"]
    assert set(resolved.lost) == {"gone", "far"}
    assert "cuda:3 not there" in resolved.lost["far"]


def test_the_timeline_has_a_row_and_a_colour_for_each_source() -> None:
    def event(time: float, kind: str, source: str, **more: Any) -> dict[str, Any]:
        return {"time": time, "event": kind, "source": source, **more}

    events = [{"time": 0.0, "event": "run_started"}, event(0.0, "source_begun", "deep", lane="search")]
    events += [event(1.0, "worker_begun", name, worker=0, tasks=["t"]) for name in ("deep", "one.finetune", "search")]
    events += [event(5.0, "task_done", name, worker=0) for name in ("deep", "one.finetune", "search")]
    assert {(bar.source, bar.worker) for bar in read_timeline(events).bars} == {
        ("deep", "search 0"), ("one.finetune", "model 0"), ("search", "search 0")
    }  # fmt: skip
    colours = colours_of(["search", "one.warmup", "one", "two", "finetune"])
    assert colours["one.warmup"] == colours["one"] != colours["two"]
    assert (colours["search"], colours["finetune"]) == (COLOURS["search"], COLOURS["finetune"])
    assert len({colours[name] for name in ("search", "one", "two")}) == 3


def test_a_notebook_gives_sources_as_text_or_list_and_their_models_by_name(tmp_path: Path, tiny_model: Path) -> None:
    for name in ("small", "large"):
        shutil.copytree(tiny_model, tmp_path / "input" / name)
    text = "a=ttft:model=small,ttft_steps=3; b=frozen:model=large; search"
    for source in (text, text.split("; ")):
        values = run_parameters({"source": source}, tmp_path, "run")
        assert values["source"] == [
            f"a=ttft:model={tmp_path / 'input' / 'small'},ttft_steps=3", f"b=frozen:model={tmp_path / 'input' / 'large'}", "search=search"
        ]  # fmt: skip
        assert values.get("model") is None, "two models are attached, and no source asks for the run's"
        assert make_config(**values).kinds == ("ttft", "frozen", "search")


def test_named_sources_are_simulated_on_their_devices() -> None:
    sources = ["a=ttft:devices=cuda:0,cuda:1", "b=frozen:devices=cuda:2,share=0.5", "c=frozen:devices=cuda:2", "search"]
    config = make_config("t4x2-qwen2.5-1.5b", model=Path("simulated"), max_seq_len=None, source=sources)
    setup = rig_setup(config, Rig(4, "T4", 1.5e9, own_parameters={"b": 7e9}), 5)
    assert {lane: [(one.name, one.share) for one in members] for lane, members in setup.lanes.items()} == {
        "model": [("a", None)], "model on cuda:2": [("b", 0.5), ("c", None)]
    }  # fmt: skip
    assert setup.allocate_workers(["model"]) == {"model": 2, "model on cuda:2": 1}
    b, c = setup.lanes["model on cuda:2"]
    assert b.true_costs.predict.rate > 4 * c.true_costs.predict.rate
