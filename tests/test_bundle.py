"""The bundle: the library as a wheel with its models, and the files that it refuses to ship."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.kaggle.bundle import make_bundle, read_bundle
from arc_submit.kaggle.secret_scan import safetensors_problem, shipping_problems
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.programs.arc.writer import INSTALLED_WRITER

ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small-model"
    folder.mkdir()
    save_file({"weight": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    folder = tmp_path / "mine" / "task001"
    folder.mkdir(parents=True)
    save_file({"a": np.zeros(3, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    return folder.parent


def test_a_bundle_holds_the_library_and_the_chosen_folders(model: Path, adapters: Path, tmp_path: Path) -> None:
    out, asked = tmp_path / "out", ["--model-config", "architects-2024"]
    assert main(["kaggle", "bundle", "--out", str(out), "--model", str(model), "--adapters", str(adapters), *asked, "--owner", "me"]) == 0
    manifest = read_bundle(out)
    assert manifest["model_configs"] == ["architects-2024"]
    assert read_prompt_config(Path(), out / "model_configs" / "architects-2024") == read_prompt_config(Path(), Path("architects-2024"))
    assert (manifest["models"], manifest["adapters"]) == (["small-model"], ["mine"])
    shipped = {entry["file"]: entry["size"] for entry in manifest["files"]}
    assert shipped["models/small-model/model.safetensors"] == (model / "model.safetensors").stat().st_size
    assert {"adapters/mine/task001/adapter_config.json", "offline_wheels/kaggle.lock.json"} <= set(shipped)
    assert json.loads((out / "dataset-metadata.json").read_text())["id"] == "me/arc-submit-bundle"
    assert (out / "arc_submit_install.py").read_text() == (ROOT / "arc_submit" / "kaggle" / "install.py").read_text()
    wheel = next(out.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    library = ROOT / "arc_submit"
    sources = {
        str(path.relative_to(ROOT))
        for path in (
            *library.rglob("*.py"),
            library / "py.typed",
            *(library / "language" / "formats").iterdir(),
            *(library / "run" / "chances").iterdir(),
        )
    }
    assert {name for name in names if ".dist-info/" not in name} == {*sources, str(INSTALLED_WRITER.relative_to(ROOT))}
    # The wheel alone provides the library, outside the checkout.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import arc_submit.cli as c; print(c.__file__); c.main(['--help'])"
    process = subprocess.run(
        [sys.executable, "-c", code, str(wheel)], capture_output=True, text=True, cwd=tmp_path, env={"PATH": os.defpath}
    )
    assert str(wheel) in process.stdout, process.stderr


def test_a_bundle_replaces_an_older_one(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_bundle(out, [model])
    (out / "models" / "left-over").mkdir()
    make_bundle(out, [])
    assert not (out / "models").exists()
    assert read_bundle(out)["models"] == []
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes.txt was not made by this command"):
        make_bundle(out, [])


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "kaggle.json": (write("kaggle.json", "{}"), "kaggle.json: has the name of a credentials file; move it away"),
    "env": (write("prod.env", "A=1"), "prod.env: has the name of a credentials file"),
    "hidden": (write(".env", "A=1"), ".env: is hidden and would be uploaded too; delete it"),
    "hidden folder": (lambda f: (f / ".cache").mkdir(), ".cache: is hidden"),
    "key": (write("notes.md", 'one\n{"username":"me","key":"' + "0a" * 16 + '"}'), "notes.md: line 2: looks like a Kaggle key"),
    "token": (write("README.md", "login with hf_" + "aB3" * 11), "README.md: line 1: looks like a Hugging Face token; remove it"),
    "private key": (write("a.txt", "-----BEGIN RSA " + "PRIVATE KEY-----\nx"), "a.txt: line 1: looks like a private key"),
    "bin": (write("training_args.bin", b"x"), "training_args.bin: may be a pickle"),
    "pickle": (write("data.json", pickle.dumps({"a": 1})), "data.json: may be a pickle, which runs code when it is loaded"),
    "link": (lambda f: (f / "extra.json").symlink_to("/etc/hostname"), "extra.json: is a link to /etc/hostname, outside the folder"),
    "truncated": (truncate, "model.safetensors: has 115 B, but its header describes 120 B; copy it again"),
    "lfs": (write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer, not the weights"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no .safetensors in it; give the folder that holds the weights"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json in it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_with_a_fault_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    inject, message = FAULTS[fault]
    inject(model)
    out = tmp_path / "out"
    assert main(["kaggle", "bundle", "--out", str(out), "--model", str(model)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert "nothing was bundled: 1 problem" in lines[-1]
    assert len(lines) == 2
    assert not out.exists()


def test_every_problem_has_a_line_of_its_own(model: Path, tmp_path: Path) -> None:
    for fault in ("kaggle.json", "hidden", "bin", "token"):
        FAULTS[fault][0](model)
    assert len(shipping_problems(model)) == 4


def test_a_bundle_over_the_limit_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("arc_submit.kaggle.dataset_folder.TOTAL_LIMIT", 100)
    assert main(["kaggle", "bundle", "--out", str(tmp_path / "out"), "--model", str(model)]) == 1
    assert "are over Kaggle's 100 B; leave something out" in capsys.readouterr().err


def test_the_projects_own_folders_are_not_refused() -> None:
    assert shipping_problems(ROOT / "models" / "pocket") == []
    assert shipping_problems(ROOT / "offline_wheels") == []


def test_two_models_of_one_name_are_refused(model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model, tmp_path / "elsewhere" / model.name)
    with pytest.raises(ConfigError, match="another folder of --model has the name small-model; rename one"):
        make_bundle(tmp_path / "out", [model, other])


@given(data=st.data())
def test_safetensors_truncated_anywhere_are_found(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = save({"a": np.arange(data.draw(st.integers(1, 9)), dtype=np.int8), "b": np.zeros((2, 2), np.float32)})
    path = tmp_path_factory.mktemp("truncated") / "w.safetensors"
    path.write_bytes(whole)
    assert safetensors_problem(path) is None
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert safetensors_problem(path)
