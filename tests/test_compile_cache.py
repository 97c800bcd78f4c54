"""The cache of compiled code: it goes from one session's run directory into the next one's, whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.compile_cache import ARCHIVE, pack_compile_cache, use_compile_cache
from arc_submit.kaggle.inputs import save_results
from arc_submit.run.presets import make_config
from arc_submit.run.source import SourceSetup
from arc_submit.run.source_frozen import predict_settings
from arc_submit.storage.run_dir import RunPaths

VARIABLES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "before")


def test_what_one_session_compiles_the_next_one_finds(tmp_path: Path) -> None:
    first, second = RunPaths(tmp_path / "first").compile_cache, RunPaths(tmp_path / "second").compile_cache
    assert use_compile_cache(first, None).endswith("empty")
    kernel = Path(os.environ["TRITON_CACHE_DIR"]) / "abc" / "kernel.cubin"
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(b"compiled")
    archive = tmp_path / ARCHIVE
    assert pack_compile_cache(first, archive)
    assert use_compile_cache(second, archive).endswith(f"from {archive}")
    assert all(Path(os.environ[name]).is_relative_to(second) for name in VARIABLES)
    assert (Path(os.environ["TRITON_CACHE_DIR"]) / "abc" / "kernel.cubin").read_bytes() == b"compiled"
    # A worker that starts again keeps what the run has compiled since.
    (second / "triton" / "new").write_bytes(b"newer")
    assert use_compile_cache(second, archive).endswith("of this run")
    assert (second / "triton" / "new").exists()
    assert [path.name for path in second.parent.iterdir()] == ["compile_cache"]


def test_workers_that_start_together_leave_one_whole_cache(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "vllm").mkdir(parents=True)
    for number in range(50):
        (made / "vllm" / str(number)).write_bytes(bytes(1000))
    pack_compile_cache(made, tmp_path / ARCHIVE)
    folder = tmp_path / "run" / "compile_cache"
    threads = [threading.Thread(target=use_compile_cache, args=(folder, tmp_path / ARCHIVE)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((folder / "vllm").iterdir())) == 50
    assert [path.name for path in folder.parent.iterdir()] == ["compile_cache"]


def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = tmp_path / ARCHIVE
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be unpacked"):
        use_compile_cache(tmp_path / "run" / "compile_cache", archive)
    assert list((tmp_path / "run").iterdir()) == []
    config = make_config(compile_cache=archive, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="no tar file"):
        predict_settings(SourceSetup("frozen", "frozen", config, RunPaths(config.out)), 4)


def test_a_kaggle_session_leaves_its_archive(tmp_path: Path) -> None:
    run, working = tmp_path / "temp" / "submission", tmp_path / "working"
    working.mkdir()
    assert save_results(tmp_path, run) == []
    (run / "compile_cache" / "vllm").mkdir(parents=True)
    (run / "compile_cache" / "vllm" / "graph").write_bytes(b"x")
    assert save_results(tmp_path, run) == [working / ARCHIVE]
    assert [path.name for path in working.iterdir()] == [ARCHIVE]
