"""GPUs and models that are not there: refused before any work, and in a competition's re-run left out and said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges, worker_settings

from arc_submit.arc.datasets import read_challenges
from arc_submit.arc.submission import read_submission
from arc_submit.base_model.memory import SIZES
from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.run import host, resolve, source_frozen
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.pipeline import run
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.workers import devices
from arc_submit.workers.devices import Gpu, find_gpus


@pytest.fixture
def challenges(tmp_path: Path) -> Path:
    path = tmp_path / "challenges.json"
    path.write_text(json.dumps(make_challenges(1)[0]))
    return path


def see(monkeypatch: pytest.MonkeyPatch, count: int, gib: float = 14.56) -> None:
    monkeypatch.setattr(host, "find_gpus", lambda: ([Gpu("Tesla T4", gib, (7, 5))] * count, f"torch sees {count} GPUs"))


def test_gpus_are_listed_in_a_process_of_its_own_with_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus, evidence = find_gpus()
    assert gpus == []
    assert evidence.startswith("torch ")
    monkeypatch.setattr(devices, "_LIST_GPUS", "import time; time.sleep(60)")
    assert find_gpus(0.3) == ([], "the driver has not answered in 0 s")
    monkeypatch.setattr(devices, "_LIST_GPUS", "raise RuntimeError('driver too old')")
    assert find_gpus() == ([], "RuntimeError: driver too old")


@pytest.mark.parametrize(
    ("there", "preset", "message"),
    [
        (0, "t4x2-qwen2.5-0.5b", r"cuda:0, cuda:1 not there \(torch sees 0 GPUs\); switch the accelerator on, or give --devices cpu$"),
        (2, "hybrid-7b", r"cuda:2, cuda:3 not there \(torch sees 2 GPUs\); switch the accelerator on, or give --devices cuda:0,cuda:1$"),
    ],
)
def test_gpus_that_are_not_there_are_refused_before_any_work(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, preset: str, message: str
) -> None:
    see(monkeypatch, there)
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match=message):
        run(make_config(preset, **given, max_seq_len=1024, ttft_max_seq_len=1024))
    assert not (tmp_path / "out").exists()
    assert main(["infer", *(word for name, value in given.items() for word in (f"--{name}", str(value))), "--devices", "cuda:7"]) == 1
    assert not (tmp_path / "out").exists()


def test_a_base_in_4_bits_without_its_package_is_refused_before_any_work(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, 1)
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "out": tmp_path / "out", "sources": ("ttft",)}
    with pytest.raises(ConfigError, match=r"--ttft-in-4-bits: the package bitsandbytes is not installed"):
        run(make_config(**given, devices=("cuda:0",), ttft_in_4_bits=True))
    assert not (tmp_path / "out").exists()


def test_the_search_has_less_priority_than_processes_that_feed_gpus(tmp_path: Path) -> None:
    levels = []
    for where in ("cpu", "cuda:0"):
        config = make_config(out=tmp_path, sources=("search",), devices=(where,))
        settings = worker_settings("search", config)
        code = (
            "import json, os, sys; from arc_submit.search import search_worker as w; w.warm_up = lambda: None;"
            "w.open_worker(json.loads(sys.argv[1]), lambda: None); print(os.nice(0))"
        )
        command = [sys.executable, "-c", code, json.dumps(settings)]
        levels.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert levels == [os.nice(0), min(19, os.nice(0) + 10)]


def test_the_search_needs_no_gpu(challenges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 0)
    resolved = resolve_run(make_config(challenges=challenges, out=tmp_path / "out", sources=("search",), devices=("cuda:0",)))
    assert [source.name for source in resolved.sources] == ["search"]


def test_a_re_run_without_its_gpus_goes_on_with_the_search_and_says_so(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    see(monkeypatch, 0)
    out = tmp_path / "out"
    given = ["--challenges", str(challenges), "--model", str(tiny_model), "--out", str(out), "--pictures", "0"]
    given += ["--sources", "frozen,ttft", "--search-effort", "quick", "--budget", "5m", "--workers", "1"]
    given += ["--max-seq-len", "1024", "--ttft-max-seq-len", "1024"]
    assert main(["run", "--preset", "t4x2-qwen2.5-0.5b", *given]) == 4
    lines = capsys.readouterr().out.strip().splitlines()
    reason = "--devices cuda:0,cuda:1: cuda:0, cuda:1 not there"
    assert lines[0].endswith(f"frozen gives nothing: {reason} (torch sees 0 GPUs); switch the accelerator on, or give --devices cpu")
    assert [line.split(" gives nothing: ")[0].split()[-1] for line in lines[-2:]] == ["frozen", "ttft"]
    assert (out / "report" / "scores.txt").read_text().startswith(f"frozen gives nothing: {reason}")
    assert reason in (out / "report" / "index.html").read_text()
    submission = read_submission(out / "submission.json", read_challenges(challenges))
    assert list(submission) == ["task000"]
    assert json.loads((out / "predictions" / "search" / "task000.jsonl").read_text().splitlines()[0])["source"] == "search"
    left_out = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines() if "source_left_out" in line]
    assert [event["source"] for event in left_out] == ["frozen", "ttft"]


def test_a_source_that_is_lost_on_the_way_is_named_at_the_end(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers cannot be imported here, as where a wheel is missing."""
    monkeypatch.setattr(source_frozen, "PREDICT_WORKER", "not_installed:open_worker")
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "sources": ("search", "frozen"), "search_effort": "quick"}
    result = run(make_config(**given, out=tmp_path / "out", budget=300.0, workers=1, pictures=0))
    assert list(result.lost) == ["frozen"]
    assert "No module named 'not_installed'" in result.lost["frozen"]
    assert result.report.text.startswith(f"frozen gives nothing: {result.lost['frozen']}")
    assert result.done == ["task000"]


def model_of(size: str, folder: Path, tiny_model: Path) -> Path:
    """The tiny model's files, with the sizes of a public model in its config.json: as far as it is planned for, that model."""
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text()) | SIZES[size].config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("size", "gib", "given", "lost", "words"),
    [
        ("7B", 14.56, {}, {"ttft", "frozen"}, "14.2 GiB of weights, with fine-tuning at least 1"),
        ("7B", 14.56, {"sources": ("frozen",)}, {"frozen"}, "GiB, and cuda:0 (Tesla T4) has 13.5 GiB for them; "),
        ("7B", 14.56, {}, {"ttft", "frozen"}, "; take a card such as l4 (22.3 GiB) or take a smaller model"),
        ("4B", 14.56, {"lora_rank": 512}, {"ttft"}, "; lower --lora-rank or take a card such as h100 (79 GiB) or"),
        ("4B", 14.56, {"lora_rank": 512, "sources": ("frozen",)}, set(), ""),
        ("4B", 14.56, {"lora_rank": 16}, set(), ""),
        ("4B", 14.56, {"lora_rank": 512, "sources": ("code",)}, set(), ""),
        (
            "4B",
            14.56,
            {"lora_rank": 512, "sources": ("code",), "code_learn_rounds": 1},
            {"code"},
            "; leave out --code-learn-rounds or",
        ),
        ("7B", 14.56, {"ttft_in_4_bits": True, "sources": ("search", "ttft")}, set(), ""),
        ("7B", 22.3, {}, set(), ""),
        ("7B", 0.0, {}, set(), ""),
    ],
)
def test_a_model_that_no_card_holds_is_found(
    tiny_model: Path, tmp_path: Path, size: str, gib: float, given: dict[str, Any], lost: set[str], words: str
) -> None:
    config = make_config(model=model_of(size, tmp_path / "model", tiny_model), devices=("cuda:0",), **given)
    reasons = sources_that_fit_no_card(config, {"cuda:0": Gpu("Tesla T4", gib, (7, 5))})
    assert set(reasons) == lost
    assert all("\n" not in reason for reason in reasons.values())
    assert words in next(iter(reasons.values()), "")
    # One card that holds it is enough.
    assert not sources_that_fit_no_card(config, {"cuda:0": Gpu("Tesla T4", 14.56, (7, 5)), "cuda:1": Gpu("NVIDIA H100", 79.0, (9, 0))})


def test_4_bits_are_named_where_their_package_is_there(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    config = make_config(model=model_of("7B", tmp_path / "model", tiny_model), devices=("cuda:0",), lora_rank=16)
    reasons = sources_that_fit_no_card(config, {"cuda:0": Gpu("Tesla T4", 14.56, (7, 5))})
    assert "give --ttft-in-4-bits with --sources search,ttft or take a card" in reasons["ttft"]
    assert "4-bits" not in reasons["frozen"]


def test_a_model_that_no_card_holds_is_refused_and_in_a_re_run_left_out(
    challenges: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"challenges": challenges, "out": tmp_path / "out", "devices": ("cuda:0", "cuda:1"), "max_seq_len": 1024}
    see(monkeypatch, 2, gib=1.0)
    config = make_config(**given, model=model_of("0.5B", tmp_path / "model", tiny_model))
    monkeypatch.setattr(resolve, "_check_model", lambda config, cards: config.prompt_config())
    with pytest.raises(ConfigError, match=r"0\.9 GiB of weights, with fine-tuning at least"):
        resolve_run(config)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    assert [source.name for source in resolve_run(config).sources] == ["search"]
    see(monkeypatch, 2, gib=1.75)
    without_adapters = resolve_run(config)
    assert [source.name for source in without_adapters.sources] == ["search", "frozen"]
    assert list(without_adapters.lost) == ["ttft"]
