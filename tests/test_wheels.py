"""Wheels for a Kaggle image: locked, collected, verified offline and installed, with small wheels in place of an index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_wheels import only_index, write_target, write_wheel

from arc_submit.cli import main
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.dataset_folder import split_file, stored_names, write_metadata
from arc_submit.kaggle.dependencies import Distribution, find_closure
from arc_submit.kaggle.files import sha256_of
from arc_submit.kaggle.install import WHEELS_MANIFEST, InstallError, install
from arc_submit.kaggle.targets import Target, read_lock, read_target, targets_folder
from arc_submit.kaggle.wheels import make_wheelhouse

CP312 = "cp312-cp312-manylinux2014_x86_64"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that pins torch, which pins its CUDA library, and that requires `six` only on Python 3.12; with its target's lock."""
    folder = tmp_path_factory.mktemp("locked")
    index = folder / "index"
    index.mkdir()
    requires = ("torch==2.10.0", "helper>=1.0", 'six>=1; python_version > "3.11"', 'old; python_version < "3.12"', 'x; extra == "x"')
    write_wheel(index, "engine", "0.19.1", requires, content=os.urandom(3000))
    write_wheel(index, "torch", "2.10.0", ("cuda-kit[lib]==12.8", "sums>=1"), CP312)
    write_wheel(index, "cuda-kit", "12.8.0", ('cuda-lib==12.8.*; extra == "lib"',))
    write_wheel(index, "cuda-lib", "12.8.1", tag="py3-none-manylinux_2_17_x86_64")
    for name, version in (("helper", "1.5"), ("six", "1.17.0"), ("sums", "1.14"), ("old", "1.0")):
        write_wheel(index, name, version)
    write_wheel(index, "tools", "3.1+cu128", ("helper",), CP312)
    targets = write_target(folder, "torch==2.10.0  # the image's\nengine==0.19.1\ntools==3.1+cu128\n", {"torch": "2.10.0+cu128"})
    with pytest.MonkeyPatch.context() as patch:
        only_index(patch, index)
        assert main(["kaggle", "lock", "--target", "small", "--targets", str(targets)]) == 0
    return folder


@pytest.fixture
def index(locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test's own index, the only one that pip uses."""
    folder = Path(shutil.copytree(locked / "index", tmp_path / "index"))
    only_index(monkeypatch, folder)
    return folder


@pytest.fixture
def targets(locked: Path, tmp_path: Path, index: Path) -> Path:
    return Path(shutil.copytree(locked / "offline_wheels", tmp_path / "offline_wheels"))


def test_a_lock_is_for_the_target_and_not_for_this_machine(targets: Path) -> None:
    """Markers see the target's Python, wheels are for its platform; torch and the packages that only torch pins or needs are excluded."""
    lock = read_lock(read_target("small", targets))
    assert {wheel.name: wheel.required_by for wheel in lock.wheels} == {
        "engine": (),
        "helper": ("engine", "tools"),
        "six": ("engine",),
        "tools": (),
    }
    assert [(entry.name, entry.version) for entry in lock.image] == [
        ("cuda-kit", "12.8.0"),
        ("cuda-lib", "12.8.1"),
        ("torch", "2.10.0+cu128"),
    ]
    assert all(wheel.size > 100 and len(wheel.sha256) == 64 for wheel in lock.wheels)


def test_wheels_are_stored_under_names_that_kaggle_does_not_change(targets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["kaggle", "wheels", "--target", "small", "--targets", str(targets), "--out", str(out), "--owner", "me"]) == 0
    names = {path.name for path in out.iterdir()}
    assert "tools-3.1_plus_cu128-cp312-cp312-manylinux2014_x86_64.whl" in names
    assert not any("+" in name or name.startswith(".") or "torch" in name for name in names)
    metadata = json.loads((out / "dataset-metadata.json").read_text())
    assert (metadata["id"], metadata["title"]) == ("me/arc-submit-wheels-small", "arc submit wheels small")
    manifest = json.loads((out / WHEELS_MANIFEST).read_text())
    assert manifest["requirements"] == ["engine==0.19.1", "tools==3.1+cu128"]


def test_the_build_wheels_notebook_makes_a_data_set(targets: Path, tmp_path: Path) -> None:
    from test_notebooks import Kaggle

    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    kaggle = Kaggle(tmp_path / "kaggle", {"ARC_SUBMIT_KAGGLE": str(tmp_path / "kaggle"), "KAGGLE_USERNAME": "me"})
    text = kaggle.execute("build_wheels", target="small", targets=targets)
    assert "proof: pip --no-index --dry-run for Python 3.12: all 4 wheels are needed, the image's torch stays" in text
    working = tmp_path / "kaggle" / "working"
    assert {WHEELS_MANIFEST, "arc_submit_install.py", "dataset-metadata.json"} <= {path.name for path in (working / "wheels").iterdir()}
    assert "papermill==" in (working / "image-packages.txt").read_text()


def test_collecting_resumes_and_replaces_a_truncated_file(targets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    target = read_target("small", targets)
    first = make_wheelhouse(target, out, part_size=1000)
    assert first["bytes_fetched"] == first["bytes"]
    assert len(list(out.glob("engine-*.part*"))) > 3
    assert make_wheelhouse(target, out, part_size=1000)["bytes_fetched"] == 0
    (out / "helper-1.5-py3-none-any.whl").write_bytes(b"cut")
    next(out.glob("engine-*.part001")).unlink()
    again = make_wheelhouse(target, out, part_size=1000)
    sizes = {wheel.name: wheel.size for wheel in read_lock(target).wheels}
    assert again["bytes_fetched"] == sizes["helper"] + sizes["engine"]
    assert "helper-1.5-py3-none-any.whl: differs from the lock" in capsys.readouterr().out


def test_a_file_that_differs_from_the_lock_is_refused(targets: Path, index: Path, tmp_path: Path) -> None:
    write_wheel(index, "helper", "1.5", code="changed = True\n")
    with pytest.raises(DataError, match=r"(?i)hash"):
        make_wheelhouse(read_target("small", targets), tmp_path / "out")
    assert not (tmp_path / "out" / WHEELS_MANIFEST).exists()


def test_an_incomplete_lock_is_refused(targets: Path, tmp_path: Path) -> None:
    target = read_target("small", targets)
    text = target.lock_file.read_text()
    target.lock_file.write_text("\n".join(line for line in text.splitlines() if '"name": "six"' not in line))
    with pytest.raises(DataError, match=r"engine requires six>=1.*which is missing"):
        make_wheelhouse(target, tmp_path / "out")


def test_a_set_that_would_replace_the_images_torch_is_refused(targets: Path, tmp_path: Path) -> None:
    target = read_target("small", targets)
    target.lock_file.write_text(target.lock_file.read_text().replace("2.10.0+cu128", "2.11.0+cu128"))
    with pytest.raises(DataError, match=r"requires torch==2.10.0, and torch is 2.11.0\+cu128"):
        make_wheelhouse(target, tmp_path / "out")


def test_a_folder_with_foreign_files_is_refused(targets: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"was not made by this command"):
        make_wheelhouse(read_target("small", targets), tmp_path)


def test_a_lock_of_other_requirements_is_refused(targets: Path) -> None:
    (targets / "small.txt").write_text("torch==2.10.0\nengine==0.19.2\n")
    with pytest.raises(DataError, match="made for other requirements"):
        read_lock(read_target("small", targets))


def test_an_unknown_target_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["kaggle", "wheels", "--target", "tpu", "--out", str(tmp_path)]) == 1
    assert "choose from cpu, kaggle" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cpu", "kaggle", "kaggle-next"])
def test_the_projects_locks_are_complete(name: str) -> None:
    """The locks of Kaggle images hold vllm and no torch; no lock holds an address."""
    target = read_target(name, targets_folder())
    lock = read_lock(target)
    versions = {wheel.name: wheel.version for wheel in lock.wheels} | {entry.name: entry.version for entry in lock.image}
    for requirement in lock.requirements:
        package, version = requirement.split("==")
        assert versions[package].split("+")[0] == version.split("+")[0]
    assert all(len(wheel.sha256) == 64 and wheel.size > 0 for wheel in lock.wheels)
    assert all(wheel.version.replace("-", "_") in wheel.file for wheel in lock.wheels)
    assert "//" not in target.lock_file.read_text()
    if name != "cpu":
        assert not any(wheel.name in ("torch", "triton") or wheel.name.endswith(("-cu12-12", "cublas-cu12")) for wheel in lock.wheels)
        assert any(wheel.name == "vllm" for wheel in lock.wheels)
        assert lock.size < 3e9


@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from(["a-1-py3-none-any.whl", "a-1+cu128-py3-none-any.whl"]))
def test_the_concatenated_parts_are_the_file(size: int, part: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / name
        source.write_bytes(bytes(range(size)))
        digest = sha256_of(source)
        names = stored_names(name, size, part)
        split_file(source, Path(folder), names, part)
        stored = [Path(folder) / stored for stored in names]
        assert sha256_of(*stored) == digest
        assert all(path.stat().st_size <= part for path in stored)
        assert not any("+" in path.name for path in stored)


def test_closure_follows_extras_and_markers() -> None:
    packages = [
        Distribution("a", "1", ("b[fast]>=2", 'c; sys_platform == "win32"')),
        Distribution("b", "2.0", ('d; extra == "fast"', 'e; extra == "slow"')),
        Distribution("d", "1.0rc1", ("torch<3",)),
    ]
    environment = Target("t", Path(), "3.12.1", "2.35", (), {}).marker_environment()
    closure = find_closure(["a==1"], packages, {"torch": "2.10.0+cu128"}, environment)
    assert closure.problems == ()
    assert closure.required_by == {"a": (), "b": ("a",), "d": ("b",)}
    assert find_closure(["a==1"], packages, {"torch": "3.0"}, environment).problems == ("d requires torch<3, and torch is 3.0",)
    assert find_closure(["a==1"], packages[:2], {}, environment).problems == ('b requires d; extra == "fast", which is missing',)


@pytest.mark.parametrize("title", ["short", "with_underscore", "two  spaces", "x" * 51])
def test_titles_that_kaggle_would_refuse_or_rename_are_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(ConfigError, match="6 to 50 letters"):
        write_metadata(tmp_path, title, None)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with only pip."""
    folder = tmp_path_factory.mktemp("kernel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def run_installer(python: Path, inputs: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the shipped script in another Python, as the first cell of a notebook does."""
    script = next(inputs.rglob("arc_submit_install.py"))
    code = f"{before}\nimport runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')\n"
    code += "import engine, tools\nprint(engine.version, tools.version)"
    environment = {**os.environ, "ARC_SUBMIT_KAGGLE": str(inputs.parent)}
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels for this Python, in parts and renamed, with no package of an image excluded."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    (folder / "index").mkdir()
    write_wheel(folder / "index", "tools", "3.1+cu128", ("helper",))
    write_wheel(folder / "index", "engine", "0.19.1", ("helper>=1.0",), content=os.urandom(3000))
    write_wheel(folder / "index", "helper", "1.5")
    targets = write_target(folder, "engine==0.19.1\ntools==3.1+cu128\n", {}, ".".join(map(str, sys.version_info[:3])))
    with pytest.MonkeyPatch.context() as patch:
        only_index(patch, folder / "index")
        assert main(["kaggle", "lock", "--target", "small", "--targets", str(targets)]) == 0
        make_wheelhouse(read_target("small", targets), folder / "house", part_size=1000)
    return folder / "house"


@pytest.fixture
def attached(wheelhouse: Path, tmp_path: Path) -> Path:
    """Inputs in the new layout with these wheels attached."""
    shutil.copytree(wheelhouse, tmp_path / "kaggle" / "input" / "datasets" / "me" / "wheels")
    return tmp_path / "kaggle" / "input"


def test_the_installer_installs_the_attached_wheels(environment: Path, attached: Path) -> None:
    """Renamed and split files are restored, in a Python without arc_submit and without an index."""
    process = run_installer(environment, attached)
    assert process.returncode == 0, process.stderr
    assert "0.19.1 3.1+cu128" in process.stdout
    assert "installed 3 packages from 3 files" in process.stdout
    again = run_installer(environment, attached)
    assert "installed 0 packages from 3 files" in again.stdout


def test_errors_of_the_installer_are_one_line(environment: Path, attached: Path) -> None:
    assert (
        "torch is imported already: restart the kernel"
        in run_installer(environment, attached, "import sys; sys.modules['torch'] = sys").stderr
    )
    house = attached / "datasets" / "me" / "wheels"
    manifest = json.loads((house / WHEELS_MANIFEST).read_text())
    for change, message in (
        ({"python": "3.99"}, "wheels for Python 3.99, and this is 3."),
        ({"image": {"torch": "2.10.0+cu128"}}, r"wheels for torch 2.10.0+cu128, and here is none"),
        ({"requirements": ["engine==7"]}, "pip: No matching distribution found for engine==7"),
    ):
        (house / WHEELS_MANIFEST).write_text(json.dumps(manifest | change))
        assert message in run_installer(environment, attached).stderr.strip().splitlines()[-1]
    (house / WHEELS_MANIFEST).write_text(json.dumps(manifest))
    (house / "helper-1.5-py3-none-any.whl").unlink()
    assert "helper-1.5-py3-none-any.whl is missing or truncated; upload the data set again" in run_installer(environment, attached).stderr


def test_the_installer_refuses_no_data_set_and_two_of_one_kind(tmp_path: Path) -> None:
    loaded = sys.modules.pop("torch", None)
    try:
        with pytest.raises(InstallError, match=r"neither arc_submit_wheels.json nor arc_submit_bundle.json"):
            install(tmp_path / "nothing")
        for name in ("one", "two"):
            (tmp_path / "both" / name).mkdir(parents=True)
            (tmp_path / "both" / name / "arc_submit_bundle.json").write_text("{}")
        with pytest.raises(InstallError, match="detach all but one"):
            install(tmp_path / "both")
    finally:
        if loaded is not None:
            sys.modules["torch"] = loaded


def test_a_small_set_from_the_real_index(tmp_path: Path) -> None:
    """Two packages of the index that pip is configured for, for a Kaggle image."""
    options = ["--no-deps", "--no-cache-dir", "--quiet", "--retries", "0", "--timeout", "5"]
    command = [sys.executable, "-m", "pip", "download", *options, "six==1.17.0"]
    probe = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    if probe.returncode:
        pytest.skip("pip reaches no index here")
    targets = write_target(tmp_path, "python-dateutil==2.9.0.post0\nMarkupSafe==3.0.2\n", {})
    assert main(["kaggle", "lock", "--target", "small", "--targets", str(targets)]) == 0
    lock = read_lock(read_target("small", targets))
    assert [wheel.name for wheel in lock.wheels] == ["markupsafe", "python-dateutil", "six"]
    assert "cp312" in lock.wheels[0].file
    assert make_wheelhouse(read_target("small", targets), tmp_path / "out")["wheels"] == 3
