"""A local server in place of Kaggle: it records the requests of the real kaggle client and answers as Kaggle does, refusals included.

The client requests http://localhost/api/v1/<service>/<method> through http_proxy, so requests have absolute addresses. The answers are
those that are known of Kaggle: their fields from kagglesdk 0.1.37, the texts of refusals from reports of users.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).parent.parent
KEY = "dummy-key-0123456789"
Answer = tuple[int, Any]  # status, and JSON or bytes


def copy_kernel(folder: Path, fields: dict[str, Any]) -> Path:
    """A copy of the project's submission kernel, with some fields of its metadata replaced; returns the folder."""
    (folder / "notebooks").mkdir(parents=True)
    for suffix in (".py", ".ipynb"):
        shutil.copy(ROOT / "notebooks" / f"submission{suffix}", folder / "notebooks")
    metadata = json.loads((ROOT / "kernel-metadata.json").read_text())
    (folder / "kernel-metadata.json").write_text(json.dumps({**metadata, **fields}))
    return folder


class Stub:
    """The requests and their answers.

    Attributes:
        calls: every call of an API method, as (method, JSON), in order.
        files: uploaded bytes by name.
        answers: by method, a function that replaces the answer of success.
        outputs: the kernel's output files, bytes by name; None answers with an error page.
        states: of the kernel's run, one for each request; the last one repeats.
        dataset_states: the same for a data set; empty until it is made.
        quota: GPU hours used and allowed, and when they are renewed (ISO, UTC).
        kernels: the account's kernels by name, with the state and the GPU of each and the time of its last run.
        streams: of the kernel's log, one for each connection; the last one repeats. Its kind is "live" (a stream to its end), "early" (one
            that ends without its last line), "cut" (a connection that breaks), "silent" (one on which nothing more comes), "whole" (the log
            of a run that has ended) or a status; its texts are the events.
        submissions: to the competition, as Kaggle lists them.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[dict[str, Any]], Answer]] = {}
        self.outputs: dict[str, bytes | None] = {}
        self.states = ["COMPLETE"]
        self.dataset_states: list[str] = []
        self.log = ""
        self.quota = (6.0, 30.0, "2026-12-05T00:00:00")
        self.kernels: dict[str, tuple[str, bool, str]] = {}
        self.streams: list[tuple[str | int, list[str]]] = [("whole", [])]
        self.submissions: list[dict[str, Any]] = []
        self.closed = threading.Event()
        self.authorization = ""

    def requests(self, method: str) -> list[dict[str, Any]]:
        """The JSON of every call of a method."""
        return [body for name, body in self.calls if name == method]

    def answer(self, method: str, body: dict[str, Any]) -> Answer:
        self.calls.append((method, body))
        if method in self.answers:
            return self.answers[method](body)
        answer: Answer = getattr(self, re.sub("([A-Z])", r"_\1", method).lower())(body)
        return answer

    def _save_kernel(self, body: dict[str, Any]) -> Answer:
        return 200, {
            "versionNumber": len(self.requests("SaveKernel")),
            "url": f"https://www.kaggle.com/code/{body['slug']}",
            "ref": body["slug"],
        }

    def _get_kernel(self, body: dict[str, Any]) -> Answer:
        name = f"{body['userName']}/{body['kernelSlug']}"
        if name in self.kernels:
            metadata = {"id": 2, "ref": name, "title": name, "language": "python", "kernelType": "notebook"}
            notebook = {"source": "{}", "language": "python", "kernelType": "notebook", "slug": body["kernelSlug"]}
            return 200, {"metadata": {**metadata, "enableGpu": self.kernels[name][1]}, "blob": notebook}
        saved = self.requests("SaveKernel")[-1]
        names = ("language", "kernelType", "isPrivate", "enableGpu", "enableInternet", "machineShape")
        names += ("datasetDataSources", "competitionDataSources", "kernelDataSources", "modelDataSources")
        metadata = {name: saved[name] for name in names if name in saved}
        metadata |= {"id": 1, "ref": saved["slug"], "title": saved["newTitle"]}
        blob = {"source": saved["text"], "language": "python", "kernelType": "notebook", "slug": body["kernelSlug"]}
        return 200, {"metadata": metadata, "blob": blob}

    def _get_kernel_session_status(self, body: dict[str, Any]) -> Answer:
        name = f"{body['userName']}/{body['kernelSlug']}"
        if name in self.kernels:
            return 200, {"status": self.kernels[name][0]}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 200, {"status": state} | ({"failureMessage": "Your notebook tried to allocate\nmore memory"} if state == "ERROR" else {})

    def _get_accelerator_quota_statistics(self, body: dict[str, Any]) -> Answer:
        used, allowed, refresh = self.quota
        hours = {"timeUsed": f"{used * 3600:.0f}s", "totalTimeAllowed": f"{allowed * 3600:.0f}s"}
        return 200, {"quotaRefreshTime": f"{refresh}Z", "gpuQuota": hours}

    def _list_kernels(self, body: dict[str, Any]) -> Answer:
        rows = [{"ref": name, "title": name, "author": "me", "lastRunTime": time} for name, (_, _, time) in self.kernels.items()]
        return 200, {"kernels": rows}

    def _list_submissions(self, body: dict[str, Any]) -> Answer:
        return 200, {"submissions": self.submissions}

    def _list_kernel_session_output(self, body: dict[str, Any]) -> Answer:
        files = [{"fileName": name, "url": f"http://localhost/output/{name}"} for name in self.outputs]
        return 200, {"files": files, "log": self.log}

    def _get_dataset_status(self, body: dict[str, Any]) -> Answer:
        if not self.dataset_states:
            return 404, {"code": 404, "message": "404 Client Error: Not Found"}
        return 200, {"status": self.dataset_states.pop(0) if len(self.dataset_states) > 1 else self.dataset_states[0]}

    def _start_blob_upload(self, body: dict[str, Any]) -> Answer:
        return 200, {"token": f"token-{body['name']}", "createUrl": f"http://localhost/upload/{body['name']}"}

    def _create_dataset(self, body: dict[str, Any]) -> Answer:
        self.dataset_states = self.dataset_states or ["BLOBS_RECEIVED", "READY"]
        return 200, {"status": "Ok", "url": f"https://www.kaggle.com/datasets/{body['ownerSlug']}/{body['slug']}", "error": ""}

    def _create_dataset_version(self, body: dict[str, Any]) -> Answer:
        return 200, {"status": "Ok", "url": f"https://www.kaggle.com/datasets/{body['ownerSlug']}/{body['datasetSlug']}", "error": ""}

    def _create_code_submission(self, body: dict[str, Any]) -> Answer:
        return 200, {"message": f"Successfully submitted to {body['competitionName']}", "ref": 1}

    def _get_submission_limits(self, body: dict[str, Any]) -> Answer:
        return 200, {"numToday": 1, "numTotal": 1, "numAllowedNow": 0}


@contextmanager
def serving(stub: Stub, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Stub]:
    """Serve the stub, in an environment in which the real client reaches only it."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def reply(self, status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            with suppress(OSError):  # a killed client has closed the connection
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(value, bytes) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            return data

        def do_POST(self) -> None:
            data = self.body()
            stub.authorization = self.headers.get("Authorization", "")
            self.reply(*stub.answer(urlparse(self.path).path.rsplit("/", 1)[-1], json.loads(data or b"{}")))

        def do_PUT(self) -> None:
            name = urlparse(self.path).path.rsplit("/", 1)[-1]
            data = self.body()
            if "PUT" in stub.answers:
                self.reply(*stub.answers["PUT"]({"name": name}))
                return
            stub.files[name] = data
            self.reply(200, {})

        def stream(self) -> None:
            """Answer with the next stream of the log."""
            kind, texts = stub.streams.pop(0) if len(stub.streams) > 1 else stub.streams[0]
            if isinstance(kind, int):
                self.reply(kind, {"code": kind, "message": "Not Found"})
                return
            events = [{"stream_name": "stdout", "time": 1.0, "data": text} for text in texts]
            if kind == "whole":
                self.reply(200, events)
                return
            lines = [f"data: {json.dumps(event)}\n\n" for event in events] + (["data: END_OF_LOG\n\n"] if kind == "live" else [])
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for line in map(str.encode, lines):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n" if kind in ("live", "early") else b"")
                self.wfile.flush()
                if kind == "silent":
                    stub.closed.wait(60)

        def do_GET(self) -> None:
            if "/kernels/logs/stream/" in self.path:
                self.stream()
                return
            data = stub.outputs.get(urlparse(self.path).path.rsplit("/", 1)[-1])
            self.reply(200, data) if data is not None else self.reply(403, b"<html>AccessDenied: the link has expired</html>")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "KAGGLE_API_TOKEN", "VERBOSE", "VERBOSE_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    proxy = f"http://127.0.0.1:{server.server_address[1]}"
    variables = {
        "http_proxy": proxy,
        "https_proxy": proxy,
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "me",
        "KAGGLE_KEY": KEY,
    }
    for name, value in {**variables, "HOME": str(home), "KAGGLE_CONFIG_DIR": str(home / "kaggle"), "TMPDIR": str(home)}.items():
        monkeypatch.setenv(name, value)
    try:
        yield stub
    finally:
        stub.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
