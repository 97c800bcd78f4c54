"""Rehearsals of a competition's re-run, with a small notebook that inspects its environment and with the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from arc_submit.arc.datasets import read_challenges
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.bundle import make_bundle
from arc_submit.kaggle.rehearse import SCENARIOS, RehearsalConfig, break_tasks, rehearse
from arc_submit.kaggle.sandbox import find_unshare
from arc_submit.kaggle.targets import read_target
from arc_submit.kaggle.wheels import make_wheelhouse

ROOT = Path(__file__).parent.parent
SUBMISSION = ROOT / "notebooks" / "submission.ipynb"

# Writes facts about the notebook's environment, and the sample submission.
INSPECT = """
import arc_submit, json, os, socket
from pathlib import Path
root = Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle"))
def error_of(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
test_file = next((root / "input").rglob("arc-agi_test_challenges.json"))
facts = {
    "library": arc_submit.__file__,
    "rerun": os.environ.get("KAGGLE_IS_COMPETITION_RERUN"),
    "network": error_of(lambda: socket.create_connection(("192.0.2.1", 80), 3)),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "write": error_of(lambda: (test_file.parent / "mine").touch()),
    "over": error_of(lambda: (Path.cwd() / "large").write_bytes(bytes(3_000_000))),
    "cwd": str(Path.cwd()),
    "test_file": str(test_file),
    "solutions": [str(path) for path in (root / "input").rglob("*solutions*")],
}
(Path.cwd() / "large").unlink()
(root / "working" / "facts.json").write_text(json.dumps(facts))
sample = next((root / "input").rglob("sample_submission.json"))
(root / "working" / "submission.json").write_text(sample.read_text())
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    make_bundle(folder, [ROOT / "models" / "pocket"])
    return folder


@pytest.fixture
def inspector(tmp_path: Path) -> Path:
    """A notebook with the first cell of the project's notebooks that then inspects its environment."""
    first = next(cell for cell in json.loads(SUBMISSION.read_text())["cells"] if cell["cell_type"] == "code")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("".join(first["source"])), nbformat.v4.new_code_cell(INSPECT)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "inspector.ipynb"
    nbformat.write(notebook, path)
    return path


def facts_of(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "kaggle" / "working" / "facts.json").read_text()))


@pytest.mark.skipif(find_unshare() is None, reason="this machine allows no mount namespaces")
def test_a_rehearsal_resembles_a_kaggle_machine(bundle: Path, inspector: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    figures = rehearse(RehearsalConfig(out, inspector, None, bundle, scenario="quota-2mb", layout="new", tasks=240))
    assert (figures["submission"], figures["exit_code"], figures["tasks"], figures["network"]) == ("valid", 0, 240, "cut")
    facts = facts_of(out)
    assert str(facts["library"]).startswith(str(out / "venv"))
    assert (facts["rerun"], facts["cwd"]) == ("1", "/kaggle/working")
    assert facts["interfaces"] == ["lo"]
    assert facts["network"] == "OSError"
    assert facts["write"] == "OSError"
    assert facts["over"] == "OSError", "the quota is enforced"
    assert facts["test_file"] == "/kaggle/input/competitions/arc-prize-2026-arc-agi-2/arc-agi_test_challenges.json"
    assert facts["solutions"] == []
    assert not Path("/kaggle/working/facts.json").exists()
    assert "installed 1 packages" in figures["said"]


def test_a_quota_needs_namespaces(bundle: Path, inspector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc_submit.kaggle.rehearse.find_unshare", lambda: None)
    with pytest.raises(ConfigError, match="a quota needs mount namespaces, and this machine does not allow them"):
        rehearse(RehearsalConfig(tmp_path / "out", inspector, None, bundle, scenario="quota-2mb"))


@pytest.mark.campaign
def test_without_namespaces_changed_inputs_are_found(
    bundle: Path, inspector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arc_submit.kaggle.rehearse.find_unshare", lambda: None)
    out = tmp_path / "out"
    # A notebook that writes into its inputs is found nevertheless.
    with pytest.raises(DataError, match="changed its inputs"):
        rehearse(RehearsalConfig(out, inspector, None, bundle, layout="old", tasks=3))
    facts = facts_of(out)
    assert facts["test_file"] == str(out / "kaggle" / "input" / "arc-prize-2026-arc-agi-2" / "arc-agi_test_challenges.json")
    assert facts["cwd"] == str(out / "kaggle" / "working")


@pytest.mark.campaign
def test_the_submission_notebook_with_broken_tasks(bundle: Path, tmp_path: Path) -> None:
    config = RehearsalConfig(tmp_path / "out", SUBMISSION, None, bundle, scenario="broken-task", layout="old", tasks=6, budget=20.0)
    figures = rehearse(config)
    assert (figures["submission"], figures["exit_code"], figures["tasks"]) == ("valid", 0, 6)
    assert figures["inputs_unchanged"]


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("missing-wheel", "InstallError: .*arc_submit-.*whl is missing or truncated; upload the data set again"),
        pytest.param("missing-model", "no model .* found nothing; attach it", marks=pytest.mark.campaign),
    ],
)
def test_missing_inputs_are_one_line_before_any_work(bundle: Path, tmp_path: Path, scenario: str, message: str) -> None:
    figures = rehearse(RehearsalConfig(tmp_path / "out", SUBMISSION, None, bundle, scenario=scenario, tasks=3))
    assert figures["submission"] == "none"
    assert figures["exit_code"] == 1
    assert re.search(message, figures["error"]), figures["error"]
    assert not list((tmp_path / "out" / "kaggle" / "temp").iterdir()), "work has begun"


def test_the_reader_skips_broken_tasks(tmp_path: Path) -> None:
    from conftest import make_challenges

    path = tmp_path / "arc-agi_test_challenges.json"
    path.write_text(json.dumps(make_challenges(6)[0]))
    break_tasks(path)
    challenges = read_challenges(path)
    assert set(challenges.errors) == {"task001", "task002", "task003"}
    assert len(challenges.tasks["task000"].train) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", "rain"], "--with rain: choose from missing-model"),
        (["--notebook", "nowhere.ipynb"], "--notebook nowhere.ipynb: no such file"),
        (["--parameter", "seed"], "--parameter seed: write NAME=VALUE"),
        (["--wheels", "nowhere", "--bundle", "nowhere"], "nowhere: no finished wheels there; make them with"),
        (["--this-environment", "--bundle", "nowhere"], "nowhere: no finished bundle there; make it with"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    from arc_submit.cli import main

    command = ["kaggle", "rehearse", "--out", str(tmp_path / "out"), "--notebook", str(SUBMISSION), *arguments]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


LINES = {  # scenarios that end before any work, with a part of their one line
    "missing-model": "no model",
    "missing-wheel": "is missing or truncated",
    "quota-1mb": "adapters of 2 tasks in work and as many before them",
}
# Scenarios that depend on the mounts run in both layouts, those that depend on the disk or the clock once.
CAMPAIGN = [(None, "new"), *((scenario, "new") for scenario in SCENARIOS), ("quota-1mb", "new"), ("quota-20mb", "new")]
CAMPAIGN += [(None, "old"), ("missing-model", "old"), ("missing-wheel", "old"), ("broken-task", "old"), ("full-disk", "old")]


@pytest.mark.campaign
@pytest.mark.parametrize(("scenario", "layout"), CAMPAIGN)
def test_every_scenario_ends_with_a_submission_or_one_line(bundle: Path, tmp_path: Path, scenario: str | None, layout: str) -> None:
    before = os.times()
    out = tmp_path / "out"
    figures = rehearse(RehearsalConfig(out, SUBMISSION, None, bundle, scenario=scenario, layout=layout, budget=40.0))
    after = os.times()
    seconds = sum(after[:4]) - sum(before[:4])
    used = f", {figures['disk']['most']:,} of {figures['disk']['quota']:,} bytes at most" if figures["disk"] else ""
    print(f"rehearsed {scenario or 'nothing'} {layout}: {figures['submission']}, {seconds:.0f} CPU-s, {after[4] - before[4]:.0f} s{used}")
    run = out / "kaggle" / ("working" if figures["disk"] else "temp") / "submission"
    if scenario in LINES:
        assert figures["submission"] == "none"
        assert LINES[scenario] in figures["error"]
        assert "\n" not in figures["error"]
        assert not run.exists(), "work has begun"
        return
    assert (figures["submission"], figures["exit_code"], figures["tasks"]) == ("valid", 0, 240)
    if scenario == "full-disk":
        assert figures["disk"]["filled"]
        assert figures["disk"]["most"] >= 0.999 * figures["disk"]["quota"]
        log = (out / "log.txt").read_text()
        assert "No space left on device" in log
        assert "complete and valid" in log
    elif figures["disk"]:
        assert figures["disk"]["most"] < 0.95 * figures["disk"]["quota"]
        assert "the oldest are deleted once their predictions are made" in (out / "log.txt").read_text()


@pytest.mark.campaign
def test_the_whole_rehearsal_from_wheels_alone(bundle: Path, tmp_path: Path) -> None:
    """An environment with only the wheelhouse's packages; torch is one of those in place of the image's."""
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet", "--dest", str(tmp_path / "probe"), "six"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no index here")
    wheels = tmp_path / "wheels"
    make_wheelhouse(read_target("cpu"), wheels)
    figures = rehearse(RehearsalConfig(tmp_path / "out", SUBMISSION, wheels, bundle))
    assert (figures["submission"], figures["exit_code"], figures["tasks"]) == ("valid", 0, 240)
    figures = rehearse(RehearsalConfig(tmp_path / "out", SUBMISSION, wheels, bundle, scenario="missing-wheel"))
    assert "is missing or truncated" in figures["error"]
