"""What a session costs, what is left of the week's GPU hours and how many sessions run: a push that cannot end is stopped.

The client is the real one where it is named; the server is tests/kaggle_stub.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kaggle_stub import KEY, Stub, copy_kernel, serving

from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.kaggle import quota
from arc_submit.kaggle.client import ClientResult, KaggleError
from arc_submit.kaggle.quota import Quota, Session, check_account

NOW = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
HOUR = 3600.0


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    home = tmp_path / "home"
    home.mkdir()
    with serving(Stub(), monkeypatch, home) as working:
        yield working


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return copy_kernel(tmp_path / "kernel", {"id": "me/arc-submit-submission", "dataset_sources": ["me/arc-submit-bundle"]})


def with_hours(monkeypatch: pytest.MonkeyPatch, left: float, hours: float = 100.0, running: dict[str, str] | None = None) -> None:
    """Answers in place of the client's: GPU hours that are left, and the hours until they are renewed."""
    monkeypatch.setattr(quota, "read_quota", lambda: Quota(30 - left, left, 30.0, NOW + timedelta(hours=hours)))
    monkeypatch.setattr(quota, "running_sessions", lambda now: running or {})


@pytest.mark.parametrize(
    ("accelerator", "limit", "expected", "left", "until", "severity"),
    [
        ("NvidiaL4", 11.9, 11.9, 23.9, 100, None),
        ("NvidiaL4", 11.9, 11.9, 23.7, 100, "error"),
        ("NvidiaTeslaT4", 11.9, 11.9, 12.0, 100, None),
        ("NvidiaTeslaT4", 11.9, 11.9, 11.8, 100, "error"),
        ("NvidiaL4", 11.9, 0.3, 20.0, 100, "warning"),
        ("NvidiaL4", 11.9, 0.3, 0.5, 100, "error"),
        ("NvidiaL4", 11.9, 11.9, 4.1, 2, None),
        ("NvidiaL4", 11.9, 11.9, 3.9, 2, "error"),
        ("", 11.9, 11.9, 0.0, 100, None),
    ],
)
def test_a_session_needs_its_hours_until_they_are_renewed(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, limit: float, expected: float, left: float, until: float, severity: str | None
) -> None:
    with_hours(monkeypatch, left, until)
    _, findings, figures = check_account(Session(accelerator, limit * HOUR, expected * HOUR), NOW)
    assert [(finding.severity, finding.place) for finding in findings] == ([(severity, "quota")] if severity else [])
    assert figures["gpu_hours"] == pytest.approx(limit * {"": 0, "NvidiaL4": 2}.get(accelerator, 1))


def test_two_sessions_leave_no_room_for_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    with_hours(monkeypatch, 30.0, running={"me/a": "RUNNING"})
    assert check_account(Session("NvidiaL4", HOUR, HOUR), NOW)[1] == []
    with_hours(monkeypatch, 30.0, running={"me/a": "RUNNING", "me/b": "QUEUED"})
    (finding,) = check_account(Session("NvidiaL4", HOUR, HOUR), NOW)[1]
    assert (finding.severity, finding.place) == ("error", "sessions")
    assert "me/a RUNNING, me/b QUEUED" in str(finding)
    assert "--ignore sessions" in finding.remedy


@pytest.mark.parametrize("error", [KaggleError("kaggle quota: no GPU hours: no network"), ConfigError("kaggle is not installed")])
def test_without_an_answer_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, kernel: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail() -> Quota:
        raise error

    monkeypatch.setattr(quota, "read_quota", fail)
    assert main(["kaggle", "check", str(kernel), "--json"]) == 0
    out = capsys.readouterr().out
    assert f"GPU hours left, batch sessions: unknown ({error})" in out
    assert json.loads(out.splitlines()[-1])["gpu_hours_left"] is None


def test_the_real_client_tells_hours_and_sessions_and_a_push_is_stopped(
    stub: Stub, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    stub.quota = (29.5, 30.0, (now + timedelta(hours=50)).isoformat(timespec="seconds"))
    recent, old = now.isoformat(timespec="seconds") + "Z", "2026-01-02T03:04:05Z"
    stub.kernels = {"me/first-one": ("RUNNING", True, recent), "me/second": ("QUEUED", True, recent)}
    stub.kernels |= {"me/without-gpu": ("RUNNING", False, recent), "me/older": ("RUNNING", True, old)}
    assert main(["kaggle", "push", str(kernel), "--json"]) == 1
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    assert stub.requests("SaveKernel") == []
    assert "session: at most 11h55m on NvidiaL4, which counts 2: 23.83 GPU hours; by the notebook's budget 20m00s: 0.67" in captured.out
    assert "GPU hours left: 0.50 of 30.00, until " in captured.out
    assert "error: Kaggle: quota: the session takes 0.67 GPU hours (20m00s on NvidiaL4), and 0.50 are left" in captured.out
    assert "2 batch sessions run or wait (me/first-one RUNNING, me/second QUEUED)" in captured.out
    assert "2 errors (quota, sessions): nothing was pushed" in captured.err
    figures = json.loads(captured.out.splitlines()[-1])
    assert {finding["place"] for finding in figures["findings"]} == {"quota", "sessions"}


def test_a_machine_without_a_network_is_told_in_a_few_words(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(KaggleError, match=r"^kaggle quota: no GPU hours: .* cannot be reached; is there a network") as error:
        quota.read_quota()
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("text", ["401 Client Error: Unauthorized", "No quota information available", "[{]", '[{"resource": "GPU"}]'])
def test_an_answer_without_hours_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(quota, "run_client", lambda arguments, seconds: ClientResult("quota", 1 if "401" in text else 0, text))
    with pytest.raises(KaggleError, match="no GPU hours"):
        quota.read_quota()
