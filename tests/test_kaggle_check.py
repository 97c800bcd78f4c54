"""`arc-submit kaggle check` and the check of a data set's folder: every fault is found, with its place and remedy; sound folders pass."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaggle_stub import copy_kernel

from arc_submit.cli import main
from arc_submit.kaggle.check import check_kernel
from arc_submit.kaggle.dataset_check import check_dataset
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.notebook_check import MAX_BYTES, check_notebook, client_text
from arc_submit.kaggle.secret_scan import shipping_problems

ROOT = Path(__file__).parent.parent
NOTEBOOK = "notebooks/submission.ipynb"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return copy_kernel(tmp_path / "kernel", {"id": "me/arc-submit-submission", "dataset_sources": ["me/bundle"]})


def change(folder: Path, fields: dict[str, Any]) -> None:
    """Set fields of the metadata; the value ... removes a field."""
    path = folder / "kernel-metadata.json"
    value = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: field for name, field in value.items() if field is not ...}))


def severities(findings: list[Finding]) -> list[tuple[str, str]]:
    """The severity and place of each finding."""
    assert all(finding.remedy and finding.problem and finding.file for finding in findings)
    return [(finding.severity, finding.place) for finding in findings]


def test_the_projects_kernel_lacks_only_the_users_id_and_data_sets(kernel: Path) -> None:
    assert check_kernel(kernel) == []
    findings = check_kernel(ROOT)
    assert severities(findings) == [("error", "id"), ("error", "dataset_sources")]
    assert "your own Kaggle user name" in findings[0].remedy


@pytest.mark.parametrize(
    ("fields", "severity", "place", "words"),
    [
        ({"enable_gpus": True}, "error", "enable_gpus", "did you mean enable_gpu?"),
        ({"session_timeout": 3600}, "error", "session_timeout", "silently ignores it"),
        ({"id": "your-name/arc-submit-submission"}, "error", "id", "the example's"),
        ({"id": "me/arc-submit-submission/2"}, "error", "id", "holds a version"),
        ({"id": "me/Arc-submit-submission"}, "error", "id", "is not a slug"),
        ({"id": ...}, "error", "id", "is missing"),
        ({"id": "YOUR_USERNAME/arc-submit-submission"}, "error", "id", "the example's"),
        ({"id": "<username>/arc-submit-submission"}, "error", "id", "the example's"),
        ({"id": "@me/arc-submit-submission"}, "error", "id", "'@me' is not a user name"),
        ({"id": " me/arc-submit-submission"}, "error", "id", "' me' is not a user name"),
        ({"id": "me/another-slug"}, "error", "title", "becomes 'arc-submit-submission' and not 'another-slug'"),
        ({"title": "Über uns: 1,000 wins!"}, "error", "title", "becomes 'uber-uns-1000-wins'"),
        ({"title": ...}, "error", "title", "is missing"),
        ({"id_no": 12}, "warning", "id_no", "uses only id_no"),
        ({"enable_internet": ...}, "error", "enable_internet", "the internet is on by default"),
        ({"enable_internet": True}, "error", "enable_internet", "takes no submission"),
        ({"enable_internet": "true"}, "error", "enable_internet", "takes no submission"),
        ({"enable_internet": True, "competition_sources": []}, "warning", "enable_internet", "can make no submission"),
        ({"enable_tpu": True}, "error", "enable_tpu", "TPU"),
        ({"is_private": False}, "warning", "is_private", "everyone can read"),
        ({"machine_shape": "NvidiaTeslaP100"}, "error", "machine_shape", "retired"),
        ({"machine_shape": "TpuV5E8"}, "error", "machine_shape", "TPU"),
        ({"machine_shape": "nvidial4"}, "error", "machine_shape", "did you mean NvidiaL4?"),
        ({"machine_shape": "GPU T4 x2"}, "error", "machine_shape", "did you mean NvidiaTeslaT4?"),
        ({"machine_shape": "NvidiaL4x4"}, "error", "machine_shape", "did you mean NvidiaL4?"),
        ({"machine_shape": "Gpu"}, "error", "machine_shape", "NvidiaTeslaP100 is retired"),
        ({"machine_shape": "TPU VM v3-8"}, "error", "machine_shape", "TpuV38 is a TPU"),
        ({"machine_shape": "Cray"}, "error", "machine_shape", "not a known accelerator"),
        ({"machine_shape": ["NvidiaL4"]}, "error", "machine_shape", "did you mean NvidiaL4?"),
        ({"machine_shape": {"gpu": "L4"}}, "error", "machine_shape", "not a known accelerator"),
        ({"machine_shape": ...}, "error", "machine_shape", "Kaggle gives a P100"),
        ({"enable_gpu": False}, "warning", "enable_gpu", "is off while machine_shape is NvidiaL4"),
        ({"dataset_sources": ["bundle"]}, "error", "dataset_sources", "'bundle' has the wrong form"),
        ({"dataset_sources": ["your-name/bundle"]}, "error", "dataset_sources", "the example's"),
        ({"dataset_sources": ["me/bundle", "me/bundle"]}, "warning", "dataset_sources", "twice"),
        ({"dataset_sources": ["me/bundle/3", "me/bundle"]}, "warning", "dataset_sources", "twice"),
        ({"dataset_sources": ["INSERT_OWNER/bundle"]}, "error", "dataset_sources", "the example's"),
        ({"dataset_sources": []}, "error", "dataset_sources", "arc_submit is not installed"),
        ({"kernel_sources": ["me/abcdef?scriptVersionId=3"]}, "error", "kernel_sources", "has the wrong form"),
        ({"model_sources": ["a/b/transformers/c/0"]}, "error", "model_sources", "has the wrong form"),
        ({"model_sources": ["a/b/transfomers/c/1"]}, "warning", "model_sources", "did you mean transformers?"),
        ({"competition_sources": ["arc-prize-2026-arc-agi2"]}, "error", "competition_sources", "did you mean arc-prize-2026-arc-agi-2?"),
        ({"competition_sources": ["titanic"]}, "warning", "competition_sources", "write arc-prize-2026-arc-agi-2"),
        ({"docker_image": ["a"]}, "error", "docker_image", "is not a text"),
        ({"code_file": "n" * 300 + ".ipynb"}, "error", "code_file", "no such file"),
        ({"kernel_sources": ["me/abc"]}, "error", "kernel_sources", "'me/abc' has the wrong form"),
        ({"model_sources": ["a/b/transformers/c"]}, "error", "model_sources", "with a whole number as version"),
        ({"competition_sources": ["https://www.kaggle.com/competitions/arc-prize-2026-arc-agi-2"]}, "error", "competition_sources", "slug"),
        ({"competition_sources": []}, "error", "competition_sources", "no test file"),
        ({"competition_sources": [], "enable_internet": True}, "error", "competition_sources", "cannot be submitted"),
        ({"docker_image_pinning_type": ...}, "warning", "docker_image_pinning_type", "wheels for another image"),
        ({"docker_image_pinning_type": "latest"}, "warning", "docker_image_pinning_type", "newest image of that day"),
        ({"docker_image": "python:3.12"}, "warning", "docker_image", "does not look like one of Kaggle's"),
        ({"kernel_type": "script"}, "error", "kernel_type", "notebook"),
        ({"docker_image": "gcr.io/kaggle-images/python@sha256:" + "0" * 64}, "warning", "docker_image", "torch may see no GPU"),
        ({"competition_sources": ["arc-prize-2026"]}, "error", "competition_sources", "write arc-prize-2026-arc-agi-2"),
        ({"id": "me/" + "a" * 51, "title": "a" * 51}, "error", "title", "only with a server error"),
        ({"competition_sources": ["arc-prize-2025", "arc-prize-2026-arc-agi-2"]}, "warning", "competition_sources", "more than one"),
        ({"competition_sources": ["c/arc-prize-2026-arc-agi-2"]}, "error", "competition_sources", "slug"),
        ({"kernel_sources": None}, "error", "kernel_sources", "is not a list of texts"),
        ({"code_file": "notebooks/submission.py"}, "error", "file", "is not an .ipynb"),
        ({"code_file": "notebooks/other.ipynb"}, "error", "code_file", "no such file"),
    ],
)
def test_faults_of_the_metadata_are_found(kernel: Path, fields: dict[str, Any], severity: str, place: str, words: str) -> None:
    change(kernel, fields)
    findings = [finding for finding in check_kernel(kernel) if finding.place == place]
    assert severities(findings) == [(severity, place)]
    assert words in str(findings[0])


def test_metadata_that_are_not_a_json_object_are_found(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kernel / "kernel-metadata.json"
    for text, words in (("[1]", "not a JSON object"), ("{", "not JSON"), (None, "cannot be read")):
        path.unlink() if text is None else path.write_text(text)
        assert [words in str(finding) for finding in check_kernel(kernel)] == [True]
    assert main(["kaggle", "check", str(kernel), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["errors"] == 1
    assert captured.err.count("\n") == 1


def test_a_byte_order_mark_is_found_in_what_the_client_reads(kernel: Path) -> None:
    for path in (kernel / "kernel-metadata.json", kernel / NOTEBOOK):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert severities(check_kernel(kernel)) == [("error", "file"), ("error", "file")]
    assert all("byte order mark" in str(finding) for finding in check_kernel(kernel))


def test_a_repeated_field_is_found(kernel: Path) -> None:
    path = kernel / "kernel-metadata.json"
    path.write_text(path.read_text().replace("{", '{"enable_internet": true, ', 1))
    assert severities(check_kernel(kernel)) == [("error", "enable_internet")]


def edit(kernel: Path, change_it: Callable[[dict[str, Any]], Any]) -> None:
    """Change the notebook and delete its script, so that only the notebook is checked."""
    path = kernel / NOTEBOOK
    path.with_suffix(".py").unlink(missing_ok=True)
    value = json.loads(path.read_text())
    change_it(value)
    path.write_text(json.dumps(value))


def add_code(source: str) -> Callable[[dict[str, Any]], Any]:
    cell = {"cell_type": "code", "id": "more", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    return lambda notebook: notebook["cells"].append(cell)


def set_parameter(source: str) -> Callable[[dict[str, Any]], Any]:
    """Append a line to the notebook's cell of parameters."""

    def change_it(notebook: dict[str, Any]) -> None:
        cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
        cell["source"] = "".join(cell["source"]) + f"\n{source}"

    return change_it


WIDGETS = "application/vnd.jupyter.widget-state+json"
FAILURE = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}


def first_code(notebook: dict[str, Any]) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


@pytest.mark.parametrize(
    ("change_it", "severity", "place", "words"),
    [
        (lambda n: n["metadata"].pop("kernelspec"), "error", "kernelspec", "No kernel name found"),
        (lambda n: n["metadata"]["kernelspec"].update(name="py312"), "error", "kernelspec", "'py312'"),
        (lambda n: [c["metadata"].pop("tags", None) for c in n["cells"]], "warning", "parameters", "0 cells"),
        (lambda n: first_code(n).update(execution_count=3), "warning", "cell 1", "outputs of a run"),
        (lambda n: n.update(nbformat=3), "error", "file", "not of format 4"),
        (lambda n: first_code(n).pop("outputs"), "error", "file", "is not a valid notebook"),
        (add_code("x = '" + "ä" * (MAX_BYTES // 6) + "'"), "error", "size", "the largest cell is"),
        (add_code("!pip install --no-index arc_submit"), "warning", "cell 10", "whose failure does not fail the notebook"),
        (add_code("%pip install arc_submit"), "error", "cell 10", "installs from the network"),
        (add_code("token = 'hf_" + "a" * 34 + "'"), "error", "cell 10", "a Hugging Face token"),
        (add_code("rerun_budget = '12h'"), "error", "rerun_budget", "12h leaves less than"),
        (add_code("x = (1,\ny = 2"), "error", "cell 10", "is not Python: line 1"),
        (add_code("import subprocess\nsubprocess.run(['pip', 'install', 'vllm'])"), "error", "cell 10", "installs from the network"),
        (add_code("%%bash\ncd /tmp\npip install vllm"), "error", "cell 10", "installs from the network"),
        (add_code("import os\nos.system('pip install -q vllm')"), "error", "cell 10", "installs from the network"),
        (add_code("import x\nx.snapshot_download('Qwen/Qwen2.5-0.5B')"), "warning", "cell 10", "downloads with 'x.snapshot_download'"),
        (add_code("model = x.from_pretrained('Qwen/Qwen2.5-0.5B')"), "warning", "cell 10", "loads 'Qwen/Qwen2.5-0.5B'"),
        (add_code("path = '/kaggle/input/arc-submit-bundle/models'"), "warning", "cell 10", "two layouts"),
        (add_code("from arc_submit.kaggle.wheels import make_wheelhouse"), "error", "cell 10", "downloads wheels"),
        (lambda n: n["metadata"].update(kaggle={"isInternetEnabled": True}), "warning", "metadata.kaggle", "the internet is on"),
        (lambda n: n["cells"].pop(1), "error", "cell 1", "before any cell installs"),
        (add_code("rerun_budget = 50000"), "error", "rerun_budget", "50000 leaves less than"),
        (add_code("rerun_budget: int = 14 * 60 * 60"), "error", "rerun_budget", "50400 leaves less than"),
        (add_code("seed, rerun_budget = 1, '14h'"), "error", "rerun_budget", "14h leaves less than"),
        (add_code("rerun_budget = float('12h' if seed else '1h')"), "error", "rerun_budget", "12h leaves less than"),
        (add_code("make_config(preset, rerun_budget=1e5)"), "error", "rerun_budget", "100000.0 leaves less than"),
        (add_code("budget = 'soon'"), "error", "budget", "duration 'soon'"),
        (add_code("rerun_budget = 11"), "error", "rerun_budget", "11 is 11s, and a re-run has 11h55m; a number alone is of seconds"),
        (add_code("rerun_budget = '690'"), "warning", "rerun_budget", "690 is 11m30s"),
        (add_code("rerun_budget = -1"), "error", "rerun_budget", "duration -1"),
        (add_code("hours = 12\nrerun_budget = f'{hours}h'"), "error", "rerun_budget", "12h leaves less than"),
        (set_parameter("rerun_budget = True"), "error", "rerun_budget", "True: a duration is needed"),
        (set_parameter("rerun_budget = ['11h']"), "error", "rerun_budget", "a duration is needed"),
        (set_parameter("preset = ['auto']"), "error", "preset", "a text is needed"),
        (set_parameter("seed = '7x'"), "error", "seed", "a whole number is needed"),
        (set_parameter("tasks = 0"), "error", "tasks", "at least 1 is needed"),
        (set_parameter("ttft_steps = 'many'"), "error", "ttft_steps", "a whole number is needed"),
        (set_parameter("method = 'best'"), "error", "method", "choose from"),
        (set_parameter("sources = 'search,ttft2'"), "error", "sources", "choose from"),
        (set_parameter("rerun_buget = '11h'"), "error", "rerun_buget", "did you mean rerun_budget?"),
        (set_parameter("colour = 'red'"), "warning", "colour", "changes nothing"),
        (lambda n: n["metadata"].update(widgets={WIDGETS: {"abc": {}}}), "error", "metadata.widgets", "KeyError: 'state'"),
        (lambda n: n["metadata"].update(widgets=[]), "error", "metadata.widgets", "has no state"),
        (lambda n: n["metadata"]["kernelspec"].pop("language"), "warning", "kernelspec", "can set no parameters"),
        (lambda n: n["metadata"]["kernelspec"].update(language="R"), "error", "kernelspec", "the language 'R'"),
        (lambda n: n.update(nbformat=5), "error", "file", "not of format 4"),
        (lambda n: first_code(n)["metadata"].update(tags=["injected-parameters"]), "error", "cell 1", "parameters of a dry run"),
        (lambda n: first_code(n)["metadata"].update(tags=["raises-exception"]), "warning", "cell 1", "does not fail the notebook"),
        (lambda n: first_code(n)["outputs"].append(FAILURE), "warning", "cell 1", "which ended with ValueError"),
    ],
)
def test_faults_of_the_notebook_are_found(
    kernel: Path, change_it: Callable[[dict[str, Any]], Any], severity: str, place: str, words: str
) -> None:
    edit(kernel, change_it)
    findings = check_kernel(kernel)
    place = place.replace("cell 10", f"cell {len(json.loads((kernel / NOTEBOOK).read_text())['cells']) - 1}")
    place = place if place != "cell 1" else next((f.place for f in findings if f.place.startswith("cell")), place)
    assert severities(findings) == [(severity, place)]
    assert words in str(findings[0])


@pytest.mark.parametrize(
    "source",
    [
        "# pip install vllm, at home",
        "raise SystemExit('pip install vllm first')",
        "import subprocess\nsubprocess.run(['pip', 'install',\n  '--no-index', 'vllm'])",
        "model = x.from_pretrained(folder)",
        "await y",
        "%matplotlib inline\nx = (1,",
        "x?",
        "rerun_budget = 41400",
        "rerun_budget = '11.5h'",
    ],
)
def test_valid_cells_give_no_findings(kernel: Path, source: str) -> None:
    edit(kernel, add_code(source))
    assert check_kernel(kernel) == []


def test_a_markdown_cell_tagged_parameters_is_found(kernel: Path) -> None:
    def retag(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            cell["metadata"].pop("tags", None)
        notebook["cells"][0]["metadata"]["tags"] = ["parameters"]

    edit(kernel, retag)
    assert severities(check_kernel(kernel)) == [("error", "cell 0")]


def test_metadata_written_by_kaggle_give_no_findings(kernel: Path) -> None:
    change(kernel, {"docker_image": "gcr.io/kaggle-private-byod/python@sha256:" + "0" * 64, "docker_image_pinning_type": ...})
    assert check_kernel(kernel) == []
    change(kernel, {"machine_shape": "None", "enable_gpu": False, "docker_image": "gcr.io/kaggle-images/python@sha256:" + "0" * 64})
    assert check_kernel(kernel) == []


@pytest.mark.parametrize(
    ("preset", "fields", "severity", "words"),
    [
        ("l4x4-qwen2.5-1.5b", {}, None, ""),
        ("cpu-pocket", {"machine_shape": "NvidiaTeslaT4"}, None, ""),
        ("l4x4-qwen2.5-1.5b", {"machine_shape": "NvidiaTeslaT4"}, "error", "4 GPUs, and NvidiaTeslaT4, which is requested, has 2"),
        ("hybrid-7b", {"machine_shape": "NvidiaH100"}, "error", "which is requested, has 1"),
        ("hybrid-7b", {"machine_shape": ..., "enable_gpu": False}, "error", "a machine without a GPU"),
        ("hybrid-7b", {"machine_shape": "None", "enable_gpu": "false"}, "error", "a machine without a GPU"),
        ("t4x2-qwen2.5-0.5b", {}, "warning", "leaves 2 of NvidiaL4 idle"),
        ("l4x4-qwen", {}, "error", "choose from cpu-pocket"),
        ("l4x4-qwen2.5-1.5b", {"enable_gpu": False}, "error", "is off while machine_shape is NvidiaL4, and l4x4-qwen2.5-1.5b needs"),
        ("auto", {}, None, ""),
        ("auto", {"machine_shape": "NvidiaTeslaT4"}, None, ""),
        ("auto", {"machine_shape": ..., "enable_gpu": False}, "error", "auto needs 1 GPU, and a machine without a GPU"),
    ],
)
def test_a_preset_for_another_number_of_gpus_is_found(
    kernel: Path, preset: str, fields: dict[str, Any], severity: str | None, words: str
) -> None:
    change(kernel, fields)
    use_preset(kernel, preset)
    findings = [finding for finding in check_kernel(kernel) if finding.place in ("preset", "enable_gpu")]
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    assert words in "".join(map(str, findings))


def use_preset(kernel: Path, preset: str) -> None:
    path = kernel / NOTEBOOK
    path.with_suffix(".py").unlink()
    text = path.read_text()
    assert "preset = None" in text
    path.write_text(text.replace("preset = None", f'preset = \\"{preset}\\"'))


def test_a_preset_for_gpus_needs_a_machine_that_is_named(kernel: Path) -> None:
    use_preset(kernel, "l4x4-qwen2.5-1.5b")
    assert check_kernel(kernel) == []
    change(kernel, {"machine_shape": ...})
    findings = check_kernel(kernel)
    assert severities(findings) == [("error", "machine_shape")]
    assert "Kaggle gives a P100" in str(findings[0])
    assert "write one of NvidiaL4" in str(findings[0])
    path = kernel / NOTEBOOK
    path.write_text(path.read_text().replace("l4x4-qwen2.5-1.5b", "auto"))
    (finding,) = check_kernel(kernel)
    assert "auto needs 1 GPU that work" in str(finding)
    assert "write one of NvidiaTeslaT4, NvidiaL4" in str(finding)


@pytest.mark.parametrize("sources", [["me/arc-submit-wheels-kaggle"], ["me/arc-submit-wheels-kaggle/3"]])
def test_a_preset_for_a_model_needs_something_that_can_hold_it(kernel: Path, sources: list[str]) -> None:
    use_preset(kernel, "l4x4-qwen2.5-1.5b")
    change(kernel, {"dataset_sources": sources})
    assert severities(check_kernel(kernel)) == [("error", "model_sources")]
    change(kernel, {"model_sources": ["a/b/transformers/c/1"]})
    assert check_kernel(kernel) == []


def test_a_kernel_of_another_user_is_found(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    assert severities(check_kernel(kernel)) == [("warning", "id")]
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    assert check_kernel(kernel) == []


WITHOUT_COMPETITION = ("build_wheels", "gpu_check", "frozen_inference", "debug_task", "single_task_ttft", "paint")


def test_every_notebook_of_the_project_passes(kernel: Path) -> None:
    for script in sorted((ROOT / "notebooks").glob("*.py")):
        for suffix in (".py", ".ipynb"):
            shutil.copy(script.with_suffix(suffix), kernel / "notebooks")
        change(kernel, {"code_file": f"notebooks/{script.stem}.ipynb", "enable_internet": script.stem == "build_wheels"})
        change(kernel, {"competition_sources": [] if script.stem in WITHOUT_COMPETITION else ["arc-prize-2026-arc-agi-2"]})
        places = [finding.place for finding in check_kernel(kernel)]
        assert places == (["enable_internet"] if script.stem == "build_wheels" else []), script
        change(kernel, {"competition_sources": []})
        missing = [finding for finding in check_kernel(kernel) if finding.place == "competition_sources"]
        assert severities(missing) == ([] if script.stem in WITHOUT_COMPETITION else [("error", "competition_sources")]), script
        change(kernel, {"machine_shape": ...})
        assert ("error", "machine_shape") in severities(check_kernel(kernel))
        change(kernel, {"machine_shape": "NvidiaL4"})


@pytest.mark.parametrize(
    ("sources", "setting", "words"),
    [
        ({"dataset_sources": ["me/arc-submit-wheels"]}, "model = 'qwen3-4b'", "'qwen3-4b' is in no data set, model or notebook"),
        ({"dataset_sources": ["me/arc-submit-wheels"]}, "base_adapter = 'base'", "'base' is in no data set"),
        ({"dataset_sources": ["me/models"]}, "model = '/kaggle/input/qwen/models'", None),
        ({"dataset_sources": ["me/models"]}, "model = '/kaggle/input/qwen'", "attached is me/models"),
        ({"dataset_sources": ["me/models"]}, "model = 'qwen3-4b'", None),
        ({"kernel_sources": ["me/merged-model"]}, "model = 'qwen3-4b'", None),
        ({"model_sources": ["a/qwen/transformers/4b/1"]}, "model = 'qwen'", "write 'qwen/transformers/4b/1'"),
        ({"model_sources": ["a/qwen/transformers/4b/1"]}, "model = '4b/1'", None),
        ({"model_sources": ["a/qwen/transformers/4b/1"]}, "model = '/kaggle/input/models/a/qwen/transformers/4b/1'", None),
        ({"dataset_sources": ["me/arc-submit-wheels"]}, "source = ['search', 'a=ttft:model=qwen3-4b']", "'qwen3-4b' is in no data set"),
        ({"dataset_sources": ["me/models"]}, "source = 'a=ttft:model=qwen3-4b; b=frozen'", None),
        ({"dataset_sources": ["me/models"]}, "source = 'a=ttft:preset=cray'", "there is no preset 'cray'"),
        ({"dataset_sources": ["me/arc-submit-wheels"]}, "model = None", None),
        ({"dataset_sources": ["me/arc-submit-wheels"]}, "model = '/kaggle/temp/merged'", None),
    ],
)
def test_a_model_that_is_named_is_in_a_source(kernel: Path, sources: dict[str, Any], setting: str, words: str | None) -> None:
    wheels = sources.get("dataset_sources", ["me/arc-submit-wheels"])
    change(kernel, {"dataset_sources": wheels, **sources})
    edit(kernel, add_code(setting))
    errors = [str(finding) for finding in check_kernel(kernel) if finding.severity == "error"]
    assert [words in error for error in errors if words] == ([True] if words else [])
    assert bool(errors) == bool(words)


def test_a_notebook_that_differs_from_its_script_is_found(kernel: Path) -> None:
    script = (kernel / NOTEBOOK).with_suffix(".py")
    script.write_text(script.read_text() + "\n# %%\nprint(1)\n")
    assert severities(check_kernel(kernel)) == [("error", "file")]
    assert "edit only the script" in str(check_kernel(kernel)[0])


def test_a_session_that_is_too_short_or_too_long_is_found(kernel: Path) -> None:
    assert severities(check_kernel(kernel, session="12h")) == [("error", "--session")]
    assert severities(check_kernel(kernel, session="soon")) == [("error", "--session")]
    assert severities(check_kernel(kernel, session="11h")) == [("error", "rerun_budget")]
    assert severities(check_kernel(kernel, accelerator="NvidiaTeslaK80")) == [("error", "--accelerator")]


texts = st.text(max_size=30)


@settings(max_examples=30, deadline=None)
@given(sources=st.lists(texts | st.lists(texts, max_size=3), max_size=4), outputs=st.lists(texts, max_size=2))
def test_the_client_text_has_no_outputs_and_joined_sources(sources: list[Any], outputs: list[str]) -> None:
    cells = [{"cell_type": "code", "source": source, "outputs": outputs, "metadata": {}} for source in sources]
    notebook = {"cells": cells, "metadata": {"a": 1}}
    text = client_text(notebook)
    assert text.isascii()
    assert [(cell["source"], cell["outputs"]) for cell in json.loads(text)["cells"]] == [("".join(source), []) for source in sources]
    assert json.loads(text)["metadata"] == {"a": 1}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["cells", "metadata", "nbformat"]), st.none() | texts | st.lists(texts, max_size=2), max_size=3))
def test_a_file_that_is_not_a_notebook_is_a_finding(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("n") / "n.ipynb"
    path.write_text(json.dumps(value))
    _, findings = check_notebook(path, False)
    assert any(finding.severity == "error" for finding in findings)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    value = {"id": "me/bundle-of-mine", "title": "bundle of mine", "licenses": [{"name": "apache-2.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(value))
    return folder


def test_a_sound_data_set_passes(dataset: Path) -> None:
    assert check_dataset(dataset)[1] == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"id": "me/short"}, "id"),
        ({"id": "bundle-of-mine"}, "id"),
        ({"id": "me/" + "a" * 51}, "id"),
        ({"title": "short"}, "title"),
        ({"title": "INSERT_TITLE_HERE"}, "title"),
        ({"subtitle": "too short"}, "subtitle"),
        ({"licenses": []}, "licenses"),
        ({"licenses": [{"name": "a"}, {"name": "b"}]}, "licenses"),
        ({"resources": [{"path": "none.csv"}]}, "resources"),
        ({"is_private": True}, "is_private"),
    ],
)
def test_faults_of_a_data_sets_metadata_are_found(dataset: Path, fields: dict[str, Any], place: str) -> None:
    path = dataset / "dataset-metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert severities(check_dataset(dataset)[1]) == [("error", place)]


@pytest.mark.parametrize(
    ("name", "severity", "words"),
    [
        (".gitignore", "error", "is hidden, but is uploaded too"),
        ("pocket/.cache", "error", "is hidden"),
        ("kaggle.json", "error", "credentials"),
        ("vllm-0.19.1+cu128.whl", "error", "has a + in its name"),
        ("pocket/größe.txt", "warning", "characters"),
        ("wheels.zip", "warning", "unpacks on arrival"),
        ("models/stored_tokens", "error", "credentials"),
        ("prod.env", "error", "credentials"),
    ],
)
def test_files_that_an_upload_would_change_are_found(dataset: Path, name: str, severity: str, words: str) -> None:
    (dataset / name).parent.mkdir(exist_ok=True)
    (dataset / name).write_text("content")
    findings = check_dataset(dataset)[1]
    assert severities(findings) == [(severity, name)]
    assert words in str(findings[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("login with hf_" + "aB3" * 11, "line 2: looks like a Hugging Face token"),
        ('{"username": "me", "key": "' + "0a" * 16 + '"}', "line 2: looks like a Kaggle key"),
        ("KAGGLE_KEY=" + "0a" * 16, "line 2: looks like a Kaggle key"),
        ("-----BEGIN " + "PRIVATE KEY-----", "line 2: looks like a private key"),
    ],
)
def test_an_upload_refuses_the_credentials_that_a_bundle_refuses(dataset: Path, text: str, words: str) -> None:
    (dataset / "README.md").write_text(f"one\n{text}\n")
    findings = check_dataset(dataset)[1]
    assert severities(findings) == [("error", "README.md")]
    assert words in str(findings[0])
    assert [words in line for line in shipping_problems(dataset) if "README.md" in line] == [True]


def test_tokenizer_files_and_wheels_are_not_credentials(dataset: Path) -> None:
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json")
    for name in (*names, "merges.txt", "tokens.txt", "key_table.json", "environment.yml", "cryptography-46.0-cp311-abi3.whl"):
        (dataset / name).write_text('{"<|im_start|>": 151644, "sk": 1, "hf_": 2, "key": "0123", "sha256": "' + "0a" * 32 + '"}')
    shutil.copytree(ROOT / "models" / "pocket", dataset / "models" / "pocket")
    shutil.copytree(ROOT / "offline_wheels", dataset / "offline_wheels")
    assert check_dataset(dataset)[1] == []


def test_a_broken_link_and_an_empty_folder_are_found(dataset: Path) -> None:
    (dataset / "model.safetensors").unlink()
    assert severities(check_dataset(dataset)[1]) == [("error", "files")]
    (dataset / "adapter").symlink_to(dataset / "none")
    assert ("error", "adapter") in severities(check_dataset(dataset)[1])
