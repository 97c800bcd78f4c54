"""Notebooks are made from their scripts, hold no logic and run with papermill; the kernel's metadata names one of them."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import fork_server
import pytest

from arc_submit.cli import main as arc_submit
from arc_submit.durations import parse_duration
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.notebooks import main, notebook_text
from arc_submit.kaggle.parameters import check_given_parameters, check_parameters, takes_parameter, task_of
from arc_submit.run.presets import keyword_names

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))


def test_there_are_notebooks() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_notebook_is_up_to_date_and_valid_on_kaggle(script: Path) -> None:
    path = script.with_suffix(".ipynb")
    assert path.read_text() == notebook_text(script), "run make notebooks"
    assert path.stat().st_size < 1_000_000
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    lines = "".join("".join(cell["source"]) + "\n" for cell in code).splitlines()
    assert not any(line.startswith(("def ", "class ")) for line in lines), "logic belongs into the library"


def test_a_newer_notebook_never_overwrites_a_script(tmp_path: Path) -> None:
    script, notebook = tmp_path / "n.py", tmp_path / "n.ipynb"
    script.write_text(SCRIPTS[0].read_text())
    assert main([str(script)]) == 0
    before = notebook.read_text()
    script.write_text(script.read_text() + "\n# %%\nprint('edited')\n")
    notebook.write_text(before)  # newer than the script, and outdated
    assert main(["--check", str(script)]) == 1
    assert "edited" in script.read_text()
    assert main([str(script)]) == 0
    assert "edited" in notebook.read_text()
    assert main(["--check", str(script)]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"), [("kernelspec", "kernel_spec", "no kernelspec"), ('tags=["parameters"]', "", '0 cells tagged "parameters"')]
)
def test_a_script_that_kaggle_could_not_run_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    script = tmp_path / "n.py"
    script.write_text(SCRIPTS[0].read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        notebook_text(script)
    assert main([str(script)]) == 1
    assert not script.with_suffix(".ipynb").exists()


def test_the_kernels_metadata_names_the_notebook_and_no_internet() -> None:
    metadata = json.loads((ROOT / "kernel-metadata.json").read_text())
    assert (ROOT / metadata["code_file"]).is_file()
    assert metadata["enable_internet"] is False
    assert metadata["id"].split("/")[1] == metadata["title"].lower().replace(" ", "-")
    assert (metadata["language"], metadata["kernel_type"]) == ("python", "notebook")


INSTALL = """import os
import runpy
from pathlib import Path
"""


def test_every_notebook_installs_the_attached_data_sets_first() -> None:
    cells = []
    for script in SCRIPTS:
        first = next(cell for cell in json.loads(script.with_suffix(".ipynb").read_text())["cells"] if cell["cell_type"] == "code")
        cells.append("".join(first["source"]))
    assert cells[0].startswith(INSTALL)
    assert "arc_submit_install.py" in cells[0]
    assert len(set(cells)) == 1, "one way to install"


def test_a_parameter_that_a_notebook_does_not_have_is_an_error() -> None:
    own = "seed = 0\nbudget: str = '10m'  # a comment"
    check_parameters(["import os", own, "# Parameters\nseed = 3\nbudget = 600\n", "check_parameters()"])
    check_parameters(["import os", own, "check_parameters()"])
    with pytest.raises(ConfigError, match="no parameter budgett; did you mean budget"):
        check_parameters(["import os", own, "# Parameters\nbudgett = 3\n"])
    with pytest.raises(ConfigError, match="no parameter x, y; it has budget, seed"):
        check_parameters(["import os", own, "# Parameters\ny = 3\nseed = 1\nx = 2"])


def test_a_rehearsal_refuses_a_parameter_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "kaggle",
        "rehearse",
        "--this-environment",
        "--notebook",
        str(ROOT / "notebooks" / "submission.ipynb"),
        "--out",
        str(tmp_path / "r"),
    ]
    assert arc_submit([*command, "-p", "budgett=1h"]) == 1
    assert "no parameter budgett; did you mean budget?" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    for script in SCRIPTS:
        notebook = json.loads(script.with_suffix(".ipynb").read_text())
        with pytest.raises(ConfigError, match="no parameter no_such_name"):
            check_given_parameters(notebook, ["no_such_name"], keyword_names())
    check_given_parameters(json.loads((ROOT / "notebooks" / "submission.ipynb").read_text()), ["seed", "lora_rank"], keyword_names())
    check_given_parameters(json.loads((ROOT / "notebooks" / "gpu_check.ipynb").read_text()), ["rank"], keyword_names())
    takes = [
        path.stem
        for path in SCRIPTS
        if takes_parameter(json.loads(path.with_suffix(".ipynb").read_text()), "rerun_budget", keyword_names())
    ]
    assert {"submission", "evaluate", "hybrid_7b"} <= set(takes) <= {path.stem for path in SCRIPTS} - {"gpu_check", "build_wheels"}
    with pytest.raises(ConfigError, match="no parameter lora_rank"):
        check_given_parameters(json.loads((ROOT / "notebooks" / "gpu_check.ipynb").read_text()), ["lora_rank"], keyword_names())


def test_a_tasks_id_survives_papermill(tmp_path: Path) -> None:
    """papermill -p takes whatever looks like a number for one."""
    from papermill.cli import _resolve_type

    for text in ("67a3c6ac", "00576224", "29623171"):
        assert task_of(_resolve_type(text)) == text
    own = tmp_path / "own.json"
    own.write_text('{"12": {}}')
    assert task_of(12, own) == "12"
    for number in (_resolve_type("4991e275"), True, None):
        with pytest.raises(ConfigError, match="papermill -r task ID"):
            task_of(number)


def test_every_option_of_a_run_is_a_parameter_of_its_notebook(tiny_model: Path, tmp_path: Path) -> None:
    from arc_submit.kaggle.run_parameters import run_parameters
    from arc_submit.run.presets import make_config

    own = "preset = 'cpu-pocket'\nbudget = '10m'"
    injected = "# Parameters\nttft_steps = '7'\nmethod = 'voting'\nweights = 'search=1,ttft=2'\nsources = 'ttft,frozen'\nlora_rank = 4\n"
    check_parameters([own, injected, ""], keyword_names())
    variables: dict[str, object] = {"model": str(tiny_model), "print": print, "config": 3, "views": None}
    assign(own + "\n" + injected, variables)
    config = make_config(**run_parameters(variables, tmp_path, "run"))
    assert (config.ttft.steps, config.method, config.sources, config.lora.rank) == (7, "voting", ("ttft", "frozen"), 4)
    assert config.weights == {"search": 1.0, "ttft": 2.0}
    assert config.out == Path("runs/run")
    assert config.model == tiny_model
    with pytest.raises(ConfigError, match="no parameter ttft_step; did you mean ttft_steps"):
        check_parameters([own, "# Parameters\nttft_step = 3\n", ""], keyword_names())


def assign(source: str, variables: dict[str, object]) -> None:
    """What a cell of plain assignments does to a notebook's variables."""
    variables |= {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}  # type: ignore[attr-defined]


def test_every_notebook_checks_its_parameters() -> None:
    for script in SCRIPTS:
        cells = [cell for cell in json.loads(script.with_suffix(".ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
        place = next(i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
        assert "".join(cells[place + 1]["source"]).startswith(("check_parameters()\n", "check_parameters(options=")), script


def test_the_7b_notebooks_parameters_make_its_configuration(tiny_model: Path) -> None:
    """A configuration from the notebook's defaults, with another model; the notebook itself needs GPUs."""
    from arc_submit.run.presets import make_config

    notebook = json.loads((ROOT / "notebooks" / "hybrid_7b.ipynb").read_text())
    tagged = next("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged).body}  # type: ignore[attr-defined]
    assert values["preset"] == "hybrid-7b"
    config = make_config(values["preset"], model=tiny_model, sources=tuple(values["sources"].split(",")), ttft_steps=values["ttft_steps"])
    assert (config.engine, len(config.devices), config.max_seq_len, config.ttft.steps) == ("vllm", 4, 5120, 100)
    assert not config.ttft_in_4_bits
    assert parse_duration(values["budget"]) < parse_duration(values["rerun_budget"]) < 12 * 3600


@dataclass
class Kaggle:
    """A folder with Kaggle's layout, in which papermill executes notebooks."""

    root: Path
    environment: dict[str, str]

    def execute(self, name: str, **parameters: object) -> str:
        """Execute a notebook; returns its text output, with the word PICTURE for each picture."""
        executed = self.root / f"executed-{name}.ipynb"
        options = [argument for key, value in parameters.items() for argument in ("-p", key, str(value))]
        working = self.root / "working"
        process = subprocess.run(
            [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / "notebooks" / f"{name}.ipynb"), str(executed), *options],
            capture_output=True,
            text=True,
            cwd=working if working.is_dir() else self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
        )
        assert process.returncode == 0, process.stderr[-2000:]
        outputs = [o for cell in json.loads(executed.read_text())["cells"] for o in cell.get("outputs", [])]
        return "\n".join("PICTURE" if "image/png" in o.get("data", {}) else "".join(o.get("text", [])) for o in outputs)


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which a kernel is a fork of the tests' server."""
    folder = tmp_path_factory.mktemp("jupyter")
    fork_server.write_kernel(folder)
    return {"JUPYTER_PATH": str(folder)}


@pytest.fixture
def off_kaggle(tmp_path: Path, jupyter: dict[str, str]) -> Kaggle:
    return Kaggle(tmp_path, {**jupyter, "ARC_SUBMIT_KAGGLE": str(tmp_path / "nowhere")})


@pytest.fixture
def on_kaggle(tmp_path: Path, files: tuple[Path, Path], tiny_model: Path, jupyter: dict[str, str]) -> Kaggle:
    """The newer of the two layouts: a competition with two splits of three tasks, a bundle with a model and an installer."""
    root = tmp_path / "kaggle"
    competition, bundle = (
        root / "input" / "competitions" / "arc-prize-2026-arc-agi-2",
        root / "input" / "datasets" / "me" / "arc-submit-bundle",
    )
    for folder in (competition, bundle, root / "working"):
        folder.mkdir(parents=True)
    names = ("test_challenges", 0), ("evaluation_challenges", 0), ("evaluation_solutions", 1)
    for name, number in names:
        three = dict(sorted(json.loads(files[number].read_text()).items())[:3])
        (competition / f"arc-agi_{name}.json").write_text(json.dumps(three))
    shutil.copytree(tiny_model, bundle / "models" / "tiny")
    (bundle / "arc_submit_install.py").write_text("if __name__ == '__main__':\n    print('the attached wheels are installed')\n")
    return Kaggle(root, {**jupyter, "ARC_SUBMIT_KAGGLE": str(root)})


def tree(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


@pytest.mark.timeout(900)
def test_a_re_run_of_a_competition_makes_a_complete_submission(on_kaggle: Kaggle) -> None:
    """All tasks are solved and not the sample, the inputs do not change, and /kaggle/working holds little."""
    # A foreign model has no prompt configuration; the notebook's parameters replace it.
    next((on_kaggle.root / "input").rglob("arc_submit.json")).unlink()
    prompt = {"grid_encoder": "CompactGridEncoder()", "prompt": "output-from-turns-v0", "max_seq_len": 1024}
    before = tree(on_kaggle.root / "input")
    on_kaggle.environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    text = on_kaggle.execute("submission", tasks=1, budget="6s", rerun_budget="13m", **prompt)
    assert "the attached wheels are installed" in text
    assert ": 3 of 3 tasks (4 outputs) of" in text
    submission = json.loads((on_kaggle.root / "working" / "submission.json").read_text())
    assert sorted((task, len(entries)) for task, entries in submission.items()) == [(f"task00{n}", 1 + n % 2) for n in range(3)]
    assert "4 of 4 outputs answered" in text
    assert "PICTURE" in text
    assert tree(on_kaggle.root / "input") == before
    assert {path.name for path in (on_kaggle.root / "working").iterdir()} == {"submission.json", "submission"}
    assert not list((on_kaggle.root / "working").rglob("*.safetensors"))
    assert list((on_kaggle.root / "temp" / "submission" / "adapters").rglob("*.safetensors"))


def test_a_commit_run_evaluates_a_sample_with_scores(on_kaggle: Kaggle) -> None:
    text = on_kaggle.execute("evaluate", tasks=1, budget="13m", sources="frozen")
    assert ": 1 of 3 tasks" in text
    assert "arc-agi_evaluation_challenges.json" in text
    assert "outputs solved" in text
    assert "1 tasks done, 0 failures, 0 tasks unfinished" in text


def test_a_task_is_debugged_from_its_pictures_to_its_votes(off_kaggle: Kaggle, files: tuple[Path, Path], tiny_model: Path) -> None:
    parameters = {"task": "task001", "challenges": files[0], "solutions": files[1], "model": tiny_model}
    text = off_kaggle.execute("debug_task", **parameters, out="run", sources="search,frozen", views=2, budget="13m")
    assert text.count("PICTURE") == 2
    assert "no wheels attached" in text
    lines = text.splitlines()
    table = lines.index("test  tokens  answer  view")
    assert [line.split()[0] for line in lines[table + 1 : table + 5]] == ["0", "1", "0", "1"]
    assert "<|start|>" in text, "the prompt in full"
    assert "search: " in text
    assert any(
        line.split()[:1] == ["0"] and "x" in line and ": " in line
        for line in lines[lines.index(next(x for x in lines if x.startswith("search: "))) :]
    )
    assert "votes" in text


@pytest.mark.campaign
def test_a_frozen_model_answers_from_a_notebook(on_kaggle: Kaggle, files: tuple[Path, Path]) -> None:
    text = on_kaggle.execute("frozen_inference", challenges=files[0], engine="transformers", views=1, budget="13m")
    assert "'made': 9, 'held': 0" in text
    assert "'done': 6, 'failed': 0, 'unfinished': 0" in text
    assert len(list((on_kaggle.root / "temp" / "frozen_inference" / "predictions" / "frozen").iterdir())) == 6


@pytest.mark.campaign
def test_the_7b_notebook_runs_with_a_small_model(off_kaggle: Kaggle, files: tuple[Path, Path], tiny_model: Path) -> None:
    parameters = {"preset": "cpu-pocket", "challenges": files[0], "solutions": files[1], "model": tiny_model, "sources": "ttft"}
    text = off_kaggle.execute("hybrid_7b", **parameters, out="run", tasks=1, ttft_steps=2, ttft_max_seq_len=512, budget="13m")
    assert "1 tasks fine-tuned on samples of at most 512 tokens" in text
    assert "outputs solved" in text


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_card_is_checked_from_a_notebook(off_kaggle: Kaggle, tiny_model: Path) -> None:
    text = off_kaggle.execute("gpu_check", model=tiny_model, device="cpu", rank=4, out="gpu.json")
    assert "training on 64 tokens, plain: " in text
    assert "measured on cpu: memory 1 times the plan" in text
    assert json.loads((off_kaggle.root / "gpu.json").read_text())["card"] == "cpu"


@pytest.mark.campaign
def test_papermill_studies_a_single_task(off_kaggle: Kaggle, files: tuple[Path, Path], tiny_model: Path) -> None:
    parameters = {"task": "task001", "challenges": files[0], "solutions": files[1], "model": tiny_model}
    text = off_kaggle.execute("single_task_ttft", **parameters, out="run", ttft_steps=3, views=1, ttft_views=1, budget="13m")
    assert text.count("PICTURE") == 3
    assert "ttft" in text
    assert "votes" in text
