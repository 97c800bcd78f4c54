"""Kaggle's inputs, found by their files in both layouts of its mounts, and the folders that a notebook writes to."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.errors import DataError
from arc_submit.kaggle.inputs import find_adapters, find_file, find_model, run_folder, save_results

OLD, NEW = "arc-submit-bundle", "datasets/me/arc-submit-bundle"


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def make_adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("place", [f"{OLD}/models/small", f"{NEW}/models/small", "models/qwen-lm/qwen2.5/transformers/1.5b/1", "small"])
def test_the_only_model_is_found_wherever_it_is_mounted(tmp_path: Path, place: str) -> None:
    folder = make_model(tmp_path / "input" / place)
    (tmp_path / "input" / "arc-prize-2026-arc-agi-2").mkdir()
    assert find_model(tmp_path) == folder
    assert find_model(tmp_path, folder.name) == folder
    assert find_model(tmp_path, "/".join(folder.parts[-2:])) == folder
    assert find_model(tmp_path, folder) == folder


def test_a_missing_or_ambiguous_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    with pytest.raises(DataError, match=r"no model .*found nothing; attach it"):
        find_model(tmp_path)
    small, large = (make_model(tmp_path / "input" / NEW / name) for name in ("pocket", "qwen"))
    make_adapter(tmp_path / "input" / NEW / "adapter")
    with pytest.raises(DataError, match=r"2 folders match, .*pocket, .*qwen; name one"):
        find_model(tmp_path)
    assert find_model(tmp_path, "qwen") == large
    assert find_model(tmp_path, "pocket") == small
    with pytest.raises(DataError, match=r"with the name llama; found .*pocket"):
        find_model(tmp_path, "llama")
    with pytest.raises(DataError, match="with the name wen"):
        find_model(tmp_path, "wen")  # a part of a name does not match


def test_the_file_that_says_how_a_model_is_asked_is_found(tmp_path: Path) -> None:
    assert find_file(tmp_path, None) is None
    assert find_file(tmp_path, "nvarc-2025") == Path("nvarc-2025"), "off Kaggle a format's name, or a file"
    folder = tmp_path / "input" / NEW / "bundle" / "model_configs" / "mine"
    folder.mkdir(parents=True)
    for name in ("arc_submit.json", "chat.jinja"):
        (folder / name).write_text("{}")
    assert find_file(tmp_path, "nvarc-2025") == Path("nvarc-2025")
    assert find_file(tmp_path, "mine") == folder
    assert find_file(tmp_path, "chat.jinja") == folder / "chat.jinja"
    assert find_file(tmp_path, folder / "chat.jinja") == folder / "chat.jinja"
    (tmp_path / "input" / "chat.jinja").write_text("{}")
    with pytest.raises(DataError, match=r"2 files match chat\.jinja, .*rename all but one"):
        find_file(tmp_path, "chat.jinja")


def test_off_kaggle_the_default_model_is_the_projects(tmp_path: Path) -> None:
    assert find_model(tmp_path) is None
    with pytest.raises(DataError, match=r"model qwen: no such folder, and no .*input to search for it"):
        find_model(tmp_path, "qwen")


def test_a_single_adapter_or_a_folder_of_adapters_is_found(tmp_path: Path) -> None:
    root = tmp_path / "input" / NEW / "mine"
    single = make_adapter(root / "007bbfb7")
    make_adapter(root / "00d62c1b")
    assert find_adapters(tmp_path, None) is None
    assert find_adapters(tmp_path, "mine") == root
    assert find_adapters(tmp_path, "007bbfb7") == single
    assert find_adapters(tmp_path, single) == single
    with pytest.raises(DataError, match=r"no adapter .* with the name yours"):
        find_adapters(tmp_path, "yours")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "models", "transformers", "1"]), min_size=1, max_size=7))
def test_a_model_is_found_at_any_depth(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("kaggle")
    folder = make_model(root.joinpath("input", *parts))
    assert find_model(root) == folder


def test_a_run_lies_in_the_scratch_folder_and_only_small_results_are_copied(tmp_path: Path) -> None:
    assert run_folder(tmp_path, "submission") == Path("runs/submission")
    assert save_results(tmp_path, tmp_path / "run") == []
    (tmp_path / "working").mkdir()
    run = run_folder(tmp_path, "submission")
    assert run == tmp_path / "temp" / "submission"
    for name, size in {
        "adapters/007bbfb7/adapter_model.safetensors": 9,
        "report/scores.txt": 5,
        "logs/ttft/0.log": 7,
        "events.jsonl": 3,
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x" * size)
    with (run / "report" / "huge.png").open("wb") as file:
        file.truncate(30_000_000)
    copied = [str(path.relative_to(tmp_path / "working")) for path in save_results(tmp_path, run)]
    assert sorted(copied) == ["submission/events.jsonl", "submission/logs/ttft/0.log", "submission/report/scores.txt"]
    assert all((tmp_path / "working" / name).is_file() for name in copied)


def test_a_result_that_cannot_be_copied_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("working", "temp/run/report"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("events.jsonl", "report/scores.txt"):
        (tmp_path / "temp" / "run" / name).write_text("x")
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if source.name == "scores.txt":
            target.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr("arc_submit.kaggle.inputs.shutil.copyfile", full)
    assert save_results(tmp_path, tmp_path / "temp" / "run") == [tmp_path / "working" / "run" / "events.jsonl"]
    assert "scores.txt: not copied (No space left on device)" in capsys.readouterr().out
    assert not (tmp_path / "working" / "run" / "report" / "scores.txt").exists()
