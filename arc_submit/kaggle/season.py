"""`arc-submit kaggle season`: every push with its settings, local and leaderboard score, the differences beyond noise, and two picks.

The table is what push and submit wrote; scores are read from the leaderboard through the client and kept in it too. Sources: kaggle 2.2.4,
competition_submissions_cli, which prints the newest submissions first, by their descriptions and not by kernels.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.kaggle.client import read_table, run_client
from arc_submit.kaggle.findings import read_json_object
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA
from arc_submit.kaggle.season_picks import NOISE, Entry, own_noise, propose_picks, verdict
from arc_submit.kaggle.season_table import add_table, append_record, read_records, table_of
from arc_submit.report.score_history import plot_scores

_CLIENT_TIMEOUT = 60.0  # seconds
_MOST_SUBMISSIONS = 200  # that are asked for: one a day
_SAME_SUBMISSION = 86_400.0  # seconds between a submission's record and Kaggle's time of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path(), help="folder of the project or of a kernel (default: this one)")
    add_table(parser)
    add("--competition", help="its slug (default: that of the last submission, else the only one of competition_sources)")
    add("--offline", action="store_true", help="do not ask for the leaderboard's scores")
    add("--fraction", action="store_true", help="the leaderboard's scores are fractions: 0.27 is 27 points")
    add("--picture", type=Path, metavar="FILE", help="of the scores over time (default: season.png beside the table)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    table = table_of(args.folder, args.table)
    records = read_records(table)
    competition = args.competition or _competition_of(args.folder, records)
    if not args.offline:
        records += _update_scores(table, records, competition)
    entries = season_entries(records, competition, 100.0 if args.fraction else 1.0)
    if not entries:
        raise ConfigError(f"{table}: no push and no submission in it; arc-submit kaggle push and submit write to it")
    print("\n".join(_rows(entries)))
    pairs, largest = own_noise(entries)
    own = f"; your own reruns of the same settings differ by up to {largest:.2f} ({pairs} pair{'s' * (pairs > 1)})" if pairs else ""
    print(f"noise: the score of a rerun differs by {NOISE[0]:g} to {NOISE[1]:g} points, by reports of competitors{own}")
    scores = [entry.score for entry in entries if entry.score is not None]
    if scores and max(scores) <= 1.0 and not args.fraction:
        print("all scores are at most 1 point; if the leaderboard shows fractions, give --fraction")
    picks = propose_picks(entries)
    for number, pick in enumerate(picks, 1):
        print(f"pick {number}: {pick.entry.name}: {pick.reason}")
    if len(picks) < 2:
        print(f"{2 - len(picks)} of the two final picks cannot be proposed: too few entries have a score")
    else:
        print("choose them on the competition's page, under Submissions: the client cannot")
    figures: dict[str, Any] = {"table": str(table), "competition": competition, "noise": list(NOISE), "own_noise": [pairs, largest]}
    figures["entries"] = [asdict(entry) for entry in entries]
    figures["picks"] = [{"kernel": one.entry.kernel, "version": one.entry.version, "reason": one.reason} for one in picks]
    if any(entry.score is not None or entry.local is not None for entry in entries):
        figures["picture"] = str(_plot_season(args.picture or table.with_suffix(".png"), entries))
        print(f"picture: {figures['picture']}")
    return figures


def season_entries(records: Sequence[dict[str, Any]], competition: str | None, scale: float) -> list[Entry]:
    """The entries of a table in the order of time: each push, once for each submission of it, and submissions without a push.

    Args:
        competition: whose submissions count; None takes all.
        scale: points that the leaderboard's 1 is worth.
    """
    pushes = {(one.get("kernel"), one.get("version")): one for one in records if one["kind"] == "push"}
    submits = [one for one in records if one["kind"] == "submit" and competition in (None, one.get("competition"))]
    scores = {one.get("ref"): one for one in records if one["kind"] == "score" and competition in (None, one.get("competition"))}
    of_submit = _match(submits, list(scores.values()))
    entries = []
    for number, submit in enumerate(submits):
        score = of_submit.get(number)
        push = pushes.get((submit.get("kernel"), submit.get("version")), {})
        entries.append(_entry(push, submit, score, scale))
    submitted = {(one.get("kernel"), one.get("version")) for one in submits}
    entries += [_entry(push, push, None, scale) for key, push in pushes.items() if key not in submitted]
    matched = {id(score) for score in of_submit.values()}
    entries += [_entry({}, {"time": one.get("date")}, one, scale) for one in scores.values() if id(one) not in matched]
    return sorted(entries, key=lambda entry: entry.time)


def _entry(push: dict[str, Any], submit: dict[str, Any], score: dict[str, Any] | None, scale: float) -> Entry:
    local = push.get("local") or {}
    value = _number(score.get("public")) if score else None
    state = "" if score is None else str(score.get("status", "")).rpartition(".")[2].upper()
    if score is None and submit.get("kind") == "submit":
        state = "SUBMITTED"
    if not submit.get("kernel") and score is not None:
        state = f"{score.get('description') or score.get('ref')}"
    return Entry(
        time=str(submit.get("time") or push.get("time") or ""),
        kernel=str(submit.get("kernel") or ""),
        version=submit.get("version"),
        settings=push,
        local=_number(local.get("per_task")),
        score=None if value is None else round(value * scale, 4),
        state=state,
    )


def _match(submits: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Kaggle's submission of each record: the one with its message whose time is nearest, each taken once."""
    pairs = []
    for number, submit in enumerate(submits):
        for score in scores:
            between = _seconds_between(submit.get("time"), score.get("date"))
            if submit.get("message") == score.get("description") and between <= _SAME_SUBMISSION:
                pairs.append((between, number, score))
    found: dict[int, dict[str, Any]] = {}
    for _, number, score in sorted(pairs, key=lambda pair: pair[:2]):
        if number not in found and not any(score is other for other in found.values()):
            found[number] = score
    return found


def _update_scores(table: Path, records: Sequence[dict[str, Any]], competition: str | None) -> list[dict[str, Any]]:
    """Append the leaderboard's scores that are new or have changed; returns these records. Says why there are none."""
    if competition is None:
        print("leaderboard: not read; give --competition")
        return []
    arguments = ["competitions", "submissions", competition, "--page-size", str(_MOST_SUBMISSIONS), "--format", "json"]
    try:
        rows = read_table(run_client(arguments, _CLIENT_TIMEOUT), "no submissions")
    except ArcSubmitError as error:
        print(f"leaderboard: not read ({error}); scores are those that were read before")
        return []
    known = {one.get("ref"): _told(one) for one in records if one["kind"] == "score"}
    appended = []
    for row in reversed(rows):
        told = {name: str(row.get(field) or "") for name, field in _TOLD.items()}
        if known.get(row.get("ref")) != told:
            record = {"ref": row.get("ref"), "competition": competition, "date": row.get("date"), **told}
            appended.append(append_record(table, "score", record))
    return appended


_TOLD = {"description": "description", "status": "status", "public": "publicScore", "private": "privateScore"}


def _told(record: dict[str, Any]) -> dict[str, str]:
    return {name: str(record.get(name) or "") for name in _TOLD}


def _competition_of(folder: Path, records: Sequence[dict[str, Any]]) -> str | None:
    submitted = [str(one["competition"]) for one in records if one["kind"] == "submit" and one.get("competition")]
    if submitted:
        return submitted[-1]
    metadata, _ = read_json_object(folder / KERNEL_METADATA)
    named = metadata.get("competition_sources")
    return str(named[0]) if isinstance(named, list) and len(named) == 1 else None


def _rows(entries: Sequence[Entry]) -> list[str]:
    """A line for each entry under a line of titles."""
    best = max((entry.score for entry in entries if entry.score is not None), default=None)
    table: list[tuple[str, ...]] = [("date", "kernel", "settings", "local (tasks)", "board", "to the one before", "to the best")]
    before: float | None = None
    for entry in entries:
        local = "" if entry.local is None else f"{entry.local:.2f} ({entry.settings['local'].get('tasks')})"
        board = entry.state if entry.score is None else f"{entry.score:.2f}"
        kernel = f"{entry.kernel.rpartition('/')[2]} v{entry.version}" if entry.kernel else "not pushed here"
        differences = [_difference(entry.score, other) for other in (before, best)]
        table.append((entry.time[:10], kernel, _describe(entry), local, board, *differences))
        before = entry.score if entry.score is not None else before
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _difference(score: float | None, other: float | None) -> str:
    if score is None or other is None:
        return ""
    difference = score - other
    return f"{difference:+.2f}, {verdict(difference)}" if difference else "0"


def _describe(entry: Entry) -> str:
    """The settings that tell entries apart, in a few words."""
    settings = entry.settings
    if not settings:
        return entry.state[:40] if not entry.kernel else "not known"
    parameters = settings.get("parameters", {})
    named = [str(parameters[name]) for name in ("preset", "model", "method") if name in parameters]
    models = [source.split("/", 1)[1] for source in settings.get("model_sources", ()) if "/" in source]
    code = settings.get("bundle_commit") or settings.get("commit")
    parts = [*(named or ["preset None"]), *models, str(settings.get("accelerator") or "CPU"), *([f"code {code[:8]}"] if code else [])]
    return ", ".join(parts)


def _plot_season(path: Path, entries: Sequence[Entry]) -> Path:
    """A PNG file with the scores over time; the band is the noise below the best score."""
    board = [(_time(one.time), one.score, f"v{one.version}" if one.kernel else "") for one in entries if one.score is not None]
    local = [(_time(one.time), one.local, "") for one in entries if one.local is not None]
    return plot_scores(path, {"leaderboard": board, "dry run, local tasks": local}, NOISE[1])


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _time(text: Any) -> datetime:
    """A time of a record or of the client, in UTC; the beginning of time where it is none."""
    try:
        time = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", str(text)).replace("Z", "+00:00"))
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _seconds_between(one: Any, other: Any) -> float:
    return abs((_time(one) - _time(other)).total_seconds())
