"""`arc-submit kaggle check` and the checks of a data set's folder: every trap is found, at its place, with a remedy; sound folders pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.cli import main
from arc_submit.kaggle.check import check_kernel
from arc_submit.kaggle.dataset import check_dataset
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.notebook_check import MOST_BYTES, check_notebook, text_as_sent
from arc_submit.kaggle.secret_scan import refusals

ROOT = Path(__file__).parent.parent
NOTEBOOK = "notebooks/submission.ipynb"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    folder = tmp_path / "kernel"
    (folder / "notebooks").mkdir(parents=True)
    for suffix in (".py", ".ipynb"):
        shutil.copy(ROOT / "notebooks" / f"submission{suffix}", folder / "notebooks")
    value = json.loads((ROOT / "kernel-metadata.json").read_text())
    (folder / "kernel-metadata.json").write_text(json.dumps({**value, "id": "me/arc-submit-submission", "dataset_sources": ["me/bundle"]}))
    return folder


def change(folder: Path, fields: dict[str, Any]) -> None:
    """Set fields of the metadata; a field that is ... is taken out."""
    path = folder / "kernel-metadata.json"
    value = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: given for name, given in value.items() if given is not ...}))


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    assert all(finding.remedy and finding.problem and finding.file for finding in findings)
    return [(finding.severity, finding.place) for finding in findings]


def test_the_projects_kernel_is_sound_but_for_what_only_its_user_knows(kernel: Path) -> None:
    assert check_kernel(kernel) == []
    findings = check_kernel(ROOT)
    assert told(findings) == [("error", "id"), ("error", "dataset_sources")]
    assert "your own Kaggle user name" in findings[0].remedy


@pytest.mark.parametrize(
    ("fields", "severity", "place", "words"),
    [
        ({"enable_gpus": True}, "error", "enable_gpus", "did you mean enable_gpu?"),
        ({"session_timeout": 3600}, "error", "session_timeout", "ignores it in silence"),
        ({"id": "your-name/arc-submit-submission"}, "error", "id", "the example's"),
        ({"id": "me/arc-submit-submission/2"}, "error", "id", "holds a version"),
        ({"id": "me/Arc-submit-submission"}, "error", "id", "small letters"),
        ({"id": ...}, "error", "id", "is missing"),
        ({"id": "me/another-slug"}, "error", "title", "becomes 'arc-submit-submission' and not 'another-slug'"),
        ({"title": "Über uns: 1,000 wins!"}, "error", "title", "becomes 'uber-uns-1000-wins'"),
        ({"title": ...}, "error", "title", "is missing"),
        ({"id_no": 12}, "warning", "id_no", "goes by it alone"),
        ({"enable_internet": ...}, "error", "enable_internet", "it is on unless it is said to be off"),
        ({"enable_internet": True}, "error", "enable_internet", "takes no submission"),
        ({"enable_internet": "true"}, "error", "enable_internet", "takes no submission"),
        ({"enable_internet": True, "competition_sources": []}, "warning", "enable_internet", "no submission can be made"),
        ({"enable_tpu": True}, "error", "enable_tpu", "TPU"),
        ({"is_private": False}, "warning", "is_private", "everyone can read"),
        ({"machine_shape": "NvidiaTeslaP100"}, "error", "machine_shape", "retired"),
        ({"machine_shape": "TpuV5E8"}, "error", "machine_shape", "TPU"),
        ({"machine_shape": "nvidial4"}, "error", "machine_shape", "did you mean NvidiaL4?"),
        ({"machine_shape": "Gpu T4 x2"}, "error", "machine_shape", "no accelerator that is known here"),
        ({"machine_shape": ...}, "warning", "machine_shape", "Kaggle chooses the GPU"),
        ({"enable_gpu": False}, "warning", "enable_gpu", "is off while machine_shape is NvidiaL4"),
        ({"dataset_sources": ["bundle"]}, "error", "dataset_sources", "'bundle' is not of its form"),
        ({"dataset_sources": ["your-name/bundle"]}, "error", "dataset_sources", "the example's"),
        ({"dataset_sources": ["me/bundle", "me/bundle"]}, "warning", "dataset_sources", "twice"),
        ({"dataset_sources": []}, "error", "dataset_sources", "nothing else brings arc_submit"),
        ({"kernel_sources": ["me/abc"]}, "error", "kernel_sources", "'me/abc' is not of its form"),
        ({"model_sources": ["a/b/transformers/c"]}, "error", "model_sources", "the version a whole number"),
        ({"competition_sources": ["https://www.kaggle.com/competitions/arc-prize-2026-arc-agi-2"]}, "error", "competition_sources", "slug"),
        ({"competition_sources": []}, "warning", "competition_sources", "no test file"),
        ({"docker_image_pinning_type": ...}, "warning", "docker_image_pinning_type", "wheels that were made for another"),
        ({"docker_image_pinning_type": "latest"}, "warning", "docker_image_pinning_type", "newest one on the day"),
        ({"docker_image": "python:3.12"}, "warning", "docker_image", "does not look like one of Kaggle's"),
        ({"kernel_type": "script"}, "error", "kernel_type", "notebook"),
        ({"docker_image": "gcr.io/kaggle-images/python@sha256:" + "0" * 64}, "warning", "docker_image", "torch may see no GPU"),
        ({"competition_sources": ["arc-prize-2026"]}, "error", "competition_sources", "write arc-prize-2026-arc-agi-2"),
        ({"id": "me/" + "a" * 51, "title": "a" * 51}, "error", "title", "nothing but a server error"),
        ({"competition_sources": ["arc-prize-2025", "arc-prize-2026-arc-agi-2"]}, "warning", "competition_sources", "more than one"),
        ({"competition_sources": ["c/arc-prize-2026-arc-agi-2"]}, "error", "competition_sources", "slug"),
        ({"kernel_sources": None}, "error", "kernel_sources", "is not a list of texts"),
        ({"code_file": "notebooks/submission.py"}, "error", "file", "is no .ipynb"),
        ({"code_file": "notebooks/other.ipynb"}, "error", "code_file", "no such file"),
    ],
)
def test_what_kaggle_would_refuse_or_ignore_is_found(kernel: Path, fields: dict[str, Any], severity: str, place: str, words: str) -> None:
    change(kernel, fields)
    findings = [finding for finding in check_kernel(kernel) if finding.place == place]
    assert told(findings) == [(severity, place)]
    assert words in str(findings[0])


def test_metadata_that_are_no_object_are_found(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kernel / "kernel-metadata.json"
    for text, words in (("[1]", "not a JSON object"), ("{", "not JSON"), (None, "cannot be read")):
        path.unlink() if text is None else path.write_text(text)
        assert [words in str(finding) for finding in check_kernel(kernel)] == [True]
    assert main(["kaggle", "check", str(kernel), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["errors"] == 1
    assert captured.err.count("\n") == 1


def test_a_field_that_is_given_twice_is_found(kernel: Path) -> None:
    path = kernel / "kernel-metadata.json"
    path.write_text(path.read_text().replace("{", '{"enable_internet": true, ', 1))
    assert told(check_kernel(kernel)) == [("error", "enable_internet")]


def edit(kernel: Path, change_it: Callable[[dict[str, Any]], Any]) -> None:
    """Change the notebook; its script goes, so that only the notebook is judged."""
    path = kernel / NOTEBOOK
    path.with_suffix(".py").unlink(missing_ok=True)
    value = json.loads(path.read_text())
    change_it(value)
    path.write_text(json.dumps(value))


def add_code(source: str) -> Callable[[dict[str, Any]], Any]:
    cell = {"cell_type": "code", "id": "more", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    return lambda notebook: notebook["cells"].append(cell)


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
        (lambda n: first_code(n).pop("outputs"), "error", "file", "is no valid notebook"),
        (add_code("x = '" + "ä" * (MOST_BYTES // 6) + "'"), "error", "size", "the largest cell is"),
        (add_code("!pip install --no-index arc_submit"), "warning", "cell 10", "whose failure leaves the notebook green"),
        (add_code("%pip install arc_submit"), "error", "cell 10", "installs from the network"),
        (add_code("token = 'hf_" + "a" * 34 + "'"), "error", "cell 10", "a Hugging Face token"),
        (add_code("rerun_budget = '12h'"), "error", "rerun_budget", "12h leaves less than"),
        (add_code("x = (1,\ny = 2"), "error", "cell 10", "is not Python: line 1"),
        (add_code("import subprocess\nsubprocess.run(['pip', 'install', 'vllm'])"), "error", "cell 10", "installs from the network"),
        (add_code("%%bash\ncd /tmp\npip install vllm"), "error", "cell 10", "installs from the network"),
        (add_code("import os\nos.system('pip install -q vllm')"), "error", "cell 10", "installs from the network"),
        (add_code("import x\nx.snapshot_download('Qwen/Qwen2.5-0.5B')"), "warning", "cell 10", "fetches with 'snapshot_download('"),
        (add_code("model = x.from_pretrained('Qwen/Qwen2.5-0.5B')"), "warning", "cell 10", "loads 'Qwen/Qwen2.5-0.5B'"),
        (add_code("path = '/kaggle/input/arc-submit-bundle/models'"), "warning", "cell 10", "two layouts"),
        (add_code("from arc_submit.kaggle.wheels import make_wheelhouse"), "error", "cell 10", "fetches wheels"),
        (lambda n: n["metadata"].update(kaggle={"isInternetEnabled": True}), "warning", "metadata.kaggle", "the internet is on"),
        (lambda n: n["cells"].pop(1), "error", "cell 1", "no cell before it installs"),
    ],
)
def test_what_would_stop_a_notebook_is_found(
    kernel: Path, change_it: Callable[[dict[str, Any]], Any], severity: str, place: str, words: str
) -> None:
    edit(kernel, change_it)
    findings = check_kernel(kernel)
    place = place.replace("cell 10", f"cell {len(json.loads((kernel / NOTEBOOK).read_text())['cells']) - 1}")
    place = place if place != "cell 1" else next((f.place for f in findings if f.place.startswith("cell")), place)
    assert told(findings) == [(severity, place)]
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
    ],
)
def test_what_is_no_fault_is_passed_over(kernel: Path, source: str) -> None:
    edit(kernel, add_code(source))
    assert check_kernel(kernel) == []


def test_a_markdown_cell_that_is_tagged_for_the_parameters_is_found(kernel: Path) -> None:
    def retag(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            cell["metadata"].pop("tags", None)
        notebook["cells"][0]["metadata"]["tags"] = ["parameters"]

    edit(kernel, retag)
    assert told(check_kernel(kernel)) == [("error", "cell 0")]


def test_what_kaggle_itself_writes_of_kernels_is_sound(kernel: Path) -> None:
    change(kernel, {"docker_image": "gcr.io/kaggle-private-byod/python@sha256:" + "0" * 64, "docker_image_pinning_type": ...})
    assert check_kernel(kernel) == []
    change(kernel, {"machine_shape": "None", "enable_gpu": False, "docker_image": "gcr.io/kaggle-images/python@sha256:" + "0" * 64})
    assert check_kernel(kernel) == []


@pytest.mark.parametrize(
    ("preset", "fields", "severity", "words"),
    [
        ("l4x4-qwen2.5-1.5b", {}, None, ""),
        ("cpu-pocket", {"machine_shape": "NvidiaTeslaT4"}, None, ""),
        ("l4x4-qwen2.5-1.5b", {"machine_shape": "NvidiaTeslaT4"}, "error", "4 GPUs, and NvidiaTeslaT4 is asked for, which has 2"),
        ("hybrid-7b", {"machine_shape": "NvidiaH100"}, "error", "which has 1"),
        ("hybrid-7b", {"machine_shape": ..., "enable_gpu": False}, "error", "a machine without any"),
        ("t4x2-qwen2.5-0.5b", {}, "warning", "leaves 2 of NvidiaL4 idle"),
        ("l4x4-qwen", {}, "error", "choose from cpu-pocket"),
    ],
)
def test_a_preset_for_other_gpus_than_the_kernels_is_found(
    kernel: Path, preset: str, fields: dict[str, Any], severity: str | None, words: str
) -> None:
    change(kernel, fields)
    path = kernel / NOTEBOOK
    path.with_suffix(".py").unlink()
    path.write_text(path.read_text().replace('preset = \\"cpu-pocket\\"', f'preset = \\"{preset}\\"'))
    findings = [finding for finding in check_kernel(kernel) if finding.place == "preset"]
    assert told(findings) == ([(severity, "preset")] if severity else [])
    assert words in "".join(map(str, findings))


def test_a_kernel_of_another_user_is_found(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    assert told(check_kernel(kernel)) == [("warning", "id")]
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    assert check_kernel(kernel) == []


def test_every_notebook_of_the_project_is_fit_but_for_what_its_metadata_decide(kernel: Path) -> None:
    for script in sorted((ROOT / "notebooks").glob("*.py")):
        for suffix in (".py", ".ipynb"):
            shutil.copy(script.with_suffix(suffix), kernel / "notebooks")
        change(kernel, {"code_file": f"notebooks/{script.stem}.ipynb", "enable_internet": script.stem == "build_wheels"})
        change(kernel, {"competition_sources": [] if script.stem == "build_wheels" else ["arc-prize-2026-arc-agi-2"]})
        places = [finding.place for finding in check_kernel(kernel)]
        assert places == (["enable_internet", "competition_sources"] if script.stem == "build_wheels" else []), script


def test_a_notebook_that_is_not_what_its_script_makes_is_found(kernel: Path) -> None:
    script = (kernel / NOTEBOOK).with_suffix(".py")
    script.write_text(script.read_text() + "\n# %%\nprint(1)\n")
    assert told(check_kernel(kernel)) == [("error", "file")]
    assert "the script is the source" in str(check_kernel(kernel)[0])


def test_a_session_that_is_too_short_or_too_long_is_found(kernel: Path) -> None:
    assert told(check_kernel(kernel, session="12h")) == [("error", "--session")]
    assert told(check_kernel(kernel, session="soon")) == [("error", "--session")]
    assert told(check_kernel(kernel, session="11h")) == [("error", "rerun_budget")]
    assert told(check_kernel(kernel, accelerator="NvidiaTeslaK80")) == [("error", "--accelerator")]


texts = st.text(max_size=30)


@settings(max_examples=30, deadline=None)
@given(sources=st.lists(texts | st.lists(texts, max_size=3), max_size=4), outputs=st.lists(texts, max_size=2))
def test_a_notebook_as_sent_has_no_outputs_and_its_sources_in_one_piece(sources: list[Any], outputs: list[str]) -> None:
    cells = [{"cell_type": "code", "source": source, "outputs": outputs, "metadata": {}} for source in sources]
    notebook = {"cells": cells, "metadata": {"a": 1}}
    sent = text_as_sent(notebook)
    assert sent.isascii()
    assert [(cell["source"], cell["outputs"]) for cell in json.loads(sent)["cells"]] == [("".join(source), []) for source in sources]
    assert json.loads(sent)["metadata"] == {"a": 1}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["cells", "metadata", "nbformat"]), st.none() | texts | st.lists(texts, max_size=2), max_size=3))
def test_a_file_that_is_no_notebook_is_a_finding_and_not_a_crash(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
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
def test_metadata_of_a_data_set_that_kaggle_would_refuse_are_found(dataset: Path, fields: dict[str, Any], place: str) -> None:
    path = dataset / "dataset-metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert told(check_dataset(dataset)[1]) == [("error", place)]


@pytest.mark.parametrize(
    ("name", "severity", "words"),
    [
        (".gitignore", "error", "is hidden, and is uploaded all the same"),
        ("pocket/.cache", "error", "is hidden"),
        ("kaggle.json", "error", "credentials"),
        ("vllm-0.19.1+cu128.whl", "error", "has a + in its name"),
        ("pocket/größe.txt", "warning", "characters"),
        ("wheels.zip", "warning", "unpacks on arrival"),
        ("models/stored_tokens", "error", "credentials"),
        ("prod.env", "error", "credentials"),
    ],
)
def test_files_that_would_not_arrive_as_they_are_are_found(dataset: Path, name: str, severity: str, words: str) -> None:
    (dataset / name).parent.mkdir(exist_ok=True)
    (dataset / name).write_text("content")
    findings = check_dataset(dataset)[1]
    assert told(findings) == [(severity, name)]
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
    assert told(findings) == [("error", "README.md")]
    assert words in str(findings[0])
    assert [words in line for line in refusals(dataset) if "README.md" in line] == [True]


def test_the_files_of_a_tokenizer_and_wheels_are_no_credentials(dataset: Path) -> None:
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json")
    for name in (*names, "merges.txt", "tokens.txt", "key_table.json", "environment.yml", "cryptography-46.0-cp311-abi3.whl"):
        (dataset / name).write_text('{"<|im_start|>": 151644, "sk": 1, "hf_": 2, "key": "0123", "sha256": "' + "0a" * 32 + '"}')
    shutil.copytree(ROOT / "models" / "pocket", dataset / "models" / "pocket")
    shutil.copytree(ROOT / "offline_wheels", dataset / "offline_wheels")
    assert check_dataset(dataset)[1] == []


def test_a_link_to_nothing_and_an_empty_folder_are_found(dataset: Path) -> None:
    (dataset / "model.safetensors").unlink()
    assert told(check_dataset(dataset)[1]) == [("error", "files")]
    (dataset / "adapter").symlink_to(dataset / "none")
    assert ("error", "adapter") in told(check_dataset(dataset)[1])
