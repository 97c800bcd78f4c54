"""The season's table: what push and submit keep, the leaderboard's scores beside it, the noise of reruns and the two picks.

The client is the real one in one test; the server is tests/kaggle_stub.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaggle_stub import KEY, Stub, copy_kernel, serving

from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.kaggle import quota
from arc_submit.kaggle.push_record import push_record
from arc_submit.kaggle.season import season_entries
from arc_submit.kaggle.season_picks import Entry, own_noise, propose_picks, verdict
from arc_submit.kaggle.season_table import append_record, read_records

COMPETITION = "arc-prize-2026-arc-agi-2"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    monkeypatch.setattr(quota, "read_quota", lambda: quota.Quota(0.0, 30.0, 30.0, None))
    monkeypatch.setattr(quota, "running_sessions", lambda now: {})
    home = tmp_path / "home"
    home.mkdir()
    with serving(Stub(), monkeypatch, home) as working:
        yield working


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return copy_kernel(tmp_path / "kernel", {"id": "me/arc-submit-submission", "dataset_sources": ["me/arc-submit-bundle"]})


def dry_run(kernel: Path, name: str, per_task: float, source: str | None = None) -> Path:
    """A run directory as `make submission` leaves it, with the executed notebook; `source` replaces the code of its last cell."""
    run = kernel / "runs" / name
    (run / "report").mkdir(parents=True)
    submission = {"per_task": per_task, "per_output": per_task, "tasks": 40}
    (run / "report" / "scores.json").write_text(json.dumps({"submission": submission}))
    notebook = json.loads((kernel / "notebooks" / "submission.ipynb").read_text())
    number = next(n for n, cell in enumerate(notebook["cells"]) if "parameters" in cell["metadata"].get("tags", ()))
    injected = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "# Parameters\nseed = 7\n", "outputs": []}
    notebook["cells"].insert(number + 1, injected)
    if source is not None:
        notebook["cells"][-1]["source"] = source
    (run / "submission.ipynb").write_text(json.dumps(notebook))
    return run


def listed(ref: int, date: str, message: str, score: str, status: str = "COMPLETE") -> dict[str, Any]:
    return {"ref": ref, "date": date, "description": message, "status": status, "publicScore": score, "fileName": "submission.json"}


def test_push_submit_and_leaderboard_come_together(
    stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run(kernel, "first", 0.125)
    dry_run(kernel, "other", 0.9, "print('another notebook')")
    append_record(kernel / "season.jsonl", "upload", {"dataset": "me/arc-submit-bundle", "commit": "0123456789ab"})
    with (kernel / "season.jsonl").open("a") as file:
        file.write('{"kind": "push", "cut sh')
    assert main(["kaggle", "push", str(kernel), "--no-compare"]) == 0
    assert "its dry run first solved 12.50 % of 40 tasks" in capsys.readouterr().out
    message = f"first {KEY}"
    assert main(["kaggle", "submit", str(kernel), "--version", "1", "--message", message, "--ignore-status"]) == 0
    records = {record["kind"]: record for record in read_records(kernel / "season.jsonl")}
    push = records["push"]
    assert (push["kernel"], push["version"], push["bundle_commit"]) == ("me/arc-submit-submission", 1, "0123456789ab")
    assert (push["parameters"]["rerun_budget"], push["accelerator"], push["gpu_hours"]) == ("11h30m", "NvidiaL4", 23.833)
    assert push["local"] == {"per_task": 12.5, "per_output": 12.5, "tasks": 40, "run": "first", "given": {"seed": 7}}
    assert KEY not in (kernel / "season.jsonl").read_text()
    capsys.readouterr()
    time = records["submit"]["time"][:19]
    stub.submissions = [
        listed(2, time, "made in the browser", "30.00"),
        listed(1, time, "first ***", "21.67"),
        listed(3, time, "no score", "", "ERROR"),
    ]
    assert main(["kaggle", "season", str(kernel), "--json"]) == 0
    out = capsys.readouterr().out
    assert "1 of 4 lines are no records" in out
    figures = json.loads(out.splitlines()[-1])
    (entry,) = (one for one in figures["entries"] if one["version"] == 1)
    assert (entry["score"], entry["local"]) == (21.67, 12.5)
    assert figures["picks"][0]["reason"] == "the best leaderboard score, 30.00"
    assert "-8.33, more than noise" in out
    assert "1 to 3.5 points" in out
    assert Path(figures["picture"]).read_bytes().startswith(b"\x89PNG")
    before = (kernel / "season.jsonl").read_bytes()
    monkeypatch.setattr("arc_submit.kaggle.season.run_client", lambda *arguments: pytest.fail("asked"))
    assert main(["kaggle", "season", str(kernel), "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["entries"] == figures["entries"], "scores are kept"
    assert (kernel / "season.jsonl").read_bytes() == before


def test_a_dry_run_is_named_or_has_the_notebooks_code(kernel: Path, tmp_path: Path) -> None:
    assert push_record(kernel, None, None, [])["local"] is None
    run = dry_run(kernel, "other", 0.9, "print('another notebook')")
    assert push_record(kernel, None, None, [])["local"] is None
    assert push_record(kernel, None, run, [])["local"]["per_task"] == 90.0
    with pytest.raises(ConfigError, match="no report with a score there"):
        push_record(kernel, None, tmp_path, [])
    assert push_record(kernel, None, None, [])["commit"] is None


def test_a_table_that_cannot_be_written_is_refused_before_the_push(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kaggle", "push", str(kernel), "--table", str(kernel)]) == 1
    assert "name another with --table" in capsys.readouterr().err
    assert stub.calls == []


def entry(score: float | None, local: float | None = None, version: int = 1, **parameters: Any) -> Entry:
    return Entry(f"2026-11-{version:02d}", "me/k", version, {"parameters": parameters}, local, score)


def test_two_picks_are_the_best_score_and_other_settings_within_noise() -> None:
    best, rerun = entry(30.0, 5.0, 1, preset="a"), entry(29.9, 6.0, 2, preset="a", seed=3)
    near, far = entry(27.0, 1.0, 3, preset="b"), entry(20.0, 9.0, 4, preset="c")
    assert [pick.entry for pick in propose_picks([rerun, best, near, far, entry(None)])] == [best, near]
    assert "other settings (preset), 27.00" in propose_picks([best, near])[1].reason
    assert [pick.entry for pick in propose_picks([best, rerun, far])] == [best, far], "no other settings within noise: the best dry run"
    assert [pick.entry for pick in propose_picks([best, entry(29.9, None, 2, preset="a")])][1].version == 2
    assert [pick.entry for pick in propose_picks([best])] == [best]
    assert propose_picks([entry(None)]) == []


def test_the_noise_of_own_reruns_counts_the_same_settings_alone() -> None:
    same = [entry(10.0, version=1, preset="a", seed=1), entry(12.5, version=2, preset="a", seed=2, budget="5m")]
    assert own_noise([*same, entry(30.0, version=3, preset="b"), entry(None, preset="a")]) == (1, 2.5)
    assert [verdict(3.5), verdict(-3.6)] == ["within noise", "more than noise"]


def test_a_message_that_is_repeated_belongs_to_the_submission_of_its_day() -> None:
    submits = [
        {"kind": "submit", "kernel": "me/k", "version": v, "message": "m", "time": f"2026-11-0{v}T10:00:00+00:00"} for v in (1, 2, 3)
    ]
    scores = [
        {
            "kind": "score",
            "ref": v,
            "description": "m",
            "status": "SubmissionStatus.COMPLETE",
            "date": f"2026-11-0{v}T10:00:05",
            "public": f"0.{v}",
        }
        for v in (1, 2)
    ]
    found = [(one.version, one.score, one.state) for one in season_entries([*submits, *scores], None, 100.0)]
    assert found == [(1, 10.0, "COMPLETE"), (2, 20.0, "COMPLETE"), (3, None, "SUBMITTED")]


def test_a_season_without_entries_or_leaderboard_says_so(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(kernel / "notebooks")
    assert main(["kaggle", "season", str(kernel), "--offline"]) == 1
    assert "no push and no submission in it" in capsys.readouterr().err
