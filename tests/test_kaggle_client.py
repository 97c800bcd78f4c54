"""The real kaggle client against a local server: it sends the checked metadata, and every refusal becomes an error.

No network is used. The client is the pinned one, in a child process; the server is tests/kaggle_stub.py.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaggle_stub import KEY, Stub, copy_kernel, serving

from arc_submit.cli import main
from arc_submit.kaggle import quota
from arc_submit.kaggle.check import check_kernel
from arc_submit.kaggle.client import ClientResult
from arc_submit.kaggle.kernel_metadata import FIELDS
from arc_submit.kaggle.notebook_check import client_text
from arc_submit.kaggle.push import _differences

FAST = ("--every", "0.05s")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    # tests/test_kaggle_quota.py asks the client for these.
    monkeypatch.setattr(quota, "read_quota", lambda: quota.Quota(6.0, 24.0, 30.0, None))
    monkeypatch.setattr(quota, "running_sessions", lambda now: {})
    home = tmp_path / "home"
    home.mkdir()
    with serving(Stub(), monkeypatch, home) as working:
        yield working


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A folder that is ready to push: the project's notebook, and every field of the metadata."""
    return copy_kernel(tmp_path / "kernel", FIELDS_OF_THE_USER)


FIELDS_OF_THE_USER = {
    "id": "me/arc-submit-submission",
    "dataset_sources": ["me/arc-submit-bundle"],
    "kernel_sources": ["me/arc-submit-wheels/2"],
    "model_sources": ["qwen-lm/qwen2.5/transformers/1.5b/1"],
    "keywords": ["arc"],
    "docker_image": "gcr.io/kaggle-gpu-images/python@sha256:" + "0" * 64,
}


def change(folder: Path, **fields: Any) -> None:
    path = folder / "kernel-metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err, "a credential was printed"
    return captured.out, captured.err


def test_a_push_sends_the_metadata_and_the_notebook(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kaggle", "push", str(kernel), "--session", "11h45m", "--accelerator", "NvidiaTeslaT4", "--json"]) == 0
    out, _ = printed(capsys)
    figures = json.loads(out.splitlines()[-1])
    assert (figures["kernel"], figures["version"]) == ("me/arc-submit-submission", 1)
    (body,) = stub.requests("SaveKernel")
    metadata = json.loads((kernel / "kernel-metadata.json").read_text())
    notebook = json.loads((kernel / metadata["code_file"]).read_text())
    assert body == {
        "slug": metadata["id"],
        "newTitle": metadata["title"],
        "text": client_text(notebook),
        "language": "python",
        "kernelType": "notebook",
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "datasetDataSources": metadata["dataset_sources"],
        "competitionDataSources": metadata["competition_sources"],
        "kernelDataSources": metadata["kernel_sources"],
        "modelDataSources": metadata["model_sources"],
        "categoryIds": ["arc"],
        "dockerImage": metadata["docker_image"],
        "dockerImagePinningType": metadata["docker_image_pinning_type"],
        "sessionTimeoutSeconds": 42300,
    }
    assert stub.authorization, "the client sends credentials to this server"


def test_a_kernel_with_errors_is_not_pushed(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(kernel, enable_internet=True, machine_shape="NvidiaTeslaP100")
    assert main(["kaggle", "push", str(kernel), "--json"]) == 1
    out, err = printed(capsys)
    assert stub.calls == []
    assert "nothing was pushed" in err
    assert err.count("\n") == 1
    figures = json.loads(out.splitlines()[-1])
    assert {finding["place"] for finding in figures["findings"] if finding["severity"] == "error"} == {"enable_internet", "machine_shape"}
    assert main(["kaggle", "check", str(kernel), "--despite", "enable_internet,machine_shape"]) == 0, "the option's former name"
    assert main(["kaggle", "push", str(kernel), "--ignore", "enable_internet,machine_shape"]) == 0
    assert stub.requests("SaveKernel")[0]["machineShape"] == "NvidiaTeslaP100"


SAVED = {"versionNumber": 3, "url": "https://www.kaggle.com/code/me/x"}


REFUSALS = {
    "refused": (
        (200, {"error": "Maximum batch GPU session count of 2 reached."}),
        "not pushed: Kernel push error: Maximum batch GPU session",
    ),
    "too large": ((400, {"code": 400, "message": "The source must be less than 1 megabytes in size."}), "less than 1 megabytes"),
    "dataset": (
        (200, {**SAVED, "invalidDatasetSources": ["me/arc-submit-bundle"]}),
        "pushed as version 3, but incomplete: The following are not valid",
    ),
    "competition": ((200, {**SAVED, "invalidCompetitionSources": ["arc-prize-2026-arc-agi-2"]}), "not valid competition sources"),
    "kernel source": ((200, {**SAVED, "invalidKernelSources": ["me/arc-submit-wheels"]}), "not valid kernel sources"),
    "tags": ((200, {**SAVED, "invalidTags": ["arc"]}), "not valid tags"),
    "no answer": ((200, {}), "Kaggle gave no address"),
    "unauthorized": ((401, {"code": 401, "message": "Unauthorized"}), "Kaggle does not know you"),
    "server": ((500, b"<html>error</html>"), "not pushed: 500 Server Error"),
}


def test_a_refused_push_is_an_error_whatever_the_exit_code(
    stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process of the client pushes once for each answer, because its start takes longer than a push."""
    answers = iter([answer for answer, _ in REFUSALS.values()])
    stub.answers["SaveKernel"] = lambda body: next(answers)
    for (code, text), (name, (_, message)) in zip(
        run_clients(["kernels", "push", "-p", str(kernel)], len(REFUSALS)), REFUSALS.items(), strict=True
    ):
        result = ClientResult("kernels push", code, text)
        monkeypatch.setattr("arc_submit.kaggle.push.run_client", lambda arguments, seconds, result=result: result)
        assert main(["kaggle", "push", str(kernel), "--no-compare"]) == 1, name
        _, err = printed(capsys)
        assert message in err, name
        assert err.count("\n") == 1


def run_clients(arguments: list[str], times: int) -> list[tuple[int, str]]:
    """The exit code and the text of a client's command that is run several times in one process."""
    script = """
import contextlib, io, json, sys
from kaggle import cli
arguments, times = json.load(sys.stdin)
ends = []
for _ in range(times):
    sys.argv = ["kaggle", "-W", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
    ends.append((code, text.getvalue()))
print(json.dumps(ends))
"""
    process = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps([arguments, times]), capture_output=True, text=True, check=True
    )
    return [(code, text) for code, text in json.loads(process.stdout.splitlines()[-1])]


@pytest.mark.parametrize("recorded", ["NvidiaTeslaP100", "Gpu", "TpuV38"])
def test_a_gpu_that_kaggle_chose_is_a_difference(recorded: str) -> None:
    requested = {"enable_gpu": True, "enable_internet": False}
    assert list(_differences(requested, {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4"}, None)) == []
    assert list(_differences({"enable_gpu": False}, {"machine_shape": recorded}, None)) == []
    (line,) = _differences(requested, {"enable_gpu": True, "machine_shape": recorded}, None)
    assert f"none was requested, and Kaggle has {recorded}" in line
    (line,) = _differences(requested, {"enable_gpu": True, "machine_shape": recorded}, "NvidiaL4")
    assert f"Kaggle has {recorded} and not NvidiaL4" in line
    (line,) = _differences(requested | {"machine_shape": "NvidiaL4"}, {"enable_gpu": True, "machine_shape": ""}, None)
    assert "Kaggle has none and not NvidiaL4" in line
    assert list(_differences(requested, {"enable_gpu": False}, None)) == ["enable_gpu: is off at Kaggle"]


@pytest.mark.parametrize(
    ("requested", "recorded", "words"),
    [
        ({"is_private": True}, {"is_private": False}, "is_private: is off at Kaggle, and everyone can read"),
        ({}, {"is_private": False}, "is_private: is off"),
        ({"is_private": False}, {"is_private": False}, ""),
        ({}, {"enable_tpu": True}, "enable_tpu: is on"),
        ({"enable_gpu": False}, {"enable_gpu": True}, "enable_gpu: is on at Kaggle"),
        ({"dataset_sources": None}, {"dataset_sources": []}, ""),
        ({"dataset_sources": ["me/a"]}, {"dataset_sources": None}, "dataset_sources: Kaggle has not attached me/a"),
        ({"competition_sources": ["arc"]}, {}, "competition_sources: Kaggle has not attached arc"),
    ],
)
def test_what_kaggle_records_otherwise_is_a_difference(requested: dict[str, Any], recorded: dict[str, Any], words: str) -> None:
    lines = list(_differences({"enable_internet": False} | requested, recorded, None))
    assert len(lines) == bool(words)
    assert words in "".join(lines)


def test_differences_from_kaggles_record_are_errors(
    stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client does not print invalidModelSources, and Kaggle replaces an unavailable accelerator."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def record(body: dict[str, Any]) -> tuple[int, Any]:
        status, value = stub._get_kernel(body)
        changed = {"modelDataSources": [], "enableInternet": True, "machineShape": "NvidiaTeslaP100"}
        return status, {**value, "metadata": {**value["metadata"], **changed}}

    stub.answers["SaveKernel"] = lambda body: (200, {**SAVED, "invalidModelSources": ["qwen-lm/qwen2.5/transformers/1.5b/1"]})
    stub.answers["GetKernel"] = record
    assert main(["kaggle", "push", str(kernel)]) == 1
    out, err = printed(capsys)
    assert "model_sources: Kaggle has not attached qwen-lm/qwen2.5/transformers/1.5b/1" in out
    assert "enable_internet: is on at Kaggle" in out
    assert "machine_shape: Kaggle has NvidiaTeslaP100 and not NvidiaL4" in out
    assert "version 3 was pushed, but Kaggle's record differs from the metadata" in err


def test_a_run_is_followed_to_its_end(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.states = ["QUEUED", "RUNNING", "RUNNING", "COMPLETE"]
    assert main(["kaggle", "push", str(kernel), "--no-compare", "--wait", "5m", *FAST, "--json"]) == 0
    out, _ = printed(capsys)
    assert [word for line in out.splitlines() for word in ("QUEUED", "RUNNING", "COMPLETE") if f": {word}" in line] == [
        "QUEUED",
        "RUNNING",
        "COMPLETE",
    ]
    assert json.loads(out.splitlines()[-1])["state"] == "COMPLETE"
    assert stub.requests("GetKernelSessionStatus")[0] == {"userName": "me", "kernelSlug": "arc-submit-submission"}


WRONG: dict[str, dict[str, Any]] = {
    "id": {"id": "me/arc-submit-submission/3"},
    "id short": {"id": "me/abcd", "title": "abcd"},
    "title": {"title": "abcd"},
    "code_file": {"code_file": "notebooks/none.ipynb"},
    "code_file empty": {"code_file": ""},
    "file": {"code_file": "notebooks/submission.py"},
    "language": {"language": "julia"},
    "kernel_type": {"kernel_type": "package"},
    "enable_internet": {"enable_internet": "no"},
    "is_private": {"is_private": 1},
    "dataset_sources": {"dataset_sources": ["arc-submit-bundle"]},
    "dataset_sources text": {"dataset_sources": "me/arc-submit-bundle"},
    "dataset_sources deep": {"dataset_sources": ["me/arc/1/2"]},
    "competition_sources": {"competition_sources": "arc-prize-2026-arc-agi-2"},
    "kernel_sources": {"kernel_sources": ["me/abcd"]},
    "model_sources": {"model_sources": ["qwen-lm/qwen2.5/transformers/1.5b"]},
    "model_sources version": {"model_sources": ["qwen-lm/qwen2.5/transformers/1.5b/first"]},
    "docker_image_pinning_type": {"docker_image_pinning_type": "newest"},
    "keywords": {"keywords": "arc"},
    "id_no": {"id_no": "12"},
}


def test_the_check_refuses_whatever_the_client_refuses(stub: Stub, kernel: Path, tmp_path: Path) -> None:
    """Each wrong folder that the client raises on has an error of the check at that place; one process tries them all."""
    folders = {}
    for number, (name, fields) in enumerate(WRONG.items()):
        folders[name] = shutil.copytree(kernel, tmp_path / f"wrong{number}")
        change(folders[name], **fields)
    script = """
import json, sys
from kaggle import api
ends = {}
for name, folder in json.load(sys.stdin).items():
    try:
        api.kernels_push(folder)
        ends[name] = ""
    except Exception as error:
        ends[name] = f"{type(error).__name__}: {error}"
print(json.dumps(ends))
"""
    folders_json = json.dumps({name: str(folder) for name, folder in {"right": kernel, **folders}.items()})
    process = subprocess.run([sys.executable, "-c", script], input=folders_json, capture_output=True, text=True, check=True)
    ends = json.loads(process.stdout.splitlines()[-1])
    assert ends.pop("right") == ""
    assert all(ends.values()), f"the client accepts {[name for name, end in ends.items() if not end]}"
    for name, folder in folders.items():
        errors = {finding.place for finding in check_kernel(folder) if finding.severity == "error"}
        assert name.split()[0] in errors, f"the client: {ends[name]}; the check: {errors}"
    assert not [finding for finding in check_kernel(kernel) if finding.severity == "error"]


def test_the_fields_are_those_that_the_client_reads() -> None:
    spec = importlib.util.find_spec("kaggle")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = (Path(spec.submodule_search_locations[0]) / "api" / "kaggle_api_extended.py").read_text()
    (push,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == "kernels_push")
    read = set()
    for node in ast.walk(push):
        if isinstance(node, ast.Call) and any(isinstance(inner, ast.Name) and inner.id == "meta_data" for inner in ast.walk(node)):
            read |= {argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)}
    assert read - {""} == set(FIELDS)


def test_a_failed_run_is_an_error_although_the_client_exits_with_0(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.states = ["ERROR"]
    assert main(["kaggle", "status", "me/arc-submit-submission", "--json"]) == 1
    out, err = printed(capsys)
    assert "ERROR: Your notebook tried to allocate more memory" in err
    assert json.loads(out.splitlines()[-1])["state"] == "ERROR"


@pytest.mark.parametrize(
    ("kernel_name", "message"), [("me/slug-of-it/3", "would drop the version"), ("slug-of-it", "not owner/slug"), ("me/", "not owner/slug")]
)
def test_a_kernel_that_the_client_would_misread_is_refused(
    stub: Stub, capsys: pytest.CaptureFixture[str], kernel_name: str, message: str
) -> None:
    assert main(["kaggle", "status", kernel_name]) == 1
    assert message in printed(capsys)[1]
    assert stub.calls == []


def test_a_denied_status_is_an_error(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GetKernelSessionStatus"] = lambda body: (403, {"code": 403, "message": "Permission 'kernels.get' was denied"})
    assert main(["kaggle", "status", "me/arc-submit-submission"]) == 1
    assert "Permission 'kernels.get' was denied" in printed(capsys)[1]


SUBMISSION = {"0a1b2c3d": [{"attempt_1": [[0]], "attempt_2": [[1]]}]}


def test_outputs_are_downloaded_and_checked(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.outputs = {"submission.json": json.dumps(SUBMISSION).encode(), "scores.txt": b"table"}
    stub.log = json.dumps([{"stream_name": "stdout", "time": 1.0, "data": "made\nsubmission.json"}])
    out_folder = tmp_path / "out"
    command = ["kaggle", "output", "me/arc-submit-submission", "--out", str(out_folder)]
    assert main([*command, "--json"]) == 0
    out, _ = printed(capsys)
    figures = json.loads(out.splitlines()[-1])
    assert figures["tasks"] == 1
    assert {Path(name).name for name in figures["files"]} == {"submission.json", "scores.txt", "arc-submit-submission.log"}
    assert "made\nsubmission.json" in out
    assert main(command) == 1
    assert "not an empty folder" in printed(capsys)[1]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"submission.json": None}, "not JSON, the download failed; it begins '<html>AccessDenied"),
        ({"submission.json": b'{"0a1b2c3d": [{"attempt_1"'}, "not JSON"),
        ({"submission.json": b'{"0a1b2c3d": [{"attempt_1": [[0]]}]}'}, "not a submission"),
        ({"scores.txt": b"table"}, "its output holds no submission.json"),
    ],
    ids=["error page", "part of it", "not one", "none"],
)
def test_outputs_that_are_not_a_submission_are_an_error(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: dict[str, bytes | None], message: str
) -> None:
    stub.outputs = outputs
    assert main(["kaggle", "output", "me/arc-submit-submission", "--out", str(tmp_path / "out")]) == 1
    assert message in printed(capsys)[1]


def test_a_version_is_submitted(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["kaggle", "submit", str(kernel), "--version", "7", "--message", "search and the pocket model"]
    assert main([*command, "--json"]) == 0
    assert stub.requests("CreateCodeSubmission") == [
        {
            "competitionName": "arc-prize-2026-arc-agi-2",
            "kernelOwner": "me",
            "kernelSlug": "arc-submit-submission",
            "kernelVersion": 7,
            "fileName": "submission.json",
            "submissionDescription": "search and the pocket model",
        }
    ]
    figures = json.loads(printed(capsys)[0].splitlines()[-1])
    assert figures["message"] == "Successfully submitted to arc-prize-2026-arc-agi-2"
    assert figures["left_today"] == 0


def test_a_rejected_submission_is_an_error(stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["kaggle", "submit", str(kernel), "--version", "7", "--message", "m"]
    stub.answers["CreateCodeSubmission"] = lambda body: (200, {"message": "Your Notebook cannot use internet access in this competition."})
    assert main(command) == 1
    assert "not submitted" in printed(capsys)[1]
    stub.answers["CreateCodeSubmission"] = lambda body: (404, {"code": 404, "message": "Not found"})
    assert main(command) == 1
    assert "Not found" in printed(capsys)[1]
    stub.states = ["RUNNING"]
    submissions = len(stub.requests("CreateCodeSubmission"))
    assert main(command) == 1
    assert "RUNNING: nothing was submitted" in printed(capsys)[1]
    assert len(stub.requests("CreateCodeSubmission")) == submissions
    del stub.answers["CreateCodeSubmission"]
    assert main([*command, "--ignore-status"]) == 0


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "pocket").mkdir(parents=True)
    (folder / "arc_submit-0.1-py3-none-any.whl").write_bytes(b"wheel" * 1000)
    (folder / "pocket" / "config.json").write_text("{}")
    value = {"id": "me/arc-submit-bundle", "title": "arc-submit bundle", "licenses": [{"name": "apache-2.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(value))
    return folder


def test_a_data_set_is_made_and_then_updated(stub: Stub, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["kaggle", "upload", str(dataset), *FAST, "--message", "second", "--json"]
    assert main(command) == 0
    figures = json.loads(printed(capsys)[0].splitlines()[-1])
    assert (figures["new"], figures["ready"]) == (True, True)
    (body,) = stub.requests("CreateDataset")
    assert {"slug": "arc-submit-bundle", "ownerSlug": "me", "licenseName": "apache-2.0", "isPrivate": True}.items() <= body.items()
    assert {file["token"] for file in body["files"]} == {"token-arc_submit-0.1-py3-none-any.whl", "token-pocket.tar"}
    assert stub.files["arc_submit-0.1-py3-none-any.whl"] == b"wheel" * 1000
    assert b"config.json" in stub.files["pocket.tar"]
    assert main(command) == 0
    figures = json.loads(printed(capsys)[0].splitlines()[-1])
    assert figures["new"] is False
    (body,) = stub.requests("CreateDatasetVersion")
    assert body["ownerSlug"] == "me"
    assert body["body"]["versionNotes"] == "second"
    assert len(body["body"]["files"]) == 2


def test_a_data_set_that_lost_a_file_is_an_error(stub: Stub, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["PUT"] = lambda body: (500 if "pocket" in body["name"] else 200, {})
    assert main(["kaggle", "upload", str(dataset), *FAST]) == 1
    assert "made, but without pocket" in printed(capsys)[1]
    assert len(stub.requests("CreateDataset")[0]["files"]) == 1, "the client made it nevertheless"


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("CreateDataset", (200, {"status": "Error", "error": "The requested title is already in use"}), "already in use"),
        ("CreateDataset", (200, {"status": "Error"}), "not made"),
        ("GetDatasetStatus", (401, {"code": 401, "message": "Unauthorized"}), "Kaggle does not know you"),
        ("GetDatasetStatus", (500, b"<html>error</html>"), "no answer whether the data set exists"),
        ("GetDatasetStatus", (200, {"status": "FAILED"}), "Kaggle reports failed"),
    ],
)
def test_a_data_set_that_was_not_made_is_an_error(
    stub: Stub, dataset: Path, capsys: pytest.CaptureFixture[str], method: str, answer: tuple[int, Any], message: str
) -> None:
    stub.answers[method] = lambda body: answer
    assert main(["kaggle", "upload", str(dataset), *FAST]) == 1
    assert message in printed(capsys)[1]


def test_a_data_set_with_errors_is_not_uploaded(stub: Stub, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset / ".env").write_text("KAGGLE_KEY=secret")
    (dataset / "torch-2.10.0+cu128.whl").write_bytes(b"x")
    assert main(["kaggle", "upload", str(dataset)]) == 1
    out, err = printed(capsys)
    assert stub.calls == []
    assert "nothing was uploaded" in err
    assert "bundle: .env: is hidden, but is uploaded too" in out
    assert "has a + in its name" in out


def test_credentials_are_never_printed(
    stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With VERBOSE the client prints the Authorization header of every request, and a server may repeat a credential."""
    monkeypatch.setenv("VERBOSE", "1")
    stub.answers["SaveKernel"] = lambda body: (200, {"error": f"no such key {KEY}"})
    assert main(["kaggle", "push", str(kernel)]) == 1
    out, err = printed(capsys)
    assert err.endswith("not pushed: Kernel push error: no such key ***\n"), "only the error, nothing of the request"
    assert "Basic" not in out + err


def test_a_client_that_hangs_is_killed(stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    release = threading.Event()
    stub.answers["GetKernelSessionStatus"] = lambda body: (200, {"status": "QUEUED"}) if release.wait(60) else (500, {})
    monkeypatch.setattr("arc_submit.kaggle.kernel_status._CLIENT_TIMEOUT", 3.0)
    assert main(["kaggle", "status", "me/arc-submit-submission"]) == 1
    release.set()
    assert "killed after 3 s; its last line:" in printed(capsys)[1]
